//! Who is let in when room runs short.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Share of the spool and of the body budget above which room is kept for status notifications:
/// a refused status is gone for ever, a refused CDR comes again.
const RESERVE_FROM_PERCENT: u64 = 80;

/// Memory that bodies share past what comes with their connections.
#[derive(Clone)]
pub struct Budget {
    total: usize,
    free: Arc<Semaphore>,
}

impl Budget {
    /// `total` in bytes.
    pub fn new(total: usize) -> Self {
        Self { total, free: Arc::new(Semaphore::new(total)) }
    }

    /// Waits for so many bytes. Give up by dropping the future.
    pub async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        // The semaphore is never closed, so this only ends with a permit.
        Arc::clone(&self.free).acquire_many_owned(bytes).await.ok()
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.total - self.free.available_permits()
    }

    /// Whether only status notifications may come in.
    pub fn is_reserved(&self) -> bool {
        is_past_reserve(self.used() as u64, self.total as u64)
    }
}

/// Whether `used` of `total` is at or past the reserve.
pub fn is_past_reserve(used: u64, total: u64) -> bool {
    used.saturating_mul(100) >= total.saturating_mul(RESERVE_FROM_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_budget_is_reserved_from_four_fifths_on_and_free_again_when_given_back() {
        let budget = Budget::new(100);
        let permit = budget.take(79).await;
        assert!(!budget.is_reserved());
        let more = budget.take(1).await;
        assert!(budget.is_reserved());
        drop((permit, more));
        assert_eq!(budget.used(), 0);
    }
}
