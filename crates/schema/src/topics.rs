//! The topic catalogue: the one place that says which topics there are and how they are set.
//!
//! `tollgate topics create` makes them from it, `tollgate topics check` and the edges compare a
//! cluster with it, and `docs/topics.md` is generated from it.

mod need;

pub use need::{Need, Requirements};

/// Largest message in bytes that the topics and the producers allow: a body of 1 MiB, as typed
/// fields and as original.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// A topic of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: &'static str,
    /// What its key is: a field of the message, by its name in the `.proto` file.
    pub key: &'static str,
    /// Full name of the message in its values.
    pub message: &'static str,
    /// Partitions it is created with.
    pub partitions: i32,
    /// Copies of each partition.
    pub replication: i32,
    /// Kafka topic settings that differ from, or must not follow, the cluster's defaults.
    pub config: &'static [(&'static str, &'static str)],
    /// What it is for, one sentence.
    pub purpose: &'static str,
}

const PARTITIONS: i32 = 12;
const REPLICATION: i32 = 3;

// Written out topic by topic: a reader, and the check, see exactly what is asked of each.
const KEEP_30_DAYS: &[(&str, &str)] = &[
    ("cleanup.policy", "delete"),
    ("retention.ms", "2592000000"),
    ("retention.bytes", "-1"),
    ("max.message.bytes", "4194304"),
    ("min.insync.replicas", "2"),
    ("unclean.leader.election.enable", "false"),
];

const KEEP_90_DAYS: &[(&str, &str)] = &[
    ("cleanup.policy", "delete"),
    ("retention.ms", "7776000000"),
    ("retention.bytes", "-1"),
    ("max.message.bytes", "4194304"),
    ("min.insync.replicas", "2"),
    ("unclean.leader.election.enable", "false"),
];

/// Every status notification.
pub const CALL_EVENTS: Topic = Topic {
    name: "call-events",
    key: "session_id",
    message: "tollgate.v1.CallEvent",
    partitions: PARTITIONS,
    replication: REPLICATION,
    config: KEEP_30_DAYS,
    purpose: "What happened to a call while it happened: one message per status notification.",
};

/// Every call detail record. As many partitions as [`CALL_EVENTS`], so that a call's events and
/// its record fall into partitions of the same number, and one consumer holds both.
pub const CDRS: Topic = Topic {
    name: "cdrs",
    key: "session_id",
    message: "tollgate.v1.CallDetailRecord",
    partitions: PARTITIONS,
    replication: REPLICATION,
    config: KEEP_30_DAYS,
    purpose: "What became of a call: one message per call detail record, revisions included.",
};

/// What could not be read or applied. Kept longer than its sources: somebody has to find the
/// time to look, and a repaired record is replayed from here.
pub const QUARANTINE: Topic = Topic {
    name: "quarantine",
    key: "quarantine_id",
    message: "tollgate.v1.Quarantined",
    partitions: PARTITIONS,
    replication: REPLICATION,
    config: KEEP_90_DAYS,
    purpose: "What was received and could not be read or applied, with its bytes and the reason.",
};

/// Billing's ledger as it is written. Kept 90 days: a quarter's invoices and the disputes about
/// them can be checked against the topic; the ledger itself is in the database for ever.
pub const RATED_CDRS: Topic = Topic {
    name: "rated-cdrs",
    key: "record_id",
    message: "tollgate.v1.RatedCdr",
    partitions: PARTITIONS,
    replication: REPLICATION,
    config: KEEP_90_DAYS,
    purpose: "What a call costs: one message per ledger entry and per record not charged.",
};

/// The latest state of every number. Compacted: a reader that starts at the beginning ends up
/// with every number's present state. Tombstones stay a week, so that a reader that is away over
/// a weekend sees them; segments roll daily, so that compaction reaches a quiet partition.
pub const USER_STATES: Topic = Topic {
    name: "user-states",
    key: "number",
    message: "tollgate.v1.UserState",
    partitions: PARTITIONS,
    replication: REPLICATION,
    config: &[
        ("cleanup.policy", "compact"),
        ("delete.retention.ms", "604800000"),
        ("segment.ms", "86400000"),
        ("max.message.bytes", "4194304"),
        ("min.insync.replicas", "2"),
        ("unclean.leader.election.enable", "false"),
    ],
    purpose: "What a number's phone is doing now: the latest known state of each.",
};

/// All topics.
pub const ALL: &[Topic] = &[CALL_EVENTS, CDRS, QUARANTINE, RATED_CDRS, USER_STATES];

impl Topic {
    /// The topic of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|topic| topic.name == name)
    }

    /// The value of one of its settings.
    pub fn setting(&self, name: &str) -> Option<&'static str> {
        self.config.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    /// How long it keeps a message, in milliseconds; `None` for a compacted topic.
    pub fn retention_ms(&self) -> Option<i64> {
        self.setting("retention.ms").and_then(|text| text.parse().ok())
    }

    /// What a cluster must grant for this topic to be as safe as the catalogue wants it. A
    /// cluster may grant more: more copies, more partitions, longer retention.
    pub fn requirements(&self) -> Requirements {
        Requirements {
            partitions_at_least: self.partitions,
            same_partitions_as: match self.name {
                "call-events" => Some(CDRS.name),
                "cdrs" => Some(CALL_EVENTS.name),
                _ => None,
            },
            replication_at_least: self.replication,
            settings: self
                .config
                .iter()
                .map(|(name, value)| (*name, Need::of_setting(name, value)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::json;

    #[test]
    fn every_topic_names_a_message_of_the_schema_and_a_key_that_is_its_field() {
        for topic in ALL {
            let message = json::descriptors().get_message_by_name(topic.message);
            let message = message.unwrap_or_else(|| panic!("{} names no message", topic.name));
            assert!(message.get_field_by_name(topic.key).is_some(), "key of {}", topic.name);
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        let names: HashSet<_> = ALL.iter().map(|topic| topic.name).collect();
        assert_eq!(names.len(), ALL.len());
        for topic in ALL {
            assert_eq!(Topic::named(topic.name), Some(topic));
        }
        assert_eq!(Topic::named("no-such-topic"), None);
    }

    #[test]
    fn every_topic_survives_the_loss_of_one_replica_without_losing_a_message() {
        for topic in ALL {
            assert_eq!(topic.replication, 3, "{}", topic.name);
            assert_eq!(topic.setting("min.insync.replicas"), Some("2"), "{}", topic.name);
            let unclean = topic.setting("unclean.leader.election.enable");
            assert_eq!(unclean, Some("false"), "{}", topic.name);
            let largest = MAX_MESSAGE_BYTES.to_string();
            assert_eq!(topic.setting("max.message.bytes"), Some(&*largest), "{}", topic.name);
        }
    }

    #[test]
    fn retention_is_what_the_readers_were_promised() {
        let days = |topic: &Topic| topic.retention_ms().map(|ms| ms / 86_400_000);
        assert_eq!(days(&CALL_EVENTS), Some(30));
        assert_eq!(days(&CDRS), Some(30));
        assert_eq!(days(&QUARANTINE), Some(90));
        assert_eq!(days(&RATED_CDRS), Some(90));
        assert_eq!(days(&USER_STATES), None);
        assert_eq!(USER_STATES.setting("cleanup.policy"), Some("compact"));
    }

    #[test]
    fn a_calls_events_and_its_record_are_partitioned_alike() {
        assert_eq!(CALL_EVENTS.key, CDRS.key);
        assert_eq!(CALL_EVENTS.partitions, CDRS.partitions);
        assert_eq!(CALL_EVENTS.requirements().same_partitions_as, Some(CDRS.name));
        assert_eq!(CDRS.requirements().same_partitions_as, Some(CALL_EVENTS.name));
    }

    #[test]
    fn every_setting_is_required_of_the_cluster_and_met_by_itself() {
        for topic in ALL {
            let requirements = topic.requirements();
            assert_eq!(requirements.settings.len(), topic.config.len());
            for (name, need) in &requirements.settings {
                assert!(need.is_met_by(topic.setting(name)), "{name} of {}", topic.name);
                assert!(!need.is_met_by(None), "{name} of {}", topic.name);
            }
        }
    }
}
