//! How to reach the cluster and how much to take.

use std::path::PathBuf;

use rdkafka::ClientConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_schema::topics::MAX_MESSAGE_BYTES;

use crate::config;

/// Connection to a Kafka cluster, and the bounds of the clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Brokers to begin with, `host:port`, separated by commas. Default `localhost:9092`.
    pub brokers: String,
    /// Name of this client in the brokers' logs and quotas. Default `tollgate`.
    pub client_id: String,
    /// How connections are protected. Default `plaintext`.
    pub security_protocol: SecurityProtocol,
    /// How `sasl_plaintext` and `sasl_ssl` authenticate. Default `SCRAM-SHA-512`.
    pub sasl_mechanism: SaslMechanism,
    /// User for SASL. Empty by default.
    pub sasl_username: String,
    /// File that holds the password for SASL; a line break at its end is not part of it.
    pub sasl_password_file: Option<PathBuf>,
    /// PEM file of the authorities that may sign the brokers' certificates. Default: those of
    /// the operating system.
    pub ssl_ca_file: Option<PathBuf>,
    /// PEM file of this client's certificate, for brokers that ask for one.
    pub ssl_certificate_file: Option<PathBuf>,
    /// PEM file of the key to `ssl_certificate_file`.
    pub ssl_key_file: Option<PathBuf>,
    /// File that holds the password of `ssl_key_file`, if it has one.
    pub ssl_key_password_file: Option<PathBuf>,
    /// Compression of what is published. Default `lz4`.
    pub compression: Compression,
    /// How long a record from the spool waits for company before it is sent, in milliseconds: fewer
    /// and larger requests take less of the brokers' processors. Default 20.
    pub linger_ms: u32,
    /// The same where a sender waits for the confirmation (contract `delivered`). Default 5.
    pub delivered_linger_ms: u32,
    /// Most records that one producer holds unconfirmed. Default 100,000.
    pub queue_messages: u32,
    /// Most bytes that one producer holds unconfirmed. Default 64 MiB.
    pub queue_bytes: u64,
    /// Most bytes that one consumer fetches ahead. Default 16 MiB.
    pub fetch_queue_bytes: u64,
    /// How groups are formed: `classic` (range assignment and static membership) or `consumer`
    /// (KIP-848, brokers from 4.0 on). Default `classic`.
    pub group_protocol: GroupProtocol,
    /// After this silence a group gives a member's partitions away, in milliseconds; with
    /// `group_protocol = consumer` the broker decides instead. Default 45,000.
    pub session_timeout_ms: u32,
    /// A consumer that does not ask for records for this long leaves its group, in milliseconds.
    /// Default 300,000.
    pub max_poll_interval_ms: u32,
    /// How long a request to a broker may go unanswered before it is sent again, in
    /// milliseconds. Default 10,000.
    pub request_timeout_ms: u32,
    /// How long questions about topics and offsets may take altogether, in milliseconds.
    /// Default 10,000.
    pub operation_timeout_ms: u32,
    /// After this time the cluster aborts a transaction that was left open, in milliseconds.
    /// Readers of committed records wait for it behind a relay that died. Default 60,000.
    pub transaction_timeout_ms: u32,
    /// How long a client may take to close, that is, a consumer to leave its group, in
    /// milliseconds. Default 10,000.
    pub close_timeout_ms: u32,
    /// How often the clients' statistics are looked at, in milliseconds: they become metrics, and
    /// show which clients must be made anew. 0 is never, for tests. Default 10,000.
    pub statistics_interval_ms: u32,
}

/// How connections are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Not at all.
    Plaintext,
    /// TLS; the client may show a certificate.
    Ssl,
    /// User and password, unencrypted: for networks that are trusted.
    SaslPlaintext,
    /// User and password within TLS.
    SaslSsl,
}

/// How user and password are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    /// The password itself.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A proof of it by SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// A proof of it by SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// Compression of what is published. Readers need no setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// None.
    None,
    /// LZ4: little processor time.
    Lz4,
    /// Zstandard: smaller, more processor time.
    Zstd,
}

/// How consumer groups are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    /// By the members, eagerly, with range assignment.
    Classic,
    /// By the broker, incrementally (KIP-848).
    Consumer,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".into(),
            client_id: "tollgate".into(),
            security_protocol: SecurityProtocol::Plaintext,
            sasl_mechanism: SaslMechanism::ScramSha512,
            sasl_username: String::new(),
            sasl_password_file: None,
            ssl_ca_file: None,
            ssl_certificate_file: None,
            ssl_key_file: None,
            ssl_key_password_file: None,
            compression: Compression::Lz4,
            linger_ms: 20,
            delivered_linger_ms: 5,
            queue_messages: 100_000,
            queue_bytes: 64 * 1024 * 1024,
            fetch_queue_bytes: 16 * 1024 * 1024,
            group_protocol: GroupProtocol::Classic,
            session_timeout_ms: 45_000,
            max_poll_interval_ms: 300_000,
            request_timeout_ms: 10_000,
            operation_timeout_ms: 10_000,
            transaction_timeout_ms: 60_000,
            close_timeout_ms: 10_000,
            statistics_interval_ms: 10_000,
        }
    }
}

impl SecurityProtocol {
    pub(crate) fn uses_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    pub(crate) fn uses_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// As librdkafka and these settings spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }
}

impl Settings {
    /// Whether the values make sense together, and the files they name can be read.
    pub fn validate(&self) -> Result<(), String> {
        self.validate_brokers()?;
        self.validate_sasl()?;
        self.validate_tls()?;
        self.validate_bounds()?;
        config::protect(&mut ClientConfig::new(), self)
    }

    fn validate_brokers(&self) -> Result<(), String> {
        for broker in self.brokers.split(',') {
            let port =
                broker.trim().rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
            match port {
                Some((host, Ok(1..))) if !host.is_empty() => {}
                _ => {
                    return Err(format!(
                        "brokers: \"{broker}\" is not host:port; separate several by commas"
                    ));
                }
            }
        }
        Ok(())
    }

    fn validate_sasl(&self) -> Result<(), String> {
        let protocol = self.security_protocol.name();
        let uses_sasl = self.security_protocol.uses_sasl();
        if uses_sasl && self.sasl_username.is_empty() {
            return Err(format!("security_protocol = {protocol} needs sasl_username"));
        }
        if uses_sasl && self.sasl_password_file.is_none() {
            return Err(format!("security_protocol = {protocol} needs sasl_password_file"));
        }
        if !uses_sasl && !self.sasl_username.is_empty() {
            return Err(format!("sasl_username has no use with security_protocol = {protocol}"));
        }
        if !uses_sasl && self.sasl_password_file.is_some() {
            return Err(format!(
                "sasl_password_file has no use with security_protocol = {protocol}"
            ));
        }
        Ok(())
    }

    fn validate_tls(&self) -> Result<(), String> {
        let protocol = self.security_protocol.name();
        if !self.security_protocol.uses_tls() {
            let files = [
                ("ssl_ca_file", &self.ssl_ca_file),
                ("ssl_certificate_file", &self.ssl_certificate_file),
                ("ssl_key_file", &self.ssl_key_file),
                ("ssl_key_password_file", &self.ssl_key_password_file),
            ];
            if let Some((name, _)) = files.iter().find(|(_, file)| file.is_some()) {
                return Err(format!("{name} has no use with security_protocol = {protocol}"));
            }
        }
        if self.ssl_certificate_file.is_some() != self.ssl_key_file.is_some() {
            return Err("ssl_certificate_file and ssl_key_file need each other".into());
        }
        if self.ssl_key_password_file.is_some() && self.ssl_key_file.is_none() {
            return Err("ssl_key_password_file has no use without ssl_key_file".into());
        }
        Ok(())
    }

    fn validate_bounds(&self) -> Result<(), String> {
        let ranges = [
            ("linger_ms", u64::from(self.linger_ms), 0, 60_000),
            ("delivered_linger_ms", u64::from(self.delivered_linger_ms), 0, 60_000),
            ("queue_messages", self.queue_messages.into(), 1, 10_000_000),
            ("queue_bytes", self.queue_bytes, 2 * MAX_MESSAGE_BYTES as u64, 2_000_000 << 10),
            (
                "fetch_queue_bytes",
                self.fetch_queue_bytes,
                MAX_MESSAGE_BYTES as u64,
                2_000_000 << 10,
            ),
            ("session_timeout_ms", self.session_timeout_ms.into(), 1_000, 3_600_000),
            ("max_poll_interval_ms", self.max_poll_interval_ms.into(), 1_000, 86_400_000),
            ("request_timeout_ms", self.request_timeout_ms.into(), 1_000, 150_000),
            ("operation_timeout_ms", self.operation_timeout_ms.into(), 100, 300_000),
            ("transaction_timeout_ms", self.transaction_timeout_ms.into(), 2_000, 900_000),
            ("close_timeout_ms", self.close_timeout_ms.into(), 100, 300_000),
            ("statistics_interval_ms", self.statistics_interval_ms.into(), 0, 86_400_000),
        ];
        for (name, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(format!("{name} = {value} is not within {least} and {most}"));
            }
        }
        if self.max_poll_interval_ms < self.session_timeout_ms {
            return Err(format!(
                "max_poll_interval_ms = {} is less than session_timeout_ms = {}",
                self.max_poll_interval_ms, self.session_timeout_ms
            ));
        }
        if self.transaction_timeout_ms < 2 * self.request_timeout_ms {
            return Err(format!(
                "transaction_timeout_ms = {} is less than twice request_timeout_ms = {}: one \
                 request sent again would outlast it",
                self.transaction_timeout_ms, self.request_timeout_ms
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.validate().unwrap_err()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Settings::default().validate(), Ok(()));
    }

    #[test]
    fn a_conflict_names_both_settings() {
        let conflicts: [(String, [&str; 2]); 7] = [
            (
                refused(|s| s.security_protocol = SecurityProtocol::SaslSsl),
                ["security_protocol", "sasl_username"],
            ),
            (
                refused(|s| {
                    s.security_protocol = SecurityProtocol::SaslPlaintext;
                    s.sasl_username = "u".into();
                }),
                ["security_protocol", "sasl_password_file"],
            ),
            (
                refused(|s| s.sasl_username = "u".into()),
                ["sasl_username", "security_protocol = plaintext"],
            ),
            (refused(|s| s.ssl_ca_file = Some("ca".into())), ["ssl_ca_file", "security_protocol"]),
            (
                refused(|s| {
                    s.security_protocol = SecurityProtocol::Ssl;
                    s.ssl_key_file = Some("key".into());
                }),
                ["ssl_certificate_file", "ssl_key_file"],
            ),
            (
                refused(|s| s.max_poll_interval_ms = 10_000),
                ["max_poll_interval_ms", "session_timeout_ms"],
            ),
            (
                refused(|s| s.transaction_timeout_ms = 15_000),
                ["transaction_timeout_ms", "request_timeout_ms"],
            ),
        ];
        for (message, names) in conflicts {
            for name in names {
                assert!(message.contains(name), "{name} is missing in: {message}");
            }
        }
    }

    #[test]
    fn brokers_are_host_and_port() {
        for brokers in ["", "kafka", "kafka:", ":9092", "kafka:0", "a:1,,b:2", "a:99999"] {
            let message = refused(|s| s.brokers = brokers.into());
            assert!(message.contains("brokers"), "{message}");
        }
        let several = Settings { brokers: "a:9092, [::1]:9093".into(), ..Settings::default() };
        assert_eq!(several.validate(), Ok(()));
    }

    #[test]
    fn names_are_those_of_the_kafka_world() {
        let text = r#"{"security_protocol": "sasl_ssl", "sasl_mechanism": "SCRAM-SHA-256",
            "compression": "zstd", "group_protocol": "consumer"}"#;
        let settings: Settings = serde_json::from_str(text).unwrap();
        assert_eq!(settings.security_protocol, SecurityProtocol::SaslSsl);
        assert_eq!(settings.sasl_mechanism, SaslMechanism::ScramSha256);
        assert!(serde_json::from_str::<Settings>(r#"{"broker": "x:1"}"#).is_err());
    }
}
