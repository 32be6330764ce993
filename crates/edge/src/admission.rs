//! Who is let in when room runs short.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Share of the body budget above which room is kept for status notifications: a refused status is
/// gone for ever, a refused CDR comes again. The spool keeps the same share of its bound.
const RESERVE_FROM_PERCENT: usize = 80;

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
        self.used() * 100 >= self.total * RESERVE_FROM_PERCENT
    }
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
