//! What this crate measures.

use tollgate_telemetry::Metric;

const GROUP_TOPIC: &[&str] = &["group", "topic"];

/// Records behind the end of the topic.
pub const LAG: Metric = Metric::gauge(
    "tollgate_consumer_lag_records",
    GROUP_TOPIC,
    "Records between what is applied and the end of the topic, summed over the partitions held here",
);
/// Partitions held.
pub const PARTITIONS: Metric = Metric::gauge(
    "tollgate_consumer_partitions",
    &["group", "topic", "state"],
    "Partitions assigned to this process by state: starting, running, retrying, resting or stopped",
);
/// Records applied.
pub const APPLIED: Metric = Metric::counter(
    "tollgate_consumer_records_applied_total",
    GROUP_TOPIC,
    "Records whose results and offsets were committed",
);
/// Records per transaction.
pub const BATCH_RECORDS: Metric = Metric::histogram(
    "tollgate_consumer_batch_records",
    GROUP_TOPIC,
    "Records of one partition applied in one transaction",
);
/// Time to commit.
pub const COMMIT_SECONDS: Metric = Metric::histogram(
    "tollgate_consumer_commit_seconds",
    GROUP_TOPIC,
    "Time to commit a batch, with the waiting for the batches of other partitions that go with it",
);
/// End-to-end freshness.
pub const FRESHNESS_SECONDS: Metric = Metric::histogram(
    "tollgate_consumer_freshness_seconds",
    GROUP_TOPIC,
    "Age of the oldest record of a batch when its results were committed",
);
/// Poison.
pub const POISON: Metric = Metric::counter(
    "tollgate_consumer_poison_total",
    &["group", "topic", "reason"],
    "Records sent to quarantine because they cannot be decoded or the database refuses them",
);
/// Fences taken and lost.
pub const FENCES: Metric = Metric::counter(
    "tollgate_consumer_fences_total",
    &["group", "topic", "outcome"],
    "Partitions taken over from their last holder, and lost to another one",
);
/// Failed store calls.
pub const STORE_ERRORS: Metric = Metric::counter(
    "tollgate_consumer_store_errors_total",
    &["group", "operation", "kind"],
    "Store calls that failed; all but fenced ones are tried again",
);
/// Failed stream calls.
pub const STREAM_ERRORS: Metric = Metric::counter(
    "tollgate_consumer_stream_errors_total",
    &["group", "kind"],
    "Polls and other calls to the cluster that failed and are tried again",
);
/// Partitions that stopped.
pub const STOPS: Metric = Metric::counter(
    "tollgate_consumer_partition_stops_total",
    &["group", "topic", "reason"],
    "Partitions that stopped and wait for a person",
);
/// Rows relayed.
pub const RELAYED: Metric = Metric::counter(
    "tollgate_relay_records_total",
    &["group", "topic"],
    "Rows of the outbox published, by the topic consumed",
);
/// Relay trouble.
pub const RELAY_ERRORS: Metric = Metric::counter(
    "tollgate_relay_errors_total",
    &["group", "kind"],
    "Relay transactions that failed: abort, recreate, fenced or open; all are tried again",
);
/// Rows that their topic refuses.
pub const RELAY_REFUSED: Metric = Metric::counter(
    "tollgate_relay_refused_total",
    &["group", "outcome"],
    "Rows that their topic refuses for good, by what is tried next: quarantined, then shortened, \
     then dropped; a row counts at each of these steps",
);
/// Time of a relay transaction.
pub const RELAY_SECONDS: Metric = Metric::histogram(
    "tollgate_relay_commit_seconds",
    &["group"],
    "Time from the begin to the commit of a relay transaction",
);
/// Size of the embedded log.
pub const EMBEDDED_BYTES: Metric =
    Metric::gauge("tollgate_embedded_log_bytes", &[], "Bytes of the embedded log on disk");
/// Group commits.
pub const EMBEDDED_SYNC_SECONDS: Metric = Metric::histogram(
    "tollgate_embedded_log_sync_seconds",
    &[],
    "Time to write and sync one group of records to the embedded log",
);
/// Records appended.
pub const EMBEDDED_RECORDS: Metric = Metric::counter(
    "tollgate_embedded_log_records_total",
    &[],
    "Records appended to the embedded log",
);
/// Full.
pub const EMBEDDED_FULL: Metric = Metric::counter(
    "tollgate_embedded_log_full_total",
    &[],
    "Times that the embedded log reached its bound and its oldest segment could not go",
);
/// Failed writes.
pub const EMBEDDED_FAILURES: Metric = Metric::counter(
    "tollgate_embedded_log_failures_total",
    &["operation"],
    "Writes, syncs and new segments that failed; the segment concerned is left behind",
);
/// Damage found.
pub const EMBEDDED_DAMAGE: Metric = Metric::counter(
    "tollgate_embedded_log_damage_total",
    &[],
    "Places below the synced watermark that cannot be read; their records are lost to readers",
);

/// All of them.
pub const ALL: &[Metric] = &[
    LAG,
    PARTITIONS,
    APPLIED,
    BATCH_RECORDS,
    COMMIT_SECONDS,
    FRESHNESS_SECONDS,
    POISON,
    FENCES,
    STORE_ERRORS,
    STREAM_ERRORS,
    STOPS,
    RELAYED,
    RELAY_ERRORS,
    RELAY_REFUSED,
    RELAY_SECONDS,
    EMBEDDED_BYTES,
    EMBEDDED_SYNC_SECONDS,
    EMBEDDED_RECORDS,
    EMBEDDED_FULL,
    EMBEDDED_FAILURES,
    EMBEDDED_DAMAGE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_prefixed() {
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(names.iter().all(|name| name.starts_with("tollgate_")));
    }
}
