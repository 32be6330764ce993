//! What must hold when all is quiet again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tollgate_simulator::{Report, Tally};
use tollgate_stream::Stream;

use crate::damage::Hit;
use crate::faults::Done;
use crate::schedule::Node;
use crate::sequences::{gaps, ledger_is_topic, sequences};
use crate::snapshot::Snapshot;
use crate::states::{Shown, states_are_topic};
use crate::system::System;

/// 19 seconds were the most on an idle machine; a stall is longer.
const REST: Duration = Duration::from_secs(90);
/// For these reasons an edge answers 503; not among them is that it stops.
const UNAVAILABLE: [&str; 5] =
    ["spool_full", "reserved_for_status", "disk_failing", "overloaded", "not_delivered"];
/// A number's state may change by itself, once, while it is compared.
const STATES: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);
/// Notifications of each kind that each edge must take in the end.
const NOTIFICATIONS: usize = 50;
const STATUS: &str =
    r#"{"eventType":"answer","statusInfo":{"sessionId":"last","timestamp":"2026-11-23 07:00:00"}}"#;
const FEE: &str =
    r#"{"eventType":"fee","feeLst":[{"sessionId":"last","icid":"last","appKey":"last"}]}"#;

/// All that a run found wrong, each with its reason.
#[derive(Debug, Default)]
pub struct Failures(pub Vec<String>);

impl Failures {
    /// Notes a failure.
    pub fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.0.push(format!("{error:#}"));
        }
    }
}

/// The platform's own verdict.
pub fn verdict(report: &Report) -> Result<()> {
    ensure!(report.exit_code() == 0, "the platform's verdict:\n{report}");
    for Tally { place, expected, not_judged, .. } in &report.tallies {
        let most = expected / 10;
        ensure!(*not_judged <= most, "{not_judged} of {place} could not be judged:\n{report}");
    }
    Ok(())
}

/// Nothing stalled once all was healed.
pub fn rest(took: Duration) -> Result<()> {
    ensure!(took <= REST, "it took {took:?} until all was quiet");
    Ok(())
}

/// Edge 1, whose disk is never full, has taken what it could since its last start.
pub async fn refusals(system: &System) -> Result<()> {
    let edge = system.processes.get(&Node::Edge1).context("edge 1 was never started")?;
    // One that is about to serve its metrics has refused nothing yet.
    let Ok(metrics) = edge.metrics().await else { return Ok(()) };
    for reason in UNAVAILABLE {
        let label = format!("reason=\"{reason}\"");
        let refused = metrics.sum("tollgate_edge_refused_total", &label).unwrap_or_default();
        ensure!(refused == 0.0, "{} refused {refused} requests: {reason}", edge.name());
    }
    Ok(())
}

/// Each request that a disk was made to lose is named by its edge, and its bytes are kept. Feeds
/// it in again, as an operator would: what is missing after that was lost for no reason.
pub async fn named_and_restored(system: &System, hits: &[Hit]) -> Result<()> {
    for Hit { edge, position, request } in hits {
        let dir = system.spools.get(edge).context("an edge without a spool")?;
        let name = format!(
            "epoch-{}-sequences-{}-{}-",
            position.epoch, position.sequence, position.sequence
        );
        let kept = std::fs::read_dir(dir.join("damaged")).into_iter().flatten().flatten();
        let is_named =
            kept.into_iter().any(|it| it.file_name().to_string_lossy().starts_with(&name));
        ensure!(is_named, "{} does not name damaged request {position}", edge.name());
        let body = request.request().body;
        let kind = if is_fee(body) { "fee" } else { "status" };
        let url = format!("{}/{kind}", system.edge_url(*edge));
        let answer = reqwest::Client::new().post(url).body(body.to_vec()).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "{} answers {status} when all is well", edge.name());
    }
    Ok(())
}

fn is_fee(body: &[u8]) -> bool {
    body.windows(8).any(|bytes| bytes == b"\"feeLst\"")
}

/// What was to be looked at while it ran was there.
pub fn some(looked: u64, what: &str) -> Result<()> {
    ensure!(looked > 0, "no {what}");
    Ok(())
}

/// Whatever has befallen it, each edge takes notifications of both kinds when all is well.
pub async fn taking(system: &System) -> Result<()> {
    let client = reqwest::Client::new();
    for edge in Node::EDGES {
        for (kind, body) in [("status", STATUS), ("fee", FEE)] {
            for _ in 0..NOTIFICATIONS {
                let url = format!("{}/{kind}", system.edge_url(edge));
                let answer = client.post(url).body(body).send().await?;
                let status = answer.status();
                ensure!(status.is_success(), "{} answers {status} to a {kind}", edge.name());
            }
        }
    }
    Ok(())
}

/// The ledger does not contradict itself, and is what its topic holds.
pub async fn ledger(system: &System, stream: &Arc<dyn Stream>) -> Result<()> {
    let snapshot = Snapshot::take(&system.databases(), &system.database)?;
    snapshot.check()?;
    ensure!(snapshot.entries > 0, "nothing was charged");
    let entries = system.sql(
        "SELECT encode(record_id, 'hex') || ' ' || revision || ' ' || kind
         FROM tollgate.billing_ledger",
    )?;
    ledger_is_topic(stream, &entries).await
}

/// The sums come to what the calls cost by the platform's own tariff, and to nothing in any other
/// currency.
pub fn charged(system: &System, report: &Report) -> Result<()> {
    let expected = report.charges.as_ref().context("no charges were verified")?;
    let expected = format!("{} {}", expected.currency, expected.expected_micros);
    let found = system.sql(
        "SELECT currency || ' ' || sum(amount_micros) FROM tollgate.billing_aggregates
         GROUP BY currency HAVING sum(amount_micros) <> 0",
    )?;
    let found = found.trim();
    ensure!(found == expected, "the sums come to {found} micro-units, the calls to {expected}");
    Ok(())
}

/// The topic of states ends with what the database holds, and with what is answered.
pub async fn states(system: &System, stream: &Arc<dyn Stream>) -> Result<()> {
    let end = Instant::now() + STATES;
    loop {
        let compared = compare_states(system, stream).await;
        if compared.is_ok() || Instant::now() > end {
            return compared;
        }
        sleep(PAUSE).await;
    }
}

async fn compare_states(system: &System, stream: &Arc<dyn Stream>) -> Result<()> {
    let rows = "SELECT convert_from(number, 'UTF8') || ' ' || version FROM tollgate.state_number";
    let published = states_are_topic(stream, &system.sql(rows)?).await?;
    let numbers: Vec<_> = published.keys().collect();
    let url = format!("{}/v1/numbers/query", system.user_state_url);
    let question = json!({ "numbers": numbers }).to_string();
    let answer = reqwest::Client::new().post(url).body(question).send().await?;
    let answer: Value = serde_json::from_str(&answer.error_for_status()?.text().await?)?;
    let answers = answer["numbers"].as_array().context("no states are answered")?;
    ensure!(answers.len() == published.len(), "not all states are answered");
    for (state, answered) in published.values().zip(answers) {
        let (published, answered) = (Shown::of_topic(state), Shown::of_answer(answered));
        ensure!(published == answered, "{published:?} is published, {answered:?} answered");
    }
    Ok(())
}

/// Every sequence of every edge was published, but for what a disk was made to lose.
pub async fn no_gaps(stream: &Arc<dyn Stream>, done: &Done) -> Result<()> {
    let sequences = sequences(stream).await?;
    ensure!(!sequences.is_empty(), "nothing came through a spool");
    let allowed: BTreeSet<_> = done
        .hits
        .iter()
        .map(|hit| (hit.edge.name().to_owned(), hit.position.epoch, hit.position.sequence))
        .collect();
    let gaps: Vec<_> = gaps(&sequences).into_iter().filter(|gap| !allowed.contains(gap)).collect();
    ensure!(gaps.is_empty(), "never published (edge, epoch, sequence): {gaps:?}");
    Ok(())
}

/// Every process stops in good order.
pub async fn stop(system: &mut System) -> Result<()> {
    for process in system.processes.values() {
        process.terminate();
    }
    for process in system.processes.values_mut() {
        process.ended().await?;
    }
    Ok(())
}

/// The spools hold nothing unpublished, and miss nothing but what was taken from them.
pub fn spools(system: &System, done: &Done) -> Result<()> {
    let hits = done.hits.iter().map(|hit| (hit.edge, hit.position));
    let inflicted: Vec<_> = hits.chain(done.published.iter().copied()).collect();
    for edge in Node::EDGES {
        let dir =
            system.spools.get(&edge).context("an edge without a spool")?.display().to_string();
        let output = std::process::Command::new(&system.binary)
            .args(["spool", "verify", "--dir", &dir])
            .output()?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("spool verify of {} shows no report", edge.name()))?;
        let unconfirmed = &report["inspection"]["unconfirmed"];
        ensure!(*unconfirmed == 0, "{} still holds {unconfirmed} requests", edge.name());
        for finding in report["findings"].as_array().into_iter().flatten() {
            let is_loss = finding["kind"] == "damaged" || finding["kind"] == "missing";
            let is_inflicted = inflicted.iter().any(|(of, position)| {
                *of == edge
                    && finding["epoch"] == position.epoch
                    && finding["first"] == position.sequence
                    && finding["last"] == position.sequence
            });
            ensure!(!is_loss || is_inflicted, "{} misses: {finding}", edge.name());
        }
    }
    Ok(())
}

/// No process panicked, and no log holds a number of the simulator's.
pub fn logs(system: &System) -> Result<()> {
    for process in system.processes.values() {
        let log = std::fs::read(process.log())
            .with_context(|| format!("the log of {} cannot be read", process.name()))?;
        let log = String::from_utf8_lossy(&log);
        let find = |text: &str| log.lines().find(|line| line.contains(text)).map(str::to_owned);
        let panic = find("panicked at");
        ensure!(panic.is_none(), "{} panicked: {panic:?}", process.name());
        let number = find("86138000");
        ensure!(number.is_none(), "a phone number is in a log of {}: {number:?}", process.name());
    }
    Ok(())
}

/// No hostile sender was answered 200.
pub fn attackers(heard: u64) -> Result<()> {
    ensure!(heard == 0, "{heard} hostile requests were answered 200");
    Ok(())
}

/// Writes down what a failed run leaves in places that go away with it.
pub fn keep_evidence(system: &System, dir: &Path) {
    system.keep_broker_logs(dir);
    system.processes.values().for_each(|process| process.keep_stacks(dir));
    if let Some(tmpfs) = &system.tmpfs {
        let _ = std::process::Command::new("cp")
            .arg("-a")
            .arg(tmpfs.path().join("."))
            .arg(dir.join(Node::Edge2.name()))
            .status();
    }
}
