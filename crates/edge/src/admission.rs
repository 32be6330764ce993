//! Who is let in when room runs short.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::BUDGET_USED;

/// Share of the body budget above which room is kept for status notifications: a refused status is
/// gone for ever, a refused CDR comes again. The spool keeps the same share of its bound.
const RESERVE_FROM_PERCENT: usize = 80;

/// Memory that bodies share past what comes with their connections.
#[derive(Clone)]
pub struct Budget {
    total: usize,
    free: Arc<Semaphore>,
}

/// What one body holds of the budget; given back when dropped.
pub struct Share {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// `total` in bytes.
    pub fn new(total: usize) -> Self {
        metrics::gauge!(BUDGET_USED.name).increment(0.0); // Shown from the start.
        Self { total, free: Arc::new(Semaphore::new(total)) }
    }

    /// An empty share.
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), permit: None }
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

impl Share {
    /// Waits for so many bytes more; give up by dropping the future. False when there can never
    /// be as many.
    pub async fn grow(&mut self, bytes: usize) -> bool {
        let Ok(wanted) = u32::try_from(bytes) else { return false };
        // The semaphore is never closed, so this only ends with a permit.
        let free = Arc::clone(&self.budget.free);
        let Ok(more) = free.acquire_many_owned(wanted).await else { return false };
        self.add(more);
        true
    }

    /// Takes so many bytes more if they are free now.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let Ok(wanted) = u32::try_from(bytes) else { return false };
        let free = Arc::clone(&self.budget.free);
        let Ok(more) = free.try_acquire_many_owned(wanted) else { return false };
        self.add(more);
        true
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        metrics::gauge!(BUDGET_USED.name).increment(more.num_permits() as f64);
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(permit) = &self.permit {
            metrics::gauge!(BUDGET_USED.name).decrement(permit.num_permits() as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_budget_is_reserved_from_four_fifths_on_and_free_again_when_given_back() {
        let budget = Budget::new(100);
        let mut share = budget.share();
        assert!(share.grow(79).await);
        assert!(!budget.is_reserved());
        assert!(share.grow(1).await);
        assert!(budget.is_reserved());
        drop(share);
        assert_eq!(budget.used(), 0);
    }
}
