//! Transactional publishing.

use std::time::Duration;

use bytes::Bytes;

use super::Harness;
use super::tools::{eventually, publish, read_all, record, texts, topic, topic_with, unique};
use crate::{Outgoing, ReadFrom, Relay, RelayError};

fn rows(topic: &str, name: &str, count: usize) -> Vec<Outgoing> {
    (0..count)
        .map(|number| record(topic, &format!("k{number}"), &format!("{name}-{number}"), name))
        .collect()
}

async fn open(harness: &dyn Harness, id: &str) -> Box<dyn Relay> {
    let stream = harness.stream().await;
    eventually(harness, "the relay is open", async || stream.relay(id).await.ok()).await
}

async fn count_of(harness: &dyn Harness, topic: &str, least: usize) -> usize {
    texts(&read_all(harness, topic, least).await).values().map(Vec::len).sum()
}

/// Whole or not at all.
pub async fn a_transaction_is_seen_whole_and_only_after_its_commit(harness: &dyn Harness) {
    let topic = topic(harness, 3).await;
    let mut relay = open(harness, &unique("relay")).await;
    relay.send(rows(&topic, "one", 20)).await.expect("sent");
    let stream = harness.stream().await;
    let mut reader = stream.reader(&[&topic], ReadFrom::Earliest).await.expect("a reader");
    let early = reader.next(100, harness.quiet()).await.expect("an answer");
    assert!(early.is_empty(), "{} records were seen before the commit", early.len());
    relay.commit().await.expect("committed");
    assert_eq!(count_of(harness, &topic, 20).await, 20);
    // And again through the same relay.
    relay.send(rows(&topic, "two", 5)).await.expect("sent");
    relay.commit().await.expect("committed");
    assert_eq!(count_of(harness, &topic, 25).await, 25);
}

/// Crash point: nothing was sent yet.
pub async fn a_relay_stopped_before_it_sends_leaves_nothing(harness: &dyn Harness) {
    let topic = topic(harness, 1).await;
    let id = unique("relay");
    drop(open(harness, &id).await);
    let mut next = open(harness, &id).await;
    next.send(rows(&topic, "next", 2)).await.expect("sent");
    next.commit().await.expect("committed");
    assert_eq!(count_of(harness, &topic, 2).await, 2);
}

/// Crash point: sent and not committed. The takeover aborts it, so that readers behind it are not
/// held up.
pub async fn a_relay_stopped_between_send_and_commit_leaves_nothing_visible(harness: &dyn Harness) {
    let topic = topic(harness, 1).await;
    let id = unique("relay");
    let mut stopped = open(harness, &id).await;
    stopped.send(rows(&topic, "stopped", 3)).await.expect("sent");
    drop(stopped);
    let mut next = open(harness, &id).await;
    next.send(rows(&topic, "next", 2)).await.expect("sent");
    next.commit().await.expect("committed");
    publish(harness, &rows(&topic, "behind", 1)).await;
    let found = texts(&read_all(harness, &topic, 3).await);
    assert_eq!(found[&0], ["next", "next", "behind"]);
}

/// Abort.
pub async fn an_aborted_transaction_is_never_seen(harness: &dyn Harness) {
    let topic = topic(harness, 1).await;
    let mut relay = open(harness, &unique("relay")).await;
    relay.send(rows(&topic, "aborted", 3)).await.expect("sent");
    relay.abort().await.expect("aborted");
    relay.send(rows(&topic, "kept", 2)).await.expect("sent");
    relay.commit().await.expect("committed");
    assert_eq!(texts(&read_all(harness, &topic, 2).await)[&0], ["kept", "kept"]);
}

/// I9.
pub async fn an_old_relay_can_neither_send_nor_commit_after_a_takeover(harness: &dyn Harness) {
    let topic = topic(harness, 1).await;
    let id = unique("relay");
    let mut sent = open(harness, &id).await;
    sent.send(rows(&topic, "zombie", 2)).await.expect("sent");
    let mut holder = open(harness, &id).await;
    let result = sent.commit().await;
    assert!(is_lost(&result), "a fenced relay has committed: {result:?}");
    let result = sent.send(rows(&topic, "zombie", 1)).await;
    let result = match result {
        Ok(()) => sent.commit().await,
        other => other,
    };
    assert!(is_lost(&result), "a fenced relay has published: {result:?}");
    holder.send(rows(&topic, "holder", 2)).await.expect("sent");
    holder.commit().await.expect("committed");
    assert_eq!(texts(&read_all(harness, &topic, 2).await)[&0], ["holder", "holder"]);
}

fn is_lost(result: &Result<(), RelayError>) -> bool {
    matches!(result, Err(RelayError::Fenced | RelayError::Recreate(_)))
}

/// One row must not block an outbox.
pub async fn a_record_that_is_too_large_is_named_and_the_others_can_be_sent(harness: &dyn Harness) {
    let topic = topic_with(harness, 1, &[("max.message.bytes", "20000")]).await;
    let mut relay = open(harness, &unique("relay")).await;
    let mut all = rows(&topic, "good", 3);
    // Random bytes, so that no compression makes them fit.
    let large: Vec<u8> = (0..100_000).map(|_| rand::random()).collect();
    all[1].value = Some(Bytes::from(large));
    let mut result = relay.send(all.clone()).await;
    if result.is_ok() {
        result = relay.commit().await;
    }
    assert!(matches!(result, Err(RelayError::Permanent { index: 1, .. })), "{result:?}");
    relay.abort().await.expect("aborted");
    all.remove(1);
    relay.send(all).await.expect("sent");
    tokio::time::timeout(Duration::from_mins(1), relay.commit())
        .await
        .expect("in time")
        .expect("committed");
    assert_eq!(texts(&read_all(harness, &topic, 2).await)[&0], ["good", "good"]);
}
