use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use tollgate_kafka::Settings;
use tollgate_stream::{
    Deliveries, DeliveryError, EnqueueError, Outgoing, Position, ProducerKind, Stream, Token,
    TopicSpec, partitioner::partition_of,
};
use tollgate_testkit::{Kafka, eventually_true, free_port};

use crate::support::{
    Ear, PATIENCE, connect, producer, random_text, read_all, record, settings, shared, text, topic,
    unique,
};

/// Notes on which thread each fate is heard.
#[derive(Default)]
struct Threads(Mutex<Vec<ThreadId>>);

impl Deliveries for Threads {
    fn delivered(&self, _: Token, outcome: Result<Position, DeliveryError>) {
        assert!(outcome.is_ok(), "{outcome:?}");
        self.0.lock().unwrap().push(thread::current().id());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_polls_hears_of_its_records_itself_and_who_stops_hears_of_them_all_the_same()
-> Result<()> {
    let stream = shared();
    let topic = topic(&stream, "polled", 1).await?;
    let threads = Arc::new(Threads::default());
    let producer = stream.producer(ProducerKind::Spooled, threads.clone())?;
    let here = thread::current().id();
    let mut sent = 0;
    eventually_true("a fate heard by who polls", PATIENCE, async || {
        producer.send(&record(&topic, "key", "value"), sent).unwrap();
        sent += 1;
        // As a sender does: all the time, so that the driver leaves it alone.
        let end = Instant::now() + PATIENCE;
        while producer.in_flight() > 0 && Instant::now() < end {
            producer.poll();
            thread::yield_now();
        }
        threads.0.lock().unwrap().contains(&here)
    })
    .await;
    producer.send(&record(&topic, "key", "value"), sent)?;
    sent += 1;
    eventually_true("the rest", PATIENCE, async || {
        threads.0.lock().unwrap().len() == sent as usize && producer.in_flight() == 0
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn records_arrive_whole_in_order_and_in_javas_partition() -> Result<()> {
    let stream = shared();
    let topic = topic(&stream, "whole", 7).await?;
    let (producer, ear) = producer(&stream);
    let keys = ["", "a", "session-0001", "ß\u{1F600}", "0123456789abcdef0123456789"];
    let mut sent = Vec::new();
    for round in 0..40 {
        for key in keys {
            sent.push(record(&topic, key, &format!("{key}:{round:03}")));
        }
    }
    let empty = |value: Option<Bytes>| Outgoing {
        topic: topic.to_string().into(),
        key: Bytes::from_static(b"bare"),
        value,
        headers: Vec::new(),
    };
    sent.push(empty(None));
    sent.push(empty(Some(Bytes::new())));
    for (token, record) in (0..).zip(&sent) {
        producer.send(record, token)?;
    }
    producer.flush(PATIENCE).await?;
    assert_eq!(producer.in_flight(), 0);
    let heard = ear.heard();
    assert_eq!(ear.confirmed(), sent.len(), "{heard:?}");

    let mut by_place = BTreeMap::new();
    for read in read_all(&stream, &topic).await? {
        by_place.insert((read.partition.partition, read.offset), read);
    }
    let mut last_offset = BTreeMap::new();
    for (token, sent) in (0..).zip(&sent) {
        let place = heard[&token].clone()?;
        let read = &by_place[&(place.partition, place.offset)];
        assert_eq!(place.partition, partition_of(&sent.key, 7));
        assert_eq!(
            (&read.key, &read.value, &read.headers),
            (&sent.key, &sent.value, &sent.headers)
        );
        let before = last_offset.insert(sent.key.clone(), place.offset);
        assert!(before.is_none_or(|before| before < place.offset), "order of a key");
    }
    assert_eq!(by_place.len(), sent.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_compression_is_read_back() -> Result<()> {
    use tollgate_kafka::Compression;
    for compression in [Compression::None, Compression::Zstd] {
        let settings = Settings { compression, ..settings(&Kafka::shared().bootstrap()) };
        let stream = connect(&settings);
        let topic = topic(&stream, "compressed", 1).await?;
        let value = "again ".repeat(1000);
        crate::support::publish(&stream, &topic, &[&value]).await?;
        assert_eq!(text(&read_all(&stream, &topic).await?[0]), value);
    }
    Ok(())
}

/// I6
#[tokio::test(flavor = "multi_thread")]
async fn only_the_records_that_are_too_large_are_refused_for_good() -> Result<()> {
    const REFUSED: [u64; 4] = [0, 50, 51, 99];
    let stream = shared();
    let name = unique("narrow");
    let spec = TopicSpec {
        name: name.clone(),
        partitions: 1,
        replication: 1,
        config: vec![("max.message.bytes".into(), "2000".into())],
    };
    stream.create_topics(&[spec]).await?;
    let topic: Arc<str> = name.into();
    let (producer, ear) = producer(&stream);
    for token in 0..100 {
        // Some that the topic refuses, in a batch with many that it takes.
        let is_large = REFUSED.contains(&token);
        let value = if is_large { random_text(9_000) } else { format!("small {token}") };
        producer.send(&record(&topic, "k", &value), token)?;
    }
    producer.flush(PATIENCE).await?;
    let heard = ear.heard();
    for (token, outcome) in &heard {
        match outcome {
            Err(DeliveryError::Permanent(_)) => assert!(REFUSED.contains(token), "{token}"),
            other => assert!(other.is_ok(), "{token}: {other:?}"),
        }
    }
    assert!(REFUSED.iter().all(|token| heard[token].is_err()), "{heard:?}");
    let read: BTreeSet<String> = read_all(&stream, &topic).await?.iter().map(text).collect();
    let small = (0..100).filter(|token| !REFUSED.contains(token));
    assert_eq!(read, small.map(|token| format!("small {token}")).collect());

    let huge = random_text(5 * 1024 * 1024);
    let refused = producer.send(&record(&topic, "k", &huge), 100).unwrap_err();
    assert!(matches!(refused, EnqueueError::Permanent(_)), "{refused}");
    assert_eq!(producer.in_flight(), 0);
    Ok(())
}

/// The time is this machine's, not the record's: to throw the record away would mend nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_that_a_topic_refuses_is_never_permanent_and_its_neighbours_arrive()
-> Result<()> {
    // Whatever has waited for company is too old for this topic.
    let settings = Settings { linger_ms: 200, ..settings(&Kafka::shared().bootstrap()) };
    let stream = connect(&settings);
    let name = unique("punctual");
    let spec = TopicSpec {
        name: name.clone(),
        partitions: 1,
        replication: 1,
        config: vec![("message.timestamp.before.max.ms".into(), "1".into())],
    };
    stream.create_topics(&[spec]).await?;
    let topics = [name.into(), topic(&stream, "patient", 1).await?];
    let (producer, ear) = producer(&stream);
    for token in 0..20 {
        producer.send(&record(&topics[token as usize % 2], "k", "v"), token)?;
    }
    ear.await_all(20).await;
    for (token, outcome) in ear.heard() {
        match outcome {
            Err(DeliveryError::Retry(reason)) if token % 2 == 0 => {
                assert!(reason.contains("clock"), "{reason}");
            }
            outcome => assert!(token % 2 == 1 && outcome.is_ok(), "{token}: {outcome:?}"),
        }
    }
    assert_eq!(read_all(&stream, &topics[0]).await?.len(), 0);
    assert_eq!(read_all(&stream, &topics[1]).await?.len(), 10);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_almost_four_mebibytes_arrives() -> Result<()> {
    let stream = shared();
    let topic = topic(&stream, "large", 1).await?;
    let value = random_text(4 * 1024 * 1024 - 2_000);
    crate::support::publish(&stream, &topic, &[&value]).await?;
    assert_eq!(text(&read_all(&stream, &topic).await?[0]), value);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_topic_is_never_permanent_and_never_created() -> Result<()> {
    let stream = shared();
    let missing: Arc<str> = unique("missing").into();
    let ear = Arc::new(Ear::default());
    let deadline = Duration::from_secs(1);
    let producer = stream.producer(ProducerKind::Delivered { deadline }, ear.clone())?;
    producer.send(&record(&missing, "k", "v"), 1)?;
    ear.await_all(1).await;
    let outcome = ear.heard()[&1].clone();
    assert!(matches!(outcome, Err(DeliveryError::Retry(_))), "{outcome:?}");
    assert!(stream.describe_topics(&[&missing]).await?.is_empty());

    let spec =
        TopicSpec { name: missing.to_string(), partitions: 1, replication: 1, config: vec![] };
    stream.create_topics(&[spec]).await?;
    let mut token = 1;
    eventually_true("the new topic to be noticed", PATIENCE, async || {
        token += 1;
        match producer.send(&record(&missing, "k", "v"), token) {
            Ok(()) => {
                ear.await_all(ear.count().max(1)).await;
                let _ = producer.flush(PATIENCE).await;
                ear.heard().get(&token).is_some_and(Result::is_ok)
            }
            Err(error) => {
                assert!(matches!(error, EnqueueError::Unavailable(_)), "{error}");
                false
            }
        }
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_brokers_down_records_are_taken_and_given_back_once() -> Result<()> {
    let nobody = format!("127.0.0.1:{}", free_port());
    let limited = Settings { queue_messages: 100, ..settings(&nobody) };
    let stream = connect(&limited);
    let (producer, ear) = producer(&stream);
    let topic: Arc<str> = "anything".into();
    let mut taken = BTreeSet::new();
    let refused = loop {
        let token = taken.len() as u64;
        match producer.send(&record(&topic, "k", "v"), token) {
            Ok(()) => taken.insert(token),
            Err(error) => break error,
        };
        assert!(taken.len() <= 100, "the queue has no bound");
    };
    assert_eq!(refused, EnqueueError::QueueFull);
    assert_eq!(producer.in_flight(), 100);
    assert!(producer.flush(Duration::from_millis(300)).await.is_err());
    assert_eq!(ear.count(), 0, "a spooled record is never given up");
    eventually_true("advice", PATIENCE, async || {
        stream.trouble().is_some_and(|trouble| trouble.contains("brokers"))
    })
    .await;

    tokio::task::spawn_blocking(move || drop(producer)).await?;
    let heard = ear.heard();
    assert_eq!(heard.keys().copied().collect::<BTreeSet<_>>(), taken);
    assert!(heard.values().all(|o| matches!(o, Err(DeliveryError::Retry(_)))), "{heard:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_record_gives_up_at_its_deadline() -> Result<()> {
    let nobody = format!("127.0.0.1:{}", free_port());
    let stream = connect(&settings(&nobody));
    let ear = Arc::new(Ear::default());
    let deadline = Duration::from_millis(200);
    let producer = stream.producer(ProducerKind::Delivered { deadline }, ear.clone())?;
    producer.send(&record("t", "k", "v"), 7)?;
    ear.await_all(1).await;
    assert!(matches!(ear.heard()[&7], Err(DeliveryError::Retry(_))));
    Ok(())
}
