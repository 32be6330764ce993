//! Settings of the consumer runtime and of the embedded log.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a consumer batches, retries, relays, and when it gives poison up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConsumerSettings {
    /// Name of this member in its consumer group (static membership), different for each process
    /// and stable over its restarts, so that a restart moves no partition. Default: none, each
    /// start joins as a new member.
    pub instance_id: Option<String>,
    /// Most records applied in one transaction, of all partitions together. Default 500.
    pub batch_records: usize,
    /// Most bytes of records applied in one transaction, and of outbox rows relayed in one;
    /// a single larger record still makes a batch of its own. Default 4 MiB.
    pub batch_bytes: usize,
    /// How long a partition's batch that is not full waits for more records, and how far apart the
    /// transactions begin into which such batches of all partitions go together, in milliseconds.
    /// Default 20.
    pub batch_wait_ms: u64,
    /// First pause after a database or cluster that is not available, in milliseconds; doubles
    /// up to `retry_max_ms`. Default 100.
    pub retry_first_ms: u64,
    /// Longest pause between two tries, in milliseconds. Default 10,000.
    pub retry_max_ms: u64,
    /// How long an answer of the database is waited for, in milliseconds. Then its connection is
    /// closed, and the call is tried again over another: a host that is gone says nothing. Several
    /// times `database.statement_timeout_ms`, twice at least, as a call has several statements.
    /// Default 120,000.
    pub store_deadline_ms: u64,
    /// How long a partition that was lost to another consumer, and that the group still assigns
    /// to this one, rests before it is taken over again, in milliseconds. Default 10,000.
    pub reclaim_after_ms: u64,
    /// Undecodable or refused records in a row at which a partition stops. Default 100.
    pub poison_in_a_row: u32,
    /// Share of such records among the last `poison_window` at which a partition stops, in
    /// percent. Default 1.
    pub poison_percent: u32,
    /// How many of the latest records the share is taken of. Default 10,000.
    pub poison_window: u32,
    /// From how many records on the share is judged. Default 1,000.
    pub poison_judged_from: u32,
    /// How often each partition looks for work that time or a job asks for, in milliseconds.
    /// Default 1,000.
    pub tick_interval_ms: u64,
    /// Most rows of the outbox published in one transaction. Default 500.
    pub relay_batch: usize,
    /// How often the outbox is looked at when nothing wakes the relay, in milliseconds.
    /// Default 250.
    pub relay_interval_ms: u64,
    /// Most of its time that a partition spends in transactions of its relay while rows keep
    /// coming, in percent; it rests between them, at most a second, unless the next one is full.
    /// 100 for no rest. Default 10.
    pub relay_busy_percent: u32,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self {
            instance_id: None,
            batch_records: 500,
            batch_bytes: 4 * 1024 * 1024,
            batch_wait_ms: 20,
            retry_first_ms: 100,
            retry_max_ms: 10_000,
            store_deadline_ms: 120_000,
            reclaim_after_ms: 10_000,
            poison_in_a_row: 100,
            poison_percent: 1,
            poison_window: 10_000,
            poison_judged_from: 1_000,
            tick_interval_ms: 1_000,
            relay_batch: 500,
            relay_interval_ms: 250,
            relay_busy_percent: 10,
        }
    }
}

impl ConsumerSettings {
    /// Whether the values make sense together.
    pub fn validate(&self) -> Result<(), String> {
        for (name, value) in [
            ("batch_records", self.batch_records as u64),
            ("batch_bytes", self.batch_bytes as u64),
            ("retry_first_ms", self.retry_first_ms),
            ("store_deadline_ms", self.store_deadline_ms),
            ("poison_in_a_row", self.poison_in_a_row.into()),
            ("poison_percent", self.poison_percent.into()),
            ("poison_judged_from", self.poison_judged_from.into()),
            ("tick_interval_ms", self.tick_interval_ms),
            ("relay_batch", self.relay_batch as u64),
            ("relay_interval_ms", self.relay_interval_ms),
            ("relay_busy_percent", self.relay_busy_percent.into()),
        ] {
            if value == 0 {
                return Err(format!("{name} must be at least 1"));
            }
        }
        if self.instance_id.as_ref().is_some_and(String::is_empty) {
            return Err("instance_id must not be empty; leave it out instead".to_owned());
        }
        if self.retry_max_ms < self.retry_first_ms {
            return Err("retry_max_ms must not be below retry_first_ms".to_owned());
        }
        if self.poison_window < self.poison_judged_from {
            return Err("poison_window must not be below poison_judged_from".to_owned());
        }
        if self.batch_bytes > 32 * 1024 * 1024 {
            return Err("batch_bytes must not be above 33554432".to_owned());
        }
        for (name, percent) in [
            ("poison_percent", self.poison_percent),
            ("relay_busy_percent", self.relay_busy_percent),
        ] {
            if percent > 100 {
                return Err(format!("{name} must not be above 100"));
            }
        }
        Ok(())
    }
}

/// Where the embedded log lives and how large it may become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddedSettings {
    /// Directory of the log. Default `data/stream`.
    pub dir: PathBuf,
    /// Most bytes that all topics together may take on disk. At the bound the oldest segment
    /// that every consumer has read goes; if there is none, publishing waits. Default 2 GiB.
    pub max_bytes: u64,
    /// Bytes of one segment, the unit in which old records go. Default 64 MiB.
    pub segment_bytes: u64,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("data/stream"),
            max_bytes: 2 * 1024 * 1024 * 1024,
            segment_bytes: 64 * 1024 * 1024,
        }
    }
}

impl EmbeddedSettings {
    /// Whether the values make sense together.
    pub fn validate(&self) -> Result<(), String> {
        // So that the largest record always fits.
        if self.segment_bytes < 8 * 1024 * 1024 {
            return Err("segment_bytes must be at least 8388608".to_owned());
        }
        if self.segment_bytes > 1024 * 1024 * 1024 {
            return Err("segment_bytes must not be above 1073741824".to_owned());
        }
        if self.max_bytes / 4 < self.segment_bytes {
            return Err("max_bytes must be at least four times segment_bytes".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(ConsumerSettings::default().validate(), Ok(()));
        assert_eq!(EmbeddedSettings::default().validate(), Ok(()));
    }

    #[test]
    fn a_conflict_names_both_settings() {
        let settings =
            ConsumerSettings { retry_first_ms: 10, retry_max_ms: 5, ..ConsumerSettings::default() };
        let message = settings.validate().unwrap_err();
        assert!(message.contains("retry_max_ms") && message.contains("retry_first_ms"));
        let settings = EmbeddedSettings { max_bytes: 1 << 26, ..EmbeddedSettings::default() };
        let message = settings.validate().unwrap_err();
        assert!(message.contains("max_bytes") && message.contains("segment_bytes"));
    }

    #[test]
    fn zero_is_refused_where_it_would_stop_the_consumer() {
        let settings = ConsumerSettings { batch_records: 0, ..ConsumerSettings::default() };
        assert!(settings.validate().unwrap_err().contains("batch_records"));
    }
}
