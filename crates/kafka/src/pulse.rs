//! Tells a client that has locked itself up from one that has nothing to say.
//!
//! librdkafka (2.12.1) can do so while it lets go of a broker: its main thread and the broker's wait
//! for each other's locks, and a poll comes back with nothing for ever. What the main thread always
//! does is to report statistics, whatever the brokers do.

use std::time::{Duration, Instant};

use crate::trouble::{Kind, Trouble};

/// A client that has reported nothing for so long never will.
const SILENCE: Duration = Duration::from_mins(2);
/// Reports that may be missing, where they are rare.
const REPORTS: u32 = 6;
/// Longest time between two looks that counts as time spent listening: a process that was stopped
/// for an hour has not heard an hour of silence.
const LOOK: Duration = Duration::from_secs(1);

/// How long a client has been silent.
#[derive(Debug)]
pub struct Pulse {
    /// `None` where no statistics are asked for: then nobody knows.
    limit: Option<Duration>,
    reports: u64,
    silence: Duration,
    looked: Instant,
}

impl Pulse {
    /// Of a client that is to report in this interval; zero for none at all.
    pub fn new(interval: Duration, now: Instant) -> Self {
        let limit = (!interval.is_zero()).then(|| SILENCE.max(interval * REPORTS));
        Self { limit, reports: 0, silence: Duration::ZERO, looked: now }
    }

    /// What is wrong with a client that has made so many reports by now, if it hangs. Said once
    /// each time that it has been silent for too long.
    pub fn trouble(&mut self, reports: u64, now: Instant) -> Option<Trouble> {
        let listened = now.saturating_duration_since(self.looked).min(LOOK);
        self.looked = now;
        if self.reports != reports {
            self.reports = reports;
            self.silence = Duration::ZERO;
            return None;
        }
        self.silence += listened;
        self.limit.filter(|limit| self.silence > *limit)?;
        self.silence = Duration::ZERO;
        let message = "its client hangs; start this process again".to_owned();
        Some(Trouble { kind: Kind::Hung, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many looks, each so long after the one before, a silent client hangs.
    fn looks(pulse: &mut Pulse, mut now: Instant, apart: Duration) -> Option<u32> {
        (1..2000).find(|_| {
            now += apart;
            pulse.trouble(0, now).is_some()
        })
    }

    #[test]
    fn a_client_that_is_silent_for_too_long_hangs_and_one_that_reports_does_not() {
        let now = Instant::now();
        let half = Duration::from_millis(500);
        let mut pulse = Pulse::new(Duration::from_secs(5), now);
        assert_eq!(looks(&mut pulse, now, half), Some(241));
        let mut rare = Pulse::new(Duration::from_mins(1), now);
        assert_eq!(looks(&mut rare, now, half), Some(721));
        assert_eq!(looks(&mut Pulse::new(Duration::ZERO, now), now, half), None);

        let mut alive = Pulse::new(Duration::from_secs(5), now);
        let hangs = |look: u32| alive.trouble(u64::from(look / 200), now + half * look).is_some();
        assert!(!(1..2000).any(hangs));
    }

    #[test]
    fn an_hour_in_which_the_process_was_stopped_is_no_hour_of_silence() {
        let now = Instant::now();
        let mut pulse = Pulse::new(Duration::from_secs(5), now);
        assert_eq!(looks(&mut pulse, now, Duration::from_hours(1)), Some(121));
    }
}
