//! Reads the records of a directory in order, segment after segment, and accounts for every
//! sequence that is not there.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::catalog::Segment;
use crate::damaged::Keeper;
use crate::disk::{Access, Disk};
use crate::error::{During as _, SpoolError};
use crate::frame::{Damage, Header, Item, Scanner};
use crate::record::{Encoded, Position, Stored};
use crate::salvage::Salvage;
use crate::segment::{HEADER_BLOCK, Key, MARK, RECORD};

/// How often the caller hears of a read that fails before what is unreadable is given up as
/// damaged: time enough for a volume that comes back.
pub(crate) const PATIENCE: u32 = 10;

/// The segments that a cursor may read, which change while it reads.
pub(crate) trait Segments {
    /// The first segment behind this key; with `None` the first of all.
    fn after(&self, key: Option<Key>) -> Option<Segment>;
    /// The segment of this key as it is now; `None` once it is removed.
    fn get(&self, key: Key) -> Option<Segment>;
}

impl Segments for Vec<Segment> {
    fn after(&self, key: Option<Key>) -> Option<Segment> {
        self.iter().find(|segment| key.is_none_or(|key| segment.key() > key)).cloned()
    }

    fn get(&self, key: Key) -> Option<Segment> {
        self.iter().find(|segment| segment.key() == key).cloned()
    }
}

/// What a cursor comes by.
#[derive(Debug)]
pub(crate) enum Found {
    Record {
        stored: Stored,
        /// Whether it is part of the count of stored records. A record whose write failed, and
        /// that is on disk all the same, is not.
        counted: bool,
    },
    Lost(Lost),
}

/// A stretch of a segment that holds no records where records should or might be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    pub epoch: u64,
    /// The sequences that are missing; empty when none is.
    pub sequences: RangeInclusive<u64>,
    /// How many of them are part of the count of stored records.
    pub counted: u64,
    /// Whether they were acknowledged, as far as the marks say.
    pub acknowledged: bool,
    /// When the first of them was received, or the record before it, if anything says so.
    pub time_ms: Option<i64>,
    /// The segment's file name.
    pub segment: String,
    pub offset: u64,
    /// Bytes that could not be read; 0 when they are not there at all.
    pub len: u64,
    /// The file in `damaged/` that has the bytes.
    pub kept_as: Option<String>,
    /// Whether anything valid follows in the segment.
    pub followed: bool,
}

impl Lost {
    /// Records whose segment is gone. It was not removed by the spool, so it is damage.
    pub fn of_missing_file(epoch: u64, sequences: RangeInclusive<u64>, segment: String) -> Self {
        Self {
            epoch,
            counted: (sequences.end() + 1).saturating_sub(*sequences.start()),
            sequences,
            acknowledged: true,
            time_ms: None,
            segment,
            offset: 0,
            len: 0,
            kept_as: None,
            followed: false,
        }
    }

    /// How many records are missing.
    pub fn count(&self) -> u64 {
        (self.sequences.end() + 1).saturating_sub(*self.sequences.start())
    }
}

/// Reads records in order.
#[derive(Debug)]
pub(crate) struct Cursor {
    disk: Arc<dyn Disk>,
    keeper: Option<Keeper>,
    /// How often a read that fails is reported before what is unreadable is given up.
    patience: u32,
    /// Records before it are skipped, and nobody asks what became of them.
    from: Position,
    done: Option<Key>,
    open: Option<Open>,
    out: VecDeque<Found>,
}

#[derive(Debug)]
struct Open {
    segment: Segment,
    scanner: Scanner<Salvage>,
    /// The sequence that comes next.
    expected: u64,
    /// The highest synced mark seen.
    synced: u64,
    last_time_ms: Option<i64>,
    /// Unreadable bytes since the last valid frame.
    damage: Option<Damage>,
    /// Holes whose fate the marks have not decided yet.
    holes: Vec<Lost>,
}

impl Cursor {
    /// Begins at the record `from`, or the first behind it.
    pub fn new(disk: Arc<dyn Disk>, keeper: Option<Keeper>, from: Position, patience: u32) -> Self {
        Self { disk, keeper, patience, from, done: None, open: None, out: VecDeque::new() }
    }

    /// The next thing; `None` when there is nothing more for now. After an error the cursor
    /// stands where it stood.
    pub fn next(&mut self, segments: &dyn Segments) -> Result<Option<Found>, SpoolError> {
        loop {
            if let Some(found) = self.out.pop_front() {
                return Ok(Some(found));
            }
            let Some(open) = &mut self.open else {
                if self.open_next(segments)? {
                    continue;
                }
                return Ok(None);
            };
            let Open { scanner, segment, .. } = open;
            match scanner.next_item().during_at("read segment", &segment.path)? {
                Some(Item::Frame { offset, header, payload }) => {
                    self.on_frame(offset, &header, payload);
                }
                Some(Item::Damage(damage)) => open.note(damage),
                None => {
                    // Removed means everything in it is confirmed: nothing to account for.
                    let Some(now) = segments.get(open.segment.key()) else {
                        self.done = Some(open.segment.key());
                        self.open = None;
                        continue;
                    };
                    let grown = now.end > open.segment.end;
                    let sealed = now.sealed;
                    open.segment = now;
                    if grown {
                        let Segment { end, path, .. } = &open.segment;
                        open.scanner.set_end(*end).during_at("read segment", path)?;
                    } else if sealed {
                        self.finish();
                    } else {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn open_next(&mut self, segments: &dyn Segments) -> Result<bool, SpoolError> {
        let mut next = segments.after(self.done);
        // Whole segments before the start are not even opened.
        while let Some(segment) = &next {
            let later = segments.after(Some(segment.key()));
            if !segment.sealed || !segment.is_before(self.from, later.as_ref()) {
                break;
            }
            self.done = Some(segment.key());
            next = later;
        }
        let Some(segment) = next else { return Ok(false) };
        let file = match self.disk.open(&segment.path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lost_file(&segment);
                return Ok(true);
            }
            Err(error) => return Err(error).during_at("open segment", &segment.path),
        };
        let mut scanner =
            Scanner::new(Salvage::new(file, self.patience), segment.salt(), HEADER_BLOCK)
                .during_at("read segment", &segment.path)?;
        scanner.set_end(segment.end).during_at("read segment", &segment.path)?;
        let expected = segment.name.first;
        self.open = Some(Open {
            synced: 0,
            segment,
            scanner,
            expected,
            last_time_ms: None,
            damage: None,
            holes: Vec::new(),
        });
        Ok(true)
    }

    fn on_frame(&mut self, offset: u64, header: &Header, payload: bytes::Bytes) {
        let Some(open) = &mut self.open else { return };
        let expected_kind = header.kind == RECORD || header.kind == MARK;
        let in_order = header.sequence >= open.expected || header.kind == MARK;
        let len = header.frame_len();
        let stray = || Damage { offset, len, header: None, followed: true };
        if !expected_kind || header.epoch != open.segment.name.epoch || !in_order {
            open.note(stray());
            return;
        }
        if header.kind == MARK {
            // What is synced and was not seen before the mark is a hole.
            open.synced = open.synced.max(header.synced);
            self.close_hole(header.synced, offset, true);
            self.settle_holes();
            return;
        }
        let Ok(encoded) = Encoded::from_payload(payload, header.time_ms) else {
            open.note(Damage { header: Some(*header), ..stray() });
            return;
        };
        open.synced = open.synced.max(header.synced);
        self.close_hole(header.sequence - 1, offset, true);
        self.settle_holes();
        let Some(open) = &mut self.open else { return };
        open.expected = header.sequence + 1;
        open.last_time_ms = Some(header.time_ms);
        let counted = open.segment.counted(&(header.sequence..=header.sequence)) > 0;
        let position = Position { epoch: header.epoch, sequence: header.sequence };
        if position >= self.from {
            self.out.push_back(Found::Record { stored: Stored { position, encoded }, counted });
        }
    }

    /// Everything from the expected sequence to `last` is missing, up to the frame at `offset`.
    fn close_hole(&mut self, last: u64, offset: u64, followed: bool) {
        let Some(open) = &mut self.open else { return };
        let damage = open.damage.take();
        if damage.is_none() && last < open.expected {
            return;
        }
        let epoch = open.segment.name.epoch;
        // A header without its payload still says which record it was.
        let named = damage.and_then(|damage| damage.header);
        let last = named.map_or(last, |header| last.max(header.sequence));
        let first = open.expected.max(self.first_wanted(epoch));
        let Some(open) = &mut self.open else { return };
        let sequences = first..=last.max(first - 1);
        let mut lost = Lost {
            epoch,
            counted: open.segment.counted(&sequences),
            sequences,
            acknowledged: false,
            time_ms: named.map(|header| header.time_ms).or(open.last_time_ms),
            segment: open.segment.name.file_name(),
            offset: damage.map_or(offset, |damage| damage.offset),
            len: damage.map_or(0, |damage| damage.len),
            kept_as: None,
            followed,
        };
        let confirmed_before = last >= open.expected && lost.count() == 0;
        open.expected = open.expected.max(last + 1);
        if confirmed_before {
            return;
        }
        if let Some(keeper) = &mut self.keeper
            && lost.len > 0
        {
            lost.kept_as = keeper.keep(open.scanner.source().file(), &lost);
        }
        open.holes.push(lost);
    }

    /// Moves the start forward: what was served from memory in the meantime is skipped.
    pub fn skip_to(&mut self, from: Position) {
        self.from = self.from.max(from);
        let from = self.from;
        let wanted = |found: &Found| match found {
            Found::Record { stored, .. } => stored.position >= from,
            Found::Lost(_) => true,
        };
        self.out.retain(wanted);
    }

    /// The lowest sequence of this epoch that anybody asks for.
    fn first_wanted(&self, epoch: u64) -> u64 {
        match epoch.cmp(&self.from.epoch) {
            Ordering::Less => u64::MAX,
            Ordering::Equal => self.from.sequence.max(1),
            Ordering::Greater => 1,
        }
    }

    /// Reports the holes that are known to have been acknowledged.
    fn settle_holes(&mut self) {
        let Some(open) = &mut self.open else { return };
        let synced = open.synced;
        for mut hole in
            open.holes.extract_if(.., |hole| hole.count() == 0 || *hole.sequences.end() <= synced)
        {
            hole.acknowledged = hole.count() > 0;
            self.out.push_back(Found::Lost(hole));
        }
    }

    /// The segment is at its end: what is missing now stays missing.
    fn finish(&mut self) {
        let Some(open) = &mut self.open else { return };
        open.synced = open.synced.max(open.segment.synced);
        let last = open.segment.last.unwrap_or(0).max(open.synced);
        let end = open.segment.end;
        self.close_hole(last, end, false);
        self.settle_holes();
        let Some(open) = self.open.take() else { return };
        self.done = Some(open.segment.key());
        for hole in open.holes {
            // A hole that straddles the mark is damage up to it.
            let (first, last) = (*hole.sequences.start(), *hole.sequences.end());
            if first <= open.synced {
                let sequences = first..=open.synced;
                let counted = open.segment.counted(&sequences);
                let lost = Lost { sequences, counted, acknowledged: true, ..hole.clone() };
                self.out.push_back(Found::Lost(lost));
            }
            let sequences = first.max(open.synced + 1)..=last;
            let counted = open.segment.counted(&sequences);
            let len = if first <= open.synced { 0 } else { hole.len };
            self.out.push_back(Found::Lost(Lost { sequences, counted, len, ..hole }));
        }
    }

    fn lost_file(&mut self, segment: &Segment) {
        self.done = Some(segment.key());
        let first = segment.name.first.max(self.first_wanted(segment.name.epoch));
        let last = segment.last.unwrap_or(0).max(first - 1);
        let mut lost =
            Lost::of_missing_file(segment.name.epoch, first..=last, segment.name.file_name());
        lost.acknowledged = last <= segment.synced;
        self.out.push_back(Found::Lost(lost));
    }
}

impl Open {
    /// Joins a stretch of damage to the one that touches it.
    fn note(&mut self, damage: Damage) {
        self.damage = Some(match self.damage {
            Some(before) => Damage {
                offset: before.offset,
                len: damage.offset + damage.len - before.offset,
                header: damage.header.or(before.header),
                followed: damage.followed,
            },
            None => damage,
        });
    }
}
