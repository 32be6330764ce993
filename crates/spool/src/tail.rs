//! What is stored and was not handed out yet, as far as memory holds it.
//!
//! ```text
//!  on disk only             in memory
//!  behind ... evicted_last | records ...   ◀── push
//! ```

use std::collections::VecDeque;

use crate::record::{Position, Stored};

#[derive(Debug)]
pub(crate) struct Tail {
    records: VecDeque<Stored>,
    /// What they weigh.
    bytes: u64,
    /// When set, what is on disk from here on is to be handed out before the records.
    behind: Option<Position>,
    /// Everything up to here is on disk only.
    evicted_last: Position,
}

impl Tail {
    /// Nothing in memory yet; on disk what stands from `behind` to `evicted_last`.
    pub fn new(behind: Option<Position>, evicted_last: Position) -> Self {
        Self { records: VecDeque::new(), bytes: 0, behind, evicted_last }
    }

    /// Takes a record in. What then weighs more than `max_bytes` is left to the disk, oldest first.
    pub fn push(&mut self, stored: Stored, max_bytes: u64) {
        self.bytes += stored.encoded.weight();
        self.records.push_back(stored);
        while self.bytes > max_bytes
            && let Some(evicted) = self.pop()
        {
            self.behind.get_or_insert(evicted.position);
            self.evicted_last = evicted.position;
        }
    }

    /// Hands out records, unless some before them are only on disk: no more than fit into
    /// `max_bytes`, except that one always does.
    pub fn take(&mut self, max_records: usize, max_bytes: u64) -> Vec<Stored> {
        let mut taken = Vec::new();
        let mut room = max_bytes;
        while self.behind.is_none()
            && taken.len() < max_records
            && let Some(next) = self.records.front()
            && (taken.is_empty() || next.encoded.weight() <= room)
        {
            room = room.saturating_sub(next.encoded.weight());
            taken.extend(self.pop());
        }
        taken
    }

    fn pop(&mut self) -> Option<Stored> {
        let stored = self.records.pop_front()?;
        self.bytes -= stored.encoded.weight();
        Some(stored)
    }

    /// From where on the disk has to be read first.
    pub fn behind(&self) -> Option<Position> {
        self.behind
    }

    /// Up to where it has to be read.
    pub fn evicted_last(&self) -> Position {
        self.evicted_last
    }

    /// The disk was read up to there: what is in memory comes next.
    pub fn caught_up(&mut self) {
        self.behind = None;
    }

    /// Whether nothing is left to be handed out, in memory or on disk.
    pub fn is_empty(&self) -> bool {
        self.behind.is_none() && self.records.is_empty()
    }

    /// When the oldest in memory was received.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.records.front().map(|stored| stored.encoded.received_at_ms())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Request;

    fn stored(sequence: u64, bytes: usize) -> Stored {
        let body = vec![b'.'; bytes];
        let request =
            Request { received_at_ms: sequence as i64, body: &body, ..Request::default() };
        Stored { position: Position { epoch: 1, sequence }, encoded: request.encode() }
    }

    fn sequences(taken: &[Stored]) -> Vec<u64> {
        taken.iter().map(|stored| stored.position.sequence).collect()
    }

    proptest! {
        /// Some records of some size are pushed, then some are taken, and so on; the disk is read
        /// whenever it has to be.
        #[test]
        fn every_record_is_handed_out_once_in_order_from_memory_or_from_disk(
            steps in prop::collection::vec((0..9_u64, 0..400_usize, 0..9_usize, 0..2000_u64), 1..40),
            max_bytes in 0..3000_u64,
        ) {
            let mut tail = Tail::new(None, Position::default());
            let (mut pushed, mut handed_out) = (0, Vec::new());
            for (records, bytes, max_records, room) in steps {
                for _ in 0..records {
                    pushed += 1;
                    tail.push(stored(pushed, bytes), max_bytes);
                    prop_assert!(tail.bytes <= max_bytes);
                }
                if let Some(behind) = tail.behind() {
                    prop_assert!(tail.take(9, u64::MAX).is_empty());
                    handed_out.extend(behind.sequence..=tail.evicted_last().sequence);
                    tail.caught_up();
                }
                let taken = tail.take(max_records, room);
                prop_assert!(taken.len() <= max_records);
                let weight: u64 = taken.iter().map(|stored| stored.encoded.weight()).sum();
                prop_assert!(taken.len() < 2 || weight <= room);
                prop_assert!(!taken.is_empty() || max_records == 0 || tail.is_empty());
                handed_out.extend(sequences(&taken));
            }
            handed_out.extend(sequences(&tail.take(usize::MAX, u64::MAX)));
            prop_assert_eq!(handed_out, (1..=pushed).collect::<Vec<_>>());
            prop_assert!(tail.is_empty() && tail.bytes == 0);
        }
    }

    #[test]
    fn what_a_former_life_has_stored_is_read_from_disk_first() {
        let last = Position { epoch: 1, sequence: 7 };
        let mut tail = Tail::new(Some(Position { epoch: 1, sequence: 3 }), last);
        tail.push(stored(8, 10), 1000);
        assert_eq!((tail.take(9, 1000).len(), tail.evicted_last()), (0, last));
        assert_eq!(tail.oldest_ms(), Some(8));
        tail.caught_up();
        assert_eq!(sequences(&tail.take(9, 1000)), [8]);
    }
}
