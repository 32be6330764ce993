//! `tollgate tail <topic>`: protobuf to JSON, one record a line.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tollgate_kafka::KafkaStream;
use tollgate_runtime::shutdown;
use tollgate_schema::{json, time, topics::Topic};
use tollgate_stream::{Incoming, ReadFrom, Stream};

use super::Refused;
use crate::cli::{Cli, Tail};
use crate::config::{Config, Part};
use crate::say::say;
use crate::{compose, dev_api, mask};

pub async fn run(cli: &Cli, arguments: &Tail) -> anyhow::Result<ExitCode> {
    let topic = topic(&arguments.topic)?;
    let config = Config::read(cli, serde_json::json!({}))?;
    if let Some(url) = &arguments.dev {
        return tail_dev(url, topic, arguments).await;
    }
    config.validate(&[Part::Kafka])?;
    let stream = KafkaStream::connect(&config.kafka)?;
    let from = if arguments.from_beginning { ReadFrom::Earliest } else { ReadFrom::Latest };
    let mut reader = compose::patiently(async || stream.reader(&[topic.name], from).await)
        .await
        .with_context(|| {
            let cluster = compose::cluster(&config);
            format!("{cluster}; to see the topics of a `tollgate dev`, add --dev http://HOST:PORT")
        })?;
    let stop = shutdown::on_signal()?;
    while !stop.is_cancelled() {
        for record in reader.next(500, Duration::from_millis(200)).await? {
            print(&record_json(topic, &record), arguments.reveal);
        }
        if arguments.until_end && reader.caught_up().await? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn tail_dev(url: &str, topic: &'static Topic, arguments: &Tail) -> anyhow::Result<ExitCode> {
    let stop = shutdown::on_signal()?;
    let mut pages = dev_api::Pages::new(url, topic, arguments.from_beginning)?;
    while !stop.is_cancelled() {
        let records = pages.next().await?;
        if records.is_empty() {
            if arguments.until_end {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        for record in records {
            print(&record_json(topic, &record), arguments.reveal);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn topic(name: &str) -> Result<&'static Topic, Refused> {
    Topic::named(name).ok_or_else(|| {
        let names: Vec<&str> =
            tollgate_schema::topics::ALL.iter().map(|topic| topic.name).collect();
        Refused(format!("no topic {name} in the catalogue; there are {}", names.join(", ")))
    })
}

/// A record as JSON: where it stands, its headers' id, its key, and its message in protobuf's
/// JSON mapping.
pub fn record_json(topic: &Topic, record: &Incoming) -> Value {
    let event = match &record.value {
        None => Value::Null,
        Some(value) => json::to_json(topic.message, value)
            .unwrap_or_else(|error| json!({"undecodable": error.to_string()})),
    };
    json!({
        "topic": topic.name,
        "partition": record.partition.partition,
        "offset": record.offset,
        "timestamp": time::rfc3339(record.timestamp_ms),
        "ce_id": record.header("ce_id"),
        "key": String::from_utf8_lossy(&record.key),
        "event": event,
    })
}

fn print(record: &Value, reveal: bool) {
    let mut record = record.clone();
    if !reveal {
        mask::hide(&mut record);
    }
    say!("{record}");
}
