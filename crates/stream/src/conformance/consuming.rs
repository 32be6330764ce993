//! Consumers and readers.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::Harness;
use super::tools::{
    assigned, join, key_of, nothing_from, poll, publish, record, records, start, text_of, topic,
    unique,
};
use crate::{Event, Outgoing, ReadFrom, StreamError};

fn numbered(topic: &str, key: &str, range: std::ops::Range<i32>) -> Vec<Outgoing> {
    range.map(|number| record(topic, key, "id", &number.to_string())).collect()
}

/// The start is the caller's.
pub async fn nothing_is_delivered_before_the_start_and_then_from_the_offset_asked_for(
    harness: &dyn Harness,
) {
    let topic = topic(harness, 1).await;
    publish(harness, &numbered(&topic, "k", 0..10)).await;
    let stream = harness.stream().await;
    let mut consumer = join(&*stream, &unique("group"), &topic).await;
    let partition = assigned(harness, &mut *consumer, 1).await.remove(0);
    nothing_from(harness, &mut *consumer, |_| true).await;
    assert_eq!(stream.watermarks(&partition).await.expect("ends"), (0, 10));
    start(harness, &mut *consumer, &partition, 4).await;
    let found = records(harness, &mut *consumer, 6).await;
    let found: Vec<(i64, String)> =
        found.iter().map(|record| (record.offset, text_of(record))).collect();
    let expected: Vec<(i64, String)> = (4..10).map(|offset| (offset, offset.to_string())).collect();
    assert_eq!(found, expected);
    consumer.report_progress(&[(partition, 10)]).await;
    consumer.close().await;
}

/// A change of mind.
pub async fn a_second_start_drops_what_was_fetched(harness: &dyn Harness) {
    let topic = topic(harness, 1).await;
    publish(harness, &numbered(&topic, "k", 0..50)).await;
    let stream = harness.stream().await;
    let mut consumer = join(&*stream, &unique("group"), &topic).await;
    let partition = assigned(harness, &mut *consumer, 1).await.remove(0);
    start(harness, &mut *consumer, &partition, 0).await;
    let until = Instant::now() + harness.patience();
    let first = loop {
        assert!(Instant::now() < until, "nothing came");
        if let Ok(Event::Records(found)) = consumer.next(5, Duration::from_millis(100)).await {
            break found;
        }
    };
    assert!(first.len() <= 5, "at most what was asked for");
    start(harness, &mut *consumer, &partition, 40).await;
    let found = records(harness, &mut *consumer, 10).await;
    assert_eq!(found.first().map(|record| record.offset), Some(40));
    assert_eq!(found.last().map(|record| record.offset), Some(49));
    assert_eq!(found.len(), 10);
    consumer.close().await;
}

/// No silent skip.
pub async fn an_offset_that_is_not_there_is_reported_and_never_skipped(harness: &dyn Harness) {
    let topic = topic(harness, 1).await;
    publish(harness, &numbered(&topic, "k", 0..3)).await;
    let stream = harness.stream().await;
    let mut consumer = join(&*stream, &unique("group"), &topic).await;
    let partition = assigned(harness, &mut *consumer, 1).await.remove(0);
    let until = Instant::now() + harness.patience();
    let mut result = consumer.start(&partition, 1_000).await.map(|()| Event::Idle);
    loop {
        match result {
            Err(StreamError::OffsetOutOfRange { partition: found, .. }) => {
                assert_eq!(found, partition);
                break;
            }
            Err(error) => assert!(error.is_retriable(), "{error}"),
            Ok(Event::Records(found)) => panic!("{} records came", found.len()),
            Ok(_) => {}
        }
        assert!(Instant::now() < until, "it is not reported");
        result = consumer.next(10, Duration::from_millis(100)).await;
    }
    // The consumer is still of use.
    start(harness, &mut *consumer, &partition, 1).await;
    let found = records(harness, &mut *consumer, 2).await;
    assert_eq!(found[0].offset, 1);
    consumer.close().await;
}

/// Back-pressure by partition.
pub async fn a_paused_partition_is_silent_and_the_others_are_not(harness: &dyn Harness) {
    let topic = topic(harness, 2).await;
    let keys = [key_of(0, 2), key_of(1, 2)];
    let stream = harness.stream().await;
    let mut consumer = join(&*stream, &unique("group"), &topic).await;
    let partitions = assigned(harness, &mut *consumer, 2).await;
    for partition in &partitions {
        start(harness, &mut *consumer, partition, 0).await;
    }
    consumer.pause(&partitions[0]).await.expect("paused");
    for key in &keys {
        publish(harness, &numbered(&topic, key, 0..5)).await;
    }
    let found = records(harness, &mut *consumer, 5).await;
    assert!(found.iter().all(|record| record.partition == partitions[1]));
    nothing_from(harness, &mut *consumer, |_| true).await;
    consumer.resume(&partitions[0]).await.expect("resumed");
    let found = records(harness, &mut *consumer, 5).await;
    let offsets: Vec<i64> = found.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4]);
    assert!(found.iter().all(|record| record.partition == partitions[0]));
    consumer.close().await;
}

/// Giving a partition up without telling the group.
pub async fn a_stopped_partition_is_silent_until_it_is_started_again(harness: &dyn Harness) {
    let topic = topic(harness, 1).await;
    publish(harness, &numbered(&topic, "k", 0..3)).await;
    let stream = harness.stream().await;
    let mut consumer = join(&*stream, &unique("group"), &topic).await;
    let partition = assigned(harness, &mut *consumer, 1).await.remove(0);
    start(harness, &mut *consumer, &partition, 0).await;
    records(harness, &mut *consumer, 3).await;
    consumer.stop(&partition).await.expect("stopped");
    publish(harness, &numbered(&topic, "k", 3..6)).await;
    nothing_from(harness, &mut *consumer, |_| true).await;
    start(harness, &mut *consumer, &partition, 3).await;
    let found = records(harness, &mut *consumer, 3).await;
    assert_eq!(found[0].offset, 3);
    consumer.close().await;
}

/// The group.
pub async fn two_members_share_the_partitions_and_one_takes_over_when_the_other_leaves(
    harness: &dyn Harness,
) {
    let topic = topic(harness, 4).await;
    let group = unique("group");
    let stream = harness.stream().await;
    let mut first = join(&*stream, &group, &topic).await;
    let mut held: [BTreeSet<i32>; 2] = [BTreeSet::new(), BTreeSet::new()];
    held[0].extend(assigned(harness, &mut *first, 4).await.iter().map(|it| it.partition));

    let mut second = join(&*stream, &group, &topic).await;
    let until = Instant::now() + harness.patience();
    while held[0].len() + held[1].len() != 4 || held[1].is_empty() || held[0].is_empty() {
        assert!(Instant::now() < until, "not shared: {held:?}");
        let members = [&mut first, &mut second];
        for (held, member) in held.iter_mut().zip(members) {
            match poll(&mut **member).await {
                Some(Event::Assigned(gained)) => {
                    held.extend(gained.iter().map(|it| it.partition));
                }
                Some(Event::Revoked(lost)) => {
                    held.retain(|partition| !lost.iter().any(|it| it.partition == *partition));
                }
                _ => {}
            }
        }
    }
    assert!(held[0].is_disjoint(&held[1]), "{held:?}");

    first.close().await;
    let until = Instant::now() + harness.patience();
    while held[1].len() < 4 {
        assert!(Instant::now() < until, "not taken over: {held:?}");
        match poll(&mut *second).await {
            Some(Event::Assigned(gained)) => held[1].extend(gained.iter().map(|it| it.partition)),
            Some(Event::Revoked(lost)) => {
                held[1].retain(|partition| !lost.iter().any(|it| it.partition == *partition));
            }
            _ => {}
        }
    }
    second.close().await;
}

/// Reading without a group.
pub async fn a_reader_without_a_group_sees_everything_or_only_what_is_new(harness: &dyn Harness) {
    let topic = topic(harness, 3).await;
    let before: Vec<Outgoing> =
        (0..30).map(|number| record(&topic, &format!("k{number}"), "id", "before")).collect();
    publish(harness, &before).await;
    let stream = harness.stream().await;
    let mut from_start = stream.reader(&[&topic], ReadFrom::Earliest).await.expect("a reader");
    let mut from_now = stream.reader(&[&topic], ReadFrom::Latest).await.expect("a reader");
    assert!(!from_start.caught_up().await.expect("an answer"));
    let until = Instant::now() + harness.patience();
    let mut seen = 0;
    while !from_start.caught_up().await.expect("an answer") {
        assert!(Instant::now() < until, "never caught up");
        seen += from_start.next(7, Duration::from_millis(100)).await.expect("records").len();
    }
    assert_eq!(seen, 30);
    publish(harness, &[record(&topic, "k", "id", "after")]).await;
    for reader in [&mut from_start, &mut from_now] {
        let mut found = Vec::new();
        while found.is_empty() {
            assert!(Instant::now() < until, "nothing new came");
            found = reader.next(10, Duration::from_millis(100)).await.expect("records");
        }
        assert_eq!(found.iter().map(text_of).collect::<Vec<_>>(), ["after"]);
    }
}
