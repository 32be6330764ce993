//! Logs and the metrics recorder of the process.

use std::io::IsTerminal;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tollgate_telemetry::{Kind, Metric};
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, LogSettings, SettingsError};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts logging to standard error. Call once, first of all.
pub fn init_logs(settings: &LogSettings) -> Result<(), SettingsError> {
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter(&settings.filter)?)
        // It would say so on standard error, where it cannot be said, and panic: a full disk below a
        // log is no reason to end.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second initialisation, as tests do, keeps the first.
    let _ = match settings.format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// A word that is no level would be a module's name to the filter, and silence all others.
fn filter(text: &str) -> Result<EnvFilter, SettingsError> {
    let refused = |reason: String| SettingsError::Refused(format!("  log.filter: {reason}"));
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    for word in text.split(',').map(str::trim) {
        if !word.contains('=') && !is_level(word) {
            let levels = LEVELS.join(", ");
            return Err(refused(format!(
                "`{word}` is no level; use one of {levels}, or MODULE=LEVEL"
            )));
        }
    }
    // sqlx would log the texts of database errors, which quote values; actix-server tells about
    // each of its threads, actix-http about each malformed request.
    EnvFilter::try_new(format!("sqlx=off,actix_server=warn,actix_http=off,{text}"))
        .map_err(|error| refused(format!("{error}; try `info`")))
}

/// Seconds: from a tenth of a millisecond, which a fast disk reaches, to ten minutes, which a
/// backlog does.
const SECONDS: [f64; 17] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
    30.0, 120.0, 600.0,
];

/// Counts of things taken together.
const SIZES: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 2000.0];

/// Installs the recorder and describes the metrics. Call once in a process.
pub fn init_metrics(metrics: &[&[Metric]]) -> Result<PrometheusHandle, SettingsError> {
    let mut builder = PrometheusBuilder::new();
    for metric in metrics.iter().copied().flatten().filter(|metric| metric.kind == Kind::Histogram)
    {
        let buckets: &[f64] = if metric.name.ends_with("_seconds") { &SECONDS } else { &SIZES };
        builder = builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
            .map_err(|error| SettingsError::Refused(format!("  buckets: {error}")))?;
    }
    let handle = builder
        .install_recorder()
        .map_err(|error| SettingsError::Refused(format!("  metrics recorder: {error}")))?;
    for group in metrics {
        tollgate_telemetry::describe(group);
    }
    metrics_process::Collector::default().describe();
    Ok(handle)
}

/// Keeps the recorder's memory bounded and the process figures fresh. Runs until dropped.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    let process = metrics_process::Collector::default();
    loop {
        every.tick().await;
        process.collect();
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_filter_of_levels_and_modules_is_taken() {
        for text in
            ["info", "WARN", "off", "warn,tollgate_edge=debug", "tollgate_edge=trace, error"]
        {
            assert!(filter(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_with_those_that_are() {
        for (text, word) in [
            ("warning", "`warning`"),
            ("inof", "`inof`"),
            ("info,tollgate_edge", "`tollgate_edge`"),
            ("", "``"),
            ("info,tollgate_edge=inof", "\"warn\""),
        ] {
            let refused = filter(text).unwrap_err().to_string();
            assert!(refused.contains("log.filter") && refused.contains(word), "{refused}");
            assert!(refused.contains("info"), "{refused}");
        }
    }
}
