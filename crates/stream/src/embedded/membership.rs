//! Who of a group's members in this process reads which partition. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Event, TopicPartition};

/// The members of one group.
#[derive(Debug, Default)]
pub(super) struct Members {
    members: BTreeMap<u64, Member>,
}

#[derive(Debug, Default)]
struct Member {
    /// What it may read, given what the others want.
    target: BTreeSet<TopicPartition>,
    /// What it was told to be its own.
    owned: BTreeSet<TopicPartition>,
    wanted: BTreeSet<TopicPartition>,
}

impl Members {
    pub(super) fn join(&mut self, id: u64, wanted: BTreeSet<TopicPartition>) {
        self.members.insert(id, Member { wanted, ..Member::default() });
        self.share_out();
    }

    pub(super) fn leave(&mut self, id: u64) {
        self.members.remove(&id);
        self.share_out();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Each partition to one of those that want it, in turn.
    fn share_out(&mut self) {
        let all: BTreeSet<TopicPartition> =
            self.members.values().flat_map(|member| member.wanted.iter().cloned()).collect();
        for member in self.members.values_mut() {
            member.target.clear();
        }
        for (index, partition) in all.into_iter().enumerate() {
            let mut willing: Vec<&mut Member> = self
                .members
                .values_mut()
                .filter(|member| member.wanted.contains(&partition))
                .collect();
            let chosen = index % willing.len().max(1);
            if let Some(member) = willing.get_mut(chosen) {
                member.target.insert(partition);
            }
        }
    }

    /// What a member has to be told. A partition is assigned only after whoever had it before was
    /// told that it is revoked.
    pub(super) fn news(&mut self, id: u64) -> Option<Event> {
        let member = self.members.get_mut(&id)?;
        let lost: Vec<_> = member.owned.difference(&member.target).cloned().collect();
        if !lost.is_empty() {
            member.owned.retain(|partition| !lost.contains(partition));
            return Some(Event::Revoked(lost));
        }
        let others: BTreeSet<TopicPartition> = self
            .members
            .iter()
            .filter(|(other, _)| **other != id)
            .flat_map(|(_, other)| other.owned.iter().cloned())
            .collect();
        let member = self.members.get_mut(&id)?;
        let gained: Vec<_> = member
            .target
            .iter()
            .filter(|partition| !member.owned.contains(partition) && !others.contains(partition))
            .cloned()
            .collect();
        if gained.is_empty() {
            return None;
        }
        member.owned.extend(gained.iter().cloned());
        Some(Event::Assigned(gained))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(count: i32) -> BTreeSet<TopicPartition> {
        (0..count).map(|partition| TopicPartition::new("t", partition)).collect()
    }

    #[test]
    fn a_newcomer_gets_a_partition_only_after_it_was_revoked() {
        let mut members = Members::default();
        members.join(1, wanted(4));
        assert!(matches!(members.news(1), Some(Event::Assigned(all)) if all.len() == 4));
        members.join(2, wanted(4));
        assert_eq!(members.news(2), None, "the first has not let go yet");
        assert!(matches!(members.news(1), Some(Event::Revoked(lost)) if lost.len() == 2));
        assert!(matches!(members.news(2), Some(Event::Assigned(gained)) if gained.len() == 2));
        members.leave(1);
        assert!(matches!(members.news(2), Some(Event::Assigned(gained)) if gained.len() == 2));
    }

    proptest! {
        #[test]
        fn no_partition_ever_has_two_owners_and_in_the_end_each_has_one(
            steps in prop::collection::vec((0u8..3, 0u64..4), 1..60),
        ) {
            let mut members = Members::default();
            for (step, id) in steps {
                match step {
                    0 => members.join(id + 100, wanted(6)),
                    1 => members.leave(id + 100),
                    _ => { members.news(id + 100); }
                }
                let owned: Vec<_> =
                    members.members.values().flat_map(|member| member.owned.iter()).collect();
                let distinct: BTreeSet<_> = owned.iter().collect();
                prop_assert_eq!(owned.len(), distinct.len());
            }
            if !members.is_empty() {
                let ids: Vec<u64> = members.members.keys().copied().collect();
                for _ in 0..3 {
                    for id in &ids {
                        while members.news(*id).is_some() {}
                    }
                }
                let owned: usize = members.members.values().map(|member| member.owned.len()).sum();
                prop_assert_eq!(owned, 6);
            }
        }
    }
}
