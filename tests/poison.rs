//! Records on real Kafka that nobody can read, for whole processes of billing and user-state.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use common::{PATIENCE, Process, address, succeed};
use prost::Message;
use prost::bytes::Bytes;
use tollgate_kafka::{KafkaStream, Settings};
use tollgate_schema::ids::{RecordId, event_id};
use tollgate_schema::topics::{CALL_EVENTS, CDRS, QUARANTINE};
use tollgate_schema::{time, v1};
use tollgate_stream::partitioner::partition_of;
use tollgate_stream::{
    Deliveries, DeliveryError, Outgoing, Position, ProducerKind, ReadFrom, Stream, Token,
};
use tollgate_testkit::{Kafka, KafkaOptions, Postgres, PostgresOptions, TestDir, eventually};

/// Records of one transaction.
const BATCH: usize = 8;
const RECORDS: usize = 7 * BATCH;
/// The key of the partition with everything that is bad, and one of another partition.
const KEY: &str = "one";
const ELSEWHERE: &str = "two";
/// Who reads the bad ones: group and topic.
const READERS: [(&str, &str); 3] =
    [("tollgate-billing", CDRS.name), ("user-state", CALL_EVENTS.name), ("user-state", CDRS.name)];
/// When all of it happens.
const NOW: i64 = 1_795_399_200_000;

/// At the edges of batches, side by side, and a whole batch.
fn is_bad(number: usize) -> bool {
    matches!(number, 0 | 7 | 8 | 18 | 19 | 23) || (5 * BATCH..6 * BATCH).contains(&number)
}

fn id(number: usize) -> RecordId {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&(number as u16).to_be_bytes());
    RecordId::from_bytes(bytes)
}

fn provenance() -> v1::Provenance {
    let received_at = Some(time::proto_from_millis(NOW));
    v1::Provenance { received_at, ..v1::Provenance::default() }
}

fn event(number: usize) -> v1::CallEvent {
    v1::CallEvent {
        record_id: id(number).to_string(),
        event_id: event_id(&id(number), "status").to_string(),
        session_id: format!("session-{number}"),
        r#type: v1::EventType::Answer.into(),
        occurred_at: Some(time::proto_from_millis(NOW)),
        provenance: Some(provenance()),
        ..v1::CallEvent::default()
    }
}

fn cdr(number: usize) -> v1::CallDetailRecord {
    v1::CallDetailRecord {
        record_id: id(number).to_string(),
        event_id: event_id(&id(number), "fee").to_string(),
        session_id: format!("session-{number}"),
        ended_at: Some(time::proto_from_millis(NOW)),
        provenance: Some(provenance()),
        ..v1::CallDetailRecord::default()
    }
}

/// What neither topic's readers can read: no message, other messages, and nothing at all.
fn bad(number: usize) -> Option<Bytes> {
    let quarantined = v1::Quarantined { content: b"+86".into(), ..v1::Quarantined::default() };
    let nameless = v1::CallEvent { record_id: "nobody".into(), ..event(number) };
    let timeless = v1::CallDetailRecord { provenance: None, ..cdr(number) };
    [
        Some(Bytes::from_static(b"\xff\xff no protobuf")),
        Some(Bytes::new()),
        None,
        Some(quarantined.encode_to_vec().into()),
        Some(nameless.encode_to_vec().into()),
        Some(timeless.encode_to_vec().into()),
        Some(vec![0xff; 3 * 1024 * 1024].into()),
    ][number % 7]
        .clone()
}

fn good(key: &str, number: usize) -> [Outgoing; 2] {
    let (event, cdr) = (event(number), cdr(number));
    let key = || key.to_owned();
    [
        Outgoing::event(&CALL_EVENTS, key(), &event.event_id, None, event.encode_to_vec()),
        Outgoing::event(&CDRS, key(), &cdr.event_id, None, cdr.encode_to_vec()),
    ]
}

fn spoilt(number: usize) -> [Outgoing; 2] {
    good(KEY, number).map(|record| Outgoing { value: bad(number), ..record })
}

/// Group, topic, offset and content of what is in quarantine.
type Found = (String, String, i64, Vec<u8>);

struct Stored;

impl Deliveries for Stored {
    fn delivered(&self, _: Token, outcome: Result<Position, DeliveryError>) {
        outcome.expect("stored");
    }
}

struct World {
    stream: Arc<KafkaStream>,
    environment: Vec<(&'static str, String)>,
    postgres: Postgres,
    /// Its name there.
    database: String,
    _kafka: Kafka,
    dir: TestDir,
}

impl World {
    async fn start() -> Result<Self> {
        let dir = TestDir::new("poison")?;
        let (kafka, postgres) = tokio::task::spawn_blocking(|| {
            let kafka = Kafka::start(&KafkaOptions::new())?;
            anyhow::Ok((kafka, Postgres::start(&PostgresOptions::new())?))
        })
        .await??;
        let url = postgres.create_database("tollgate")?;
        let database = url.rsplit('/').next().unwrap_or_default().to_owned();
        let environment = vec![
            ("TOLLGATE_KAFKA__BROKERS", kafka.bootstrap()),
            ("TOLLGATE_DATABASE__URL", url),
            ("TOLLGATE_CONSUMER__BATCH_RECORDS", BATCH.to_string()),
        ];
        succeed(&["topics", "create", "--replication", "1"], &environment)?;
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../rating/tariffs/sample.toml");
        succeed(&["tariff", "activate", sample, "--from", "beginning"], &environment)?;
        let settings = Settings { brokers: kafka.bootstrap(), ..Settings::default() };
        let stream = KafkaStream::connect(&settings)?;
        Ok(Self { stream, environment, postgres, database, _kafka: kafka, dir })
    }

    async fn publish(&self, records: impl IntoIterator<Item = [Outgoing; 2]>) -> Result<()> {
        let producer = self.stream.producer(ProducerKind::Spooled, Arc::new(Stored))?;
        for (token, record) in (0..).zip(records.into_iter().flatten()) {
            producer.send(&record, token)?;
        }
        producer.flush(PATIENCE).await?;
        Ok(())
    }

    async fn consumer(&self, name: &str) -> Result<Process> {
        let mut environment = self.environment.clone();
        environment.push(("TOLLGATE_LISTENERS__QUERY", address().to_string()));
        Process::start(name, self.dir.path(), &[name], &environment).await
    }

    fn column(&self, statement: &str) -> Result<BTreeSet<String>> {
        let rows = self.postgres.sql(&self.database, statement)?;
        Ok(rows.lines().map(str::trim).filter(|row| !row.is_empty()).map(str::to_owned).collect())
    }

    /// Waits until exactly these are billed and have a call.
    async fn applied(&self, expected: &[usize]) {
        let ids: BTreeSet<_> = expected.iter().map(|number| id(*number).to_string()).collect();
        let sessions: BTreeSet<_> =
            expected.iter().map(|number| format!("session-{number}")).collect();
        eventually(PATIENCE, async || {
            let billed =
                self.column("SELECT encode(record_id, 'hex') FROM tollgate.billing_ledger")?;
            let called =
                self.column("SELECT convert_from(session_id, 'UTF8') FROM tollgate.state_call")?;
            ensure!(billed == ids, "billed: {billed:?}");
            ensure!(called == sessions, "called: {called:?}");
            anyhow::Ok(())
        })
        .await;
    }

    /// Everything in quarantine, once there is so much.
    async fn quarantined(&self, count: usize) -> Result<BTreeSet<Found>> {
        let mut reader = self.stream.reader(&[QUARANTINE.name], ReadFrom::Earliest).await?;
        let mut found = BTreeSet::new();
        let end = tokio::time::Instant::now() + PATIENCE;
        while found.len() < count || !reader.caught_up().await? {
            for record in reader.next(1000, Duration::from_millis(100)).await? {
                let message = v1::Quarantined::decode(record.value.unwrap_or_default())?;
                ensure!(message.reason() == v1::QuarantineReason::UndecodableEvent, "{message:?}");
                let source = message.source.unwrap_or_default();
                found.insert((message.found_by, source.topic, source.offset, message.content));
            }
            ensure!(tokio::time::Instant::now() < end, "only {} in quarantine", found.len());
        }
        Ok(found)
    }
}

/// What each reader must have counted after so much poison and so many stops.
fn counts(poison: usize, stops: usize) -> BTreeSet<String> {
    let of = |what: &str, reason: &str, count: usize| {
        let of_reader = |(group, topic)| {
            let labels = format!(r#"group="{group}",topic="{topic}",reason="{reason}""#);
            format!("tollgate_consumer_{what}_total{{{labels}}} {count}")
        };
        READERS.map(of_reader).into_iter().filter(move |_| count > 0)
    };
    of("poison", "undecodable_event", poison)
        .chain(of("partition_stops", "poison", stops))
        .collect()
}

/// Waits until the processes have counted exactly this: a moment after it is committed.
async fn are_counted(processes: [&Process; 2], expected: &BTreeSet<String>) {
    let names = ["tollgate_consumer_poison_total{", "tollgate_consumer_partition_stops_total{"];
    eventually(PATIENCE, async || {
        let mut found = BTreeSet::new();
        for process in processes {
            let page = process.metrics().await?;
            let lines = page.lines().filter(|line| names.iter().any(|it| line.starts_with(it)));
            found.extend(lines.map(str::to_owned));
        }
        ensure!(found == *expected, "counted: {found:?}");
        anyhow::Ok(())
    })
    .await;
}

/// How many of its partitions are stopped.
async fn stopped(process: &Process) -> Result<u64> {
    let page = process.metrics().await?;
    let lines = page.lines().filter(|line| line.starts_with("tollgate_consumer_partitions{"));
    let stopped = lines.filter(|line| line.contains(r#"state="stopped""#));
    Ok(stopped.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

/// I5, I6, I10: what cannot be read is in quarantine as it was, its neighbours are billed and have
/// their calls; too much of it in a row stops that partition, with the metric that the alert looks
/// at, and no other. All of it is counted, once, with its reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_read_harms_no_neighbour_and_does_not_drain_a_topic() -> Result<()> {
    let world = World::start().await?;
    let record = |number| if is_bad(number) { spoilt(number) } else { good(KEY, number) };
    world.publish((0..RECORDS).map(record)).await?;
    let mut billing = world.consumer("billing").await?;
    let mut user_state = world.consumer("user-state").await?;
    let mut expected: Vec<_> = (0..RECORDS).filter(|number| !is_bad(*number)).collect();
    world.applied(&expected).await;
    let bad_ones: Vec<_> = (0..RECORDS).filter(|number| is_bad(*number)).collect();
    let of = |(group, topic): (&str, &str), number: usize| {
        let content = bad(number).unwrap_or_default().to_vec();
        (group.to_owned(), topic.to_owned(), number as i64, content)
    };
    let all = READERS.iter().flat_map(|reader| bad_ones.iter().map(|number| of(*reader, *number)));
    let all: BTreeSet<_> = all.collect();
    let found = world.quarantined(all.len()).await?;
    let places = |of: &BTreeSet<Found>, but: &BTreeSet<Found>| -> Vec<_> {
        of.difference(but)
            .map(|(group, topic, offset, content)| {
                (group.clone(), topic.clone(), *offset, content.len())
            })
            .collect()
    };
    let (missing, more) = (places(&all, &found), places(&found, &all));
    ensure!(found == all, "missing in quarantine: {missing:?}; there and not bad: {more:?}");

    are_counted([&billing, &user_state], &counts(bad_ones.len(), 0)).await;
    ensure!(stopped(&billing).await? + stopped(&user_state).await? == 0);
    ensure!(partition_of(KEY.as_bytes(), 12) != partition_of(ELSEWHERE.as_bytes(), 12));
    world.publish((RECORDS..RECORDS + 150).map(|_| spoilt(0))).await?;
    world.publish([good(KEY, 1_000), good(ELSEWHERE, 1_001)]).await?;
    expected.push(1_001);
    world.applied(&expected).await;
    eventually(PATIENCE, async || {
        let found = (stopped(&billing).await?, stopped(&user_state).await?);
        ensure!(found == (1, 2), "stopped partitions: {found:?}");
        anyhow::Ok(())
    })
    .await;
    are_counted([&billing, &user_state], &counts(bad_ones.len() + 99, 1)).await;
    let count = all.len() + READERS.len() * 99;
    ensure!(world.quarantined(count).await?.len() == count, "a topic is drained");
    world.applied(&expected).await;
    billing.stop().await?;
    user_state.stop().await
}
