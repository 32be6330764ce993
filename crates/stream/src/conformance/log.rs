//! An embedded log, for tests of those who consume.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tollgate_schema::topics::QUARANTINE;
use tollgate_schema::v1;

use crate::embedded::{EmbeddedOptions, EmbeddedStream};
use crate::{
    Deliveries, DeliveryError, EmbeddedSettings, Incoming, Outgoing, Position, ProducerKind,
    ReadFrom, Stream, Token, TopicSpec,
};

/// How long publishing may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A log in this directory, with all topics, of one partition each.
pub async fn open(dir: &Path) -> Arc<EmbeddedStream> {
    let settings = EmbeddedSettings { dir: dir.to_owned(), ..EmbeddedSettings::default() };
    let stream = EmbeddedStream::open(EmbeddedOptions::new(settings)).expect("a log");
    stream.create_topics(&TopicSpec::catalogue(Some(1))).await.expect("topics");
    stream
}

/// Expects that every record is delivered.
struct Delivered;

impl Deliveries for Delivered {
    fn delivered(&self, _: Token, outcome: Result<Position, DeliveryError>) {
        outcome.expect("delivered");
    }
}

/// Publishes records in order and waits until all are confirmed.
pub async fn publish(stream: &dyn Stream, records: impl IntoIterator<Item = Outgoing>) {
    let producer = stream.producer(ProducerKind::Spooled, Arc::new(Delivered)).expect("a producer");
    for (token, record) in (0..).zip(records) {
        producer.send(&record, token).expect("sent");
    }
    producer.flush(PATIENCE).await.expect("flushed");
}

/// Everything that is on a topic now.
pub async fn read(stream: &dyn Stream, topic: &str) -> Vec<Incoming> {
    let mut reader = stream.reader(&[topic], ReadFrom::Earliest).await.expect("a reader");
    let mut records = Vec::new();
    while !reader.caught_up().await.expect("an answer") {
        records.extend(reader.next(1000, Duration::from_millis(10)).await.expect("records"));
    }
    records
}

/// What of a topic is in quarantine, by the offset that each record had there. All of it is of this
/// topic, and nothing is there twice.
pub async fn quarantined(stream: &dyn Stream, topic: &str) -> BTreeMap<usize, v1::Quarantined> {
    let mut found = BTreeMap::new();
    for record in read(stream, QUARANTINE.name).await {
        let message = v1::Quarantined::decode(record.value.expect("a value")).expect("a message");
        let source = message.source.as_ref().expect("a place");
        assert_eq!(source.topic, topic);
        let offset = source.offset as usize;
        assert!(found.insert(offset, message).is_none(), "{offset} is there twice");
    }
    found
}
