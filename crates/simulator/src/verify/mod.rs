//! Compares what was acknowledged with what is there, by identity and by value.
//!
//! ```text
//!  journal + script ──▶ index ──▶ records: call-events, cdrs, quarantine ──┐
//!                                 money: rated-cdrs, ledger ───────────────┼──▶ report
//!                                 states, timelines ───────────────────────┘
//! ```
//!
//! Repeats under one `ce_id` are allowed: topics are at least once. What was sent and not
//! answered may be there once or not at all.

mod diff;
mod findings;
mod index;
mod money;
mod records;
mod states;
mod timelines;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::evidence::{Evidence, EvidenceError};
use crate::journal::Journal;
use crate::report::Charges;
use crate::{Options, Progress, Report};
use findings::Findings;
use index::Index;
use money::{LEDGER, Money, RATED};
use records::Records;
use states::States;
use timelines::Timelines;

/// Between two looks, at least.
const PAUSE: Duration = Duration::from_millis(300);
/// Looks without anything new, once all is there, before late repeats are no more expected.
const QUIET_LOOKS: u32 = 3;

/// Waits until everything expected is there, or until the time for it is up; then says what is
/// not as it should be.
pub(crate) async fn verify(
    options: &Options,
    journal: &Journal,
    evidence: Box<dyn Evidence>,
    progress: &Progress,
    report: &mut Report,
) {
    let index = Index::new(journal);
    let settle = Duration::from_secs_f64(options.settle);
    let mut verifier = Verifier {
        records: Records::new(&index, options.alone),
        rated: Money::new(RATED, &index),
        ledger: Money::new(LEDGER, &index),
        index: &index,
        findings: Findings::default(),
        evidence,
        missing: Missing::default(),
    };
    progress.stage("verifying", index.expected_parts());
    let deadline = Instant::now() + settle;
    verifier.wait(deadline, progress).await;
    verifier.judge(options, deadline, progress, report).await;
    progress.done();
}

struct Verifier<'a> {
    index: &'a Index,
    records: Records<'a>,
    rated: Money<'a>,
    ledger: Money<'a>,
    findings: Findings,
    evidence: Box<dyn Evidence>,
    missing: Missing,
}

/// Which evidence there is none of, and why.
#[derive(Debug, Default)]
struct Missing {
    topics: Option<String>,
    ledger: Option<String>,
    states: Option<String>,
}

/// An answer of so many records is followed by another question at once.
const MANY: usize = 1000;

/// What there is no source for, as opposed to one that fails.
const NO_SOURCE: &str = "no source was given";

impl Verifier<'_> {
    /// Reads until everything is there and nothing more comes, or the time is up.
    async fn wait(&mut self, deadline: Instant, progress: &Progress) {
        let mut quiet = 0;
        loop {
            let started = Instant::now();
            let news = self.look().await;
            let missing = self.missing_parts();
            let expected = self.index.expected_parts();
            let still =
                if missing == 0 { "all there, waiting for repeats" } else { "still missing" };
            progress.at(expected.saturating_sub(missing), format!("{missing} {still}"));
            quiet = if news || missing > 0 { 0 } else { quiet + 1 };
            if quiet >= QUIET_LOOKS {
                return;
            }
            if Instant::now() >= deadline {
                // A position may have passed by what was written late.
                self.evidence.rewind();
                self.look().await;
                return;
            }
            // A look at much takes long: then looks are rarer, too.
            let pause = PAUSE.max(started.elapsed() * 2);
            sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
    }

    /// Reads what is new. Says whether anything of this run was.
    async fn look(&mut self) -> bool {
        let before = self.records.read() + self.rated.read() + self.ledger.read();
        let topics = self.look_at_topics().await;
        keep(&mut self.missing.topics, topics);
        let ledger = match self.evidence.ledger().await {
            Ok(Some(entries)) => {
                for entry in entries {
                    self.ledger.take(entry.into(), &mut self.findings);
                }
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        };
        keep(&mut self.missing.ledger, ledger);
        self.records.read() + self.rated.read() + self.ledger.read() != before
    }

    async fn look_at_topics(&mut self) -> Result<bool, EvidenceError> {
        for name in ["call-events", "cdrs", "quarantine", "rated-cdrs"] {
            loop {
                let Some(records) = self.evidence.topic(name).await? else { return Ok(false) };
                // Others may write all the time: a small answer is the end for this look.
                let is_last = records.len() < MANY;
                for record in records {
                    match name {
                        "rated-cdrs" => self.rated.take_record(&record, &mut self.findings),
                        _ => self.records.take(name, &record, &mut self.findings),
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(true)
    }

    fn has_topics(&self) -> bool {
        self.missing.topics.is_none()
    }

    /// How much of what must come has not.
    fn missing_parts(&self) -> u64 {
        let mut missing = 0;
        if self.missing.topics.as_deref() != Some(NO_SOURCE) {
            missing += self.records.missing() + self.rated.missing(&self.records);
        }
        if self.missing.ledger.as_deref() != Some(NO_SOURCE) {
            missing += self.ledger.missing(&self.records);
        }
        missing
    }

    async fn judge(
        mut self,
        options: &Options,
        deadline: Instant,
        progress: &Progress,
        report: &mut Report,
    ) {
        if self.has_topics() {
            report.tallies.extend(self.records.judge(&mut self.findings));
            let (tally, _) = self.rated.judge(options, &self.records, &mut self.findings);
            report.tallies.push(tally);
        }
        if self.missing.ledger.is_none() {
            let (tally, sums) = self.ledger.judge(options, &self.records, &mut self.findings);
            report.tallies.push(tally);
            report.charges = Some(Charges {
                currency: options.currency.clone(),
                expected_micros: sums.expected,
                ledger_micros: sums.found,
            });
        }
        self.judge_states(options, deadline, progress, report).await;
        for (what, why) in [
            ("topics", self.missing.topics),
            ("ledger", self.missing.ledger),
            ("states", self.missing.states),
        ] {
            report.unverified.extend(why.map(|why| format!("{what}: {why}")));
        }
        report.findings = self.findings.list;
    }

    async fn judge_states(
        &mut self,
        options: &Options,
        deadline: Instant,
        progress: &Progress,
        report: &mut Report,
    ) {
        if !self.has_topics() {
            self.missing.states = Some("what arrived is not known without the topics".to_owned());
            return;
        }
        let mut states = States::new(self.index, &self.records, options.alone);
        let mut timelines = Timelines::new(self.index, &self.records);
        loop {
            let asked = ask(&mut *self.evidence, &mut states, &mut timelines).await;
            keep(&mut self.missing.states, asked);
            let failed = self.missing.states.as_deref();
            let open = states.open().len() + timelines.open().len();
            let is_over = Instant::now() >= deadline || failed == Some(NO_SOURCE);
            if failed.is_none() && (open == 0 || is_over) {
                break;
            }
            if is_over {
                return;
            }
            progress.at(
                self.index.expected_parts(),
                format!("all there, {open} states and timelines still differ"),
            );
            sleep(PAUSE).await;
        }
        report.tallies.push(states.judge(&mut self.findings));
        report.tallies.push(timelines.judge(&mut self.findings));
    }
}

/// Asks for what was not right so far. Says whether there is anybody to ask.
async fn ask(
    evidence: &mut dyn Evidence,
    states: &mut States<'_>,
    timelines: &mut Timelines<'_>,
) -> Result<bool, EvidenceError> {
    let Some(answers) = evidence.states(&states.open()).await? else { return Ok(false) };
    states.compare(&answers, jiff::Timestamp::now().as_second());
    let Some(answers) = evidence.timelines(&timelines.open()).await? else { return Ok(false) };
    timelines.compare(&answers);
    Ok(true)
}

/// Keeps why there is no such evidence; a later success clears it.
fn keep(missing: &mut Option<String>, outcome: Result<bool, EvidenceError>) {
    *missing = match outcome {
        Ok(true) => None,
        Ok(false) => Some(NO_SOURCE.to_owned()),
        Err(error) => Some(error.to_string()),
    };
}

#[cfg(test)]
mod tests;
