//! The segments of a directory, and where each of them ends.

use std::cmp::Ordering;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::disk::{Access, Disk, Listed};
use crate::error::{During as _, SpoolError};
use crate::frame::Salt;
use crate::position::{self, ReadPosition};
use crate::record::Position;
use crate::segment::{Key, SegmentHeader, SegmentName, read_header};

/// Directory inside the spool's for bytes that could not be read.
pub(crate) const DAMAGED: &str = "damaged";

/// Refuses to look into a directory that is no spool: it would pass for an empty one, whose records
/// are all published. A spool keeps its position and its newest segment for good.
pub(crate) fn require_spool(disk: &dyn Disk, dir: &Path) -> Result<(), SpoolError> {
    let listed = disk.list(dir).during_at("list directory", dir)?;
    if listed.iter().any(is_of_a_spool) {
        return Ok(());
    }
    let directories = listed.iter().filter(|entry| entry.is_dir);
    let inside = directories
        .map(|entry| dir.join(&entry.name))
        .find(|path| disk.list(path).is_ok_and(|listed| listed.iter().any(is_of_a_spool)));
    Err(SpoolError::NotASpool { inside: inside.map(|path| path.display().to_string()) })
}

fn is_of_a_spool(entry: &Listed) -> bool {
    !entry.is_dir && (entry.name == position::FILE || SegmentName::parse(&entry.name).is_some())
}

/// One segment, as far as a reader needs to know it.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub name: SegmentName,
    pub path: PathBuf,
    /// Length of the file: what it costs.
    pub len: u64,
    /// Readers stop here; for a segment that is still written, behind what is synced.
    pub end: u64,
    /// The last sequence that belongs into it, as far as anything says so.
    pub last: Option<u64>,
    /// Whether more may stand in it than that, because not all of it could be read.
    pub open_ended: bool,
    /// Sequences of its epoch up to here were synced, as far as anything outside it says so.
    pub synced: u64,
    /// Whether nothing will be added any more.
    pub sealed: bool,
    /// What its header says, unless both copies are damaged.
    pub header: Option<SegmentHeader>,
    /// How many copies of the header are damaged.
    pub bad_header_copies: u32,
    /// Holds damaged bytes that could not be copied: the file itself is kept.
    pub pinned: bool,
}

impl Segment {
    pub fn key(&self) -> Key {
        self.name.key()
    }

    pub fn salt(&self) -> Salt {
        self.name.salt
    }

    /// How many of these sequences are part of the count of stored records: all that the ends
    /// known at start, or this process itself, vouch for.
    pub fn counted(&self, sequences: &RangeInclusive<u64>) -> u64 {
        let last = if self.sealed { self.last.unwrap_or(0) } else { u64::MAX - 1 };
        (*sequences.end().min(&last) + 1).saturating_sub(*sequences.start())
    }

    /// Whether every record in it stands before this position.
    pub fn is_before(&self, position: Position, next: Option<&Segment>) -> bool {
        let at = (position.epoch, position.sequence);
        let behind_last = self.name.epoch == position.epoch
            && !self.open_ended
            && self.last.is_some_and(|last| position.sequence > last);
        behind_last || next.is_some_and(|next| next.key() <= at)
    }
}

/// What a directory holds.
#[derive(Debug)]
pub(crate) struct Catalog {
    /// In order of epoch and first sequence.
    pub segments: Vec<Segment>,
    pub position: ReadPosition,
    /// Names of files that a crash has left unfinished.
    pub leftovers: Vec<String>,
}

impl Catalog {
    /// Lists and reads names, headers and position. Writes nothing.
    pub fn load(disk: &dyn Disk, dir: &Path) -> Result<Self, SpoolError> {
        let mut segments = Vec::new();
        let mut leftovers = Vec::new();
        for entry in disk.list(dir).during_at("list directory", dir)? {
            if entry.is_dir {
                continue;
            }
            if entry.name == position::UNFINISHED {
                leftovers.push(entry.name);
                continue;
            }
            let Some(name) = SegmentName::parse(&entry.name) else { continue };
            let name = name?;
            let path = dir.join(&entry.name);
            let read = match disk.open(&path, Access::Read) {
                Ok(file) => read_header(&*file, &name)?,
                // A live spool has removed it since the listing.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).during_at("open segment", &path),
            };
            segments.push(Segment {
                name,
                path,
                len: entry.len,
                end: entry.len,
                last: None,
                open_ended: false,
                synced: 0,
                sealed: true,
                header: read.header,
                bad_header_copies: read.bad_copies,
                pinned: false,
            });
        }
        segments.sort_by_key(|segment| (segment.key(), segment.salt().number()));
        let mut position = position::read(disk, dir)?;
        if let (Some(known), Some(first)) = (&mut position.position, segments.first())
            && position.in_doubt
        {
            // What stood before the first segment was removed by a later position.
            let SegmentName { epoch, first: sequence, .. } = first.name;
            *known = (*known).max(Position { epoch, sequence });
        }
        let mut catalog = Self { segments, position, leftovers };
        catalog.find_ends();
        Ok(catalog)
    }

    /// Where each segment ends, as its successors say.
    fn find_ends(&mut self) {
        for index in 0..self.segments.len() {
            let epoch = self.segments[index].name.epoch;
            let next = self.segments.get(index + 1).filter(|next| next.name.epoch == epoch);
            let (last, synced) = if let Some(next) = next {
                // A segment is followed by another of its epoch only once all of it is synced.
                (Some(next.name.first - 1), next.name.first - 1)
            } else {
                let heir = self.segments[index + 1..].iter().filter_map(|later| later.header);
                let heir = heir.into_iter().find(|header| header.previous_epoch == epoch);
                let last = heir.map(|heir| heir.previous_last.max(heir.previous_synced));
                (last, heir.map_or(0, |heir| heir.previous_synced))
            };
            self.segments[index].last = last;
            self.segments[index].synced = synced;
        }
    }

    /// The highest epoch that anything here names; 0 in an empty directory.
    pub fn highest_epoch(&self) -> u64 {
        let last = self.segments.last().map_or(0, |segment| segment.name.epoch);
        last.max(self.position.position.unwrap_or_default().epoch)
    }

    /// How many records are stored and not confirmed, as far as names and headers say.
    pub fn unconfirmed(&self) -> u64 {
        let start = self.start();
        let unconfirmed = |segment: &Segment| {
            let first = match segment.name.epoch.cmp(&start.epoch) {
                Ordering::Less => return 0,
                Ordering::Equal => segment.name.first.max(start.sequence),
                Ordering::Greater => segment.name.first,
            };
            segment.last.map_or(0, |last| (last + 1).saturating_sub(first))
        };
        self.segments.iter().map(unconfirmed).sum()
    }

    /// The lowest unconfirmed record, as far as the position file knows.
    pub fn start(&self) -> Position {
        self.position.position.unwrap_or_default()
    }
}

/// Records that were unconfirmed and whose segments are gone altogether.
pub(crate) fn missing_before(first: &Segment, start: Position) -> Option<RangeInclusive<u64>> {
    if start == Position::default() {
        return None;
    }
    let name = &first.name;
    let last = if name.epoch == start.epoch {
        name.first.checked_sub(1)?
    } else {
        let header = first.header.filter(|header| header.previous_epoch == start.epoch)?;
        header.previous_last
    };
    let missing = name.key() > (start.epoch, start.sequence) && start.sequence <= last;
    missing.then_some(start.sequence..=last)
}
