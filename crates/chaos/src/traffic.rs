//! The simulator as the platform: whole calls with its own faults, and its verdict afterwards.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;
use tollgate_kafka::{KafkaStream, Settings};
use tollgate_simulator::{Faults, Options, Progress, Report, Sources};
use tollgate_stream::Stream;

use crate::schedule::TRAFFIC_MS;
use crate::system::System;

/// Calls that begin each second.
const RATE: f64 = 12.0;
/// How long the verdict waits for what is still on its way, seconds. All is quiet by then.
const SETTLE: f64 = 40.0;

/// The calls of a seed.
#[derive(Clone)]
pub struct Calls(Options);

impl Calls {
    /// `dir` takes the journal.
    pub fn of(seed: u64, system: &System, dir: &Path) -> Self {
        Self(Options {
            edges: system.links.edges(),
            rate: RATE,
            duration: TRAFFIC_MS as f64 / 1000.0,
            seed,
            // Few, so that calls of a number meet.
            numbers: 200,
            connections: 32,
            timeout: 4.0,
            faults: Faults::all(),
            repeat_after: Some(2.0),
            undelivered: dir.join("undelivered.jsonl"),
            journal: Some(dir.join("journal")),
            alone: true,
            settle: SETTLE,
            billing: Some(system.billing_url.clone()),
            user_state: Some(system.user_state_url.clone()),
            quiet: true,
            ..Options::default()
        })
    }

    /// Plays them to their end.
    pub async fn play(self) -> Result<Report> {
        let options = Options { no_verify: true, ..self.0 };
        let stop = CancellationToken::new();
        let report = tollgate_simulator::run(&options, None, Progress::hidden(), stop).await;
        report.context("the simulator cannot play")
    }

    /// Compares what was acknowledged with the topics, the ledger and the states.
    pub async fn verify(self, stream: Arc<dyn Stream>) -> Result<Report> {
        let options = Options { verify_only: true, ..self.0 };
        let evidence = Box::new(Sources::of(&options)?.with_stream(stream));
        let (progress, stop) = (Progress::hidden(), CancellationToken::new());
        let report = tollgate_simulator::run(&options, Some(evidence), progress, stop).await;
        report.context("the simulator cannot verify")
    }
}

/// The cluster as a reader past all proxies sees it.
pub fn stream(system: &System) -> Result<Arc<dyn Stream>> {
    let settings = Settings { brokers: system.brokers.clone(), ..Settings::default() };
    Ok(KafkaStream::connect(&settings)?)
}
