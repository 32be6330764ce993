//! What a start does before anything new is written: the lock, and the end of the last segment.

use std::io;
use std::path::Path;

use crate::catalog::{Catalog, Segment};
use crate::damaged::Keeper;
use crate::disk::{Access, DirLock, Disk, DiskFile};
use crate::error::{During as _, SpoolError};
use crate::frame::{Item, Scanner};
use crate::metrics as m;
use crate::salvage::Salvage;
use crate::segment::{HEADER_BLOCK, MARK, RECORD};
use crate::writer::Ended;

/// Takes the directory's lock, or says that somebody has it.
pub(crate) fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DirLock>, SpoolError> {
    match disk.lock_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(SpoolError::Locked { dir: dir.display().to_string() })
        }
        locked => locked.during_at("lock directory", dir),
    }
}

/// How the last segment of a directory ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastSegment {
    pub ended: Ended,
    /// Behind the last valid frame.
    pub valid_end: u64,
    /// Behind the last byte that is not zero.
    pub data_end: u64,
    /// Whether the disk could not read all of it.
    pub unreadable: bool,
}

impl LastSegment {
    /// What the next segment says of it. Where it could not be read that is nothing: a later start
    /// would take what was not seen for what is not there.
    pub fn as_predecessor(&self) -> Ended {
        if self.unreadable { Ended::default() } else { self.ended }
    }
}

/// Reads the last segment to its end. Only there can a crash have torn something: every other was
/// synced whole, or given up before its successor was made.
pub(crate) fn examine_last(disk: &dyn Disk, segment: &Segment) -> Result<LastSegment, SpoolError> {
    let path = &segment.path;
    let file = disk.open(path, Access::Read).during_at("open segment", path)?;
    // A bad sector must not stop the start; what it hides is for the reader to account for.
    let mut scanner = Scanner::new(Salvage::new(file, 0), segment.salt(), HEADER_BLOCK)
        .during_at("read segment", path)?;
    let epoch = segment.name.epoch;
    // What precedes a segment of the same epoch was synced before the segment was made.
    let before = segment.name.first - 1;
    let mut last = LastSegment {
        ended: Ended { epoch, last: before, synced: before },
        valid_end: HEADER_BLOCK,
        data_end: HEADER_BLOCK,
        unreadable: false,
    };
    while let Some(item) = scanner.next_item().during_at("read segment", path)? {
        match item {
            Item::Frame { offset, header, .. } => {
                last.data_end = offset + header.frame_len();
                if header.epoch != epoch {
                    continue;
                }
                last.valid_end = last.data_end;
                if header.kind == RECORD || header.kind == MARK {
                    last.ended.synced = last.ended.synced.max(header.synced);
                }
                if header.kind == RECORD {
                    last.ended.last = last.ended.last.max(header.sequence);
                }
            }
            Item::Damage(damage) => last.data_end = damage.offset + damage.len,
        }
    }
    last.unreadable = scanner.source().given_up() > 0;
    Ok(last)
}

/// Moves a torn tail aside and gives reserved space back. What cannot be done now because the
/// disk fails is left as it is: readers stop at the last valid frame either way.
pub(crate) fn mend_last(
    disk: &dyn Disk,
    catalog: &mut Catalog,
    keeper: &mut Keeper,
) -> Result<Option<LastSegment>, SpoolError> {
    let Some(segment) = catalog.segments.last_mut() else { return Ok(None) };
    let last = examine_last(disk, segment)?;
    segment.last = Some(last.ended.last.max(last.ended.synced));
    segment.synced = last.ended.synced;
    segment.open_ended = last.unreadable;
    if last.unreadable {
        // Nobody knows what stands there, and it may be readable again: nothing is cut.
        tracing::error!(
            segment = segment.name.file_name(),
            "spool: parts of the last segment cannot be read"
        );
        return Ok(Some(last));
    }
    segment.end = last.valid_end.min(segment.len);
    let torn = last.data_end - last.valid_end;
    if torn == 0 && segment.len <= last.valid_end {
        return Ok(Some(last));
    }
    match cut(disk, segment, &last, torn, keeper) {
        Ok(true) => segment.len = segment.end,
        Ok(false) => {}
        Err(error) => m::disk_failed("keep", "torn tail", &error),
    }
    Ok(Some(last))
}

/// Whether the segment now ends with its last valid frame.
fn cut(
    disk: &dyn Disk,
    segment: &Segment,
    last: &LastSegment,
    torn: u64,
    keeper: &mut Keeper,
) -> io::Result<bool> {
    let file = disk.open(&segment.path, Access::ReadWrite)?;
    if torn > 0 {
        metrics::counter!(m::TORN_TAILS.name).increment(1);
        let kept = keep(&*file, segment, last, torn, keeper);
        tracing::warn!(
            epoch = segment.name.epoch,
            after_sequence = last.ended.last,
            bytes = torn,
            kept_as = kept.as_deref().unwrap_or(""),
            "spool: an unfinished write at the end of the last segment"
        );
        if kept.is_none() {
            return Ok(false);
        }
    }
    file.set_len(segment.end)?;
    file.sync_data()?;
    Ok(true)
}

fn keep(
    file: &dyn DiskFile,
    segment: &Segment,
    last: &LastSegment,
    torn: u64,
    keeper: &mut Keeper,
) -> Option<String> {
    keeper.keep_tail(file, segment.name.epoch, last.ended.last, last.valid_end, torn)
}
