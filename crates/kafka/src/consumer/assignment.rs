//! Which partitions are ours, from where they are read, and what of them is wanted just now.
//! Pure: says what to do, does nothing.

use std::collections::BTreeMap;

use tollgate_stream::TopicPartition;

/// What the member knows about its partitions.
#[derive(Debug, Default)]
pub struct Assignment {
    partitions: BTreeMap<TopicPartition, Slot>,
    /// What librdkafka fetches is not what it should.
    dirty: bool,
}

#[derive(Debug, Default)]
struct Slot {
    /// Offset of the next record to hand out; `None` before start and after stop.
    position: Option<i64>,
    paused: bool,
    /// Raised when delivery begins anew; records of an older turn are not handed out.
    turn: u64,
    /// Must be fetched again from `position`: the client is elsewhere.
    astray: bool,
}

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Hand it out.
    Deliver,
    /// Keep it: the partition is paused.
    Keep,
    /// Nobody wants it any more.
    Drop,
}

impl Assignment {
    pub fn assign(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            let turn = self.partitions.get(partition).map_or(0, |slot| slot.turn + 1);
            self.partitions.insert(partition.clone(), Slot { turn, ..Slot::default() });
        }
    }

    pub fn revoke(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
    }

    /// Everything held, in order.
    pub fn held(&self) -> Vec<TopicPartition> {
        self.partitions.keys().cloned().collect()
    }

    pub fn holds(&self, partition: &TopicPartition) -> bool {
        self.partitions.contains_key(partition)
    }

    /// Returns whether the partition is held.
    pub fn start(&mut self, partition: &TopicPartition, offset: i64) -> bool {
        let Some(slot) = self.partitions.get_mut(partition) else { return false };
        *slot = Slot { position: Some(offset), paused: false, turn: slot.turn + 1, astray: true };
        self.dirty = true;
        true
    }

    pub fn stop(&mut self, partition: &TopicPartition) {
        if let Some(slot) = self.partitions.get_mut(partition)
            && slot.position.is_some()
        {
            *slot = Slot { turn: slot.turn + 1, ..Slot::default() };
            self.dirty = true;
        }
    }

    /// Returns whether the client has to be told.
    pub fn pause(&mut self, partition: &TopicPartition) -> bool {
        match self.partitions.get_mut(partition) {
            Some(slot) if slot.position.is_some() && !slot.paused => {
                slot.paused = true;
                true
            }
            _ => false,
        }
    }

    /// Returns whether the client has to be told.
    pub fn resume(&mut self, partition: &TopicPartition) -> bool {
        match self.partitions.get_mut(partition) {
            Some(slot) if slot.paused => {
                slot.paused = false;
                self.dirty |= slot.astray;
                true
            }
            _ => false,
        }
    }

    /// Whether a record that the client brought is to be taken, and in which turn.
    pub fn take(&mut self, partition: &TopicPartition, offset: i64) -> Option<u64> {
        let slot = self.partitions.get_mut(partition)?;
        let position = slot.position?;
        if offset < position || slot.astray {
            return None;
        }
        if slot.paused {
            // Slipped through before the client heard of the pause.
            slot.astray = true;
            return None;
        }
        slot.position = Some(offset + 1);
        Some(slot.turn)
    }

    /// The partition's present turn.
    pub fn turn(&self, partition: &TopicPartition) -> Option<u64> {
        self.partitions.get(partition).map(|slot| slot.turn)
    }

    /// What to do with a record that was taken in this turn.
    pub fn fate(&self, partition: &TopicPartition, turn: u64) -> Fate {
        match self.partitions.get(partition) {
            Some(slot) if slot.turn == turn && slot.paused => Fate::Keep,
            Some(slot) if slot.turn == turn => Fate::Deliver,
            _ => Fate::Drop,
        }
    }

    /// Whether the client's assignment has to be changed.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// What the client shall fetch, from where.
    pub fn wanted(&self) -> Vec<(TopicPartition, i64)> {
        self.partitions
            .iter()
            .filter_map(|(partition, slot)| Some((partition.clone(), slot.position?)))
            .collect()
    }

    /// Of those the ones that begin anew.
    pub fn begins_anew(&self, partition: &TopicPartition) -> bool {
        self.partitions.get(partition).is_some_and(|slot| slot.astray)
    }

    pub fn paused(&self) -> Vec<TopicPartition> {
        self.partitions
            .iter()
            .filter(|(_, slot)| slot.paused)
            .map(|(partition, _)| partition.clone())
            .collect()
    }

    /// The client fetches what is wanted.
    pub fn applied(&mut self) {
        self.dirty = false;
        for slot in self.partitions.values_mut() {
            slot.astray = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(offset: i64) -> (Assignment, TopicPartition) {
        let partition = TopicPartition::new("t", 0);
        let mut assignment = Assignment::default();
        assignment.assign(std::slice::from_ref(&partition));
        assert!(assignment.start(&partition, offset));
        assignment.applied();
        (assignment, partition)
    }

    #[test]
    fn nothing_is_taken_before_start_or_after_stop() {
        let (mut assignment, partition) = started(5);
        assert!(assignment.take(&partition, 5).is_some());
        assignment.stop(&partition);
        assert_eq!(assignment.take(&partition, 6), None);
        assert!(assignment.is_dirty());
        assert_eq!(assignment.wanted(), []);
        assert_eq!(assignment.take(&TopicPartition::new("t", 1), 0), None);
    }

    #[test]
    fn a_new_start_drops_what_was_fetched_before() {
        let (mut assignment, partition) = started(5);
        let turn = assignment.take(&partition, 5).unwrap();
        assert!(assignment.start(&partition, 2));
        assert_eq!(assignment.fate(&partition, turn), Fate::Drop);
        // Until the client was told, what comes is from the old place.
        assert_eq!(assignment.take(&partition, 6), None);
        assignment.applied();
        assert!(assignment.take(&partition, 2).is_some());
    }

    #[test]
    fn a_record_that_slips_through_a_pause_is_fetched_again() {
        let (mut assignment, partition) = started(0);
        assert!(assignment.take(&partition, 0).is_some());
        assert!(assignment.pause(&partition));
        assert_eq!(assignment.take(&partition, 1), None);
        assert!(assignment.resume(&partition));
        assert!(assignment.is_dirty());
        assert_eq!(assignment.wanted(), [(partition, 1)]);
    }

    #[test]
    fn records_of_a_paused_partition_are_kept() {
        let (mut assignment, partition) = started(0);
        let turn = assignment.take(&partition, 0).unwrap();
        assignment.pause(&partition);
        assert_eq!(assignment.fate(&partition, turn), Fate::Keep);
        assignment.resume(&partition);
        assert_eq!(assignment.fate(&partition, turn), Fate::Deliver);
    }

    #[test]
    fn a_revoked_partition_that_comes_back_forgets_its_position() {
        let (mut assignment, partition) = started(7);
        assignment.revoke(std::slice::from_ref(&partition));
        assert!(!assignment.start(&partition, 7));
        assignment.assign(std::slice::from_ref(&partition));
        assert_eq!(assignment.take(&partition, 7), None);
    }
}
