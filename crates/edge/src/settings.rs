//! Settings of the edge.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A body's first bytes, which come with the connection; what is longer draws on the budget.
pub const FREE_BYTES: usize = 16 * 1024;

/// What one connection may hold in actix's own buffers: a head of 128 KiB, or what is read at once
/// of a body and the list of its chunks, 32 bytes for each of at least 6.
const CONNECTION_BUFFERS: u64 = 256 * 1024;

/// Characters of the longest notification URL that the platform surely takes.
const URL_LIMIT: usize = 96;

/// What a 200 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// The request is in this edge's spool and synced.
    Spooled,
    /// Kafka confirmed all its records; past the deadline, as `spooled`.
    Delivered,
}

/// The edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Address that takes notifications. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Name of this edge in the provenance of every event; stable over restarts. Default: the
    /// host's name.
    pub edge_id: String,
    /// The public base URL under which the platform reaches the edges, such as
    /// `https://voice.example.com`; part of the signature formulas P1 and P2. Default: none.
    pub public_url: Option<String>,
    /// PEM file of the certificate chain; with `tls_key_file` the edge speaks HTTPS itself.
    /// Default: none, plain HTTP behind a proxy.
    pub tls_certificate_file: Option<PathBuf>,
    /// PEM file of the certificate's private key. Default: none.
    pub tls_key_file: Option<PathBuf>,
    /// Worker threads; 0 is one for each core. Default 0.
    pub workers: usize,
    /// What a 200 means where an application does not say. Default `spooled`.
    pub ack: Ack,
    /// How long `delivered` waits for Kafka before the spool takes over, milliseconds.
    /// Default 1000.
    pub delivered_deadline_ms: u64,
    /// Whether `delivered` may fall back to the spool; switch it off where the spool's disk does
    /// not outlive the process: trouble is then answered 503. Default true.
    pub delivered_fallback: bool,
    /// Memory the edge may use for connections, bodies, the spool's tail and records in flight,
    /// bytes; the limit on connections follows from it. Default 1 GiB.
    pub memory_bytes: u64,
    /// Largest body taken, bytes; a larger one is answered 413. Default 1 MiB.
    pub max_body_bytes: usize,
    /// Memory shared by what bodies hold past their first 16 KiB, bytes. Default 64 MiB.
    pub body_budget_bytes: usize,
    /// Time for the head of a connection's first request, milliseconds, 1000 at least: it is
    /// measured to half a second. Later heads have `keep_alive_seconds` more. Default 5000.
    pub head_deadline_ms: u64,
    /// Time for a request's body, milliseconds. Default 10000.
    pub body_deadline_ms: u64,
    /// How long an idle connection is kept, seconds. Default 75.
    pub keep_alive_seconds: u64,
    /// Connections waiting to be accepted. Default 4096.
    pub backlog: i32,
    /// Bytes an hour on one path that are not well-formed JSON before such bodies are answered
    /// 400. Default 64 MiB.
    pub malformed_quota_bytes: u64,
    /// Take notifications on other addresses than loopback although no application is
    /// configured. Default false.
    pub allow_open_ingest: bool,
    /// Remove published spool segments although a topic fails its check, as on a laptop with one
    /// broker. Default false.
    pub allow_weak_topics: bool,
    /// How long the edge goes on serving after it has become unready, milliseconds, while load
    /// balancers notice. Default 0.
    pub drain_delay_ms: u64,
    /// Time to publish what is queued at shutdown, milliseconds; the rest stays in the spool.
    /// Default 5000.
    pub flush_deadline_ms: u64,
    /// Records handed to the producer and not yet confirmed, at most; ten times as many may be
    /// confirmed behind one that is not. Default 50000.
    pub max_in_flight: usize,
    /// Bytes of those records, and bytes of the requests they come from, at most, but for one
    /// request. Default 64 MiB.
    pub max_in_flight_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8080).into(),
            edge_id: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            public_url: None,
            tls_certificate_file: None,
            tls_key_file: None,
            workers: 0,
            ack: Ack::Spooled,
            delivered_deadline_ms: 1000,
            delivered_fallback: true,
            memory_bytes: 1024 * 1024 * 1024,
            max_body_bytes: 1024 * 1024,
            body_budget_bytes: 64 * 1024 * 1024,
            head_deadline_ms: 5000,
            body_deadline_ms: 10_000,
            keep_alive_seconds: 75,
            backlog: 4096,
            malformed_quota_bytes: 64 * 1024 * 1024,
            allow_open_ingest: false,
            allow_weak_topics: false,
            drain_delay_ms: 0,
            flush_deadline_ms: 5000,
            max_in_flight: 50_000,
            max_in_flight_bytes: 64 * 1024 * 1024,
        }
    }
}

impl Settings {
    /// Refuses values that contradict each other; names both.
    pub fn validate(&self, applications: usize, spool_tail_bytes: u64) -> Result<(), String> {
        if applications == 0 && !self.listen.ip().is_loopback() && !self.allow_open_ingest {
            return Err(format!(
                "edge.listen is {}, which is not loopback, and no [[applications]] are configured; configure them, or set edge.allow_open_ingest",
                self.listen
            ));
        }
        if self.tls_certificate_file.is_some() != self.tls_key_file.is_some() {
            return Err("edge.tls_certificate_file and edge.tls_key_file need each other".into());
        }
        if self.max_body_bytes < FREE_BYTES {
            return Err(format!("edge.max_body_bytes must be {FREE_BYTES} or more"));
        }
        if self.max_body_bytes > self.body_budget_bytes {
            return Err("edge.max_body_bytes is greater than edge.body_budget_bytes".into());
        }
        // A record holds its JSON twice, as typed fields and as received, and topics take 4 MiB.
        if self.max_body_bytes > 1024 * 1024 {
            return Err("edge.max_body_bytes may be 1 MiB at most, or a record might not fit its topic's max.message.bytes".into());
        }
        if let Some(url) = &self.public_url {
            check_url(url)?;
        }
        if self.edge_id.is_empty() {
            return Err("edge.edge_id must not be empty".into());
        }
        if self.delivered_deadline_ms == 0 || self.body_deadline_ms == 0 {
            return Err(
                "edge.delivered_deadline_ms and edge.body_deadline_ms must be 1 or more".into()
            );
        }
        if self.head_deadline_ms < 1000 {
            return Err("edge.head_deadline_ms must be 1000 or more".into());
        }
        if self.max_in_flight == 0 || self.max_in_flight_bytes == 0 {
            return Err(
                "edge.max_in_flight and edge.max_in_flight_bytes must be 1 or more, or nothing is published"
                    .into(),
            );
        }
        if self.max_connections(spool_tail_bytes) < 16 {
            return Err(
                "edge.memory_bytes leaves room for fewer than 16 connections beside edge.body_budget_bytes, edge.max_in_flight_bytes and spool.tail_bytes; raise it"
                    .into(),
            );
        }
        Ok(())
    }

    /// Connections that fit `memory_bytes` beside the budget, the spool's tail and the records in
    /// flight.
    pub fn max_connections(&self, spool_tail_bytes: u64) -> usize {
        let rest = self
            .memory_bytes
            .saturating_sub(self.body_budget_bytes as u64)
            .saturating_sub(self.max_in_flight_bytes as u64)
            .saturating_sub(spool_tail_bytes);
        (rest / (FREE_BYTES as u64 + CONNECTION_BUFFERS)) as usize
    }
}

/// Checks a URL against the platform's rules: letters, digits, `-`, `:`, `.`, `/`.
pub fn check_url(url: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-:./".contains(c);
    if !url.chars().all(allowed) {
        return Err(
            "edge.public_url may only contain letters, digits, '-', ':', '.' and '/', or the platform refuses the notification URL"
                .into(),
        );
    }
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err("edge.public_url must begin with https:// or http://".into());
    }
    Ok(())
}

/// Checks a whole notification URL's length.
pub fn check_url_length(url: &str, application: &str) -> Result<(), String> {
    if url.len() <= URL_LIMIT {
        return Ok(());
    }
    Err(format!(
        "the notification URL of application {application} has {} characters and the platform surely takes {URL_LIMIT}; shorten edge.public_url or applications.path_secret",
        url.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_listener_without_applications_is_refused() {
        let open = Settings { listen: ([0, 0, 0, 0], 8080).into(), ..Settings::default() };
        let reason = open.validate(0, 0).unwrap_err();
        assert!(reason.contains("edge.listen") && reason.contains("allow_open_ingest"));
        assert!(open.validate(1, 0).is_ok());
        assert!(Settings { allow_open_ingest: true, ..open }.validate(0, 0).is_ok());
    }

    #[test]
    fn connections_follow_from_the_memory() {
        let settings = Settings::default();
        let tail = 64 * 1024 * 1024;
        let bound = settings.max_connections(tail) as u64 * 272 * 1024
            + settings.body_budget_bytes as u64
            + settings.max_in_flight_bytes as u64
            + tail;
        assert!(bound <= settings.memory_bytes);
        assert!(settings.max_connections(tail) > 3_000);
    }

    #[test]
    fn a_url_keeps_to_the_platforms_characters_and_length() {
        assert!(check_url("https://voice.example.com:8443").is_ok());
        assert!(check_url("https://voice.example.com/a_b").is_err());
        assert!(check_url("voice.example.com").is_err());
        assert!(check_url_length(&"x".repeat(96), "a").is_ok());
        assert!(check_url_length(&"x".repeat(97), "a").is_err());
    }
}
