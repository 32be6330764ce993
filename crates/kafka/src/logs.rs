//! librdkafka's log lines, kept from flooding: a broker that is down makes one per connection
//! attempt, for ever.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many lines pass in each window; the rest are counted.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(30);

/// Lets through the first lines of each window.
#[derive(Debug, Default)]
pub struct Limiter {
    state: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    passed: u32,
    dropped: u64,
}

/// What to do with a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write it; so many were dropped in the window that ended just now.
    Pass {
        /// Lines dropped before.
        dropped: u64,
    },
    /// Drop it.
    Drop,
}

impl Limiter {
    /// Decides about one line.
    pub fn admit(&self) -> Verdict {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Verdict {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.as_mut().filter(|window| now.duration_since(window.began) < WINDOW) {
            Some(window) if window.passed >= LINES => {
                window.dropped += 1;
                Verdict::Drop
            }
            Some(window) => {
                window.passed += 1;
                Verdict::Pass { dropped: 0 }
            }
            None => {
                let dropped = state.take().map_or(0, |window| window.dropped);
                *state = Some(Window { began: now, passed: 1, dropped: 0 });
                Verdict::Pass { dropped }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let limiter = Limiter::default();
        let start = Instant::now();
        let passed =
            (0..1000).filter(|_| limiter.admit_at(start) == Verdict::Pass { dropped: 0 }).count();
        assert_eq!(passed, LINES as usize);
        assert_eq!(limiter.admit_at(start + WINDOW), Verdict::Pass { dropped: 1000 - 10 });
    }
}
