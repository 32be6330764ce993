//! A run from end to end, and one without an end.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::journal::Journal;
use crate::platform::{Engine, Setup, Signer, Target};
use crate::report::Latency;
use crate::script::Plan;
use crate::verify::verify;
use crate::{Counters, Counts, Evidence, Options, Progress, Report, SimulatorError, Sources};

/// Plays calls towards the edges and verifies what became of them.
///
/// Without evidence given, that of the options' query APIs is used; without any, or with
/// `no_verify`, nothing is verified. When `stop` is cancelled while calls are played, no more is
/// sent, and what was sent is verified; cancelled while that goes on, it ends without a result.
pub async fn run(
    options: &Options,
    evidence: Option<Box<dyn Evidence>>,
    progress: Progress,
    stop: CancellationToken,
) -> Result<Report, SimulatorError> {
    options.validate()?;
    let progress = if options.quiet { Progress::hidden() } else { progress };
    let mut report = Report::default();
    let journal = match (&options.journal, options.verify_only) {
        (Some(path), true) => Journal::read(path)?,
        _ => play(options, &progress, &stop, &mut report).await?,
    };
    if options.no_verify {
        return Ok(report);
    }
    report.is_verified = true;
    let evidence = match evidence {
        Some(evidence) => Some(evidence),
        None => Some(Sources::of(options)?)
            .filter(|sources| !sources.is_empty())
            .map(|sources| Box::new(sources) as Box<dyn Evidence>),
    };
    let Some(evidence) = evidence else {
        report.unverified.push("nothing to verify against; give --query".to_owned());
        return Ok(report);
    };
    let was_stopped = stop.is_cancelled();
    let mut verified = report.clone();
    tokio::select! {
        () = verify(options, &journal, evidence, &progress, &mut verified) => Ok(verified),
        // Half a verification would call lost what is on its way.
        () = stop.cancelled(), if !was_stopped => {
            report.unverified.push("interrupted; verify the journal with --verify-only".to_owned());
            Ok(report)
        }
    }
}

async fn play(
    options: &Options,
    progress: &Progress,
    stop: &CancellationToken,
    report: &mut Report,
) -> Result<Journal, SimulatorError> {
    let targets = Target::all(options)?;
    let signer = Signer::of(options)?;
    let calls = options.total_calls();
    let plan = Plan::new(options, Timestamp::now().as_millisecond(), Some(calls));
    let journal = Journal::new(plan.clone(), options.journal.as_deref())?;
    let counters = Arc::new(Counters::default());
    let setup = Setup {
        plan: plan.clone(),
        journal: Some(journal),
        counters: Arc::clone(&counters),
        targets,
        signer,
    };
    progress.stage("sending", calls);
    let started = Instant::now();
    let played = Engine::new(options, setup).play(progress, stop).await;
    progress.done();
    let played = played?;
    report.elapsed = started.elapsed();
    report.counts = counters.read();
    report.latency = Latency::of(played.latencies_us);
    match played.journal {
        Some(journal) => Ok(journal),
        // Never: it was given one.
        None => Journal::new(plan, None),
    }
}

/// Traffic without an end, for a first look.
#[derive(Debug)]
pub struct Endless {
    counters: Arc<Counters>,
    task: JoinHandle<Result<(), SimulatorError>>,
}

impl Endless {
    /// What was sent so far.
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// Ends when the token given at the start is cancelled and the last answers are there.
    pub async fn finished(self) -> Result<(), SimulatorError> {
        self.task.await.unwrap_or_else(|error| {
            Err(SimulatorError::Options(format!("the simulator ended early: {error}")))
        })
    }
}

/// Starts to send calls at the options' rate until the token is cancelled. Verifies nothing,
/// keeps no journal, and its memory is bounded.
pub fn endless(options: &Options, stop: CancellationToken) -> Result<Endless, SimulatorError> {
    options.validate()?;
    let counters = Arc::new(Counters::default());
    let setup = Setup {
        plan: Plan::new(options, Timestamp::now().as_millisecond(), None),
        journal: None,
        counters: Arc::clone(&counters),
        targets: Target::all(options)?,
        signer: Signer::of(options)?,
    };
    let engine = Engine::new(options, setup);
    let task =
        tokio::spawn(async move { engine.play(&Progress::hidden(), &stop).await.map(|_| ()) });
    Ok(Endless { counters, task })
}
