//! An embedded log on a disk that fails, and what tests do with it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tollgate_spool::disk::{Disk, FaultyDisk};
use tollgate_stream::conformance::tools::Outcomes;
use tollgate_stream::embedded::{EmbeddedOptions, EmbeddedStream};
use tollgate_stream::{
    Deliveries, DeliveryError, EmbeddedSettings, Outgoing, Position, ProducerKind, ReadFrom,
    Stream, StreamError, Token, TopicSpec,
};

pub const SEGMENT: u64 = 64 * 1024;

pub fn options(disk: &FaultyDisk, max_bytes: u64) -> EmbeddedOptions {
    let settings =
        EmbeddedSettings { dir: PathBuf::from("/log"), max_bytes, segment_bytes: SEGMENT };
    EmbeddedOptions { settings, disk: Arc::new(disk.clone()) as Arc<dyn Disk> }
}

pub fn try_open(disk: &FaultyDisk) -> Result<Arc<EmbeddedStream>, StreamError> {
    EmbeddedStream::open(options(disk, 64 * 1024 * 1024))
}

pub fn open(disk: &FaultyDisk) -> Arc<EmbeddedStream> {
    try_open(disk).expect("it opens")
}

pub fn spec(name: &str, partitions: i32) -> TopicSpec {
    TopicSpec { name: name.to_owned(), partitions, replication: 1, config: Vec::new() }
}

pub async fn wait_for<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(value) = attempt().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain: {what}");
}

pub async fn publish(
    stream: &EmbeddedStream,
    records: &[Outgoing],
) -> Vec<Result<Position, DeliveryError>> {
    let outcomes = Arc::new(Outcomes::default());
    let producer = stream
        .producer(ProducerKind::Spooled, Arc::clone(&outcomes) as Arc<dyn Deliveries>)
        .unwrap();
    for (token, record) in records.iter().enumerate() {
        producer.send(record, token as Token).unwrap();
    }
    wait_for("reports", async || (outcomes.count() == records.len()).then_some(())).await;
    (0..records.len()).map(|token| outcomes.of(token as Token).remove(0)).collect()
}

/// Every text of the topic, by partition and in order, with its offset.
pub async fn contents(stream: &EmbeddedStream, topic: &str) -> BTreeMap<i32, Vec<(i64, String)>> {
    let mut reader = stream.reader(&[topic], ReadFrom::Earliest).await.unwrap();
    let mut found: BTreeMap<i32, Vec<(i64, String)>> = BTreeMap::new();
    while !reader.caught_up().await.unwrap() {
        for record in reader.next(64, Duration::from_millis(10)).await.unwrap() {
            let text = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            found.entry(record.partition.partition).or_default().push((record.offset, text));
        }
    }
    found
}
