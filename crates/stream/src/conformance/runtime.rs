//! The consumer runtime over a stream and the store in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tollgate_schema::topics::QUARANTINE;
use tollgate_schema::v1::{QuarantineReason, Quarantined};

use super::Harness;
use super::gated::Gated;
use super::store::{Applied, Call, Fault, MemoryStore, TextDecode};
use super::tools::{create, eventually, key_of, publish, read_all, record, text_of, topic, unique};
use crate::consumer::{
    ConsumerError, ConsumerHandle, ConsumerService, ConsumerServiceOptions, PartitionState,
    StopReason,
};
use crate::settings::ConsumerSettings;
use crate::{ConsumerOptions, Mark, Outgoing, ReadFrom, Source, Stream, TopicPartition, TopicSpec};

/// A consumer that runs in the background.
pub struct Running {
    /// What it is doing.
    pub handle: ConsumerHandle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ConsumerError>>,
}

impl Running {
    /// Starts one.
    pub fn start(
        stream: Arc<dyn Stream>,
        store: &Arc<MemoryStore>,
        group: &str,
        topic: &str,
        settings: ConsumerSettings,
    ) -> Self {
        let consumer = ConsumerOptions {
            group: group.to_owned(),
            topics: vec![topic.to_owned()],
            instance_id: None,
        };
        let options = ConsumerServiceOptions { consumer, settings };
        let service =
            ConsumerService::new(stream, Arc::clone(store), Arc::new(TextDecode), options);
        let (handle, stop) = (service.handle(), CancellationToken::new());
        let task = tokio::spawn(service.run(stop.clone()));
        Self { handle, stop, task }
    }

    /// Tells it to stop and waits for the end.
    pub async fn stop(self) -> Result<(), ConsumerError> {
        self.stop.cancel();
        self.task.await.expect("no panic")
    }

    /// Waits until it ends by itself.
    pub async fn end(self, harness: &dyn Harness) -> Result<(), ConsumerError> {
        let patience = harness.patience();
        tokio::time::timeout(patience, self.task).await.expect("it ends").expect("no panic")
    }

    /// Kills it: nothing is finished.
    pub fn kill(self) {
        self.task.abort();
        self.stop.cancel();
    }
}

/// Settings that make tests quick.
pub fn quick() -> ConsumerSettings {
    ConsumerSettings {
        batch_records: 10,
        batch_wait_ms: 1,
        retry_first_ms: 5,
        retry_max_ms: 50,
        tick_interval_ms: 50,
        relay_interval_ms: 20,
        ..ConsumerSettings::default()
    }
}

/// `count` records with ids `{name}-{n}` spread over all partitions.
pub fn spread(topic: &str, name: &str, count: usize) -> Vec<Outgoing> {
    (0..count)
        .map(|number| {
            let id = format!("{name}-{number}");
            record(topic, &format!("key-{}", number % 23), &id, &id)
        })
        .collect()
}

/// Waits until the store has applied `count` records; each only once.
pub async fn applied(harness: &dyn Harness, store: &MemoryStore, count: usize) -> Vec<Applied> {
    let what = format!("{count} records are applied");
    let applied = eventually(harness, &what, async || {
        let applied = store.applied();
        (applied.len() >= count).then_some(applied)
    })
    .await;
    let mut places: Vec<_> = applied.iter().map(|it| (it.partition.clone(), it.offset)).collect();
    let before = places.len();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), before, "some record was applied twice");
    assert_eq!(before, count, "more was applied than there is");
    applied
}

fn ids_by_partition(applied: &[Applied]) -> BTreeMap<i32, Vec<String>> {
    let mut ids: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for one in applied {
        if let Some(item) = &one.item {
            ids.entry(one.partition.partition).or_default().push(item.id.clone());
        }
    }
    ids
}

async fn source(stream: &dyn Stream, group: &str, topic: &str, partition: i32) -> Source {
    Source {
        group: group.to_owned(),
        cluster_id: stream.cluster_id().await.expect("an identity"),
        partition: TopicPartition::new(topic, partition),
    }
}

/// The claims on a topic's partition, as the runtime names them.
pub async fn source_of(harness: &dyn Harness, group: &str, topic: &str, partition: i32) -> Source {
    source(&*harness.stream().await, group, topic, partition).await
}

/// The ordinary case.
pub async fn every_record_is_applied_once_and_relayed_in_order(harness: &dyn Harness) {
    let (from, to) = (topic(harness, 3).await, topic(harness, 1).await);
    let store = MemoryStore::new(Some(to.clone()));
    publish(harness, &spread(&from, "early", 100)).await;
    let running = Running::start(harness.stream().await, &store, &unique("group"), &from, quick());
    applied(harness, &store, 100).await;
    publish(harness, &spread(&from, "late", 100)).await;
    let all = applied(harness, &store, 200).await;
    let relayed = read_all(harness, &to, 200).await;
    assert_eq!(relayed.len(), 200, "nothing is repeated without need");
    // One partition there: the rows of each partition here appear in the order of application.
    for (_, ids) in ids_by_partition(&all) {
        let order: Vec<String> =
            relayed.iter().map(text_of).filter(|id| ids.contains(id)).collect();
        assert_eq!(order, ids);
    }
    eventually(harness, "the outbox is empty", async || (store.outbox_len() == 0).then_some(()))
        .await;
    eventually(harness, "ticks are made", async || (store.ticks() > 3).then_some(())).await;
    let counted = async || (running.handle.status().applied == 200).then_some(());
    eventually(harness, "all are counted", counted).await;
    let status = running.handle.status();
    assert_eq!(status.partitions.len(), 3);
    assert!(status.partitions.iter().all(|it| it.state == PartitionState::Running));
    eventually(harness, "the lag is zero", async || {
        let status = running.handle.status();
        (status.lag == 0 && status.partitions.iter().all(|it| it.lag.is_some())).then_some(())
    })
    .await;
    running.stop().await.expect("a clean end");
}

/// Offsets live in the store.
pub async fn a_restart_continues_behind_the_mark(harness: &dyn Harness) {
    let from = topic(harness, 2).await;
    let group = unique("group");
    let store = MemoryStore::new(None);
    publish(harness, &spread(&from, "first", 40)).await;
    let running = Running::start(harness.stream().await, &store, &group, &from, quick());
    applied(harness, &store, 40).await;
    running.stop().await.expect("a clean end");
    publish(harness, &spread(&from, "second", 40)).await;
    harness.restart().await;
    let running = Running::start(harness.stream().await, &store, &group, &from, quick());
    applied(harness, &store, 80).await;
    running.kill();
    publish(harness, &spread(&from, "third", 40)).await;
    let running = Running::start(harness.stream().await, &store, &group, &from, quick());
    applied(harness, &store, 120).await;
    running.stop().await.expect("a clean end");
}

/// The database comes and goes.
pub async fn outages_and_lost_answers_change_nothing(harness: &dyn Harness) {
    use Fault::{AnswerLost, Down};
    let (from, to) = (topic(harness, 2).await, topic(harness, 1).await);
    let store = MemoryStore::new(Some(to.clone()));
    store.fail(Call::Fence, &[Down, AnswerLost, Down]);
    store.fail(Call::Apply, &[Down, Down, AnswerLost, Down]);
    store.fail(Call::Pending, &[Down]);
    publish(harness, &spread(&from, "id", 100)).await;
    let running = Running::start(harness.stream().await, &store, &unique("group"), &from, quick());
    let all = applied(harness, &store, 100).await;
    let relayed = read_all(harness, &to, 100).await;
    assert_eq!(relayed.len(), 100);
    for (_, ids) in ids_by_partition(&all) {
        let order: Vec<String> =
            relayed.iter().map(text_of).filter(|id| ids.contains(id)).collect();
        assert_eq!(order, ids);
    }
    running.stop().await.expect("a clean end");
}

/// What the quarantine holds of this group.
pub(super) async fn quarantined(
    harness: &dyn Harness,
    group: &str,
    count: usize,
) -> Vec<Quarantined> {
    use prost::Message as _;
    let stream = harness.stream().await;
    let mut reader = stream.reader(&[QUARANTINE.name], ReadFrom::Earliest).await.expect("a reader");
    let mut found = Vec::new();
    eventually(harness, "the quarantine holds them", async || {
        for record in reader.next(100, harness.quiet()).await.expect("records") {
            let value = record.value.clone().unwrap_or_default();
            let message = Quarantined::decode(value).expect("a message of the schema");
            assert_eq!(record.header("ce_id"), Some(message.quarantine_id.as_str()));
            if message.found_by == group {
                found.push(message);
            }
        }
        (found.len() >= count).then_some(())
    })
    .await;
    found
}

/// Bad records are found one by one.
pub async fn poison_is_quarantined_and_the_rest_of_the_batch_applied(harness: &dyn Harness) {
    create(harness, TopicSpec::of(&QUARANTINE, Some(1))).await;
    let from = topic(harness, 1).await;
    let group = unique("group");
    let store = MemoryStore::new(None);
    let mut records = spread(&from, "good", 40);
    for (index, text) in [
        (3, "undecodable"),
        (5, "panic"),
        (17, "refused"),
        (18, "refused too"),
        (39, "refused last"),
    ] {
        records[index].value = Some(text.into());
    }
    publish(harness, &records).await;
    let settings = ConsumerSettings { batch_records: 64, batch_wait_ms: 50, ..quick() };
    let running = Running::start(harness.stream().await, &store, &group, &from, settings);
    let all = applied(harness, &store, 40).await;
    let offsets: Vec<i64> = all.iter().map(|it| it.offset).collect();
    assert_eq!(offsets, (0..40).collect::<Vec<i64>>(), "in order, also while bisecting");
    let poison: Vec<i64> = all.iter().filter(|it| it.item.is_none()).map(|it| it.offset).collect();
    assert_eq!(poison, [3, 5, 17, 18, 39]);
    let mut found = quarantined(harness, &group, 5).await;
    found.sort_by_key(|message| message.source.as_ref().map(|source| source.offset));
    let reasons: Vec<_> = found.iter().map(Quarantined::reason).collect();
    let undecodable = QuarantineReason::UndecodableEvent;
    let refused = QuarantineReason::RefusedByDatabase;
    assert_eq!(reasons, [undecodable, undecodable, refused, refused, refused]);
    assert_eq!(found[2].content, b"refused");
    running.stop().await.expect("a clean end");
}

/// Our fault, not the records'.
pub async fn too_much_poison_stops_its_partition_and_no_other(harness: &dyn Harness) {
    create(harness, TopicSpec::of(&QUARANTINE, Some(1))).await;
    let from = topic(harness, 2).await;
    let keys = [key_of(0, 2), key_of(1, 2)];
    let store = MemoryStore::new(None);
    let mut records = Vec::new();
    for number in 0..30 {
        let text = if number < 10 { "good" } else { "undecodable" };
        records.push(record(&from, &keys[0], &format!("a-{number}"), text));
        records.push(record(&from, &keys[1], &format!("b-{number}"), "good"));
    }
    publish(harness, &records).await;
    let settings = ConsumerSettings { poison_in_a_row: 5, ..quick() };
    let running = Running::start(harness.stream().await, &store, &unique("group"), &from, settings);
    let stopped = || {
        let status = running.handle.status();
        let first = status.partitions.into_iter().find(|it| it.partition.partition == 0)?;
        match first.state {
            PartitionState::Stopped(StopReason::Poison(limit)) => Some(limit),
            _ => None,
        }
    };
    let limit = eventually(harness, "the partition stops", async || stopped()).await;
    assert_eq!(limit, "5 records in a row");
    // Ten good ones and four of the poison; the fifth was the limit.
    applied(harness, &store, 30 + 14).await;
    publish(harness, &[record(&from, &keys[1], "b-late", "good")]).await;
    applied(harness, &store, 30 + 14 + 1).await;
    running.stop().await.expect("one stopped partition is no error of the consumer");
}

/// A recreated topic, or another database.
pub async fn a_mark_that_does_not_match_stops_the_consumer(harness: &dyn Harness) {
    let from = topic(harness, 1).await;
    let group = unique("group");
    let store = MemoryStore::new(None);
    publish(harness, &spread(&from, "id", 20)).await;
    let source = source_of(harness, &group, &from, 0).await;
    let mark = Mark { offset: 9, timestamp_ms: 1, event_id: "another".to_owned() };
    store.set_position(&source, 10, Some(mark));
    let running = Running::start(harness.stream().await, &store, &group, &from, quick());
    let error = running.end(harness).await.expect_err("it stops");
    let ConsumerError::Stopped { partition, reason } = error else { panic!("{error}") };
    assert_eq!(partition, source.partition);
    assert_eq!(reason, StopReason::MarkMismatch { offset: 9 });
    assert!(store.applied().is_empty(), "nothing is applied");
}

/// A truncated topic, or another cluster.
pub async fn an_offset_beyond_the_end_stops_the_consumer(harness: &dyn Harness) {
    let from = topic(harness, 1).await;
    let group = unique("group");
    let store = MemoryStore::new(None);
    publish(harness, &spread(&from, "id", 5)).await;
    let source = source_of(harness, &group, &from, 0).await;
    let mark = Mark { offset: 999, timestamp_ms: 1, event_id: "e".to_owned() };
    store.set_position(&source, 1000, Some(mark));
    let running = Running::start(harness.stream().await, &store, &group, &from, quick());
    let error = running.end(harness).await.expect_err("it stops");
    let ConsumerError::Stopped { reason, .. } = error else { panic!("{error}") };
    assert_eq!(reason, StopReason::BeyondEnd { next: 1000, end: 5 });
    assert!(store.applied().is_empty(), "nothing is applied");
}

/// Partitions do not wait for each other.
pub async fn a_slow_partition_does_not_stop_the_others(harness: &dyn Harness) {
    let from = topic(harness, 2).await;
    let keys = [key_of(0, 2), key_of(1, 2)];
    let store = MemoryStore::new(None);
    store.hold(&TopicPartition::new(from.as_str(), 0));
    // More than a partition may hold in memory, so that it is paused meanwhile.
    let of_key = |key: &String, name: &str| -> Vec<Outgoing> {
        (0..120).map(|number| record(&from, key, &format!("{name}-{number}"), "x")).collect()
    };
    publish(harness, &of_key(&keys[0], "slow")).await;
    publish(harness, &of_key(&keys[1], "quick")).await;
    let running = Running::start(harness.stream().await, &store, &unique("group"), &from, quick());
    let quick = applied(harness, &store, 120).await;
    assert!(quick.iter().all(|it| it.partition.partition == 1));
    eventually(harness, "the slow one waits", async || (store.waiting() == 1).then_some(())).await;
    store.release();
    let all = applied(harness, &store, 240).await;
    let slow: Vec<i64> =
        all.iter().filter(|it| it.partition.partition == 0).map(|it| it.offset).collect();
    assert_eq!(slow, (0..120).collect::<Vec<i64>>());
    running.stop().await.expect("a clean end");
}

/// Nobody says where a partition ends whose leader is away; the others start and go on meanwhile.
pub async fn a_partition_without_a_leader_does_not_keep_the_others_from_starting(
    harness: &dyn Harness,
) {
    let from = topic(harness, 2).await;
    let store = MemoryStore::new(None);
    let gated = Arc::new(Gated::new(harness.stream().await));
    gated.ends_of_the_first.close();
    let stream = Arc::clone(&gated) as Arc<dyn Stream>;
    let running = Running::start(stream, &store, &unique("group"), &from, quick());
    let both = |name: &str| [0, 1].map(|it| record(&from, &key_of(it, 2), name, "x"));
    for round in 1..=3 {
        publish(harness, &both(&format!("id-{round}"))).await;
        let quick = applied(harness, &store, round).await;
        assert!(quick.iter().all(|it| it.partition.partition == 1));
    }
    let asked = async || gated.ends_of_the_first.is_asked().then_some(());
    eventually(harness, "its end is asked for", asked).await;
    gated.ends_of_the_first.open();
    applied(harness, &store, 6).await;
    running.stop().await.expect("a clean end");
}
