//! How many bytes that are not JSON a path may send in an hour.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

const HOUR_MS: i64 = 3_600_000;

/// The quota of every path. Bodies are judged after their answer; only while a path's quota is
/// spent is the syntax checked before it.
pub struct Quota {
    limit: u64,
    /// Whether anything was ever spent: most edges never come to the lock.
    is_used: AtomicBool,
    spent: Mutex<HashMap<String, Hour>>,
}

#[derive(Default)]
struct Hour {
    since_ms: i64,
    bytes: u64,
}

impl Quota {
    /// `limit` in bytes an hour.
    pub fn new(limit: u64) -> Self {
        Self { limit, is_used: AtomicBool::new(false), spent: Mutex::default() }
    }

    /// Counts a body that was not well-formed. `application` names the path: its owner, or empty
    /// for the paths without a secret; so there are as many entries as applications.
    pub fn spend(&self, application: &str, bytes: usize, now_ms: i64) {
        self.is_used.store(true, Ordering::Relaxed);
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let hour = spent.entry(application.to_owned()).or_default();
        if (hour.since_ms - HOUR_MS..hour.since_ms).contains(&now_ms) {
            // From a backlog, and of an hour that is over.
            return;
        }
        // Farther back it is the clock that was set.
        if !hour.contains(now_ms) {
            *hour = Hour { since_ms: now_ms, bytes: 0 };
        }
        hour.bytes = hour.bytes.saturating_add(bytes as u64);
    }

    /// Whether this path has nothing left in the present hour.
    pub fn is_spent(&self, application: &str, now_ms: i64) -> bool {
        if !self.is_used.load(Ordering::Relaxed) {
            return false;
        }
        let spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.get(application).is_some_and(|hour| hour.contains(now_ms) && hour.bytes >= self.limit)
    }
}

impl Hour {
    fn contains(&self, now_ms: i64) -> bool {
        (0..HOUR_MS).contains(&(now_ms - self.since_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_spent_until_its_hour_is_over_and_only_for_its_path() {
        let quota = Quota::new(100);
        quota.spend("a", 60, 1_000_000);
        assert!(!quota.is_spent("a", 1_000_000));
        quota.spend("a", 60, 1_000_001);
        assert!(quota.is_spent("a", 1_000_002));
        assert!(!quota.is_spent("", 1_000_002));
        assert!(!quota.is_spent("a", 1_000_000 + HOUR_MS));
        quota.spend("a", 10, 1_000_000 + HOUR_MS);
        quota.spend("a", 1000, 1_000_002);
        assert!(!quota.is_spent("a", 1_000_001 + HOUR_MS));
    }

    #[test]
    fn a_clock_that_is_set_back_begins_a_new_hour() {
        let quota = Quota::new(100);
        let ahead = 1_000_000 + 48 * HOUR_MS;
        quota.spend("a", 100, ahead);
        assert!(quota.is_spent("a", ahead));
        assert!(!quota.is_spent("a", 1_000_000));
        quota.spend("a", 100, 1_000_000);
        assert!(quota.is_spent("a", 1_000_001));
    }
}
