//! What the edge measures.

use tollgate_telemetry::Metric;

/// Requests by the status they were answered with.
pub const REQUESTS: Metric = Metric::counter(
    "tollgate_edge_requests_total",
    &["status"],
    "Requests by HTTP status; heads that are malformed (400), too large (431) or too slow (408) are answered by the HTTP library and not among them: see tollgate_edge_connections_ended_total",
);

/// Notifications answered 200.
pub const ACKNOWLEDGED: Metric = Metric::counter(
    "tollgate_edge_acknowledged_total",
    &["contract"],
    "Notifications answered 200 by what held them: spooled, delivered, or fallback (delivered, but from the spool)",
);

/// Requests that were not taken.
pub const REFUSED: Metric =
    Metric::counter("tollgate_edge_refused_total", &["reason"], "Requests not taken, by reason");

/// Requests whose sender went away.
pub const ABORTED: Metric = Metric::counter(
    "tollgate_edge_aborted_total",
    &[],
    "Requests whose connection ended before their answer, or whose chunks are malformed; a body that was complete may be stored all the same",
);

/// Connections now.
pub const CONNECTIONS: Metric =
    Metric::gauge("tollgate_edge_connections", &[], "Connections open at ingest");

/// Connections that keep no buffers.
pub const CONNECTIONS_RESTING: Metric = Metric::gauge(
    "tollgate_edge_connections_resting",
    &[],
    "Connections among them that have been idle for two seconds and keep nothing but their socket",
);

/// Connections that are over.
pub const CONNECTIONS_ENDED: Metric = Metric::counter(
    "tollgate_edge_connections_ended_total",
    &["end"],
    "Connections that ended: served; no_request (a probe, or a first head that was malformed, too large or too slow, answered 400, 431 or 408 by the HTTP library); cut (asked for nothing for longer than keep-alive and head deadline together: a later head, a refused body or the reading of answers that never ended)",
);

/// Time to the answer.
pub const ACK_SECONDS: Metric = Metric::histogram(
    "tollgate_edge_ack_seconds",
    &[],
    "Time from the request's head to its answer 200",
);

/// Bytes of notifications answered 200.
pub const RECEIVED_BYTES: Metric = Metric::counter(
    "tollgate_edge_received_bytes_total",
    &[],
    "Bytes of bodies that were answered 200",
);

/// Records found in notifications.
pub const RECORDS: Metric = Metric::counter(
    "tollgate_edge_records_total",
    &["application", "kind"],
    "Records found in notifications, by application and kind: status, cdr, quarantined",
);

/// When the last notification came.
pub const LAST_NOTIFICATION: Metric = Metric::gauge(
    "tollgate_edge_last_notification_timestamp_seconds",
    &["application", "kind"],
    "When the newest notification was received that has been read since (which waits for the brokers), by application and kind: status, cdr",
);

/// Signature checks.
pub const AUTHENTICITY: Metric = Metric::counter(
    "tollgate_edge_authenticity_total",
    &["result"],
    "Notifications by the result of the signature check, those refused for it included: absent, failed, p1 to p5",
);

/// Calls that the platform wants to be told how to go on with.
pub const AWAITING_INSTRUCTIONS: Metric = Metric::counter(
    "tollgate_edge_awaiting_instructions_total",
    &[],
    "Statuses of PrivateNumber's X mode (callin with notifyMode Block), whose platform waits for an instruction in the answer; Tollgate gives none",
);

/// Quarantined records and bodies.
pub const QUARANTINED: Metric = Metric::counter(
    "tollgate_edge_quarantined_total",
    &["reason"],
    "Records and bodies that went to quarantine, by reason",
);

/// Records confirmed by the stream.
pub const PUBLISHED: Metric =
    Metric::counter("tollgate_edge_published_total", &["topic"], "Records confirmed, by topic");

/// Time from the answer to the stream's confirmation.
pub const PUBLISH_SECONDS: Metric = Metric::histogram(
    "tollgate_edge_publish_seconds",
    &[],
    "Time from receiving a notification to the confirmation of all its records",
);

/// Records handed over and not yet confirmed.
pub const IN_FLIGHT: Metric = Metric::gauge(
    "tollgate_edge_in_flight_records",
    &[],
    "Records handed to the producer and not yet confirmed",
);

/// Sends that had to be repeated.
pub const RETRIED: Metric = Metric::counter(
    "tollgate_edge_retried_total",
    &["reason"],
    "Records sent again: not_confirmed; or waits before sending: queue_full, unavailable",
);

/// Whether `delivered` answers from the spool.
pub const FALLEN_BACK: Metric = Metric::gauge(
    "tollgate_edge_fallen_back",
    &[],
    "1 while the contract delivered answers from the spool because Kafka missed a deadline",
);

/// Memory of bodies in flight.
pub const BUDGET_USED: Metric = Metric::gauge(
    "tollgate_edge_body_budget_used_bytes",
    &[],
    "Bytes of the shared body budget in use",
);

/// Whether the topics pass their check.
pub const TOPICS_CHECKED: Metric = Metric::gauge(
    "tollgate_edge_topics_ok",
    &[],
    "1 when the topics pass their check or allow_weak_topics is set; spool segments are removed only then",
);

/// Every metric of this crate.
pub const ALL: &[Metric] = &[
    REQUESTS,
    ACKNOWLEDGED,
    REFUSED,
    ABORTED,
    CONNECTIONS,
    CONNECTIONS_RESTING,
    CONNECTIONS_ENDED,
    ACK_SECONDS,
    RECEIVED_BYTES,
    RECORDS,
    LAST_NOTIFICATION,
    AUTHENTICITY,
    AWAITING_INSTRUCTIONS,
    QUARANTINED,
    PUBLISHED,
    PUBLISH_SECONDS,
    IN_FLIGHT,
    RETRIED,
    FALLEN_BACK,
    BUDGET_USED,
    TOPICS_CHECKED,
];
