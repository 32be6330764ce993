//! What the tests share.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::Harness;
use crate::{
    Consumer, ConsumerOptions, Deliveries, DeliveryError, EnqueueError, Event, Incoming, Outgoing,
    Position, ProducerKind, ReadFrom, Stream, Token, TopicPartition, TopicSpec,
};

/// A name that no other test uses, on this cluster or a later run of it.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:016x}", rand::random::<u64>())
}

/// Makes a topic of its own for a test and waits until it can be used.
pub async fn topic(harness: &dyn Harness, partitions: i32) -> String {
    topic_with(harness, partitions, &[]).await
}

/// The same with settings.
pub async fn topic_with(harness: &dyn Harness, partitions: i32, config: &[(&str, &str)]) -> String {
    let name = unique("conformance");
    let mut config: Vec<(String, String)> =
        config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    if !config.iter().any(|(name, _)| name == "max.message.bytes") {
        config.push(("max.message.bytes".to_owned(), "4194304".to_owned()));
    }
    create(harness, TopicSpec { name: name.clone(), partitions, replication: 1, config }).await;
    name
}

/// Makes a topic and waits until it can be used.
pub async fn create(harness: &dyn Harness, spec: TopicSpec) {
    let stream = harness.stream().await;
    let stream = &stream;
    let spec = &spec;
    eventually(harness, "the topic can be used", async || {
        stream.create_topics(std::slice::from_ref(spec)).await.ok()?;
        let described = stream.describe_topics(&[&spec.name]).await.ok()?;
        (described.first()?.partitions == spec.partitions).then_some(())
    })
    .await;
}

/// Tries until it gives something; panics when patience is over.
pub async fn eventually<T>(
    harness: &dyn Harness,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + harness.patience();
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A record with an id, as the conformance store expects it.
pub fn record(topic: &str, key: &str, id: &str, text: &str) -> Outgoing {
    Outgoing {
        topic: topic.to_owned().into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(Bytes::copy_from_slice(text.as_bytes())),
        headers: vec![("ce_id".into(), Bytes::copy_from_slice(id.as_bytes()))],
    }
}

/// A key that belongs to this partition.
pub fn key_of(partition: i32, partitions: i32) -> String {
    (0..u32::MAX)
        .map(|number| format!("key-{number}"))
        .find(|key| crate::partitioner::partition_of(key.as_bytes(), partitions) == partition)
        .expect("keys fall everywhere")
}

/// Hears of deliveries and remembers how often.
#[derive(Debug, Default)]
pub struct Outcomes {
    reports: Mutex<HashMap<Token, Vec<Result<Position, DeliveryError>>>>,
    tokens: AtomicU64,
}

impl Outcomes {
    /// A token that was not used yet.
    pub fn token(&self) -> Token {
        self.tokens.fetch_add(1, Ordering::Relaxed)
    }

    /// What was reported of a token.
    pub fn of(&self, token: Token) -> Vec<Result<Position, DeliveryError>> {
        self.reports.lock().unwrap().get(&token).cloned().unwrap_or_default()
    }

    /// How many tokens were reported at all.
    pub fn count(&self) -> usize {
        self.reports.lock().unwrap().len()
    }
}

impl Deliveries for Outcomes {
    fn delivered(&self, token: Token, outcome: Result<Position, DeliveryError>) {
        self.reports.lock().unwrap().entry(token).or_default().push(outcome);
    }
}

/// Publishes records in order and waits until all are confirmed; sends again what is not.
pub async fn publish(harness: &dyn Harness, records: &[Outgoing]) -> Vec<Position> {
    let stream = harness.stream().await;
    let outcomes = Arc::new(Outcomes::default());
    let producer = stream
        .producer(ProducerKind::Spooled, Arc::clone(&outcomes) as Arc<dyn Deliveries>)
        .expect("a producer");
    let mut tokens = Vec::new();
    for record in records {
        let token = outcomes.token();
        eventually(harness, "the producer takes the record", async || {
            match producer.send(record, token) {
                Ok(()) => Some(()),
                Err(EnqueueError::Permanent(reason)) => panic!("refused for good: {reason}"),
                Err(EnqueueError::QueueFull | EnqueueError::Unavailable(_)) => None,
            }
        })
        .await;
        tokens.push(token);
    }
    eventually(harness, "all are reported", async || {
        (outcomes.count() == tokens.len()).then_some(())
    })
    .await;
    producer.flush(harness.patience()).await.expect("nothing is left");
    tokens.into_iter().map(|token| outcomes.of(token).remove(0).expect("confirmed")).collect()
}

/// Reads a topic from its beginning until `count` records were seen, then looks whether more come.
pub async fn read_all(harness: &dyn Harness, topic: &str, count: usize) -> Vec<Incoming> {
    let stream = harness.stream().await;
    let mut reader = stream.reader(&[topic], ReadFrom::Earliest).await.expect("a reader");
    let mut records: Vec<Incoming> = Vec::new();
    let until = Instant::now() + harness.patience();
    while records.len() < count {
        assert!(Instant::now() < until, "{} of {count} records came", records.len());
        records.extend(reader.next(1000, Duration::from_millis(100)).await.expect("records"));
    }
    records.extend(reader.next(1000, harness.quiet()).await.expect("records"));
    records
}

/// The texts of records by partition, in order of offset.
pub fn texts(records: &[Incoming]) -> BTreeMap<i32, Vec<String>> {
    let mut sorted: Vec<&Incoming> = records.iter().collect();
    sorted.sort_by_key(|record| (record.partition.partition, record.offset));
    let mut texts: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for record in sorted {
        texts.entry(record.partition.partition).or_default().push(text_of(record));
    }
    texts
}

/// A record's value as text.
pub fn text_of(record: &Incoming) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

/// Joins a group of its own.
pub async fn join(stream: &dyn Stream, group: &str, topic: &str) -> Box<dyn Consumer> {
    let options = ConsumerOptions {
        group: group.to_owned(),
        topics: vec![topic.to_owned()],
        instance_id: None,
    };
    stream.consumer(options).await.expect("a consumer")
}

/// Polls until these many partitions are assigned.
pub async fn assigned(
    harness: &dyn Harness,
    consumer: &mut dyn Consumer,
    count: usize,
) -> Vec<TopicPartition> {
    let mut all = Vec::new();
    let until = Instant::now() + harness.patience();
    while all.len() < count {
        assert!(Instant::now() < until, "{} of {count} partitions were assigned", all.len());
        match poll(consumer).await {
            Some(Event::Assigned(partitions)) => all.extend(partitions),
            Some(Event::Revoked(partitions)) => {
                all.retain(|partition| !partitions.contains(partition));
            }
            _ => {}
        }
    }
    all.sort();
    all
}

/// One poll; `None` for trouble that passes.
pub async fn poll(consumer: &mut dyn Consumer) -> Option<Event> {
    match consumer.next(100, Duration::from_millis(100)).await {
        Ok(event) => Some(event),
        Err(error) => {
            assert!(error.is_retriable(), "{error}");
            None
        }
    }
}

/// Polls until these many records came.
pub async fn records(
    harness: &dyn Harness,
    consumer: &mut dyn Consumer,
    count: usize,
) -> Vec<Incoming> {
    let mut all = Vec::new();
    let until = Instant::now() + harness.patience();
    while all.len() < count {
        assert!(Instant::now() < until, "{} of {count} records came", all.len());
        if let Some(Event::Records(records)) = poll(consumer).await {
            all.extend(records);
        }
    }
    all
}

/// Polls for the quiet time; nothing may come from there.
pub async fn nothing_from(
    harness: &dyn Harness,
    consumer: &mut dyn Consumer,
    silent: impl Fn(&Incoming) -> bool,
) {
    let until = Instant::now() + harness.quiet();
    while Instant::now() < until {
        if let Some(Event::Records(records)) = poll(consumer).await {
            let wrong: Vec<_> =
                records.iter().filter(|record| silent(record)).map(text_of).collect();
            assert_none(&wrong);
        }
    }
}

fn assert_none(wrong: &[impl Debug]) {
    assert!(wrong.is_empty(), "should not have come: {wrong:?}");
}

/// Starts delivery; tries again while the cluster is not ready.
pub async fn start(
    harness: &dyn Harness,
    consumer: &mut dyn Consumer,
    partition: &TopicPartition,
    offset: i64,
) {
    let until = Instant::now() + harness.patience();
    while let Err(error) = consumer.start(partition, offset).await {
        assert!(error.is_retriable() && Instant::now() < until, "{error}");
        sleep(Duration::from_millis(50)).await;
    }
}
