//! Producers and topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Harness;
use super::tools::{
    Outcomes, eventually, publish, read_all, record, text_of, texts, topic, unique,
};
use crate::partitioner::partition_of;
use crate::{Deliveries, DeliveryError, EnqueueError, Outgoing, ProducerKind, TopicSpec};

/// Placement and order.
pub async fn a_key_goes_to_the_partition_of_the_java_client_and_keeps_its_order(
    harness: &dyn Harness,
) {
    let topic = topic(harness, 7).await;
    let keys: Vec<String> = (0..20).map(|key| format!("session-{key}")).collect();
    let records: Vec<Outgoing> = (0..10)
        .flat_map(|round| {
            let topic = &topic;
            keys.iter().map(move |key| record(topic, key, "id", &format!("{key}/{round}")))
        })
        .collect();
    let positions = publish(harness, &records).await;
    for (record, position) in records.iter().zip(&positions) {
        assert_eq!(position.partition, partition_of(&record.key, 7));
    }
    let read = read_all(harness, &topic, records.len()).await;
    assert_eq!(read.len(), records.len());
    let mut of_key: BTreeMap<Bytes, Vec<(i64, String)>> = BTreeMap::new();
    for record in &read {
        assert_eq!(record.partition.partition, partition_of(&record.key, 7));
        of_key.entry(record.key.clone()).or_default().push((record.offset, text_of(record)));
    }
    for (key, mut found) in of_key {
        found.sort();
        let key = String::from_utf8_lossy(&key);
        let expected: Vec<String> = (0..10).map(|round| format!("{key}/{round}")).collect();
        let found: Vec<String> = found.into_iter().map(|(_, text)| text).collect();
        assert_eq!(found, expected);
    }
}

/// Reports.
pub async fn each_token_is_reported_exactly_once(harness: &dyn Harness) {
    let topic = topic(harness, 3).await;
    let stream = harness.stream().await;
    let outcomes = Arc::new(Outcomes::default());
    let producer = stream
        .producer(
            ProducerKind::Delivered { deadline: harness.patience() },
            Arc::clone(&outcomes) as Arc<dyn Deliveries>,
        )
        .expect("a producer");
    let tokens: Vec<u64> = (0..500).map(|_| outcomes.token()).collect();
    for token in &tokens {
        let record = record(&topic, &token.to_string(), "id", "x");
        eventually(harness, "the record is taken", async || producer.send(&record, *token).ok())
            .await;
    }
    producer.flush(harness.patience()).await.expect("flushed");
    assert_eq!(producer.in_flight(), 0);
    eventually(harness, "all are reported", async || {
        (outcomes.count() == tokens.len()).then_some(())
    })
    .await;
    tokio::time::sleep(harness.quiet()).await;
    let mut offsets: Vec<(i32, i64)> = Vec::new();
    for token in tokens {
        let reports = outcomes.of(token);
        assert_eq!(reports.len(), 1, "token {token}: {reports:?}");
        let position = reports[0].clone().expect("confirmed");
        offsets.push((position.partition, position.offset));
    }
    offsets.sort_unstable();
    let before = offsets.len();
    offsets.dedup();
    assert_eq!(offsets.len(), before, "every record has an offset of its own");
}

/// Keys, values, headers, times.
pub async fn records_come_back_as_they_were_sent(harness: &dyn Harness) {
    let topic = topic(harness, 2).await;
    let many = Outgoing {
        topic: topic.clone().into(),
        key: Bytes::from_static(&[0, 255, 10]),
        value: Some(Bytes::from_static(&[0, 1, 2, 0])),
        headers: vec![
            ("ce_id".into(), "a".into()),
            ("ce_type".into(), Bytes::new()),
            ("again".into(), "1".into()),
            ("again".into(), "2".into()),
        ],
    };
    let tombstone = Outgoing { value: None, headers: Vec::new(), ..many.clone() };
    let empty_key = Outgoing { key: Bytes::new(), ..many.clone() };
    let empty_value = Outgoing { value: Some(Bytes::new()), ..many.clone() };
    let sent = [many, tombstone, empty_key, empty_value];
    let positions = publish(harness, &sent).await;
    let read = read_all(harness, &topic, sent.len()).await;
    for (sent, position) in sent.iter().zip(positions) {
        let found = read
            .iter()
            .find(|it| it.partition.partition == position.partition && it.offset == position.offset)
            .expect("it is where the report said");
        assert_eq!(found.key, sent.key);
        assert_eq!(found.value, sent.value);
        assert_eq!(found.headers, sent.headers);
        assert!(found.timestamp_ms > 1_600_000_000_000, "milliseconds since 1970");
    }
}

/// The bound of the catalogue.
pub async fn records_up_to_four_mebibytes_are_taken_and_larger_ones_refused_for_good(
    harness: &dyn Harness,
) {
    let topic = topic(harness, 1).await;
    let sized = |bytes: usize| Outgoing {
        value: Some(Bytes::from(vec![b'x'; bytes])),
        ..record(&topic, "k", "id", "")
    };
    publish(harness, &[sized(4 * 1024 * 1024 - 4096)]).await;

    let stream = harness.stream().await;
    let outcomes = Arc::new(Outcomes::default());
    let producer = stream
        .producer(ProducerKind::Spooled, Arc::clone(&outcomes) as Arc<dyn Deliveries>)
        .expect("a producer");
    let large = sized(4 * 1024 * 1024 + 1);
    let refused = eventually(harness, "it is refused", async || match producer.send(&large, 0) {
        Err(EnqueueError::Permanent(reason)) => Some(reason),
        Err(_) => None,
        Ok(()) => {
            let report = eventually(harness, "a report", async || outcomes.of(0).pop()).await;
            match report {
                Err(DeliveryError::Permanent(reason)) => Some(reason),
                other => panic!("not refused for good: {other:?}"),
            }
        }
    })
    .await;
    assert!(!refused.is_empty());
    // One refused record spoils nothing.
    publish(harness, &[sized(10)]).await;
}

/// Topics may be created later.
pub async fn a_missing_topic_is_no_permanent_error(harness: &dyn Harness) {
    let stream = harness.stream().await;
    let outcomes = Arc::new(Outcomes::default());
    let kind = ProducerKind::Delivered { deadline: Duration::from_secs(2) };
    let producer =
        stream.producer(kind, Arc::clone(&outcomes) as Arc<dyn Deliveries>).expect("a producer");
    match producer.send(&record(&unique("missing"), "k", "id", "x"), 0) {
        Err(EnqueueError::Permanent(reason)) => panic!("permanent: {reason}"),
        Err(_) => {}
        Ok(()) => {
            let report = eventually(harness, "a report", async || outcomes.of(0).pop()).await;
            assert!(matches!(report, Err(DeliveryError::Retry(_))), "{report:?}");
        }
    }
}

/// Administration.
pub async fn topics_are_created_once_and_described(harness: &dyn Harness) {
    let stream = harness.stream().await;
    let spec = |partitions| TopicSpec {
        name: unique("conformance"),
        partitions,
        replication: 1,
        config: vec![
            ("cleanup.policy".to_owned(), "compact".to_owned()),
            ("max.message.bytes".to_owned(), "4194304".to_owned()),
        ],
    };
    let (first, second) = (spec(3), spec(1));
    let created = stream.create_topics(std::slice::from_ref(&first)).await.expect("created");
    assert_eq!(created, std::slice::from_ref(&first.name));
    let different = TopicSpec { partitions: 5, ..first.clone() };
    let created = stream.create_topics(&[different, second.clone()]).await.expect("created");
    assert_eq!(created, std::slice::from_ref(&second.name));
    let names = [first.name.as_str(), second.name.as_str(), "no-such-topic-here"];
    let described = eventually(harness, "both are described", async || {
        let described = stream.describe_topics(&names).await.ok()?;
        (described.len() == 2).then_some(described)
    })
    .await;
    let found = described.iter().find(|topic| topic.name == first.name).expect("the first");
    assert_eq!((found.partitions, found.replication), (3, 1));
    for (name, value) in &first.config {
        assert!(found.config.contains(&(name.clone(), value.clone())), "{name}");
    }
}

/// Durability.
pub async fn what_was_confirmed_is_there_after_a_restart(harness: &dyn Harness) {
    let topic = topic(harness, 3).await;
    let cluster = harness.stream().await.cluster_id().await.expect("an identity");
    let records: Vec<Outgoing> = (0..100)
        .map(|index| record(&topic, &format!("k{index}"), "id", &format!("{index}")))
        .collect();
    publish(harness, &records).await;
    let before = texts(&read_all(harness, &topic, 100).await);
    harness.restart().await;
    let stream = harness.stream().await;
    let again =
        eventually(harness, "the cluster is back", async || stream.cluster_id().await.ok()).await;
    assert_eq!(again, cluster);
    drop(stream);
    assert_eq!(texts(&read_all(harness, &topic, 100).await), before);
    let positions = publish(harness, &[record(&topic, "k0", "id", "after")]).await;
    let partition = positions[0].partition;
    assert!(positions[0].offset >= before[&partition].len() as i64, "offsets go on");
}
