//! What this crate measures.

use tollgate_stream::StoreError;
use tollgate_telemetry::Metric;

/// Calls to the database that failed, by what the caller has to do.
pub const ERRORS: Metric = Metric::counter(
    "tollgate_store_errors_total",
    &["class"],
    "Database calls that failed, by class: fenced, rejected, transient, refused",
);
/// Partitions taken over.
pub const FENCES: Metric = Metric::counter(
    "tollgate_store_fences_total",
    &[],
    "Partitions taken over by raising their epoch",
);
/// Fenced transactions committed.
pub const COMMITS: Metric =
    Metric::counter("tollgate_store_commits_total", &[], "Fenced transactions committed");
/// Rows put into the outbox, counted when they are written.
pub const OUTBOX_APPENDED: Metric = Metric::counter(
    "tollgate_store_outbox_appended_total",
    &[],
    "Rows written to the outbox, rolled back ones included",
);
/// Rows removed from the outbox.
pub const OUTBOX_DELETED: Metric = Metric::counter(
    "tollgate_store_outbox_deleted_total",
    &[],
    "Rows removed from the outbox after they were published",
);
/// Open connections.
pub const CONNECTIONS: Metric = Metric::gauge(
    "tollgate_store_connections",
    &["state"],
    "Open database connections, by state: idle, busy",
);

/// Every metric of this crate.
pub const ALL: &[Metric] = &[ERRORS, FENCES, COMMITS, OUTBOX_APPENDED, OUTBOX_DELETED, CONNECTIONS];

/// Counts an error and hands it on.
pub(crate) fn counted(error: StoreError) -> StoreError {
    let class = match &error {
        StoreError::Fenced => "fenced",
        StoreError::Rejected(_) => "rejected",
        StoreError::Transient(_) => "transient",
        StoreError::Refused(_) => "refused",
    };
    ::metrics::counter!(ERRORS.name, "class" => class).increment(1);
    error
}

/// Records how many connections the pools have open.
pub(crate) fn connections<DB: sqlx::Database>(pools: &[&sqlx::Pool<DB>]) {
    let (mut all, mut idle) = (0, 0);
    for pool in pools {
        let open = pool.size() as usize;
        all += open;
        // The pool's own count wraps below zero for a moment while connections change hands.
        idle += pool.num_idle().min(open);
    }
    ::metrics::gauge!(CONNECTIONS.name, "state" => "idle").set(idle as f64);
    ::metrics::gauge!(CONNECTIONS.name, "state" => "busy").set((all - idle) as f64);
}
