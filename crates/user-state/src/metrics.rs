//! What this crate measures.

use tollgate_telemetry::Metric;

/// Events put into their calls.
pub const EVENTS: Metric = Metric::counter(
    "tollgate_state_events_total",
    &["kind", "outcome"],
    "Events applied, by kind and by what became of them: new, revision, improved, repeated, capped",
);
/// Events that arrived after a later one of their call.
pub const LATE: Metric = Metric::counter(
    "tollgate_state_late_events_total",
    &["kind"],
    "New events older than the latest event of their call",
);
/// Texts that were not taken over whole.
pub const CUT: Metric = Metric::counter(
    "tollgate_state_texts_cut_total",
    &["field"],
    "Texts too long to be kept: numbers are ignored, others are cut",
);
/// Records that cannot be decoded.
pub const REJECTED: Metric = Metric::counter(
    "tollgate_state_rejected_total",
    &["topic"],
    "Records that are not what their topic holds, sent to quarantine",
);
/// States that changed.
pub const CHANGES: Metric = Metric::counter(
    "tollgate_state_changes_total",
    &["cause"],
    "Number states that changed, by cause: event, expiry, forgotten",
);
/// States published.
pub const PUBLISHED: Metric = Metric::counter(
    "tollgate_state_published_total",
    &[],
    "Number states published to topic user-states",
);
/// Calls forgotten.
pub const FORGOTTEN: Metric = Metric::counter(
    "tollgate_state_calls_forgotten_total",
    &[],
    "Calls removed because nothing was heard of them for keep_days",
);
/// Numbers that are not idle.
pub const NUMBERS: Metric = Metric::gauge(
    "tollgate_state_numbers",
    &["presence"],
    "Numbers that are calling, ringing or in a call, in the whole database; equal at every instance",
);
/// States waiting to be published.
pub const WAITING: Metric = Metric::gauge(
    "tollgate_state_unpublished",
    &[],
    "Number states waiting to be published, in the whole database; equal at every instance",
);
/// Clients of the live feed.
pub const CLIENTS: Metric =
    Metric::gauge("tollgate_state_changes_clients", &[], "Clients connected to the live feed");
/// Clients of the live feed that were sent away.
pub const CLIENTS_DROPPED: Metric = Metric::counter(
    "tollgate_state_changes_clients_dropped_total",
    &["reason"],
    "Clients of the live feed refused or disconnected, by reason: slow, too_many, shutdown",
);
/// Times the live feed lost touch with its topic.
pub const FEED_GAPS: Metric = Metric::counter(
    "tollgate_state_changes_gaps_total",
    &[],
    "Times the live feed had to reconnect to topic user-states and may have missed changes",
);

/// All of them.
pub const ALL: &[Metric] = &[
    EVENTS,
    LATE,
    CUT,
    REJECTED,
    CHANGES,
    PUBLISHED,
    FORGOTTEN,
    NUMBERS,
    WAITING,
    CLIENTS,
    CLIENTS_DROPPED,
    FEED_GAPS,
];
