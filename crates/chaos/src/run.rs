//! One schedule from start to verdict.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep_until};
use tollgate_simulator::Report;

use crate::attack::Attack;
use crate::check::{self, Failures};
use crate::faults::Done;
use crate::figures::Figures;
use crate::outcome::{Outcome, Phases};
use crate::published::Published;
use crate::quiet::quiet;
use crate::schedule::{Fault, Node, Schedule};
use crate::snapshot::Snapshots;
use crate::system::System;
use crate::traffic::{self, Calls};

/// Runs schedules.
#[derive(Debug, Clone)]
pub struct Runner {
    /// The binary under test.
    pub tollgate: PathBuf,
    /// Takes a directory for each seed; only those of failed ones stay.
    pub dir: PathBuf,
}

impl Runner {
    /// Runs the schedule of a seed.
    pub async fn run(&self, seed: u64) -> Result<Outcome> {
        let started = Instant::now();
        let dir = self.dir.join(format!("seed-{seed}"));
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        let mut run = Run {
            schedule: Schedule::of(seed),
            dir: dir.canonicalize()?,
            figures: Figures { seed, ..Figures::default() },
            failures: Failures::default(),
            phases: Phases::begin(),
        };
        std::fs::write(run.dir.join("schedule.txt"), run.schedule.to_string())?;
        let result = run.start_and_stop(&self.tollgate).await;
        run.failures.note(result);
        let Run { dir, mut figures, failures, phases, .. } = run;
        figures.failures = failures.0;
        figures.seconds = started.elapsed().as_secs();
        let evidence = if figures.failures.is_empty() {
            std::fs::remove_dir_all(&dir)?;
            None
        } else {
            std::fs::write(dir.join("failures.txt"), figures.failures.join("\n\n"))?;
            Some(dir)
        };
        Ok(Outcome { figures, evidence, phases })
    }
}

struct Run {
    schedule: Schedule,
    dir: PathBuf,
    figures: Figures,
    failures: Failures,
    phases: Phases,
}

impl Run {
    async fn start_and_stop(&mut self, tollgate: &Path) -> Result<()> {
        let mut system = System::start(&self.schedule, tollgate, &self.dir).await?;
        self.phases.over("started");
        let result = self.in_system(&mut system).await;
        if result.is_err() || !self.failures.0.is_empty() {
            check::keep_evidence(&system, &self.dir);
        }
        // Servers block while they stop.
        tokio::task::spawn_blocking(move || drop(system)).await?;
        self.phases.over("put away");
        result
    }

    async fn in_system(&mut self, system: &mut System) -> Result<()> {
        let snapshots = Snapshots::begin(system.databases(), system.database.clone());
        let (stream, database) = (traffic::stream(system)?, system.database.clone());
        let published = Published::begin(stream, system.databases(), database);
        let calls = Calls::of(self.schedule.seed, system, &self.dir);
        let done = self.under_fault(system, &calls).await?;
        let rest = quiet(system).await?;
        self.figures.rest_seconds = rest.as_secs();
        self.failures.note(check::rest(rest));
        self.phases.over("quiet");
        match snapshots.end().await {
            Ok(taken) => {
                self.figures.snapshots = taken;
                self.failures.note(check::some(taken, "snapshots of the ledger"));
            }
            Err(error) => self.failures.note(Err(error)),
        }
        match published.end().await {
            Ok(compared) => {
                self.figures.published = compared;
                self.failures.note(check::some(compared, "charges compared while it ran"));
            }
            Err(error) => self.failures.note(Err(error)),
        }
        self.check(system, calls, &done).await
    }

    /// Calls and faults, until both are over and everything is up again.
    async fn under_fault(&mut self, system: &mut System, calls: &Calls) -> Result<Done> {
        let attack = Attack::begin(system.listens.values().copied());
        let playing = tokio::spawn(calls.clone().play());
        let mut done = Done::default();
        self.carry_out(system, &mut done).await?;
        self.phases.over("faults");
        system.heal_servers().await.context("a server does not come up again")?;
        self.phases.over("servers up");
        system.heal_processes().await.context("a process does not come up again")?;
        self.phases.over("processes up");
        let played = playing.await??;
        self.phases.over("calls");
        self.figures.controllers = system.controllers();
        self.figures.acknowledged = played.counts.acknowledged;
        self.figures.attacks = attack.attempts();
        self.figures.faults.clone_from(&done.faults);
        self.figures.skipped.clone_from(&done.skipped);
        self.figures.damaged = done.hits.len() as u64;
        self.failures.note(check::attackers(attack.heard()));
        Ok(done)
    }

    async fn check(&mut self, system: &mut System, calls: Calls, done: &Done) -> Result<()> {
        let failures = &mut self.failures;
        failures.note(check::refusals(system).await);
        failures.note(check::named_and_restored(system, &done.hits).await);
        let stream = traffic::stream(system)?;
        let report = calls.verify(stream.clone()).await?;
        add(&mut self.figures, &report);
        failures.note(check::verdict(&report));
        self.phases.over("verified");
        failures.note(check::ledger(system, &stream).await);
        failures.note(check::charged(system, &report));
        failures.note(check::states(system, &stream).await);
        failures.note(check::no_gaps(&stream, done).await);
        self.phases.over("compared");
        failures.note(check::taking(system).await);
        // What a stop cuts short stays in the spool, which is right and is looked for below.
        failures.note(quiet(system).await.map(drop));
        failures.note(check::stop(system).await);
        self.phases.over("ended");
        failures.note(check::spools(system, done));
        failures.note(check::logs(system));
        Ok(())
    }

    /// Begins and ends the faults at their time.
    async fn carry_out(&mut self, system: &mut System, done: &mut Done) -> Result<()> {
        let origin = Instant::now();
        let events = &self.schedule.events;
        let mut times: Vec<(u64, bool, usize)> = Vec::new();
        for (index, event) in events.iter().enumerate() {
            times.extend([(event.at_ms, true, index), (event.ends_ms(), false, index)]);
        }
        times.sort_unstable();
        for (at_ms, is_begin, index) in times {
            sleep_until(origin + Duration::from_millis(at_ms)).await;
            let event = &events[index];
            if is_begin {
                // Its counters end with it.
                if let Fault::Kill(Node::Edge1, _) | Fault::Restart(Node::Edge1) = event.fault {
                    self.failures.note(check::refusals(system).await);
                }
                let seed = self.schedule.seed.wrapping_mul(1_000).wrapping_add(index as u64);
                system.begin(event, seed, done)
            } else {
                system.end(event).await
            }
            .with_context(|| event.fault.to_string())?;
        }
        Ok(())
    }
}

fn add(figures: &mut Figures, report: &Report) {
    for tally in &report.tallies {
        figures.lost += tally.lost;
        figures.duplicated += tally.duplicated;
        figures.wrong += tally.wrong;
        if matches!(tally.place, "call-events" | "cdrs" | "quarantine") {
            figures.records += tally.expected;
            figures.refused += tally.refused;
            figures.unknown += tally.unknown_present + tally.unknown_absent;
        }
    }
}
