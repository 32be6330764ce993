//! Batches of several partitions go in one transaction; what happens to one is nobody else's.

use std::collections::BTreeMap;
use std::sync::Arc;

use tollgate_schema::topics::QUARANTINE;

use super::Harness;
use super::runtime::{Running, applied, quick, source_of};
use super::store::{Applied, Call, Fault, MemoryStore};
use super::tools::{create, eventually, key_of, publish, record, topic, unique};
use crate::consumer::PartitionState;
use crate::settings::ConsumerSettings;
use crate::{Outgoing, Store, TopicPartition, TopicSpec};

const PARTITIONS: i32 = 4;
/// Its transaction is held, so that the batches of the others gather behind it.
const LEAD: i32 = 0;
/// Records of each of the others.
const EACH: usize = 5;

/// A topic, a consumer of it, and a store in which the first transaction is under way.
struct Gathering {
    topic: String,
    group: String,
    store: Arc<MemoryStore>,
    running: Running,
}

impl Gathering {
    async fn begin(harness: &dyn Harness) -> Self {
        let (topic, group) = (topic(harness, PARTITIONS).await, unique("group"));
        let store = MemoryStore::new(None);
        store.hold(&TopicPartition::new(topic.as_str(), LEAD));
        // Who was taken over stays so.
        let settings = ConsumerSettings { reclaim_after_ms: 3_600_000, ..quick() };
        let stream = harness.stream().await;
        let running = Running::start(stream, &store, &group, &topic, settings);
        eventually(harness, "every partition is held", async || {
            let held = running.handle.status().partitions;
            let all = held.iter().filter(|it| it.state == PartitionState::Running).count();
            (all == PARTITIONS as usize).then_some(())
        })
        .await;
        publish(harness, &[record(&topic, &key_of(LEAD, PARTITIONS), "lead", "good")]).await;
        eventually(harness, "a transaction is under way", async || {
            (store.waiting() == 1).then_some(())
        })
        .await;
        Self { topic, group, store, running }
    }

    /// [`EACH`] records for each partition but the first.
    fn records(&self, name: &str) -> Vec<Outgoing> {
        let of = |partition| {
            let key = key_of(partition, PARTITIONS);
            (0..EACH).map(move |number| {
                record(&self.topic, &key, &format!("{name}-{partition}-{number}"), "good")
            })
        };
        (LEAD + 1..PARTITIONS).flat_map(of).collect()
    }

    async fn end(self, harness: &dyn Harness, applied_before: usize) {
        self.store.release();
        applied(harness, &self.store, applied_before + 1).await;
        self.running.stop().await.expect("a clean end");
    }
}

fn by_partition(applied: &[Applied]) -> BTreeMap<i32, usize> {
    let mut counts = BTreeMap::new();
    for one in applied {
        *counts.entry(one.partition.partition).or_default() += 1;
    }
    counts
}

/// Data that the database refuses condemns its record alone.
pub async fn poison_in_company_is_its_partitions_alone(harness: &dyn Harness) {
    create(harness, TopicSpec::of(&QUARANTINE, Some(1))).await;
    let gathering = Gathering::begin(harness).await;
    let mut records = gathering.records("first");
    records[2].value = Some("refused".into());
    publish(harness, &records).await;
    let all = applied(harness, &gathering.store, records.len()).await;
    let poison = all.iter().filter(|it| it.item.is_none());
    let poison: Vec<_> = poison.map(|it| (it.partition.partition, it.offset)).collect();
    assert_eq!(poison, [(LEAD + 1, 2)]);
    gathering.end(harness, records.len()).await;
}

/// A partition that another consumer took over is given up; its neighbours go on.
pub async fn a_takeover_in_company_is_its_partitions_alone(harness: &dyn Harness) {
    let gathering = Gathering::begin(harness).await;
    let (store, group, topic) = (&gathering.store, &gathering.group, &gathering.topic);
    store.fence(&source_of(harness, group, topic, 2).await).await.expect("a fence");
    publish(harness, &gathering.records("first")).await;
    let all = applied(harness, store, 2 * EACH).await;
    assert_eq!(by_partition(&all), BTreeMap::from([(1, EACH), (3, EACH)]));
    gathering.end(harness, 2 * EACH).await;
}

/// A transaction whose answer is lost may have been committed, for all that were in it.
pub async fn a_lost_answer_in_company_applies_nothing_twice(harness: &dyn Harness) {
    let gathering = Gathering::begin(harness).await;
    gathering.store.fail(Call::Apply, &[Fault::AnswerLost]);
    for (round, name) in ["first", "second"].into_iter().enumerate() {
        let records = gathering.records(name);
        publish(harness, &records).await;
        applied(harness, &gathering.store, (round + 1) * records.len()).await;
    }
    let applied = 2 * gathering.records("").len();
    gathering.end(harness, applied).await;
}
