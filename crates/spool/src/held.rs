//! The segments that a spool holds, and what they take of the disk.

use std::collections::VecDeque;

use crate::catalog::Segment;
use crate::record::Position;
use crate::segment::{HEADER_BLOCK, Key};
use crate::writer::Opened;

#[derive(Debug, Default)]
pub(crate) struct Held {
    /// In order; the last may be the active one.
    segments: VecDeque<Segment>,
    /// Due for removal; they still take space.
    doomed: Vec<Segment>,
    /// Bytes of all that are sealed, those due for removal included.
    sealed_bytes: u64,
}

impl Held {
    /// What was found at the start.
    pub fn new(segments: Vec<Segment>) -> Self {
        let mut held = Self { segments: segments.into(), ..Self::default() };
        held.sum_up();
        held
    }

    fn sum_up(&mut self) {
        let sealed = self.segments.iter().chain(&self.doomed).filter(|segment| segment.sealed);
        self.sealed_bytes = sealed.map(|segment| segment.len).sum();
    }

    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// The first segment behind this key; with `None` the first of all.
    pub fn after(&self, key: Option<Key>) -> Option<&Segment> {
        self.segments.iter().find(|segment| key.is_none_or(|key| segment.key() > key))
    }

    pub fn get(&self, key: Key) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.key() == key)
    }

    fn active(&self) -> Option<&Segment> {
        self.segments.back().filter(|segment| !segment.sealed)
    }

    /// Bytes that they hold: all of a sealed one, of the active one what is written.
    pub fn used_bytes(&self) -> u64 {
        self.sealed_bytes + self.active().map_or(0, |segment| segment.end)
    }

    /// Bytes that they take on disk, reserved ones included.
    pub fn reserved_bytes(&self) -> u64 {
        self.sealed_bytes + self.active().map_or(0, |segment| segment.len)
    }

    /// A new active segment.
    pub fn open(&mut self, opened: Opened, len: u64) {
        self.segments.push_back(Segment {
            name: opened.name,
            path: opened.path,
            len,
            end: HEADER_BLOCK,
            last: None,
            open_ended: false,
            synced: 0,
            sealed: false,
            header: Some(opened.header),
            bad_header_copies: 0,
            pinned: false,
        });
    }

    /// The active segment is synced up to here.
    pub fn grow(&mut self, end: u64) {
        if let Some(active) = self.segments.back_mut() {
            active.end = end;
        }
    }

    /// Nothing more goes into the active segment; `next` is the sequence that did not.
    pub fn seal(&mut self, next: u64) {
        if let Some(active) = self.segments.back_mut().filter(|segment| !segment.sealed) {
            active.sealed = true;
            active.last = Some(next - 1);
            active.synced = next - 1;
        }
        self.sum_up();
    }

    /// A record was read that nothing had told of.
    pub fn found(&mut self, position: Position) {
        let holds =
            |segment: &&mut Segment| segment.open_ended && segment.name.epoch == position.epoch;
        if let Some(segment) = self.segments.iter_mut().rfind(holds) {
            segment.last = segment.last.max(Some(position.sequence));
        }
    }

    /// All that was on disk has been read: it is known now where each of them ends.
    pub fn ends_are_known(&mut self) {
        for segment in &mut self.segments {
            segment.open_ended = false;
        }
    }

    /// Keeps the file itself of a segment with damaged bytes that could not be copied.
    pub fn pin(&mut self, file_name: &str, acknowledged: bool) {
        let holds = |segment: &&mut Segment| segment.name.file_name() == file_name;
        let segment = self.segments.iter_mut().find(holds);
        // Where not even its end could be read, nobody knows what was acknowledged.
        if let Some(segment) = segment.filter(|segment| acknowledged || segment.open_ended) {
            segment.pinned = true;
        }
    }

    /// When the segment was made that holds this position, by its header.
    pub fn created_ms(&self, position: Position) -> Option<i64> {
        let holds = |segment: &&Segment| segment.key() <= (position.epoch, position.sequence);
        let segment = self.segments.iter().rev().find(holds).or(self.segments.front())?;
        segment.header.map(|header| header.created_ms)
    }

    /// Whether some may be removed once everything before this position is confirmed on disk, or
    /// wait for it.
    pub fn has_done(&self, confirmed: Position) -> bool {
        self.first_is_done(confirmed) || !self.doomed.is_empty()
    }

    /// Whether every record of the first segment stands before it. The last segment stays,
    /// whatever it holds: it names the epoch.
    fn first_is_done(&self, confirmed: Position) -> bool {
        match (self.segments.front(), self.segments.get(1)) {
            (Some(first), Some(second)) => first.sealed && first.is_before(confirmed, Some(second)),
            _ => false,
        }
    }

    /// Those that are to be removed; from now on nobody reads them.
    pub fn doom(&mut self, confirmed: Position) -> Vec<Segment> {
        while self.first_is_done(confirmed) {
            self.doomed.extend(self.segments.pop_front());
        }
        self.doomed.clone()
    }

    /// They are gone.
    pub fn removed(&mut self, keys: &[Key]) {
        self.doomed.retain(|segment| !keys.contains(&segment.key()));
        self.sum_up();
    }

    /// Whether there is one, and no other on disk.
    pub fn is_single(&self) -> bool {
        self.segments.len() == 1 && self.doomed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Salt;
    use crate::segment::{FORMAT, SegmentHeader, SegmentName};

    const LEN: u64 = 1000;

    fn opened(first: u64) -> Opened {
        let name = SegmentName { format: FORMAT, epoch: 1, first, salt: Salt::new(first) };
        Opened { name, path: name.file_name().into(), header: SegmentHeader::default() }
    }

    #[test]
    fn a_segment_costs_what_is_written_until_it_is_sealed_and_all_of_it_until_it_is_removed() {
        let mut held = Held::new(Vec::new());
        held.open(opened(1), LEN);
        held.grow(300);
        assert_eq!((held.used_bytes(), held.reserved_bytes()), (300, LEN));
        held.seal(5);
        held.open(opened(5), LEN);
        held.grow(200);
        assert_eq!((held.used_bytes(), held.reserved_bytes()), (LEN + 200, 2 * LEN));

        let confirmed = |sequence| Position { epoch: 1, sequence };
        assert!(!held.has_done(confirmed(4)));
        assert!(held.doom(confirmed(4)).is_empty());
        let doomed: Vec<_> = held.doom(confirmed(5)).iter().map(Segment::key).collect();
        assert_eq!(doomed, [(1, 1)]);
        assert_eq!((held.len(), held.used_bytes()), (1, LEN + 200));
        assert!(held.has_done(confirmed(5)) && !held.is_single(), "it is not removed yet");
        held.removed(&doomed);
        assert_eq!((held.used_bytes(), held.is_single()), (200, true));
        held.seal(9);
        assert!(held.doom(confirmed(9)).is_empty(), "the last stays");
    }
}
