//! A store whose calls come to an end although its database is gone without a word.
//!
//! A host that loses its power, or its network, says nothing: a call that it has taken in would be
//! waited for as long as TCP does, which may be for ever, while other connections would work.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use crate::{Batch, Claim, Fence, Pending, Source, Store, StoreError};

/// What is given up may have happened, as with every error that passes by itself.
pub(super) struct Deadline<S: ?Sized> {
    limit: Duration,
    store: Arc<S>,
}

impl<S: Store + ?Sized> Deadline<S> {
    pub(super) fn new(store: Arc<S>, limit: Duration) -> Self {
        Self { limit, store }
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        timeout(self.limit, call).await.unwrap_or_else(|_| {
            Err(StoreError::Transient(format!("no answer within {:?}", self.limit)))
        })
    }
}

#[async_trait]
impl<S: Store + ?Sized> Store for Deadline<S> {
    type Item = S::Item;

    async fn fence(&self, source: &Source) -> Result<Fence, StoreError> {
        self.in_time(self.store.fence(source)).await
    }

    async fn apply(&self, batches: &[Batch<'_, Self::Item>]) -> Result<(), StoreError> {
        self.in_time(self.store.apply(batches)).await
    }

    async fn pending(
        &self,
        claim: &Claim,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Pending>, StoreError> {
        self.in_time(self.store.pending(claim, limit, bytes)).await
    }

    async fn published(&self, claim: &Claim, rows: &[Pending]) -> Result<(), StoreError> {
        self.in_time(self.store.published(claim, rows)).await
    }

    async fn holds(&self, claim: &Claim) -> Result<(), StoreError> {
        self.in_time(self.store.holds(claim)).await
    }

    async fn tick(&self, claim: &Claim, now_ms: i64) -> Result<bool, StoreError> {
        self.in_time(self.store.tick(claim, now_ms)).await
    }

    async fn outgrown(&self) -> String {
        self.store.outgrown().await
    }
}
