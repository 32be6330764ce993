use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tollgate_kafka::{GroupProtocol, KafkaStream, Settings};
use tollgate_stream::{
    Consumer, ConsumerOptions, Event, Incoming, Stream, StreamError, TopicPartition,
};
use tollgate_testkit::Kafka;

use crate::support::{
    PATIENCE, assigned, connect, publish, settings, shared, take, text, topic, unique,
};

async fn join(stream: &KafkaStream, topic: &str, group: &str) -> Result<Box<dyn Consumer>> {
    let options =
        ConsumerOptions { group: group.into(), topics: vec![topic.into()], instance_id: None };
    Ok(stream.consumer(options).await?)
}

fn texts(records: &[Incoming]) -> Vec<String> {
    records.iter().map(text).collect()
}

fn with(protocol: GroupProtocol) -> Arc<KafkaStream> {
    connect(&Settings { group_protocol: protocol, ..settings(&Kafka::shared().bootstrap()) })
}

async fn delivery_follows_start_stop_pause_and_resume(protocol: GroupProtocol) -> Result<()> {
    let stream = with(protocol);
    let topic = topic(&stream, "flow", 1).await?;
    publish(&stream, &topic, &["0", "1", "2", "3", "4", "5"]).await?;
    let mut consumer = join(&stream, &topic, &unique("flow")).await?;
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    assert_eq!(assigned(&mut *consumer).await?, std::slice::from_ref(&partition));

    // Nothing before start.
    let quiet = consumer.next(10, Duration::from_millis(300)).await?;
    assert_eq!(quiet, Event::Idle);
    assert_eq!(stream.watermarks(&partition).await?, (0, 6));

    consumer.start(&partition, 2).await?;
    assert_eq!(texts(&take(&mut *consumer, 3).await?), ["2", "3", "4"]);

    // A change of mind drops what was fetched.
    consumer.start(&partition, 0).await?;
    assert_eq!(texts(&take(&mut *consumer, 2).await?), ["0", "1"]);

    consumer.pause(&partition).await?;
    assert_eq!(consumer.next(10, Duration::from_millis(300)).await?, Event::Idle);
    consumer.resume(&partition).await?;
    assert_eq!(texts(&take(&mut *consumer, 1).await?), ["2"]);

    consumer.stop(&partition).await?;
    assert_eq!(consumer.next(10, Duration::from_millis(300)).await?, Event::Idle);
    consumer.start(&partition, 5).await?;
    assert_eq!(texts(&take(&mut *consumer, 1).await?), ["5"]);

    consumer.report_progress(&[(partition, 6)]).await;
    tokio::time::timeout(PATIENCE, consumer.close()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_follows_start_stop_pause_and_resume_in_a_classic_group() -> Result<()> {
    delivery_follows_start_stop_pause_and_resume(GroupProtocol::Classic).await
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_follows_start_stop_pause_and_resume_in_a_broker_led_group() -> Result<()> {
    delivery_follows_start_stop_pause_and_resume(GroupProtocol::Consumer).await
}

/// Lets two members share a topic and lets one leave; each partition is always somebody's.
async fn partitions_move_between_members(protocol: GroupProtocol) -> Result<()> {
    let stream = with(protocol);
    let topic = topic(&stream, "move", 4).await?;
    let group = unique("move");
    let mut first = Held::new(join(&stream, &topic, &group).await?);
    first.until(4).await?;
    let mut second = Held::new(join(&stream, &topic, &group).await?);
    while first.partitions.len() != 2 || second.partitions.len() != 2 {
        first.poll().await?;
        second.poll().await?;
    }
    assert!(first.partitions.iter().all(|partition| !second.partitions.contains(partition)));
    second.consumer.close().await;
    first.until(4).await?;
    first.consumer.close().await;
    Ok(())
}

pub struct Held {
    pub consumer: Box<dyn Consumer>,
    pub partitions: Vec<TopicPartition>,
    end: tokio::time::Instant,
}

impl Held {
    pub fn new(consumer: Box<dyn Consumer>) -> Self {
        let end = tokio::time::Instant::now() + PATIENCE;
        Self { consumer, partitions: Vec::new(), end }
    }

    pub async fn poll(&mut self) -> Result<()> {
        match self.consumer.next(10, Duration::from_millis(100)).await? {
            Event::Assigned(more) => {
                for partition in &more {
                    self.consumer.start(partition, 0).await?;
                }
                self.partitions.extend(more);
            }
            Event::Revoked(gone) => self.partitions.retain(|held| !gone.contains(held)),
            Event::Records(_) | Event::Idle => {}
        }
        anyhow::ensure!(tokio::time::Instant::now() < self.end, "holds {:?}", self.partitions);
        Ok(())
    }

    pub async fn until(&mut self, count: usize) -> Result<()> {
        while self.partitions.len() != count {
            self.poll().await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_between_members_of_a_classic_group() -> Result<()> {
    partitions_move_between_members(GroupProtocol::Classic).await
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_between_members_of_a_broker_led_group() -> Result<()> {
    partitions_move_between_members(GroupProtocol::Consumer).await
}

/// Whose members are not given up before a minute has passed.
fn patient() -> Arc<KafkaStream> {
    let settings = settings(&Kafka::shared().bootstrap());
    connect(&Settings { session_timeout_ms: 60_000, ..settings })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_restarts_disturbs_nobody() -> Result<()> {
    let stream = patient();
    let topic = topic(&stream, "static", 2).await?;
    let group = unique("static");
    let member = |id: &str| ConsumerOptions {
        group: group.clone(),
        topics: vec![topic.to_string()],
        instance_id: Some(id.into()),
    };
    let mut first = Held::new(stream.consumer(member("billing-0")).await?);
    first.until(2).await?;
    let mut second = Held::new(stream.consumer(member("billing-1")).await?);
    while first.partitions.len() != 1 || second.partitions.len() != 1 {
        first.poll().await?;
        second.poll().await?;
    }
    let seconds = second.partitions.clone();
    second.consumer.close().await;

    let mut again = Held::new(stream.consumer(member("billing-1")).await?);
    while again.partitions.is_empty() {
        again.poll().await?;
        let event = first.consumer.next(10, Duration::from_millis(50)).await?;
        assert_eq!(event, Event::Idle, "the other member was disturbed");
    }
    assert_eq!(again.partitions, seconds);
    first.consumer.close().await;
    again.consumer.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_is_not_there_stops_instead_of_skipping() -> Result<()> {
    let stream = shared();
    let topic = topic(&stream, "range", 2).await?;
    publish(&stream, &topic, &["a", "b"]).await?;
    let mut consumer = join(&stream, &topic, &unique("range")).await?;
    let partitions = assigned(&mut *consumer).await?;
    for partition in &partitions {
        consumer.start(partition, 0).await?;
    }
    let with_records = take(&mut *consumer, 2).await?[0].partition.clone();

    consumer.start(&with_records, 1_000).await?;
    let error = loop {
        match consumer.next(10, Duration::from_millis(200)).await {
            Ok(Event::Idle) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, StreamError::OffsetOutOfRange { partition, offset: 1_000 }
            if *partition == with_records),
        "{error}"
    );
    // And it goes on from where it is told to.
    consumer.start(&with_records, 1).await?;
    assert_eq!(texts(&take(&mut *consumer, 1).await?), ["b"]);
    consumer.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_is_given_up_loses_no_record() -> Result<()> {
    let stream = shared();
    let topic = topic(&stream, "given-up", 1).await?;
    let values: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    publish(&stream, &topic, &values.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let mut consumer = join(&stream, &topic, &unique("given-up")).await?;
    let partition = assigned(&mut *consumer).await?.remove(0);
    consumer.start(&partition, 0).await?;
    let mut read = Vec::new();
    let end = tokio::time::Instant::now() + PATIENCE;
    for micros in (0..).step_by(37) {
        if read.len() == values.len() {
            break;
        }
        let poll = consumer.next(7, Duration::from_millis(50));
        let given_up = Duration::from_micros(micros % 3_000);
        if let Ok(event) = tokio::time::timeout(given_up, poll).await
            && let Event::Records(more) = event?
        {
            read.extend(texts(&more));
        }
        assert!(tokio::time::Instant::now() < end, "only {} records", read.len());
    }
    assert_eq!(read, values);
    consumer.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_with_one_instance_id_are_told_and_do_not_fight() -> Result<()> {
    let stream = patient();
    let topic = topic(&stream, "twins", 1).await?;
    let group = unique("twins");
    let twin = || ConsumerOptions {
        group: group.clone(),
        topics: vec![topic.to_string()],
        instance_id: Some("billing-0".into()),
    };
    let mut first = stream.consumer(twin()).await?;
    assigned(&mut *first).await?;
    let mut second = stream.consumer(twin()).await?;
    let mut seconds = None;
    let mut told = None;
    let end = tokio::time::Instant::now() + PATIENCE;
    while seconds.is_none() || told.is_none() {
        match first.next(10, Duration::from_millis(100)).await {
            Err(error) => told = Some(error),
            Ok(Event::Assigned(_)) => panic!("the first has come back at once"),
            Ok(_) => {}
        }
        if let Event::Assigned(partitions) = second.next(10, Duration::from_millis(100)).await? {
            seconds = Some(partitions);
        }
        assert!(tokio::time::Instant::now() < end, "{seconds:?} {told:?}");
    }
    let told = told.map(|error| error.to_string()).unwrap_or_default();
    assert!(told.contains("instance id"), "{told}");
    first.close().await;
    second.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_brokers_down_a_consumer_waits_and_still_closes() -> Result<()> {
    let nobody = format!("127.0.0.1:{}", tollgate_testkit::free_port());
    let stream = connect(&settings(&nobody));
    let mut consumer = join(&stream, "anything", &unique("down")).await?;
    assert_eq!(consumer.next(10, Duration::from_millis(300)).await?, Event::Idle);
    tokio::time::timeout(PATIENCE, consumer.close()).await?;
    Ok(())
}
