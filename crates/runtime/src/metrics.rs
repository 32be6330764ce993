//! Metrics of the process itself.

use tollgate_telemetry::Metric;

/// Answers of the query API.
pub const QUERY_REQUESTS: Metric = Metric::counter(
    "tollgate_query_requests_total",
    &["status"],
    "Requests to the query API by class of status: 2xx, 4xx or 5xx, and 401 apart",
);

/// Which build runs; always 1.
pub const BUILD_INFO: Metric =
    Metric::gauge("tollgate_build_info", &["version"], "Version of the running program, always 1");

/// Every metric of this crate. Process figures (`process_*`) come from `metrics-process`.
pub const ALL: &[Metric] = &[QUERY_REQUESTS, BUILD_INFO];
