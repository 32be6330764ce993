//! What time asks for: states that expire, calls that are forgotten.

use std::collections::BTreeMap;

use tollgate_store::sql::Sql;
use tollgate_stream::{Claim, StoreError};

use super::apply::{Counts, Touched, recompute};
use super::queries;
use super::statements::Statements;
use crate::keys::Key;

/// Numbers and calls dealt with in one transaction.
const BATCH: usize = 500;

/// What is due at an instant.
#[derive(Debug, Default)]
pub(super) struct Due {
    numbers: Vec<Key>,
    calls: Vec<Key>,
    forget_before_ms: i64,
}

impl Due {
    /// Looks for it, without locking. Old calls are left to partition 0's owner.
    pub async fn find(
        sql: &mut dyn Sql,
        claim: &Claim,
        now_ms: i64,
        keep_ms: Option<i64>,
    ) -> Result<Self, StoreError> {
        let partition = claim.source.partition.partition;
        let numbers = queries::expired(sql, partition, now_ms, BATCH).await?;
        let mut due = Self { numbers, ..Self::default() };
        if let Some(keep_ms) = keep_ms.filter(|_| partition == 0) {
            due.forget_before_ms = now_ms.saturating_sub(keep_ms);
            due.calls = queries::aged(sql, due.forget_before_ms, BATCH).await?;
        }
        Ok(due)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.calls.is_empty()
    }

    /// Whether there may be more of it.
    pub fn may_have_more(&self) -> bool {
        self.numbers.len() >= BATCH || self.calls.len() >= BATCH
    }

    /// Does it, in a fenced transaction: calls before numbers, as everywhere.
    pub async fn work_off(
        &self,
        tx: &mut dyn Statements,
        now_ms: i64,
        partitions: i32,
    ) -> Result<Counts, StoreError> {
        let mut counts = Counts::default();
        let mut forgotten: BTreeMap<Key, Touched> = BTreeMap::new();
        if !self.calls.is_empty() {
            let calls = tx.lock_aged(&self.calls, self.forget_before_ms).await?;
            let legs = tx.legs_of_calls(&calls).await?;
            forgotten.extend(legs.iter().map(|leg| (leg.number_key, Touched::default())));
            let legs: Vec<_> = legs.iter().map(|leg| leg.place).collect();
            tx.remove_legs(&legs).await?;
            tx.remove_calls(&calls).await?;
            counts.forgotten = calls.len() as u64;
        }
        let mut touched: BTreeMap<Key, Touched> =
            self.numbers.iter().map(|key| (*key, Touched::default())).collect();
        counts.changed("expiry", touched.len());
        forgotten.retain(|key, _| !touched.contains_key(key));
        counts.changed("forgotten", forgotten.len());
        touched.append(&mut forgotten);
        recompute(tx, &touched, now_ms, partitions).await?;
        Ok(counts)
    }
}
