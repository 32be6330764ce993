//! What one schedule came to, for people.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::figures::Figures;

/// What a schedule came to.
#[derive(Debug)]
pub struct Outcome {
    /// Its figures and failures.
    pub figures: Figures,
    /// Logs, spools and journal of a failed run.
    pub evidence: Option<PathBuf>,
    pub(crate) phases: Phases,
}

/// What took how long.
#[derive(Debug)]
pub(crate) struct Phases {
    last: Instant,
    list: Vec<(&'static str, Duration)>,
}

impl Phases {
    pub fn begin() -> Self {
        Self { last: Instant::now(), list: Vec::new() }
    }

    pub fn over(&mut self, phase: &'static str) {
        self.list.push((phase, self.last.elapsed()));
        self.last = Instant::now();
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { seed, acknowledged, records, refused, damaged, snapshots, .. } =
            &self.figures;
        let Figures { published, controllers, rest_seconds, .. } = &self.figures;
        write!(
            f,
            "seed {seed}: {acknowledged} acknowledged, {records} records, {refused} refused, \
             {damaged} damaged and named, {snapshots} snapshots, {published} compared when \
             published, {controllers} other controllers, quiet after {rest_seconds} s;"
        )?;
        for (phase, took) in &self.phases.list {
            write!(f, " {phase} {:.0} s", took.as_secs_f64())?;
        }
        for skipped in &self.figures.skipped {
            write!(f, "\n  left out: {skipped}")?;
        }
        let Some(evidence) = &self.evidence else {
            return f.write_str("\n  nothing lost, nothing twice, nothing wrong");
        };
        for failure in &self.figures.failures {
            write!(f, "\n  FAILED: {failure}")?;
        }
        write!(f, "\n  evidence: {}\n  again: make chaos SEED={seed}", evidence.display())
    }
}
