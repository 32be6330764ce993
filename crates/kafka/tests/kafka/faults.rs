use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tollgate_stream::{DeliveryError, EnqueueError, Incoming, Stream, TopicSpec};
use tollgate_testkit::{Kafka, KafkaOptions, eventually_true};

use crate::support::{PATIENCE, connect, producer, read_all, record, settings, text, topic};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_between_publish_and_confirm_loses_nothing() -> Result<()> {
    let kafka = Kafka::start(&KafkaOptions::new())?;
    let stream = connect(&settings(&kafka.bootstrap()));
    let topic = topic(&stream, "killed", 3).await?;
    let (producer, ear) = producer(&stream);
    let mut sent = 0u64;
    for round in 0..3 {
        for _ in 0..1_000 {
            producer.send(&record(&topic, &(sent % 10).to_string(), &sent.to_string()), sent)?;
            sent += 1;
        }
        let some = (sent - 900) as usize;
        eventually_true("some confirmations", PATIENCE, async || ear.confirmed() > some).await;
        if round == 1 {
            // In good order for a change: leaders and connections go away one by one.
            kafka.stop();
        } else {
            kafka.kill();
        }
        kafka.restart()?;
    }
    producer.flush(PATIENCE).await?;
    assert_eq!(ear.confirmed(), sent as usize);

    in_order_and_whole(&read_all(&stream, &topic).await?, sent)
}

/// Idempotence: of the numbers up to `sent`, ten keys in turn, none is lost, doubled or out of
/// its key's order.
fn in_order_and_whole(records: &[Incoming], sent: u64) -> Result<()> {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for record in records {
        let number: u64 = text(record).parse()?;
        let key = String::from_utf8(record.key.to_vec())?;
        let expected = last.get(&key).map_or(number % 10, |before| before + 10);
        assert_eq!(number, expected, "after {:?} of key {key}", last.get(&key));
        last.insert(key, number);
    }
    assert_eq!(records.len() as u64, sent);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_three_that_dies_for_ever_takes_nothing_with_it() -> Result<()> {
    let kafka = Kafka::start(&KafkaOptions::new().brokers(3))?;
    let stream = connect(&settings(&kafka.bootstrap()));
    let name = "replicated";
    let spec = TopicSpec {
        name: name.into(),
        partitions: 3,
        replication: 3,
        config: vec![("min.insync.replicas".into(), "2".into())],
    };
    stream.create_topics(&[spec]).await?;
    // The broker that is asked may not have heard of it yet.
    eventually_true("it is replicated", PATIENCE, async || {
        let described = stream.describe_topics(&[name]).await;
        described.is_ok_and(|topics| topics.iter().any(|topic| topic.replication == 3))
    })
    .await;
    let topic: Arc<str> = name.into();
    let (producer, ear) = producer(&stream);
    let mut sent = 0u64;
    for half in 0..2 {
        for _ in 0..1_500 {
            producer.send(&record(&topic, &(sent % 10).to_string(), &sent.to_string()), sent)?;
            sent += 1;
        }
        if half == 0 {
            eventually_true("some confirmations", PATIENCE, async || ear.confirmed() > 100).await;
            kafka.broker(0).kill();
        }
    }
    producer.flush(PATIENCE).await?;
    assert_eq!(ear.confirmed(), sent as usize);
    in_order_and_whole(&read_all(&stream, &topic).await?, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_fatal_error_everything_comes_back_once_and_a_new_client_goes_on() -> Result<()> {
    let cluster = MockCluster::new(1)?;
    cluster.create_topic("t", 1, 1)?;
    let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &[fatal]);
    let stream = connect(&settings(&cluster.bootstrap_servers()));
    let (producer, ear) = producer(&stream);
    let topic: Arc<str> = "t".into();
    let mut taken = 0u64;
    for token in 0..500 {
        match producer.send(&record(&topic, "k", "v"), token) {
            Ok(()) => taken += 1,
            // The error was faster than we.
            Err(error) => {
                assert!(matches!(error, EnqueueError::Unavailable(_)), "{error}");
                break;
            }
        }
    }
    ear.await_all(taken as usize).await;
    let heard = ear.heard();
    assert!(heard.values().all(|o| matches!(o, Err(DeliveryError::Retry(_)))), "{heard:?}");
    eventually_true("all are counted", PATIENCE, async || producer.in_flight() == 0).await;

    let mut token = 1_000;
    eventually_true("a new client", PATIENCE, async || {
        token += 1;
        producer.send(&record(&topic, "k", "v"), token).is_ok()
    })
    .await;
    producer.flush(PATIENCE).await?;
    assert!(ear.heard()[&token].is_ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_frozen_delays_and_loses_nothing() -> Result<()> {
    let kafka = Kafka::start(&KafkaOptions::new())?;
    let stream = connect(&settings(&kafka.bootstrap()));
    let topic = topic(&stream, "frozen", 1).await?;
    let (producer, ear) = producer(&stream);
    producer.send(&record(&topic, "k", "before"), 0)?;
    ear.await_all(1).await;
    kafka.pause();
    producer.send(&record(&topic, "k", "during"), 1)?;
    assert!(producer.flush(Duration::from_millis(500)).await.is_err());
    assert_eq!(ear.count(), 1);
    kafka.resume();
    producer.flush(PATIENCE).await?;
    let read: Vec<String> = read_all(&stream, &topic).await?.iter().map(text).collect();
    assert_eq!(read, ["before", "during"]);
    Ok(())
}
