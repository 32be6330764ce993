//! Records, topics and ears for the tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use tollgate_kafka::{KafkaStream, Settings};
use tollgate_stream::{
    Consumer, Deliveries, DeliveryError, Event, Incoming, Outgoing, Position, Producer,
    ProducerKind, ReadFrom, Stream, Token, TopicPartition, TopicSpec,
};
use tollgate_testkit::{Kafka, eventually_true};

/// Patience with a machine that does other things as well.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Settings for tests: quick statistics and short time-outs.
pub fn settings(brokers: &str) -> Settings {
    Settings {
        brokers: brokers.to_owned(),
        client_id: "tollgate-test".into(),
        request_timeout_ms: 10_000,
        transaction_timeout_ms: 40_000,
        session_timeout_ms: 6_000,
        close_timeout_ms: 5_000,
        statistics_interval_ms: 200,
        ..Settings::default()
    }
}

pub fn shared() -> Arc<KafkaStream> {
    connect(&settings(&Kafka::shared().bootstrap()))
}

pub fn connect(settings: &Settings) -> Arc<KafkaStream> {
    KafkaStream::connect(settings).expect("valid settings")
}

/// A name that no other test uses.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Makes a topic with catalogue-like settings and returns its name.
pub async fn topic(stream: &KafkaStream, name: &str, partitions: i32) -> Result<Arc<str>> {
    let name = unique(name);
    let spec = TopicSpec {
        name: name.clone(),
        partitions,
        replication: 1,
        config: vec![("max.message.bytes".into(), "4194304".into())],
    };
    stream.create_topics(&[spec]).await?;
    Ok(name.into())
}

pub fn record(topic: &str, key: &str, value: &str) -> Outgoing {
    Outgoing {
        topic: topic.to_owned().into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: vec![("ce_id".into(), Bytes::copy_from_slice(key.as_bytes()))],
    }
}

pub fn text(record: &Incoming) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

type Outcome = Result<Position, DeliveryError>;

/// Hears deliveries; a token that is told twice is a failure at once.
#[derive(Default)]
pub struct Ear {
    heard: Mutex<BTreeMap<Token, Outcome>>,
    twice: AtomicU32,
}

impl Deliveries for Ear {
    fn delivered(&self, token: Token, outcome: Outcome) {
        if self.heard.lock().unwrap().insert(token, outcome).is_some() {
            self.twice.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Ear {
    pub fn heard(&self) -> BTreeMap<Token, Outcome> {
        assert_eq!(self.twice.load(Ordering::Relaxed), 0, "a fate was told twice");
        self.heard.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.heard().len()
    }

    pub fn confirmed(&self) -> usize {
        self.heard().values().filter(|outcome| outcome.is_ok()).count()
    }

    pub async fn await_all(&self, count: usize) {
        eventually_true("all fates", PATIENCE, async || self.count() >= count).await;
    }
}

pub fn producer(stream: &KafkaStream) -> (Arc<dyn Producer>, Arc<Ear>) {
    let ear = Arc::new(Ear::default());
    let producer = stream.producer(ProducerKind::Spooled, ear.clone()).expect("valid settings");
    (producer, ear)
}

/// Publishes values under one key and waits for the confirmations.
pub async fn publish(stream: &KafkaStream, topic: &Arc<str>, values: &[&str]) -> Result<()> {
    let (producer, ear) = producer(stream);
    for (token, value) in (0..).zip(values) {
        producer.send(&record(topic, "key", value), token)?;
    }
    producer.flush(PATIENCE).await?;
    anyhow::ensure!(ear.confirmed() == values.len(), "{:?}", ear.heard());
    Ok(())
}

/// Reads everything that is committed in a topic, at least so many records: a commit is answered
/// before its records are shown.
pub async fn read_at_least(
    stream: &KafkaStream,
    topic: &str,
    count: usize,
) -> Result<Vec<Incoming>> {
    let mut records = Vec::new();
    eventually_true("what was committed is shown", PATIENCE, async || {
        records = read_all(stream, topic).await.unwrap_or_default();
        records.len() >= count
    })
    .await;
    Ok(records)
}

/// Reads everything that is shown in a topic now.
pub async fn read_all(stream: &KafkaStream, topic: &str) -> Result<Vec<Incoming>> {
    let mut reader = stream.reader(&[topic], ReadFrom::Earliest).await?;
    let mut records = Vec::new();
    let end = tokio::time::Instant::now() + PATIENCE;
    while !reader.caught_up().await? {
        records.extend(reader.next(10_000, Duration::from_millis(100)).await?);
        anyhow::ensure!(tokio::time::Instant::now() < end, "not caught up: {}", records.len());
    }
    Ok(records)
}

/// Polls until partitions are assigned.
pub async fn assigned(consumer: &mut dyn Consumer) -> Result<Vec<TopicPartition>> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        match consumer.next(100, Duration::from_millis(200)).await? {
            Event::Assigned(partitions) => return Ok(partitions),
            Event::Records(_) => bail!("records before an assignment"),
            Event::Revoked(_) | Event::Idle => {}
        }
        anyhow::ensure!(tokio::time::Instant::now() < end, "nothing was assigned");
    }
}

/// Polls until so many records came.
pub async fn take(consumer: &mut dyn Consumer, count: usize) -> Result<Vec<Incoming>> {
    let mut records = Vec::new();
    let end = tokio::time::Instant::now() + PATIENCE;
    while records.len() < count {
        match consumer.next(count - records.len(), Duration::from_millis(200)).await? {
            Event::Records(more) => records.extend(more),
            Event::Idle => {}
            other => bail!("unexpected {other:?}"),
        }
        anyhow::ensure!(tokio::time::Instant::now() < end, "only {} records", records.len());
    }
    Ok(records)
}

/// Text that does not compress well.
pub fn random_text(length: usize) -> String {
    let mut state = 1u64;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(33 + ((state >> 33) % 90) as u8)
        })
        .collect()
}
