//! What only the embedded log promises: crashes and bounds.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{SEGMENT, contents, open, options, publish, spec, try_open, wait_for};
use proptest::prelude::*;
use tollgate_spool::disk::{FaultPlan, FaultyDisk, Injected, Loss, Operation};
use tollgate_stream::conformance::tools::{Outcomes, record};
use tollgate_stream::embedded::EmbeddedStream;
use tollgate_stream::{
    ConsumerOptions, Deliveries, DeliveryError, EnqueueError, Event, Outgoing, Position, Producer,
    ProducerKind, ReadFrom, Stream, StreamError, Token, TopicPartition,
};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What the application was told, for comparison after a crash.
#[derive(Debug, Default)]
struct Told(Mutex<BTreeMap<Token, Result<Position, DeliveryError>>>);

impl Deliveries for Told {
    fn delivered(&self, token: Token, outcome: Result<Position, DeliveryError>) {
        assert!(self.0.lock().unwrap().insert(token, outcome).is_none(), "told twice");
    }
}

/// One process's life: publishes and relays until the disk dies. Returns what was sent, what was
/// confirmed, and which transactions committed.
struct Life {
    confirmed: Vec<(String, Position)>,
    sent: Vec<String>,
    /// Name, records, and whether the commit returned well.
    transactions: Vec<(String, usize, bool)>,
}

async fn live(disk: &FaultyDisk, name: &str, dies_after: u64, steps: &[(u8, u8)]) -> Life {
    let mut life = Life { confirmed: Vec::new(), sent: Vec::new(), transactions: Vec::new() };
    disk.die_after(dies_after);
    let Ok(stream) = try_open(disk) else { return life };
    if stream.create_topics(&[spec("t", 3)]).await.is_err() {
        return life;
    }
    let told = Arc::new(Told::default());
    let producer =
        stream.producer(ProducerKind::Spooled, Arc::clone(&told) as Arc<dyn Deliveries>).unwrap();
    let mut relay = stream.relay("relay").await.unwrap();
    for (step, (kind, size)) in steps.iter().enumerate() {
        let count = usize::from(*size % 7) + 1;
        if kind % 3 == 0 {
            let rows: Vec<Outgoing> = (0..count)
                .map(|row| record("t", &format!("k{row}"), "id", &format!("{name}-tx{step}-{row}")))
                .collect();
            let committed = relay.send(rows).await.is_ok() && relay.commit().await.is_ok();
            life.transactions.push((format!("{name}-tx{step}-"), count, committed));
        } else {
            for row in 0..count {
                let text = format!("{name}-{step}-{row}");
                // Padding, so that segments roll.
                let padded = format!("{text}/{}", "x".repeat(usize::from(*size) * 40));
                let token = life.sent.len() as Token;
                if producer.send(&record("t", &format!("k{row}"), "id", &padded), token).is_ok() {
                    life.sent.push(padded);
                }
            }
            if kind % 3 == 1 {
                let _ = producer.flush(Duration::from_secs(10)).await;
            }
        }
    }
    let _ = producer.flush(Duration::from_secs(10)).await;
    drop((producer, relay));
    drop(stream);
    for (token, outcome) in &*told.0.lock().unwrap() {
        if let Ok(position) = outcome {
            life.confirmed.push((life.sent[*token as usize].clone(), *position));
        }
    }
    life
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 50, ..ProptestConfig::default() })]

    /// Whenever the power goes, and whatever of what was not synced survives: what was confirmed
    /// is there, where it was said to be and in order; transactions are whole or absent; nothing
    /// is damaged; and the same again after another life and another crash.
    #[test]
    fn a_crash_at_any_point_loses_nothing_that_was_confirmed(
        seed in any::<u64>(),
        lives in prop::collection::vec(
            (0u64..120, prop::collection::vec((any::<u8>(), any::<u8>()), 1..14), 0u8..4),
            1..4,
        ),
    ) {
        runtime().block_on(async {
            let disk = FaultyDisk::new(seed);
            let mut confirmed: Vec<(String, Position)> = Vec::new();
            let mut sent: Vec<String> = Vec::new();
            let mut transactions: Vec<(String, usize, bool)> = Vec::new();
            for (number, (dies_after, steps, how)) in lives.iter().enumerate() {
                let life = live(&disk, &format!("life{number}"), *dies_after, steps).await;
                confirmed.extend(life.confirmed);
                sent.extend(life.sent);
                transactions.extend(life.transactions);
                match how {
                    0 => disk.power_cut(Loss::Everything),
                    1 => disk.kill(),
                    2 => disk.power_cut(Loss::Nothing),
                    _ => disk.power_cut(Loss::Random),
                }
            }
            let stream = open(&disk);
            assert_eq!(stream.damage(), []);
            if stream.describe_topics(&["t"]).await.unwrap().is_empty() {
                assert!(confirmed.is_empty());
                assert!(transactions.iter().all(|(_, _, committed)| !committed));
                return;
            }
            let found = contents(&stream, "t").await;
            for records in found.values() {
                // No offset is missing, none comes twice, none out of order.
                let offsets: Vec<i64> = records.iter().map(|(offset, _)| *offset).collect();
                let first = offsets.first().copied().unwrap_or(0);
                assert_eq!(first, 0);
                assert_eq!(offsets, (0..offsets.len() as i64).collect::<Vec<_>>());
            }
            for (text, position) in &confirmed {
                let there = &found[&position.partition][position.offset as usize].1;
                assert_eq!(there, text, "what was confirmed is where it was said to be");
            }
            let all: Vec<&String> = found.values().flatten().map(|(_, text)| text).collect();
            for (name, count, committed) in &transactions {
                let seen = all.iter().filter(|text| text.starts_with(name.as_str())).count();
                assert!(seen == *count || (seen == 0 && !committed), "{name}: {seen} of {count}");
            }
            for text in &all {
                assert!(text.contains("-tx") || sent.contains(text), "nobody sent {text}");
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_or_sync_is_reported_and_the_next_segment_goes_on() {
    for operation in [Operation::Write, Operation::Sync] {
        let disk = FaultyDisk::new(3);
        let stream = open(&disk);
        stream.create_topics(&[spec("t", 1)]).await.unwrap();
        assert!(publish(&stream, &[record("t", "k", "id", "before")]).await[0].is_ok());
        disk.arm(FaultPlan::all(operation, Injected::Eio));
        let report = publish(&stream, &[record("t", "k", "id", "failed")]).await.remove(0);
        assert!(matches!(report, Err(DeliveryError::Retry(_))), "{report:?}");
        disk.heal();
        let again = publish(&stream, &[record("t", "k", "id", "again")]).await.remove(0);
        assert_eq!(again, Ok(Position { partition: 0, offset: 1 }));
        let texts = |found: BTreeMap<i32, Vec<(i64, String)>>| -> Vec<String> {
            found.into_values().flatten().map(|(_, text)| text).collect()
        };
        assert_eq!(texts(contents(&stream, "t").await), ["before", "again"]);
        drop(stream);
        disk.power_cut(Loss::Random);
        let stream = open(&disk);
        assert_eq!(stream.damage(), []);
        assert_eq!(texts(contents(&stream, "t").await), ["before", "again"], "{operation:?}");
    }
}

/// Its reserve would be counted nowhere, and the next one is tried a moment later.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_fails_while_it_is_made_does_not_stay() {
    for operation in [Operation::Write, Operation::Sync, Operation::SyncDir] {
        let disk = FaultyDisk::new(13);
        let stream = open(&disk);
        stream.create_topics(&[spec("t", 1)]).await.unwrap();
        let large = "x".repeat(SEGMENT as usize);
        disk.arm(FaultPlan::all(operation, Injected::Eio));
        for _ in 0..5 {
            let report = publish(&stream, &[record("t", "k", "id", &large)]).await.remove(0);
            assert!(matches!(report, Err(DeliveryError::Retry(_))), "{operation:?}: {report:?}");
        }
        assert_eq!(bytes_on_disk(&disk), stream.bytes(), "{operation:?}: {:?}", disk.paths());
        disk.heal();
        assert!(publish(&stream, &[record("t", "k", "id", &large)]).await[0].is_ok());
    }
}

fn bytes_on_disk(disk: &FaultyDisk) -> u64 {
    let files = disk.paths();
    files.iter().map(|path| disk.contents(path).unwrap_or_default().len() as u64).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_given_up_gives_its_reserve_back() {
    for operation in [Operation::Write, Operation::Sync] {
        let disk = FaultyDisk::new(14);
        let stream = open(&disk);
        stream.create_topics(&[spec("t", 1)]).await.unwrap();
        for round in 0..8 {
            disk.arm(FaultPlan::all(operation, Injected::Eio));
            let report = publish(&stream, &[record("t", "k", "id", "failed")]).await.remove(0);
            assert!(matches!(report, Err(DeliveryError::Retry(_))), "{operation:?}: {report:?}");
            disk.heal();
            let again = publish(&stream, &[record("t", "k", "id", "again")]).await.remove(0);
            assert_eq!(again, Ok(Position { partition: 0, offset: round }));
        }
        assert!(stream.bytes() < 2 * SEGMENT, "{operation:?}: {} bytes", stream.bytes());
        assert_eq!(bytes_on_disk(&disk), stream.bytes(), "{operation:?}");
        drop(stream);
        let stream = open(&disk);
        assert_eq!(stream.damage(), [], "{operation:?}");
        assert_eq!(contents(&stream, "t").await[&0].len(), 8, "{operation:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_sync_fails_is_to_be_repeated() {
    let disk = FaultyDisk::new(4);
    let stream = open(&disk);
    stream.create_topics(&[spec("t", 1)]).await.unwrap();
    let mut relay = stream.relay("r").await.unwrap();
    disk.arm(FaultPlan::all(Operation::Sync, Injected::Eio));
    relay.send(vec![record("t", "k", "id", "row")]).await.unwrap();
    relay.commit().await.unwrap_err();
    disk.heal();
    relay.send(vec![record("t", "k", "id", "row")]).await.unwrap();
    relay.commit().await.unwrap();
    assert_eq!(contents(&stream, "t").await[&0].len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_reports_wait_for_the_sync() {
    let disk = FaultyDisk::new(5);
    let stream = open(&disk);
    stream.create_topics(&[spec("t", 1)]).await.unwrap();
    let outcomes = Arc::new(Outcomes::default());
    let producer = stream
        .producer(ProducerKind::Spooled, Arc::clone(&outcomes) as Arc<dyn Deliveries>)
        .unwrap();
    disk.hold_syncs();
    producer.send(&record("t", "k", "id", "x"), 0).unwrap();
    wait_for("the sync", async || (disk.syncs_waiting() > 0).then_some(())).await;
    let mut reader = stream.reader(&["t"], ReadFrom::Earliest).await.unwrap();
    assert!(reader.next(10, Duration::from_millis(50)).await.unwrap().is_empty());
    assert_eq!(outcomes.count(), 0);
    disk.release_syncs();
    wait_for("the report", async || (outcomes.count() == 1).then_some(())).await;
    assert_eq!(reader.next(10, Duration::from_secs(10)).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_owner() {
    let disk = FaultyDisk::new(8);
    let first = open(&disk);
    let error = try_open(&disk).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(first);
    open(&disk);
}

async fn member(stream: &EmbeddedStream, group: &str) -> Box<dyn tollgate_stream::Consumer> {
    let options = ConsumerOptions {
        group: group.to_owned(),
        topics: vec!["t".to_owned()],
        instance_id: None,
    };
    stream.consumer(options).await.unwrap()
}

/// Sends until the log says that it is full; how many were confirmed.
async fn fill_up(
    stream: &EmbeddedStream,
    producer: &Arc<dyn Producer>,
    outcomes: &Outcomes,
) -> usize {
    let large =
        Outgoing { value: Some(Bytes::from(vec![7; 16 * 1024])), ..record("t", "k", "id", "") };
    // It says so after it has confirmed what went before.
    let is_full = || stream.trouble().is_some_and(|trouble| trouble.contains("full"));
    for _ in 0..1_000 {
        for _ in 0..8 {
            match producer.send(&large, outcomes.token()) {
                Ok(()) => {}
                Err(EnqueueError::QueueFull) => break,
                Err(error) => panic!("{error}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        if is_full() {
            return outcomes.count();
        }
    }
    panic!("the log never becomes full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_waits_for_the_slowest_consumer_and_goes_on_when_it_has_reported() {
    let disk = FaultyDisk::new(9);
    let bound = 8 * SEGMENT;
    let stream = EmbeddedStream::open(options(&disk, bound)).unwrap();
    stream.create_topics(&[spec("t", 1)]).await.unwrap();
    let mut slow = member(&stream, "slow").await;
    let mut fast = member(&stream, "fast").await;
    let outcomes = Arc::new(Outcomes::default());
    let producer = stream
        .producer(ProducerKind::Spooled, Arc::clone(&outcomes) as Arc<dyn Deliveries>)
        .unwrap();
    let confirmed = fill_up(&stream, &producer, &outcomes).await;
    assert!(confirmed > 0);
    assert!(stream.bytes() <= bound, "{} bytes", stream.bytes());
    let trouble = stream.trouble().expect("it says why");
    assert!(trouble.contains("full"), "{trouble}");
    let partition = TopicPartition::new("t", 0);
    fast.report_progress(&[(partition.clone(), confirmed as i64)]).await;
    wait_for("the slow one to be named", async || {
        stream.trouble().filter(|trouble| trouble.contains("group slow"))
    })
    .await;
    assert_eq!(outcomes.count(), confirmed, "the slow one still needs them");
    // Everything is still there for it.
    assert_eq!(stream.watermarks(&partition).await.unwrap().0, 0);
    slow.report_progress(&[(partition.clone(), confirmed as i64)]).await;
    wait_for("publishing goes on", async || (outcomes.count() > confirmed).then_some(())).await;
    let (low, _) = stream.watermarks(&partition).await.unwrap();
    assert!(low > 0 && low <= confirmed as i64);
    assert!(stream.bytes() <= bound);
    // An offset that is gone is reported.
    let mut event = Event::Idle;
    while !matches!(event, Event::Assigned(_)) {
        event = slow.next(10, Duration::from_millis(50)).await.unwrap();
    }
    slow.start(&partition, 0).await.unwrap();
    let error = slow.next(10, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, StreamError::OffsetOutOfRange { offset: 0, .. }), "{error}");
    // A log that is full can be closed; what waits is told so.
    let in_flight = producer.in_flight();
    drop((slow, fast));
    drop(stream);
    assert_eq!(producer.in_flight(), 0, "of {in_flight}");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_remembers_over_a_restart_who_still_needs_what() {
    let disk = FaultyDisk::new(10);
    let bound = 8 * SEGMENT;
    let partition = TopicPartition::new("t", 0);
    {
        let stream = EmbeddedStream::open(options(&disk, bound)).unwrap();
        stream.create_topics(&[spec("t", 1)]).await.unwrap();
        let mut consumer = member(&stream, "billing").await;
        assert_eq!(publish(&stream, &[record("t", "k", "id", "x")]).await.len(), 1);
        assert_eq!(publish(&stream, &[record("t", "k", "id", "y")]).await.len(), 1);
        consumer.report_progress(&[(partition.clone(), 1)]).await;
    }
    disk.kill();
    // The consumer is not started, and still nothing that it needs goes.
    let stream = EmbeddedStream::open(options(&disk, bound)).unwrap();
    assert_eq!(stream.groups(), ["billing"]);
    let outcomes = Arc::new(Outcomes::default());
    let producer = stream
        .producer(ProducerKind::Spooled, Arc::clone(&outcomes) as Arc<dyn Deliveries>)
        .unwrap();
    let confirmed = fill_up(&stream, &producer, &outcomes).await;
    let consumer = member(&stream, "billing").await;
    assert_eq!(stream.watermarks(&partition).await.unwrap().0, 0);
    drop(consumer);
    assert_eq!(stream.keep_groups(&[]).await.unwrap(), ["billing"]);
    wait_for("publishing goes on", async || (outcomes.count() > confirmed).then_some(())).await;
}

/// A start has no room of its own.
#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_a_full_log_take_no_room() {
    let disk = FaultyDisk::new(15);
    let bound = 8 * SEGMENT;
    let partition = TopicPartition::new("t", 0);
    let mut stream = EmbeddedStream::open(options(&disk, bound)).unwrap();
    stream.create_topics(&[spec("t", 1)]).await.unwrap();
    drop(member(&stream, "slow").await);
    let outcomes = Arc::new(Outcomes::default());
    let fill = async |stream: &EmbeddedStream| {
        let deliveries = Arc::clone(&outcomes) as Arc<dyn Deliveries>;
        let producer = stream.producer(ProducerKind::Spooled, deliveries).unwrap();
        fill_up(stream, &producer, &outcomes).await;
        contents(stream, "t").await[&0].len()
    };
    let mut confirmed = fill(&stream).await;
    for _ in 0..10 {
        drop(stream);
        disk.kill();
        stream = EmbeddedStream::open(options(&disk, bound)).unwrap();
        confirmed = fill(&stream).await;
    }
    assert!(stream.bytes() <= bound + SEGMENT, "{} bytes", stream.bytes());
    member(&stream, "slow").await.report_progress(&[(partition, confirmed as i64)]).await;
    assert!(publish(&stream, &[record("t", "k", "id", "more")]).await[0].is_ok());
}

/// I11: it is counted, and holds back what comes behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_can_not_be_removed_stays_in_the_log() {
    let disk = FaultyDisk::new(16);
    let bound = 8 * SEGMENT;
    let stream = EmbeddedStream::open(options(&disk, bound)).unwrap();
    stream.create_topics(&[spec("t", 1)]).await.unwrap();
    let outcomes = Arc::new(Outcomes::default());
    let producer = stream
        .producer(ProducerKind::Spooled, Arc::clone(&outcomes) as Arc<dyn Deliveries>)
        .unwrap();
    let oldest = disk.paths().into_iter().find(|path| path.extension().is_some()).unwrap();
    let large = Outgoing { value: Some(vec![7; 50_000].into()), ..record("t", "k", "id", "") };
    let publish_one = async || {
        let token = outcomes.token();
        producer.send(&large, token).unwrap();
        let report = wait_for("a report", async || outcomes.of(token).pop()).await;
        report.unwrap()
    };
    while stream.bytes() + SEGMENT <= bound - SEGMENT {
        publish_one().await;
    }
    disk.arm(FaultPlan::all(Operation::Remove, Injected::Eio));
    let before = outcomes.count();
    for _ in 0..4 {
        producer.send(&large, outcomes.token()).unwrap();
    }
    wait_for("it says why", async || {
        stream.trouble().filter(|why| why.contains("can not be removed"))
    })
    .await;
    assert!(disk.contents(&oldest).is_some());
    assert!(bytes_on_disk(&disk) <= bound);
    assert_eq!(bytes_on_disk(&disk), stream.bytes());
    disk.heal();
    wait_for("publishing goes on", async || (outcomes.count() == before + 4).then_some(())).await;
    drop(producer);
    drop(stream);
    let stream = EmbeddedStream::open(options(&disk, bound)).unwrap();
    assert_eq!(stream.damage(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_group_is_forgotten_once_the_new_one_holds_back_what_it_needs() {
    let disk = FaultyDisk::new(12);
    let stream = EmbeddedStream::open(options(&disk, 8 * SEGMENT)).unwrap();
    stream.create_topics(&[spec("t", 1)]).await.unwrap();
    drop(member(&stream, "old").await);
    let outcomes = Arc::new(Outcomes::default());
    let producer = stream
        .producer(ProducerKind::Spooled, Arc::clone(&outcomes) as Arc<dyn Deliveries>)
        .unwrap();
    let confirmed = fill_up(&stream, &producer, &outcomes).await;
    let mut keeping = std::pin::pin!(stream.keep_groups(&["new"]));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut keeping).await;
    assert!(early.is_err(), "the new group is not there, and nothing holds back what it needs");
    let mut new = member(&stream, "new").await;
    assert_eq!(keeping.await.unwrap(), ["old"]);
    assert_eq!(stream.groups(), ["new"]);
    let partition = TopicPartition::new("t", 0);
    assert_eq!(stream.watermarks(&partition).await.unwrap().0, 0);
    new.report_progress(&[(partition, confirmed as i64)]).await;
    wait_for("publishing goes on", async || (outcomes.count() > confirmed).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_does_not_wait_for_ever_on_a_full_log() {
    let disk = FaultyDisk::new(11);
    let stream = EmbeddedStream::open(options(&disk, 4 * SEGMENT)).unwrap();
    stream.create_topics(&[spec("t", 1)]).await.unwrap();
    let _consumer = member(&stream, "slow").await;
    let row =
        Outgoing { value: Some(Bytes::from(vec![7; 20 * 1024])), ..record("t", "k", "id", "") };
    let mut relay = stream.relay("r").await.unwrap();
    let result = loop {
        relay.send(vec![row.clone()]).await.unwrap();
        match relay.commit().await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert!(result.to_string().contains("full"), "{result}");
    // And whoever takes the id over is not held up.
    stream.relay("r").await.unwrap();
}
