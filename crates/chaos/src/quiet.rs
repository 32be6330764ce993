//! Waits until nothing is on its way any more.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::schedule::Node;
use crate::snapshot::Snapshot;
use crate::system::System;

/// Long: groups, transactions and leaders have time-outs of their own, and the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(3);
const PAUSE: Duration = Duration::from_millis(400);
/// Quiet looks in a row.
const LOOKS: u32 = 4;
/// Partitions of `cdrs`, which billing consumes.
const CDRS: u32 = 12;
/// Partitions of `call-events` and `cdrs`, which user-state consumes.
const EVENTS_AND_CDRS: u32 = 24;

/// Waits until spools, topics and outboxes are empty, and every partition is served; how long that
/// took.
pub async fn quiet(system: &mut System) -> Result<Duration> {
    let begin = Instant::now();
    let mut looks = 0;
    loop {
        for process in system.processes.values_mut() {
            process.still_runs()?;
        }
        match noise(system).await {
            Ok(()) => looks += 1,
            Err(noise) if begin.elapsed() > PATIENCE => {
                return Err(noise.context("something does not come to rest"));
            }
            Err(_) => looks = 0,
        }
        if looks == LOOKS {
            return Ok(begin.elapsed());
        }
        sleep(PAUSE).await;
    }
}

/// Fails with what is still going on.
async fn noise(system: &System) -> Result<()> {
    for edge in Node::EDGES {
        let metrics = metrics(system, edge).await?;
        for name in ["tollgate_spool_depth_records", "tollgate_edge_in_flight_records"] {
            let left = metrics.sum(name, "").unwrap_or(0.0);
            ensure!(left == 0.0, "{}: {name} is {left}", edge.name());
        }
    }
    partitions(system, [Node::Billing1, Node::Billing2], CDRS).await?;
    partitions(system, [Node::UserState1, Node::UserState2], EVENTS_AND_CDRS).await?;
    let (postgres, database) = (system.databases(), system.database.clone());
    let snapshot =
        tokio::task::spawn_blocking(move || Snapshot::take(&postgres, &database)).await??;
    ensure!(snapshot.waiting == 0, "{} messages wait in the outbox", snapshot.waiting);
    ensure!(snapshot.unpublished == 0, "{} states are unpublished", snapshot.unpublished);
    Ok(())
}

async fn metrics(system: &System, node: Node) -> Result<crate::process::Metrics> {
    let process = system.processes.get(&node).context("a process was never started")?;
    process.metrics().await
}

async fn partitions(system: &System, members: [Node; 2], all: u32) -> Result<()> {
    let mut served = 0;
    for node in members {
        let metrics = metrics(system, node).await?;
        let lag = metrics.sum("tollgate_consumer_lag_records", "").unwrap_or(0.0);
        ensure!(lag == 0.0, "{} lags by {lag} records", node.name());
        let name = "tollgate_consumer_partitions";
        served += metrics.sum(name, "state=\"running\"").unwrap_or(0.0) as u32;
        let stopped = metrics.sum(name, "state=\"stopped\"").unwrap_or(0.0);
        if stopped > 0.0 {
            bail!("{} has {stopped} stopped partitions", node.name());
        }
    }
    ensure!(served == all, "{served} of {all} partitions are served ({})", members[0].name());
    Ok(())
}
