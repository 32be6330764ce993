//! Crashes and zombies, at each point where they matter.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tollgate_schema::topics::QUARANTINE;
use tollgate_schema::v1::QuarantineReason;

use super::Harness;
use super::gated::Gated;
use super::runtime::{Running, applied, quarantined, quick, source_of, spread};
use super::store::{Call, Fault, MemoryStore};
use super::tools::{
    create, eventually, publish, read_all, record, text_of, topic, topic_with, unique,
};
use crate::consumer::PartitionState;
use crate::settings::ConsumerSettings;
use crate::{Store, Stream, TopicPartition, TopicSpec};

/// I9, the database's side: whoever held the partition before writes nothing.
pub async fn a_zombie_applies_nothing_after_a_takeover(harness: &dyn Harness) {
    let from = topic(harness, 1).await;
    let group = unique("group");
    let store = MemoryStore::new(None);
    store.hold(&TopicPartition::new(from.as_str(), 0));
    publish(harness, &spread(&from, "id", 5)).await;
    let settings = ConsumerSettings { reclaim_after_ms: 3_600_000, ..quick() };
    let zombie = Running::start(harness.stream().await, &store, &group, &from, settings);
    eventually(harness, "its transaction is under way", async || {
        (store.waiting() == 1).then_some(())
    })
    .await;
    // Somebody else takes the partition over.
    let source = source_of(harness, &group, &from, 0).await;
    let fence = store.fence(&source).await.expect("a fence");
    store.release();
    eventually(harness, "the zombie gives up", async || {
        let status = zombie.handle.status();
        status.partitions.iter().any(|it| it.state == PartitionState::Resting).then_some(())
    })
    .await;
    publish(harness, &spread(&from, "more", 5)).await;
    tokio::time::sleep(harness.quiet()).await;
    assert!(store.applied().is_empty(), "the zombie has applied something");
    assert_eq!(store.epoch(&source), fence.epoch, "the zombie has taken the partition back");
    zombie.stop().await.expect("a clean end");
}

/// Two fences that crossed must not leave a partition without anybody.
pub async fn a_lost_partition_that_stays_assigned_is_taken_over_again(harness: &dyn Harness) {
    let from = topic(harness, 1).await;
    let group = unique("group");
    let store = MemoryStore::new(None);
    publish(harness, &spread(&from, "first", 10)).await;
    let settings = ConsumerSettings { reclaim_after_ms: 50, ..quick() };
    let running = Running::start(harness.stream().await, &store, &group, &from, settings);
    applied(harness, &store, 10).await;
    let source = source_of(harness, &group, &from, 0).await;
    store.fence(&source).await.expect("a fence that crosses");
    publish(harness, &spread(&from, "second", 10)).await;
    applied(harness, &store, 20).await;
    running.stop().await.expect("a clean end");
}

/// Crash point: committed to the topic, not removed from the outbox.
pub async fn rows_published_but_not_removed_are_published_again_under_the_same_ids(
    harness: &dyn Harness,
) {
    let (from, to) = (topic(harness, 1).await, topic(harness, 1).await);
    let group = unique("group");
    let store = MemoryStore::new(Some(to.clone()));
    store.fail(Call::Published, &[Fault::Down; 10_000]);
    publish(harness, &spread(&from, "id", 5)).await;
    // All in one batch, so that all are in one transaction of the relay.
    let settings = ConsumerSettings { batch_wait_ms: 1_000, ..quick() };
    let running = Running::start(harness.stream().await, &store, &group, &from, settings);
    applied(harness, &store, 5).await;
    assert_eq!(read_all(harness, &to, 5).await.len(), 5);
    running.kill();
    // What of it still runs may remove nothing from here on.
    store.fence(&source_of(harness, &group, &from, 0).await).await.expect("a fence");
    assert_eq!(store.outbox_len(), 5);

    store.heal();
    let running = Running::start(harness.stream().await, &store, &group, &from, quick());
    let all = read_all(harness, &to, 10).await;
    let ids: Vec<_> = all.iter().map(|it| it.header("ce_id")).collect();
    assert_eq!(ids[..5], ids[5..], "the same ids in the same order");
    eventually(harness, "the outbox is empty", async || (store.outbox_len() == 0).then_some(()))
        .await;
    applied(harness, &store, 5).await;
    running.stop().await.expect("a clean end");
}

/// The relay's id is taken by a zombie; the holder of the claim takes it back.
pub async fn a_relay_whose_id_was_taken_comes_back_while_the_claim_is_in_force(
    harness: &dyn Harness,
) {
    let (from, to) = (topic(harness, 1).await, topic(harness, 1).await);
    let group = unique("group");
    let store = MemoryStore::new(Some(to.clone()));
    publish(harness, &spread(&from, "first", 5)).await;
    let running = Running::start(harness.stream().await, &store, &group, &from, quick());
    read_all(harness, &to, 5).await;
    let stream = harness.stream().await;
    let id = format!("{group}-{from}-0");
    let thief = eventually(harness, "the id is taken", async || stream.relay(&id).await.ok()).await;
    publish(harness, &spread(&from, "second", 5)).await;
    let texts: Vec<String> = read_all(harness, &to, 10).await.iter().map(text_of).collect();
    let expected: Vec<String> = ["first", "second"]
        .iter()
        .flat_map(|name| (0..5).map(move |number| format!("{name}-{number}")))
        .collect();
    assert_eq!(texts, expected);
    drop(thief);
    running.stop().await.expect("a clean end");
}

/// I9, the topic's side: rows of a partition that somebody else has taken over are not sent.
pub async fn a_zombies_relay_sends_nothing(harness: &dyn Harness) {
    let (from, to) = (topic(harness, 1).await, topic(harness, 1).await);
    let group = unique("group");
    let store = MemoryStore::new(None);
    let settings = ConsumerSettings {
        reclaim_after_ms: 3_600_000,
        tick_interval_ms: 3_600_000,
        relay_interval_ms: 1,
        ..quick()
    };
    let source = source_of(harness, &group, &from, 0).await;
    store.put_row(&source, record(&to, "k", "before", "before"));
    let zombie = Running::start(harness.stream().await, &store, &group, &from, settings);
    // Now it has the id: a relay that is still being opened would take it from the holder.
    eventually(harness, "it relays", async || (store.outbox_len() == 0).then_some(())).await;
    // A takeover, in the order in which the runtime does it: the fence, then the id.
    store.fence(&source).await.expect("a fence");
    let stream = harness.stream().await;
    let id = format!("{group}-{from}-0");
    let mut holder =
        eventually(harness, "the id is taken", async || stream.relay(&id).await.ok()).await;
    // The zombie sees this row, since its store does not fence reads.
    store.put_row(&source, record(&to, "k", "row", "row"));
    holder.send(vec![record(&to, "k", "holder", "holder")]).await.expect("sent");
    holder.commit().await.expect("committed");
    eventually(harness, "the zombie gives up", async || {
        let status = zombie.handle.status();
        status.partitions.iter().any(|it| it.state == PartitionState::Resting).then_some(())
    })
    .await;
    let texts: Vec<String> = read_all(harness, &to, 2).await.iter().map(text_of).collect();
    assert_eq!(texts, ["before", "holder"]);
    zombie.stop().await.expect("a clean end");
}

/// I5: a row that can never be sent goes to quarantine in its place.
pub async fn a_row_that_its_topic_refuses_does_not_block_those_behind_it(harness: &dyn Harness) {
    create(harness, TopicSpec::of(&QUARANTINE, Some(1))).await;
    let from = topic(harness, 1).await;
    let to = topic_with(harness, 1, &[("max.message.bytes", "20000")]).await;
    let group = unique("group");
    let store = MemoryStore::new(None);
    let source = source_of(harness, &group, &from, 0).await;
    let mut large = record(&to, "k", "large", "");
    let content = Bytes::from((0..100_000).map(|_| rand::random()).collect::<Vec<u8>>());
    large.value = Some(content.clone());
    store.put_row(&source, record(&to, "k", "before", "before"));
    store.put_row(&source, large);
    store.put_row(&source, record(&to, "k", "behind", "behind"));
    let running = Running::start(harness.stream().await, &store, &group, &from, quick());
    eventually(harness, "the outbox is empty", async || (store.outbox_len() == 0).then_some(()))
        .await;
    let texts: Vec<String> = read_all(harness, &to, 2).await.iter().map(text_of).collect();
    assert_eq!(texts, ["before", "behind"]);
    let refused = quarantined(harness, &group, 1).await.remove(0);
    assert_eq!(refused.reason(), QuarantineReason::RefusedByTopic);
    assert_eq!(refused.source.expect("where it was to go").topic, to);
    assert!(refused.content == content, "{} bytes of {}", refused.content.len(), content.len());
    tokio::time::timeout(Duration::from_mins(1), running.stop())
        .await
        .expect("in time")
        .expect("a clean end");
}

/// The other crossing: the zombie takes the id last, after the rightful holder. It finds its claim
/// gone before it sends, and the holder takes the id back.
pub async fn a_zombie_that_takes_the_relays_id_last_sends_nothing(harness: &dyn Harness) {
    let (from, to) = (topic(harness, 1).await, topic(harness, 1).await);
    let group = unique("group");
    let store = MemoryStore::new(None);
    let source = source_of(harness, &group, &from, 0).await;
    let gated = Arc::new(Gated::new(harness.stream().await));
    gated.relays.close();
    let settings =
        ConsumerSettings { reclaim_after_ms: 3_600_000, tick_interval_ms: 3_600_000, ..quick() };
    let stream = Arc::clone(&gated) as Arc<dyn Stream>;
    let zombie = Running::start(stream, &store, &group, &from, settings);
    eventually(harness, "it wants a relay", async || gated.relays.is_asked().then_some(())).await;
    store.fence(&source).await.expect("a fence");
    store.put_row(&source, record(&to, "k", "row", "row"));
    gated.relays.open();
    eventually(harness, "the zombie gives up", async || {
        let status = zombie.handle.status();
        status.partitions.iter().any(|it| it.state == PartitionState::Resting).then_some(())
    })
    .await;
    assert_eq!(store.outbox_len(), 1);
    publish(harness, &[record(&to, "k", "end", "end")]).await;
    let texts: Vec<String> = read_all(harness, &to, 1).await.iter().map(text_of).collect();
    assert_eq!(texts, ["end"]);
    zombie.stop().await.expect("a clean end");
}
