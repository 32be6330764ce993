//! What a run came to.

use std::fmt;
use std::time::Duration;

use crate::Counts;

/// Findings that are kept one by one; beyond, they are only counted.
pub(crate) const FINDINGS_KEPT: usize = 1000;
/// Findings that are shown.
const FINDINGS_SHOWN: usize = 20;

/// Something that is not as it should be. Names records and fields, never numbers or sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `lost`, `duplicated` or `wrong`.
    pub kind: &'static str,
    /// Topic, `ledger`, `states` or `timelines`.
    pub place: &'static str,
    /// record_id; of what was quarantined the quarantine_id.
    pub id: String,
    /// Which fields, or what else there is to say.
    pub detail: String,
}

/// What one place holds of what it should.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Topic, `ledger`, `states` or `timelines`.
    pub place: &'static str,
    /// What must be there: acknowledged, or present in the topic it is made from.
    pub expected: u64,
    /// What of that is there.
    pub found: u64,
    /// What of that is not.
    pub lost: u64,
    /// There with another result for the same identity.
    pub duplicated: u64,
    /// There with another value, or never sent.
    pub wrong: u64,
    /// Sent without an answer, or refused, and there.
    pub unknown_present: u64,
    /// Sent without an answer, and not there.
    pub unknown_absent: u64,
    /// Refused to the last, and not there.
    pub refused: u64,
    /// Repeats under the same `ce_id`, which readers drop.
    pub repeats: u64,
    /// Numbers of which what arrived leaves room for more than one answer.
    pub not_judged: u64,
}

impl Tally {
    fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.wrong == 0
    }
}

/// Money, compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charges {
    /// ISO 4217.
    pub currency: String,
    /// What the calls cost by the simulator's own tariff, micro-units.
    pub expected_micros: i64,
    /// What the ledger comes to, micro-units.
    pub ledger_micros: i64,
}

/// How long answers took, from when a request was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Half took at most this long.
    pub p50: Duration,
    /// 99 of 100 took at most this long.
    pub p99: Duration,
    /// The slowest.
    pub max: Duration,
}

impl Latency {
    /// From latencies in microseconds; `None` without any.
    pub(crate) fn of(mut latencies_us: Vec<u32>) -> Option<Self> {
        latencies_us.sort_unstable();
        let at = |share: f64| {
            let index = ((latencies_us.len() as f64 * share).ceil() as usize).saturating_sub(1);
            latencies_us.get(index).map(|us| Duration::from_micros(u64::from(*us)))
        };
        Some(Self { p50: at(0.5)?, p99: at(0.99)?, max: at(1.0)? })
    }
}

/// What a run came to. Shown, it is a page for people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Requests by their fate.
    pub counts: Counts,
    /// How long the sending took.
    pub elapsed: Duration,
    /// How long answers took.
    pub latency: Option<Latency>,
    /// What was verified.
    pub tallies: Vec<Tally>,
    /// Money, where the ledger was verified.
    pub charges: Option<Charges>,
    /// What is not as it should be, the first thousand.
    pub findings: Vec<Finding>,
    /// What could not be verified, and why.
    pub unverified: Vec<String>,
    /// Whether verification was asked for.
    pub is_verified: bool,
}

impl Report {
    /// 0: clean. 3: something is lost, duplicated or wrong. 1: it could not be found out.
    pub fn exit_code(&self) -> i32 {
        if !self.tallies.iter().all(Tally::is_clean) {
            return 3;
        }
        let acknowledged: u64 = self.tallies.iter().map(|tally| tally.expected).sum();
        let nothing = self.counts.acknowledged == 0 && acknowledged == 0;
        let in_the_dark = self.is_verified && !self.unverified.is_empty();
        i32::from(nothing || in_the_dark)
    }

    fn verdict(&self) -> &'static str {
        match self.exit_code() {
            3 => "something is lost, duplicated or wrong",
            0 if self.is_verified => "nothing lost, nothing twice, nothing wrong",
            0 => "not verified",
            _ if self.counts.acknowledged == 0 => {
                "nothing was acknowledged; is an edge listening there?"
            }
            _ => "not everything could be verified",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_sent(f)?;
        self.fmt_tallies(f)?;
        if let Some(charges) = &self.charges {
            writeln!(
                f,
                "charges  expected {}, ledger {} {}",
                amount(charges.expected_micros),
                amount(charges.ledger_micros),
                charges.currency
            )?;
        }
        for reason in &self.unverified {
            writeln!(f, "not verified  {reason}")?;
        }
        for finding in self.findings.iter().take(FINDINGS_SHOWN) {
            let Finding { kind, place, id, detail } = finding;
            writeln!(f, "{kind:<10}  {place:<11}  {id}  {detail}")?;
        }
        if self.findings.len() > FINDINGS_SHOWN {
            writeln!(f, "… and {} more", self.findings.len() - FINDINGS_SHOWN)?;
        }
        write!(f, "{}", self.verdict())
    }
}

impl Report {
    fn fmt_sent(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        if counts.calls > 0 {
            writeln!(
                f,
                "{} calls, {} requests in {:.1} s",
                counts.calls,
                counts.sent,
                self.elapsed.as_secs_f64()
            )?;
            writeln!(
                f,
                "acknowledged {}, refused {}, unanswered {}, not sent {}, repeated {}, given up {}",
                counts.acknowledged,
                counts.refused,
                counts.unknown,
                counts.not_sent,
                counts.repeated,
                counts.given_up
            )?;
        }
        if let Some(latency) = &self.latency {
            let ms = |it: Duration| it.as_secs_f64() * 1000.0;
            writeln!(
                f,
                "answered after  p50 {:.1} ms, p99 {:.1} ms, slowest {:.1} ms",
                ms(latency.p50),
                ms(latency.p99),
                ms(latency.max)
            )?;
        }
        Ok(())
    }

    fn fmt_tallies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tallies.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "{:<12} {:>9} {:>9} {:>9} {:>10} {:>9}  unknown: there / not",
            "", "expected", "found", "lost", "duplicated", "wrong"
        )?;
        for tally in &self.tallies {
            let mut rest = Vec::new();
            if tally.unknown_present + tally.unknown_absent > 0 {
                rest.push(format!("{} / {}", tally.unknown_present, tally.unknown_absent));
            }
            for (many, what) in [(tally.refused, "refused"), (tally.not_judged, "not judged")] {
                if many > 0 {
                    rest.push(format!("{many} {what}"));
                }
            }
            let line = format!(
                "{:<12} {:>9} {:>9} {:>9} {:>10} {:>9}  {}",
                tally.place,
                tally.expected,
                tally.found,
                tally.lost,
                tally.duplicated,
                tally.wrong,
                rest.join(", ")
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn amount(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_whether_all_is_well() {
        let counts = Counts { calls: 1, sent: 8, acknowledged: 8, ..Counts::default() };
        let mut report = Report { counts, is_verified: true, ..Report::default() };
        report.tallies.push(Tally { place: "cdrs", expected: 1, found: 1, ..Tally::default() });
        assert_eq!(report.exit_code(), 0);
        report.unverified.push("states: no query API".to_owned());
        assert_eq!(report.exit_code(), 1);
        report.tallies[0].lost = 1;
        assert_eq!(report.exit_code(), 3);
        assert_eq!(Report::default().exit_code(), 1);
    }

    #[test]
    fn latencies_are_ranked() {
        let latency = Latency::of((1..=100).rev().map(|ms| ms * 1000).collect()).unwrap();
        assert_eq!(latency.p50, Duration::from_millis(50));
        assert_eq!(latency.p99, Duration::from_millis(99));
        assert_eq!(latency.max, Duration::from_millis(100));
        assert_eq!(Latency::of(Vec::new()), None);
    }

    #[test]
    fn the_page_is_aligned_and_ends_with_the_verdict() {
        let report = Report {
            counts: Counts {
                calls: 3,
                sent: 20,
                acknowledged: 19,
                unknown: 1,
                ..Counts::default()
            },
            tallies: vec![Tally {
                place: "call-events",
                expected: 17,
                found: 17,
                unknown_present: 1,
                refused: 2,
                ..Tally::default()
            }],
            charges: Some(Charges {
                currency: "CNY".into(),
                expected_micros: 1_080_000,
                ledger_micros: 1_080_000,
            }),
            is_verified: true,
            ..Report::default()
        };
        let page = report.to_string();
        assert!(page.contains("call-events         17        17         0"), "{page}");
        assert!(page.contains("1 / 0, 2 refused"), "{page}");
        assert!(page.contains("charges  expected 1.080000, ledger 1.080000 CNY"), "{page}");
        assert!(page.ends_with("nothing lost, nothing twice, nothing wrong"), "{page}");
    }
}
