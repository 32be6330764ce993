//! What must hold when all is quiet again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tollgate_simulator::Report;
use tollgate_stream::Stream;

use crate::damage::Hit;
use crate::faults::Done;
use crate::schedule::Node;
use crate::sequences::{gaps, ledger_is_topic, sequences};
use crate::snapshot::Snapshot;
use crate::system::System;

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
        let log = std::fs::read_to_string(process.log()).unwrap_or_default();
        let find = |text: &str| log.lines().find(|line| line.contains(text)).map(str::to_owned);
        let panic = find("panicked at");
        ensure!(panic.is_none(), "{} panicked: {panic:?}", process.name());
        let number = find("+861");
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
