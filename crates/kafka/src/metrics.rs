//! What this crate measures. `client` is the kind of client: spooled, delivered, consumer, relay,
//! reader or admin; gauges are sums over all live clients of a kind.

use tollgate_telemetry::Metric;

/// Records waiting in producers, sent or not.
pub const QUEUE_MESSAGES: Metric = Metric::gauge(
    "tollgate_kafka_queue_messages",
    &["client"],
    "Records in producers that are not confirmed yet",
);

/// Their bytes.
pub const QUEUE_BYTES: Metric = Metric::gauge(
    "tollgate_kafka_queue_bytes",
    &["client"],
    "Bytes of records in producers that are not confirmed yet",
);

/// Bound of that number.
pub const QUEUE_LIMIT_BYTES: Metric = Metric::gauge(
    "tollgate_kafka_queue_limit_bytes",
    &["client"],
    "Most bytes of records that the producers hold",
);

/// Outcomes of records handed over.
pub const DELIVERIES: Metric = Metric::counter(
    "tollgate_kafka_deliveries_total",
    &["client", "outcome"],
    "Fates of records handed over: confirmed, retry or permanent",
);

/// Records not taken over.
pub const REFUSALS: Metric = Metric::counter(
    "tollgate_kafka_refusals_total",
    &["client", "reason"],
    "Records not taken over: queue_full, permanent or unavailable",
);

/// Records sent alone after a batch was refused.
pub const SENT_ALONE: Metric = Metric::counter(
    "tollgate_kafka_sent_alone_total",
    &["client"],
    "Records sent again alone because a broker refused their batch",
);

/// Clients replaced after a fatal error.
pub const RECREATIONS: Metric = Metric::counter(
    "tollgate_kafka_client_recreations_total",
    &["client"],
    "Clients made anew: after a fatal error, or when they hear from no broker or group any more",
);

/// Errors that librdkafka reports.
pub const ERRORS: Metric = Metric::counter(
    "tollgate_kafka_client_errors_total",
    &["client", "reason"],
    "Errors of clients, and of records that a topic refuses until something is mended: authentication, \
     tls, authorization, unknown_topic, timestamp, hung, fatal, \
     unreachable or other",
);

/// Log lines of librdkafka that were dropped.
pub const LOG_LINES_DROPPED: Metric = Metric::counter(
    "tollgate_kafka_log_lines_dropped_total",
    &["client"],
    "Log lines of the client library that were dropped because there were too many",
);

/// Round trip.
pub const BROKER_RTT: Metric = Metric::gauge(
    "tollgate_kafka_broker_rtt_seconds",
    &["client", "broker"],
    "Mean round trip to a broker in the last statistics interval",
);

/// Slow round trips.
pub const BROKER_RTT_P99: Metric = Metric::gauge(
    "tollgate_kafka_broker_rtt_p99_seconds",
    &["client", "broker"],
    "99th percentile of the round trip to a broker in the last statistics interval",
);

/// Throttling.
pub const BROKER_THROTTLE: Metric = Metric::gauge(
    "tollgate_kafka_broker_throttle_seconds",
    &["client", "broker"],
    "Mean time for which a broker throttled requests in the last statistics interval",
);

/// Connections that are up.
pub const BROKER_CONNECTIONS: Metric = Metric::gauge(
    "tollgate_kafka_broker_connections",
    &["client", "broker"],
    "Clients that are connected to a broker",
);

/// Requests without an answer.
pub const REQUEST_TIMEOUTS: Metric = Metric::counter(
    "tollgate_kafka_broker_request_timeouts_total",
    &["client", "broker"],
    "Requests to a broker that were not answered in time",
);

/// Failed sends.
pub const TRANSMIT_ERRORS: Metric = Metric::counter(
    "tollgate_kafka_broker_transmit_errors_total",
    &["client", "broker"],
    "Requests to a broker that failed",
);

/// Requests sent again.
pub const REQUEST_RETRIES: Metric = Metric::counter(
    "tollgate_kafka_broker_request_retries_total",
    &["client", "broker"],
    "Requests to a broker that were sent again",
);

/// Connections lost.
pub const DISCONNECTS: Metric = Metric::counter(
    "tollgate_kafka_broker_disconnects_total",
    &["client", "broker"],
    "Connections to a broker that ended",
);

/// Fetched ahead.
pub const FETCH_QUEUE_MESSAGES: Metric = Metric::gauge(
    "tollgate_kafka_fetch_queue_messages",
    &["client", "topic"],
    "Records fetched and not read yet",
);

/// Fetched ahead, bytes.
pub const FETCH_QUEUE_BYTES: Metric = Metric::gauge(
    "tollgate_kafka_fetch_queue_bytes",
    &["client", "topic"],
    "Bytes of records fetched and not read yet",
);

/// Changes of a group's assignment.
pub const REBALANCES: Metric = Metric::counter(
    "tollgate_kafka_rebalances_total",
    &["change"],
    "Changes of this consumer's partitions: assigned or revoked",
);

/// Transactions of relays.
pub const TRANSACTIONS: Metric = Metric::counter(
    "tollgate_kafka_transactions_total",
    &["outcome"],
    "Transactions of relays: committed, aborted, fenced or failed",
);

/// All of them.
pub const ALL: &[Metric] = &[
    QUEUE_MESSAGES,
    QUEUE_BYTES,
    QUEUE_LIMIT_BYTES,
    DELIVERIES,
    REFUSALS,
    SENT_ALONE,
    RECREATIONS,
    ERRORS,
    LOG_LINES_DROPPED,
    BROKER_RTT,
    BROKER_RTT_P99,
    BROKER_THROTTLE,
    BROKER_CONNECTIONS,
    REQUEST_TIMEOUTS,
    TRANSMIT_ERRORS,
    REQUEST_RETRIES,
    DISCONNECTS,
    FETCH_QUEUE_MESSAGES,
    FETCH_QUEUE_BYTES,
    REBALANCES,
    TRANSACTIONS,
];
