//! One schedule from start to verdict.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep_until};

use crate::attack::Attack;
use crate::check::{self, Failures};
use crate::faults::Done;
use crate::figures::Figures;
use crate::quiet::quiet;
use crate::schedule::Schedule;
use crate::snapshot::Snapshots;
use crate::system::System;
use crate::traffic;

/// Runs schedules.
#[derive(Debug, Clone)]
pub struct Runner {
    /// The binary under test.
    pub tollgate: PathBuf,
    /// Takes a directory for each seed; only those of failed ones stay.
    pub dir: PathBuf,
}

/// What a schedule came to.
#[derive(Debug)]
pub struct Outcome {
    /// Its figures and failures.
    pub figures: Figures,
    /// Logs, spools and journal of a failed run.
    pub evidence: Option<PathBuf>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { seed, acknowledged, records, damaged, snapshots, seconds, .. } =
            &self.figures;
        write!(
            f,
            "seed {seed}: {acknowledged} acknowledged, {records} records, {damaged} damaged and \
             named, {snapshots} snapshots, {seconds} s: "
        )?;
        for skipped in &self.figures.skipped {
            write!(f, "\n  left out: {skipped}")?;
        }
        match &self.evidence {
            None => f.write_str("nothing lost, nothing twice, nothing wrong"),
            Some(evidence) => {
                writeln!(f, "FAILED")?;
                for failure in &self.figures.failures {
                    writeln!(f, "  {failure}")?;
                }
                writeln!(f, "  evidence: {}", evidence.display())?;
                write!(f, "  again: make chaos SEED={seed}")
            }
        }
    }
}

impl Runner {
    /// Runs the schedule of a seed.
    pub async fn run(&self, seed: u64) -> Result<Outcome> {
        let started = Instant::now();
        let schedule = Schedule::of(seed);
        let dir = self.dir.join(format!("seed-{seed}"));
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        std::fs::write(dir.join("schedule.txt"), schedule.to_string())?;
        let mut figures = Figures { seed, ..Figures::default() };
        let mut failures = Failures::default();
        let result = execute(&schedule, self, &dir, &mut figures, &mut failures).await;
        failures.note(result);
        figures.failures = failures.0;
        figures.seconds = started.elapsed().as_secs();
        let evidence = if figures.failures.is_empty() {
            std::fs::remove_dir_all(&dir)?;
            None
        } else {
            std::fs::write(dir.join("failures.txt"), figures.failures.join("\n\n"))?;
            Some(dir)
        };
        Ok(Outcome { figures, evidence })
    }
}

async fn execute(
    schedule: &Schedule,
    runner: &Runner,
    dir: &Path,
    figures: &mut Figures,
    failures: &mut Failures,
) -> Result<()> {
    let mut system = System::start(schedule, &runner.tollgate, dir).await?;
    let result = in_system(schedule, &mut system, dir, figures, failures).await;
    if result.is_err() || !failures.0.is_empty() {
        check::keep_evidence(&system, dir);
    }
    // Servers block while they stop.
    tokio::task::spawn_blocking(move || drop(system)).await?;
    result
}

async fn in_system(
    schedule: &Schedule,
    system: &mut System,
    dir: &Path,
    figures: &mut Figures,
    failures: &mut Failures,
) -> Result<()> {
    let snapshots = Snapshots::begin(system.databases(), system.database.clone());
    let attack = Attack::begin(system.listens.values().copied());
    let calls = traffic::Calls::of(schedule.seed, system, dir);
    let playing = tokio::spawn(calls.clone().play());

    let mut done = Done::default();
    carry_out(schedule, system, &mut done).await?;
    system.heal().await.context("not everything comes up again")?;
    let played = playing.await??;
    (figures.attacks, figures.faults) = (attack.attempts(), done.faults.clone());
    figures.skipped.clone_from(&done.skipped);
    figures.acknowledged = played.counts.acknowledged;
    failures.note(check::attackers(attack.heard()));
    drop(attack);

    quiet(system).await?;
    match snapshots.end().await {
        Ok(taken) => figures.snapshots = taken,
        Err(error) => failures.note(Err(error)),
    }
    figures.damaged = done.hits.len() as u64;
    failures.note(check::named_and_restored(system, &done.hits).await);

    let stream = traffic::stream(system)?;
    let report = calls.verify(stream.clone()).await?;
    std::fs::write(dir.join("verdict.txt"), report.to_string())?;
    add(figures, &report);
    failures.note(check::verdict(&report));
    failures.note(check::ledger(system, &stream).await);
    failures.note(check::no_gaps(&stream, &done).await);
    failures.note(check::stop(system).await);
    failures.note(check::spools(system, &done));
    failures.note(check::logs(system));
    Ok(())
}

/// Begins and ends the faults at their time.
async fn carry_out(schedule: &Schedule, system: &mut System, done: &mut Done) -> Result<()> {
    let origin = Instant::now();
    let ends = |index: usize| (schedule.events[index].ends_ms(), false, index);
    let begins = |index: usize| (schedule.events[index].at_ms, true, index);
    let mut times: Vec<(u64, bool, usize)> =
        (0..schedule.events.len()).flat_map(|index| [begins(index), ends(index)]).collect();
    times.sort_unstable();
    for (at_ms, is_begin, index) in times {
        sleep_until(origin + Duration::from_millis(at_ms)).await;
        let event = &schedule.events[index];
        if is_begin {
            let seed = schedule.seed.wrapping_mul(1_000).wrapping_add(index as u64);
            system.begin(event, seed, done)
        } else {
            system.end(event).await
        }
        .with_context(|| event.fault.to_string())?;
    }
    Ok(())
}

fn add(figures: &mut Figures, report: &tollgate_simulator::Report) {
    for tally in &report.tallies {
        figures.lost += tally.lost;
        figures.duplicated += tally.duplicated;
        figures.wrong += tally.wrong;
        if matches!(tally.place, "call-events" | "cdrs" | "quarantine") {
            figures.records += tally.expected;
            figures.unknown += tally.unknown_present + tally.unknown_absent;
        }
    }
}
