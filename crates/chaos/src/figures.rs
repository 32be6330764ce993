//! What runs came to, kept so that a long series can be interrupted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What one schedule came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Of the schedule.
    pub seed: u64,
    /// What is not as it should be; empty when all is well.
    pub failures: Vec<String>,
    /// What could not be done on this machine.
    pub skipped: Vec<String>,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Notifications that the platform saw answered 200.
    pub acknowledged: u64,
    /// Records that had to be on the topics.
    pub records: u64,
    /// Of them, those that are not, or without their charge.
    pub lost: u64,
    /// There with another result for the same identity.
    pub duplicated: u64,
    /// There with another value, or never sent.
    pub wrong: u64,
    /// Records that were sent without an answer, or refused and there: either is right.
    pub unknown: u64,
    /// Records that were refused to the last, and are not there.
    #[serde(default)]
    pub refused: u64,
    /// Acknowledged requests that a disk was made to lose, each named by its edge.
    pub damaged: u64,
    /// Snapshots in which the ledger was compared with its sums.
    pub snapshots: u64,
    /// Published records that were found in the ledger as soon as they could be read.
    #[serde(default)]
    pub published: u64,
    /// How often another node became the active controller of the cluster.
    #[serde(default)]
    pub controllers: u64,
    /// Hostile requests, none of them answered 200.
    pub attacks: u64,
    /// From the last healed fault until all was quiet.
    #[serde(default)]
    pub rest_seconds: u64,
    /// How long it took, start and checks included.
    pub seconds: u64,
}

/// The figures of a series, a line of JSON for each seed.
pub struct Journal {
    path: PathBuf,
    runs: Vec<Figures>,
}

impl Journal {
    /// Reads what is there. A torn last line is a run that did not end.
    pub fn open(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let runs = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(Self { path: path.to_owned(), runs })
    }

    /// Seeds that need not run again.
    pub fn passed(&self) -> BTreeSet<u64> {
        self.runs.iter().filter(|run| run.failures.is_empty()).map(|run| run.seed).collect()
    }

    /// Appends a run.
    pub fn append(&mut self, run: &Figures) -> Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        let mut file =
            File::options().create(true).append(true).open(&self.path).with_context(failed)?;
        writeln!(file, "{}", serde_json::to_string(run)?).with_context(failed)?;
        self.runs.push(run.clone());
        Ok(())
    }
}

impl fmt::Display for Journal {
    /// The series as a table. Of a seed that ran several times the last run counts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs: BTreeMap<u64, &Figures> = self.runs.iter().map(|run| (run.seed, run)).collect();
        let sum = |figure: fn(&Figures) -> u64| runs.values().map(|run| figure(run)).sum::<u64>();
        let longest = runs.values().map(|run| run.rest_seconds).max().unwrap_or_default();
        let failed: Vec<u64> =
            runs.values().filter(|run| !run.failures.is_empty()).map(|run| run.seed).collect();
        let rows = [
            ("schedules", runs.len() as u64),
            ("of them failed", failed.len() as u64),
            ("notifications acknowledged", sum(|run| run.acknowledged)),
            ("records", sum(|run| run.records)),
            ("lost", sum(|run| run.lost)),
            ("duplicated", sum(|run| run.duplicated)),
            ("wrong", sum(|run| run.wrong)),
            ("unknown (no answer, or refused and there)", sum(|run| run.unknown)),
            ("refused to the last", sum(|run| run.refused)),
            ("requests lost to flipped bits, all named", sum(|run| run.damaged)),
            ("snapshots of the ledger", sum(|run| run.snapshots)),
            ("published records compared with the ledger", sum(|run| run.published)),
            ("times another controller took over", sum(|run| run.controllers)),
            ("hostile requests", sum(|run| run.attacks)),
            ("seconds until all was quiet, at most", longest),
            ("faults", sum(|run| run.faults.values().sum())),
        ];
        writeln!(f, "| | |\n|--|--:|")?;
        for (name, figure) in rows {
            writeln!(f, "| {name} | {figure} |")?;
        }
        let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
        for (kind, count) in runs.values().flat_map(|run| &run.faults) {
            *faults.entry(kind).or_default() += count;
        }
        for (kind, count) in faults {
            writeln!(f, "| – {kind} | {count} |")?;
        }
        if !failed.is_empty() {
            writeln!(f, "failed seeds: {failed:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_read_back_and_a_failed_seed_runs_again() {
        let dir = tollgate_testkit::TestDir::new("figures").unwrap();
        let path = dir.path().join("figures.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        journal.append(&Figures { seed: 1, records: 5, ..Figures::default() }).unwrap();
        let failures = vec!["lost".to_owned()];
        journal.append(&Figures { seed: 2, failures, ..Figures::default() }).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"{\"seed\":3").unwrap();

        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.passed(), BTreeSet::from([1]));
        assert!(journal.to_string().contains("failed seeds: [2]"));
        assert!(journal.to_string().contains("| records | 5 |"));
    }
}
