//! What was sent and how it was answered, cheaply counted.

use std::sync::atomic::{AtomicU64, Ordering};

use super::job::Answer;

/// Requests by their fate. Shared by the engine and whoever wants to look.
#[derive(Debug, Default)]
pub struct Counters {
    calls: AtomicU64,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    not_sent: AtomicU64,
    repeated: AtomicU64,
    given_up: AtomicU64,
}

/// What the counters said at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls begun.
    pub calls: u64,
    /// Requests that reached an edge, repeats included.
    pub sent: u64,
    /// Answered 200.
    pub acknowledged: u64,
    /// Answered by something else.
    pub refused: u64,
    /// Not answered in time, or not at all.
    pub unknown: u64,
    /// Not even begun: no connection, or too many waiting for one.
    pub not_sent: u64,
    /// CDR messages sent again.
    pub repeated: u64,
    /// CDR messages given up after the last attempt.
    pub given_up: u64,
}

impl Counters {
    /// What they say now.
    pub fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            calls: read(&self.calls),
            sent: read(&self.sent),
            acknowledged: read(&self.acknowledged),
            refused: read(&self.refused),
            unknown: read(&self.unknown),
            not_sent: read(&self.not_sent),
            repeated: read(&self.repeated),
            given_up: read(&self.given_up),
        }
    }

    pub(super) fn call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answer(&self, answer: Answer) {
        let counter = match answer {
            Answer::Status(200) => &self.acknowledged,
            Answer::Status(_) => &self.refused,
            Answer::None => &self.unknown,
            Answer::NotSent => &self.not_sent,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if answer != Answer::NotSent {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn repeat(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn give_up(&self) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
    }
}
