//! The calls of a run: a pure function of the plan and a call's number.
//!
//! ```text
//!  Plan (seed, start, rate, speed, …) ──call(n)──▶ Call ──▶ Status::body, Call::item
//! ```
//!
//! No clock and no IO. Real time enters as the start of the run only: each call is dated so that
//! it ends at the second in which its last status is due, and everything before lies in the past.

mod call;
mod course;
mod item;
mod status;
mod style;
pub(crate) mod words;

use serde::{Deserialize, Serialize};

use crate::{App, Faults, Options, Scheme, Service};

pub(crate) use call::{Call, Delivery, MAX_STATUSES};
#[cfg(test)]
pub(crate) use course::Ending;
pub(crate) use course::{Leg, Party};
pub(crate) use item::{BUCKET, MERGED_AT_MOST, STORAGE, message};
pub(crate) use status::{Kind, Status};
pub(crate) use style::Style;

/// Everything a run's calls depend on; kept at the head of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub seed: u64,
    /// Start of the run, milliseconds since 1970.
    pub started_at_ms: i64,
    /// Calls a second.
    pub rate: f64,
    /// Simulated seconds in a second.
    pub speed: f64,
    /// Phone numbers that take part.
    pub numbers: u32,
    pub applications: Vec<Application>,
    pub faults: Faults,
    /// Number of calls; `None` goes on until stopped.
    pub calls: Option<u64>,
}

/// An application as far as its records tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Application {
    pub service: Service,
    pub app_key: String,
    /// Whether its path or its signature says whose a status is; a status itself does not.
    pub is_named: bool,
}

impl Plan {
    pub fn new(options: &Options, started_at_ms: i64, calls: Option<u64>) -> Self {
        let named = |app: &App| app.segment.is_some() || options.sign != Scheme::None;
        let applications = options
            .applications()
            .iter()
            .map(|app| Application {
                service: app.service,
                app_key: app.app_key.clone(),
                is_named: named(app),
            })
            .collect();
        Self {
            seed: options.seed,
            started_at_ms,
            rate: options.rate,
            speed: options.speed,
            numbers: options.numbers,
            applications,
            faults: options.faults.clone(),
            calls,
        }
    }

    /// When a call begins, milliseconds since 1970. Arrivals are evenly spaced.
    pub fn begins_at_ms(&self, index: u64) -> i64 {
        self.started_at_ms + (index as f64 * 1000.0 / self.rate) as i64
    }

    /// Sets this run apart from any other: part of its session ids and record ids.
    pub fn tag(&self) -> u32 {
        let mixed = (self.seed ^ (self.started_at_ms as u64).rotate_left(32))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as u32
    }

    /// The call with this number.
    pub fn call(&self, index: u64) -> Call {
        call::make(self, index)
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plan that starts at 2026-11-23T04:00:00Z.
    pub fn plan(faults: Faults) -> Plan {
        let options = Options { faults, ..Options::default() };
        Plan::new(&options, 1_795_406_400_000, Some(500))
    }

    #[test]
    fn two_runs_with_one_seed_have_sessions_of_their_own() {
        let one = plan(Faults::none());
        let other = Plan { started_at_ms: one.started_at_ms + 1, ..one.clone() };
        assert_ne!(one.tag(), other.tag());
        for either_shape in [7, 8] {
            assert_ne!(one.call(either_shape).session_id, other.call(either_shape).session_id);
        }
    }
}
