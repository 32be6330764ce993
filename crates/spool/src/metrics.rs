//! What the spool measures.

use tollgate_telemetry::Metric;

/// Records stored and not yet confirmed.
pub const DEPTH: Metric =
    Metric::gauge("tollgate_spool_depth_records", &[], "Requests stored and not yet published");
/// Age of the oldest of them.
pub const AGE: Metric = Metric::gauge(
    "tollgate_spool_oldest_received_timestamp_seconds",
    &[],
    "When the oldest unpublished request was received, seconds since 1970; 0 when there is none",
);
/// Bytes in segments.
pub const BYTES: Metric =
    Metric::gauge("tollgate_spool_bytes", &[], "Bytes that the spool's segments hold");
/// The bound.
pub const MAX_BYTES: Metric =
    Metric::gauge("tollgate_spool_max_bytes", &[], "Bound of the spool's segments in bytes");
/// Whether appends can succeed.
pub const WRITABLE: Metric = Metric::gauge(
    "tollgate_spool_writable",
    &[],
    "1 while the disk takes writes, 0 after two failures in a row",
);
/// Since when a disk has not answered.
pub const DISK_ASKED: Metric = Metric::gauge(
    "tollgate_spool_disk_asked_timestamp_seconds",
    &[],
    "When the disk was asked to write what it has not written yet, seconds since 1970; 0 while nothing is asked of it",
);
/// Records appended.
pub const APPENDED: Metric =
    Metric::counter("tollgate_spool_appended_total", &[], "Requests stored and synced");
/// Bytes appended.
pub const APPENDED_BYTES: Metric =
    Metric::counter("tollgate_spool_appended_bytes_total", &[], "Bytes stored and synced");
/// Records confirmed.
pub const CONFIRMED: Metric =
    Metric::counter("tollgate_spool_confirmed_total", &[], "Requests whose records are published");
/// Records not taken.
pub const REFUSED: Metric = Metric::counter(
    "tollgate_spool_refused_total",
    &["reason"],
    "Requests that were not stored: overloaded, full, failed, closing, too_large",
);
/// Disk failures.
pub const DISK_FAILURES: Metric = Metric::counter(
    "tollgate_spool_disk_failures_total",
    &["operation"],
    "Disk operations that failed: create, write (with its sync), read, position, remove, keep",
);
/// How long a write and its sync take.
pub const SYNC_SECONDS: Metric = Metric::histogram(
    "tollgate_spool_sync_seconds",
    &[],
    "Duration of writing and syncing one group",
);
/// Records per sync.
pub const GROUP_RECORDS: Metric =
    Metric::histogram("tollgate_spool_group_records", &[], "Requests stored by one sync");
/// Damage.
pub const DAMAGED: Metric = Metric::counter(
    "tollgate_spool_damaged_records_total",
    &[],
    "Acknowledged requests that the disk has lost",
);
/// Holes that are none.
pub const UNACKNOWLEDGED: Metric = Metric::counter(
    "tollgate_spool_unacknowledged_holes_total",
    &[],
    "Requests cut off by a crash before they were acknowledged, found as holes",
);
/// Torn tails.
pub const TORN_TAILS: Metric = Metric::counter(
    "tollgate_spool_torn_tails_total",
    &[],
    "Unfinished writes found at start and moved aside",
);
/// Dead letters written.
pub const DEAD_LETTERS: Metric = Metric::counter(
    "tollgate_spool_dead_letters_total",
    &[],
    "Records that the topic refused for good",
);
/// Dead letters on disk.
pub const DEAD_LETTERS_HELD: Metric = Metric::gauge(
    "tollgate_spool_dead_letters_held_records",
    &[],
    "Records that the topic refused for good and that are on disk",
);
/// Where the records come from.
pub const SERVED: Metric = Metric::counter(
    "tollgate_spool_served_total",
    &["from"],
    "Requests handed to the publisher, from memory or from disk",
);

/// Every metric of this crate.
pub const ALL: &[Metric] = &[
    DEPTH,
    AGE,
    BYTES,
    MAX_BYTES,
    WRITABLE,
    DISK_ASKED,
    APPENDED,
    APPENDED_BYTES,
    CONFIRMED,
    REFUSED,
    DISK_FAILURES,
    SYNC_SECONDS,
    GROUP_RECORDS,
    DAMAGED,
    UNACKNOWLEDGED,
    TORN_TAILS,
    DEAD_LETTERS,
    DEAD_LETTERS_HELD,
    SERVED,
];

/// Counts a disk failure and logs it with what was tried.
pub(crate) fn disk_failed(operation: &'static str, what: &str, error: &std::io::Error) {
    metrics::counter!(DISK_FAILURES.name, "operation" => operation).increment(1);
    tracing::error!(operation, file = what, %error, "spool: the disk failed");
}
