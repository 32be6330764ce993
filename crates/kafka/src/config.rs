//! librdkafka's configuration of each kind of client.

use std::path::Path;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use tollgate_schema::topics::MAX_MESSAGE_BYTES;
use tollgate_stream::{ConsumerOptions, StreamError};

use crate::settings::{Compression, GroupProtocol, SaslMechanism, Settings};

/// From this size on a record travels alone, so that a broker's refusal is about that record.
const BATCH_BYTES: usize = 512 * 1024;

/// Longest wait for the confirmation of a relayed record.
const RELAY_GIVES_UP: Duration = Duration::from_secs(10);

/// What all clients have in common. Reads the files that hold secrets.
pub fn base(settings: &Settings) -> Result<ClientConfig, StreamError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("client.id", &settings.client_id)
        .set("security.protocol", settings.security_protocol.name())
        .set("allow.auto.create.topics", "false")
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true")
        // Idle connections are closed by brokers all the time.
        .set("log.connection.close", "false")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "2000")
        .set("topic.metadata.refresh.interval.ms", "15000")
        .set("topic.metadata.propagation.max.ms", "10000")
        // Back to the brokers of the settings when those it knows say nothing; after five minutes
        // by default.
        .set("metadata.recovery.rebootstrap.trigger.ms", "30000")
        .set("socket.timeout.ms", (2 * settings.request_timeout_ms).to_string())
        .set("statistics.interval.ms", settings.statistics_interval_ms.to_string())
        .set_log_level(RDKafkaLogLevel::Info);
    protect(&mut config, settings).map_err(StreamError::Fatal)?;
    Ok(config)
}

/// TLS, user and password. Reads the files that are named; an error says which.
pub fn protect(config: &mut ClientConfig, settings: &Settings) -> Result<(), String> {
    if settings.security_protocol.uses_tls() {
        tls(config, settings)?;
    }
    if settings.security_protocol.uses_sasl() {
        sasl(config, settings)?;
    }
    Ok(())
}

fn tls(config: &mut ClientConfig, settings: &Settings) -> Result<(), String> {
    let files = [
        ("ssl.ca.location", "ssl_ca_file", &settings.ssl_ca_file),
        ("ssl.certificate.location", "ssl_certificate_file", &settings.ssl_certificate_file),
        ("ssl.key.location", "ssl_key_file", &settings.ssl_key_file),
    ];
    for (property, name, file) in files {
        let Some(file) = file else { continue };
        // Said here in our own words; librdkafka says it in OpenSSL's.
        read(name, file)?;
        config.set(property, text(name, file)?);
    }
    if settings.ssl_ca_file.is_none() {
        config.set("ssl.ca.location", "probe");
    }
    if let Some(file) = &settings.ssl_key_password_file {
        config.set("ssl.key.password", secret("ssl_key_password_file", file)?);
    }
    Ok(())
}

fn sasl(config: &mut ClientConfig, settings: &Settings) -> Result<(), String> {
    let mechanism = match settings.sasl_mechanism {
        SaslMechanism::Plain => "PLAIN",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
    };
    config.set("sasl.mechanism", mechanism).set("sasl.username", &settings.sasl_username);
    if let Some(file) = &settings.sasl_password_file {
        config.set("sasl.password", secret("sasl_password_file", file)?);
    }
    Ok(())
}

fn read(name: &str, file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file)
        .map_err(|error| format!("{name} names {}, which cannot be read: {error}", file.display()))
}

fn text<'a>(name: &str, file: &'a Path) -> Result<&'a str, String> {
    file.to_str().ok_or_else(|| format!("{name} is a path that is not UTF-8"))
}

fn secret(name: &str, file: &Path) -> Result<String, String> {
    let text = read(name, file)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(format!("{name} names {}, which is empty", file.display()));
    }
    Ok(secret.to_owned())
}

/// An idempotent producer whose records are given up after `timeout`, or never.
pub fn producer(
    base: &ClientConfig,
    settings: &Settings,
    timeout: Option<Duration>,
) -> ClientConfig {
    let mut config = base.clone();
    let timeout_ms = timeout.map_or(0, |timeout| timeout.as_millis().max(1));
    // librdkafka refuses a linger that outlasts the record.
    let linger_ms = match timeout {
        Some(_) => u128::from(settings.delivered_linger_ms).min(timeout_ms / 2),
        None => settings.linger_ms.into(),
    };
    let compression = match settings.compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    };
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Of librdkafka's partitioners the one that is Java's. It draws lots for a key that is
        // null, which ours never is; an empty key is hashed.
        .set("partitioner", "murmur2_random")
        .set("message.timeout.ms", timeout_ms.to_string())
        .set("request.timeout.ms", settings.request_timeout_ms.to_string())
        .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
        .set("batch.size", BATCH_BYTES.to_string())
        .set("linger.ms", linger_ms.to_string())
        .set("compression.type", compression)
        .set("queue.buffering.max.messages", settings.queue_messages.to_string())
        .set("queue.buffering.max.kbytes", (settings.queue_bytes / 1024).to_string());
    config
}

/// The same, sending each record in a batch of its own: shows which one a broker refuses.
pub fn lone_producer(
    base: &ClientConfig,
    settings: &Settings,
    timeout: Option<Duration>,
) -> ClientConfig {
    let mut config = producer(base, settings, timeout);
    config.set("batch.num.messages", "1").set("linger.ms", "0");
    config.set("statistics.interval.ms", "0");
    config
}

/// A transactional producer.
pub fn relay(base: &ClientConfig, settings: &Settings, id: &str) -> ClientConfig {
    // A record that is given up must be known before the cluster aborts the transaction, and soon:
    // giving up costs a new client, waiting costs freshness.
    let give_up = Duration::from_millis(u64::from(settings.transaction_timeout_ms) / 2);
    let give_up = give_up.min(RELAY_GIVES_UP);
    let mut config = producer(base, settings, Some(give_up));
    config
        .set("transactional.id", id)
        .set("transaction.timeout.ms", settings.transaction_timeout_ms.to_string())
        .set("linger.ms", "0");
    config
}

/// What group consumers and readers have in common.
fn fetching(base: &ClientConfig, settings: &Settings) -> ClientConfig {
    let mut config = base.clone();
    let fetch_bytes = settings.fetch_queue_bytes.min(50 * 1024 * 1024);
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("fetch.message.max.bytes", MAX_MESSAGE_BYTES.to_string())
        .set("fetch.max.bytes", fetch_bytes.max(MAX_MESSAGE_BYTES as u64).to_string())
        .set("fetch.queue.backoff.ms", "50")
        .set("queued.max.messages.kbytes", (settings.fetch_queue_bytes / 1024).to_string());
    config
}

/// A member of a group.
pub fn consumer(
    base: &ClientConfig,
    settings: &Settings,
    options: &ConsumerOptions,
) -> ClientConfig {
    let mut config = fetching(base, settings);
    config
        .set("group.id", &options.group)
        .set("max.poll.interval.ms", settings.max_poll_interval_ms.to_string());
    match settings.group_protocol {
        GroupProtocol::Classic => {
            let session_ms = settings.session_timeout_ms;
            config
                .set("group.protocol", "classic")
                .set("partition.assignment.strategy", "range")
                .set("session.timeout.ms", session_ms.to_string())
                .set("heartbeat.interval.ms", (session_ms / 10).clamp(100, 3_000).to_string());
        }
        GroupProtocol::Consumer => {
            // Session time-out and assignment are the broker's there.
            config.set("group.protocol", "consumer").set("group.remote.assignor", "range");
        }
    }
    if let Some(id) = &options.instance_id {
        config.set("group.instance.id", id);
    }
    config
}

/// A reader that assigns itself. librdkafka delivers to nobody without a group name, but does
/// nothing with it either: it neither joins nor commits.
pub fn reader(base: &ClientConfig, settings: &Settings) -> ClientConfig {
    let mut config = fetching(base, settings);
    config.set("group.id", format!("{}-reader", settings.client_id));
    config
}

/// The same, told when a partition has nothing more to read.
pub fn probe(base: &ClientConfig, settings: &Settings) -> ClientConfig {
    let mut config = reader(base, settings);
    config.set("enable.partition.eof", "true").set("statistics.interval.ms", "0");
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SecurityProtocol;

    #[test]
    fn spooled_records_are_never_given_up() {
        let settings = Settings::default();
        let config = producer(&ClientConfig::new(), &settings, None);
        let expected = [
            ("message.timeout.ms", "0"),
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("message.max.bytes", "4194304"),
            ("linger.ms", "20"),
        ];
        for (name, value) in expected {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn linger_never_outlasts_a_deadline() {
        let settings = Settings { delivered_linger_ms: 500, ..Settings::default() };
        let deadline = Some(Duration::from_millis(100));
        let config = producer(&ClientConfig::new(), &settings, deadline);
        assert_eq!(config.get("message.timeout.ms"), Some("100"));
        assert_eq!(config.get("linger.ms"), Some("50"));
    }

    #[test]
    fn a_relay_gives_up_before_its_transaction_does() {
        let config = relay(&ClientConfig::new(), &Settings::default(), "id");
        let number = |name: &str| config.get(name).unwrap().parse::<u64>().unwrap();
        assert!(number("message.timeout.ms") < number("transaction.timeout.ms"));
    }

    #[test]
    fn an_expired_offset_stops_and_nothing_is_committed_by_itself() {
        let options =
            ConsumerOptions { group: "g".into(), topics: vec![], instance_id: Some("i".into()) };
        let config = consumer(&ClientConfig::new(), &Settings::default(), &options);
        let expected = [
            ("auto.offset.reset", "error"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("isolation.level", "read_committed"),
            ("partition.assignment.strategy", "range"),
            ("group.instance.id", "i"),
        ];
        for (name, value) in expected {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn a_secret_loses_its_line_break_and_a_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "pass word \n").unwrap();
        let mut settings = Settings {
            security_protocol: SecurityProtocol::SaslPlaintext,
            sasl_username: "u".into(),
            sasl_password_file: Some(file),
            ..Settings::default()
        };
        assert_eq!(base(&settings).unwrap().get("sasl.password"), Some("pass word "));

        settings.sasl_password_file = Some(dir.path().join("absent"));
        let message = base(&settings).unwrap_err().to_string();
        assert!(message.contains("sasl_password_file") && message.contains("absent"), "{message}");
    }

    #[test]
    fn every_compression_is_in_the_linked_library() {
        use rdkafka::producer::{BaseProducer, DefaultProducerContext};
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let settings = Settings { compression, ..Settings::default() };
            let config = producer(&base(&settings).unwrap(), &settings, None);
            let created = config.create::<BaseProducer<DefaultProducerContext>>();
            assert!(created.is_ok(), "{compression:?}: {:?}", created.err());
        }
    }
}
