//! What an operator does by hand, on a real broker: adopt a dead edge's spool, look at topics,
//! list and replay the quarantine.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use common::{PATIENCE, Process, address, metric, post, succeed, tollgate};
use prost::Message;
use serde_json::Value;
use tollgate_kafka::{KafkaStream, Settings};
use tollgate_schema::topics::{CALL_EVENTS, CDRS, QUARANTINE, Topic};
use tollgate_schema::v1;
use tollgate_spool::disk::RealDisk;
use tollgate_spool::{Options, Request, Spool};
use tollgate_stream::{Outgoing, Stream, TopicSpec};
use tollgate_testkit::{Kafka, KafkaOptions, TestDir, eventually};

fn lines(text: &str) -> Result<Vec<Value>> {
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn tail(topic: &str, environment: &[(&str, String)]) -> Result<Vec<Value>> {
    lines(&succeed(&["tail", topic, "--from-beginning", "--until-end", "--reveal"], environment)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_edge_acknowledged_is_adopted_and_published_once() -> Result<()> {
    let dir = TestDir::new("adopt")?;
    let kafka = tokio::task::spawn_blocking(|| Kafka::start(&KafkaOptions::new())).await??;
    let brokers = [("TOLLGATE_KAFKA__BROKERS", kafka.bootstrap())];

    // The topics do not exist yet, so that nothing leaves the spool.
    let listen = address();
    let spool = dir.path().join("spool").display().to_string();
    let environment = [
        brokers[0].clone(),
        ("TOLLGATE_EDGE__LISTEN", listen.to_string()),
        ("TOLLGATE_SPOOL__DIR", spool.clone()),
    ];
    let mut edge = Process::start("edge", dir.path(), &["edge"], &environment).await?;
    for number in 0..20 {
        let body = format!(
            r#"{{"eventType":"answer","statusInfo":{{"sessionId":"s{number}","timestamp":"2026-11-23 07:00:00"}}}}"#
        );
        ensure!(post(&format!("http://{listen}/status"), body).await? == 200);
    }
    let output = tollgate(&["spool", "replay", "--dir", &spool], &brokers)?;
    ensure!(!output.status.success(), "a living edge's spool must not be adopted");
    edge.kill();

    let check = tollgate(&["topics", "check"], &brokers)?;
    ensure!(check.status.code() == Some(3), "missing topics were not found: {check:?}");
    succeed(&["topics", "create", "--replication", "1"], &brokers)?;
    let replayed = succeed(&["spool", "replay", "--dir", &spool], &brokers)?;
    ensure!(replayed.contains("20 requests"), "{replayed}");
    let again = succeed(&["spool", "replay", "--dir", &spool], &brokers)?;
    ensure!(again.contains("0 requests"), "{again}");

    let mut sessions: Vec<String> = tail("call-events", &brokers)?
        .iter()
        .filter_map(|record| record["event"]["session_id"].as_str().map(ToOwned::to_owned))
        .collect();
    sessions.sort();
    sessions.dedup();
    ensure!(sessions.len() == 20, "{sessions:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_there_does_not_hold_up_the_others() -> Result<()> {
    let dir = TestDir::new("missing-topic")?;
    let kafka = tokio::task::spawn_blocking(|| Kafka::start(&KafkaOptions::new())).await??;
    let brokers = [("TOLLGATE_KAFKA__BROKERS", kafka.bootstrap())];
    let stream =
        KafkaStream::connect(&Settings { brokers: kafka.bootstrap(), ..Settings::default() })?;
    stream.create_topics(&[CALL_EVENTS, CDRS].map(|topic| TopicSpec::of(&topic, Some(1)))).await?;
    let listen = address();
    let environment = [
        brokers[0].clone(),
        ("TOLLGATE_EDGE__LISTEN", listen.to_string()),
        ("TOLLGATE_SPOOL__DIR", dir.path().join("spool").display().to_string()),
    ];
    let mut edge = Process::start("edge", dir.path(), &["edge"], &environment).await?;
    let counted = async |name: &str| anyhow::Ok(metric(&edge.metrics().await?, name));
    let published = async |count: u64| {
        eventually(PATIENCE, async || {
            let published = counted("tollgate_edge_published_total").await? as u64;
            ensure!(published == count, "{published} of {count}");
            Ok(())
        })
        .await;
    };
    let status = async |session: &str| {
        let body = format!(
            r#"{{"eventType":"answer","statusInfo":{{"sessionId":"{session}","timestamp":"2026-11-23 07:00:00"}}}}"#
        );
        ensure!(post(&format!("http://{listen}/status"), body).await? == 200);
        Ok(())
    };

    // No notification: for the topic that is not there.
    ensure!(post(&format!("http://{listen}/status"), "no json").await? == 200);
    eventually(PATIENCE, async || {
        ensure!(counted("tollgate_edge_retried_total").await? > 0.0, "not found missing");
        Ok(())
    })
    .await;
    for number in 1..=3 {
        status(&format!("s{number}")).await?;
        ensure!(post(&format!("http://{listen}/status"), "no json").await? == 200);
        published(number).await;
    }
    succeed(&["topics", "create", "--replication", "1"], &brokers)?;
    published(3 + 4).await;
    ensure!(tail("quarantine", &brokers)?.len() == 4);
    edge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quarantine_is_listed_without_contents_and_replay_leaves_alone_what_cannot_be_read()
-> Result<()> {
    let dir = TestDir::new("quarantine")?;
    let kafka = tokio::task::spawn_blocking(|| Kafka::start(&KafkaOptions::new())).await??;
    let brokers = [("TOLLGATE_KAFKA__BROKERS", kafka.bootstrap())];
    succeed(&["topics", "create", "--replication", "1"], &brokers)?;
    let listen = address();
    let environment = [
        brokers[0].clone(),
        ("TOLLGATE_EDGE__LISTEN", listen.to_string()),
        ("TOLLGATE_EDGE__ALLOW_WEAK_TOPICS", "true".to_owned()),
        ("TOLLGATE_SPOOL__DIR", dir.path().join("spool").display().to_string()),
    ];
    let mut edge = Process::start("edge", dir.path(), &["edge"], &environment).await?;
    let url = format!("http://{listen}/fee");
    let number = "+8613800000021";
    for body in [format!("not json, {number}"), format!(r#"{{"number":"{number}"}}"#)] {
        ensure!(post(&url, body.clone()).await? == 200);
        ensure!(post(&url, body).await? == 200);
    }
    eventually(PATIENCE, async || {
        let published = metric(&edge.metrics().await?, "tollgate_edge_published_total");
        ensure!(published >= 4.0, "{published} published");
        anyhow::Ok(())
    })
    .await;
    edge.stop().await?;

    let listed = succeed(&["quarantine", "list"], &brokers)?;
    ensure!(!listed.contains(number), "{listed}");
    let mut ids: Vec<String> = lines(&listed)?
        .iter()
        .filter_map(|record| record["event"]["quarantine_id"].as_str().map(ToOwned::to_owned))
        .collect();
    ensure!(ids.len() == 4, "{listed}");
    ids.sort();
    ids.dedup();
    ensure!(ids.len() == 2, "repeats of the same bytes have the same id: {ids:?}");

    let replayed = succeed(&["quarantine", "replay"], &brokers)?;
    ensure!(
        replayed.contains("2 still cannot be read") && replayed.contains("0 published"),
        "{replayed}"
    );
    let unknown = tollgate(&["quarantine", "replay", "--id", "0".repeat(32).as_str()], &brokers)?;
    ensure!(!unknown.status.success(), "an unknown id must be named");
    Ok(())
}

/// The newest offset of this event on topic cdrs, once it is above `last`: what is committed is shown
/// a moment later.
async fn newest(event_id: &str, last: i64, environment: &Environment) -> i64 {
    eventually(PATIENCE, async || {
        let environment = environment.clone();
        let records = tokio::task::spawn_blocking(move || tail("cdrs", &environment)).await??;
        let of_event = records.iter().filter(|record| record["ce_id"] == event_id);
        let offset = of_event.filter_map(|record| record["offset"].as_i64()).max();
        let newest = offset.context("it is not there")?;
        ensure!(newest > last, "it was not published again");
        anyhow::Ok(newest)
    })
    .await
}

/// Waits until so many records are shown on a topic.
async fn shown(topic: &'static str, count: usize, environment: &Environment) {
    eventually(PATIENCE, async || {
        let environment = environment.clone();
        let records = tokio::task::spawn_blocking(move || tail(topic, &environment)).await??;
        ensure!(records.len() == count, "{} of {count} on {topic}", records.len());
        anyhow::Ok(())
    })
    .await;
}

type Environment = [(&'static str, String); 1];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_again_after_its_replay_is_replayed_again_while_the_topics_are_in_use()
-> Result<()> {
    let kafka = tokio::task::spawn_blocking(|| Kafka::start(&KafkaOptions::new())).await??;
    let brokers = [("TOLLGATE_KAFKA__BROKERS", kafka.bootstrap())];
    succeed(&["topics", "create", "--replication", "1"], &brokers)?;
    let settings = Settings { brokers: kafka.bootstrap(), ..Settings::default() };
    let stream = KafkaStream::connect(&settings)?;
    let cdr = |number: u32| {
        let event_id = format!("{number:032x}");
        let cdr = v1::CallDetailRecord { event_id: event_id.clone(), ..Default::default() };
        Outgoing::event(&CDRS, event_id.clone(), &event_id, None, cdr.encode_to_vec())
    };
    let refused = cdr(0);
    let event_id = format!("{:032x}", 0);
    let mut relay = stream.relay("refuses").await?;
    relay.send(vec![refused.clone()]).await?;
    relay.commit().await?;

    // Other records go on coming all the while.
    let traffic_ends = AtomicBool::new(false);
    let traffic = async {
        let mut relay = stream.relay("traffic").await?;
        for number in 1.. {
            if traffic_ends.load(Ordering::Relaxed) {
                break;
            }
            relay.send(vec![cdr(number)]).await?;
            relay.commit().await?;
        }
        anyhow::Ok(())
    };
    let operator = async {
        let mut offset = newest(&event_id, -1, &brokers).await;
        for round in 1..=2 {
            let quarantined = v1::Quarantined {
                quarantine_id: "f".repeat(32),
                content: refused.value.clone().unwrap_or_default().to_vec(),
                source: Some(v1::SourcePosition {
                    topic: CDRS.name.to_owned(),
                    offset,
                    ..Default::default()
                }),
                ..Default::default()
            };
            let id = &quarantined.quarantine_id;
            let value = quarantined.encode_to_vec();
            relay.send(vec![Outgoing::event(&QUARANTINE, id.clone(), id, None, value)]).await?;
            relay.commit().await?;
            shown("quarantine", round, &brokers).await;
            let replayed = replay(&brokers).await?;
            ensure!(replayed.contains("1 published"), "{replayed}");
            offset = newest(&event_id, offset, &brokers).await;
            let replayed = replay(&brokers).await?;
            ensure!(replayed.contains("0 published"), "{replayed}");
        }
        traffic_ends.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let both =
        tokio::time::timeout(4 * common::PATIENCE, async { tokio::try_join!(traffic, operator) });
    both.await.context("a command does not end while records come")??;
    Ok(())
}

async fn replay(environment: &[(&'static str, String); 1]) -> Result<String> {
    let environment = environment.clone();
    let replay = move || succeed(&["quarantine", "replay"], &environment);
    tokio::task::spawn_blocking(replay).await?
}

/// Takes no record above this.
const NARROW: usize = 200_000;

fn narrow(topic: &Topic) -> TopicSpec {
    let config = vec![("max.message.bytes".to_owned(), NARROW.to_string())];
    TopicSpec { config, ..TopicSpec::of(topic, Some(1)) }
}

/// Text that a narrow topic refuses, compressed as well.
fn wide() -> String {
    let mut state = 1_u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + (state >> 60) as u8)
    };
    (0..2 * NARROW).map(|_| letter()).collect()
}

/// What an edge leaves that took statuses with these texts and published none.
fn dead_spool(dir: &Path, texts: &[&str]) -> Result<()> {
    let settings = tollgate_spool::Settings { dir: dir.to_owned(), ..Default::default() };
    let (spool, _reader) = Spool::open(Options { settings, started_at_us: 1 }, Arc::new(RealDisk))?;
    for text in texts {
        let body = format!(
            r#"{{"eventType":"answer","statusInfo":{{"sessionId":"s","timestamp":"2026-11-23 07:00:00","userData":"{text}"}}}}"#
        );
        let request = Request { body: body.as_bytes(), ..Request::default() };
        spool.append(request.encode()).wait()?;
    }
    Ok(())
}

/// Of a command that found something: what it printed, and what it said on standard error.
fn found(arguments: &[&str], environment: &[(&str, String)]) -> Result<(String, String)> {
    let output = tollgate(arguments, environment)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, trouble) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.code() == Some(3), "{}: {printed}{trouble}", output.status);
    Ok((printed, trouble))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_topic_refuses_for_good_stops_no_replay_and_is_told() -> Result<()> {
    const ITEMS: u32 = 1_200;
    const REFUSED: u32 = 700;
    let dir = TestDir::new("refused")?;
    let kafka = tokio::task::spawn_blocking(|| Kafka::start(&KafkaOptions::new())).await??;
    let brokers = [("TOLLGATE_KAFKA__BROKERS", kafka.bootstrap())];
    let settings = Settings { brokers: kafka.bootstrap(), ..Settings::default() };
    let stream = KafkaStream::connect(&settings)?;
    let topics = [narrow(&CALL_EVENTS), narrow(&CDRS), TopicSpec::of(&QUARANTINE, Some(1))];
    stream.create_topics(&topics).await?;
    let wide = wide();

    let spool_dir = dir.path().join("spool");
    dead_spool(&spool_dir, &["first", &wide, "last"])?;
    let replay = ["spool", "replay", "--dir", &spool_dir.display().to_string()];
    let (printed, _) = found(&replay, &brokers)?;
    ensure!(printed.contains("3 requests") && printed.contains("\n1 records"), "{printed}");
    ensure!(tail("call-events", &brokers)?.len() == 2);

    let quarantined = (0..ITEMS).map(|number| {
        let id = format!("{number:032x}");
        let original_json = if number == REFUSED { wide.clone() } else { String::new() };
        let event_id = id.clone();
        let cdr = v1::CallDetailRecord { event_id, original_json, ..Default::default() };
        let (topic, offset) = (CDRS.name.to_owned(), -1);
        let item = v1::Quarantined {
            quarantine_id: id.clone(),
            content: cdr.encode_to_vec(),
            source: Some(v1::SourcePosition { topic, offset, ..Default::default() }),
            ..Default::default()
        };
        Outgoing::event(&QUARANTINE, id.clone(), id, None, item.encode_to_vec())
    });
    let mut relay = stream.relay("refuses").await?;
    relay.send(quarantined.collect()).await?;
    relay.commit().await?;
    shown("quarantine", ITEMS as usize, &brokers).await;
    let replay = ["quarantine", "replay"];
    let (printed, trouble) = found(&replay, &brokers)?;
    ensure!(printed.contains("1199 published; 1 are refused"), "{printed}");
    ensure!(trouble.contains(&format!("event {REFUSED:032x} ")), "{trouble}");
    shown("cdrs", ITEMS as usize - 1, &brokers).await;
    let (printed, _) = found(&replay, &brokers)?;
    ensure!(printed.contains("1199 were replayed before\n0 published; 1 are"), "{printed}");
    Ok(())
}
