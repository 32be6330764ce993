//! One calm line about everything that runs.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;
use tollgate_edge::Watch;
use tollgate_simulator::Endless;
use tollgate_stream::consumer::ConsumerHandle;

use crate::say;

/// On a terminal the line is rewritten; elsewhere a new one is printed.
const ON_TERMINAL: Duration = Duration::from_secs(1);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// What the line tells about.
pub struct Sources {
    pub edge: Watch,
    pub billing: ConsumerHandle,
    pub users: ConsumerHandle,
    pub simulation: Option<Endless>,
}

/// Prints until told to stop.
pub struct LiveLine {
    sources: Sources,
    acknowledged_before: u64,
}

impl LiveLine {
    /// Whether somebody is watching.
    pub fn wanted(quiet: bool) -> bool {
        !quiet && std::io::stderr().is_terminal()
    }

    pub fn new(sources: Sources) -> Self {
        Self { sources, acknowledged_before: 0 }
    }

    pub async fn run(mut self, terminal: bool, quiet: bool, stop: CancellationToken) {
        if quiet {
            return;
        }
        let every = if terminal { ON_TERMINAL } else { ELSEWHERE };
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("  {msg}") {
            bar.set_style(style);
        }
        let mut ticks = tokio::time::interval(every);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => {
                    bar.finish_and_clear();
                    return;
                }
            }
            let line = self.line(every);
            if terminal {
                bar.set_message(line);
                bar.tick();
            } else if !say::progress(&line) {
                return;
            }
        }
    }

    fn line(&mut self, every: Duration) -> String {
        let counts = self.sources.edge.counts();
        let spool = self.sources.edge.spool_usage();
        let billing = self.sources.billing.status();
        let users = self.sources.users.status();
        let rate = (counts.acknowledged - self.acknowledged_before) as f64 / every.as_secs_f64();
        self.acknowledged_before = counts.acknowledged;
        let mut line = format!(
            "taken {}  acknowledged {} ({rate:.0}/s)  published {}  CDRs applied {}  lag {}",
            counts.taken,
            counts.acknowledged,
            counts.published,
            billing.applied,
            spool.records as i64 + billing.lag.max(0) + users.lag.max(0),
        );
        if let Some(simulation) = &self.sources.simulation {
            let counts = simulation.counts();
            let unanswered = counts.sent - counts.acknowledged.min(counts.sent);
            // Writing to a String cannot fail.
            let _ = write!(line, "  simulated {} (not 200: {unanswered})", counts.sent);
        }
        for trouble in [billing.trouble, users.trouble].into_iter().flatten() {
            let _ = write!(line, "  ! {trouble}; it is tried again");
        }
        line
    }
}
