//! What a transaction can do: the part that is done in bulk, and therefore differently, in each
//! database.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use tollgate_store::Transaction;
use tollgate_store::sql::Sql;
use tollgate_stream::StoreError;

use super::rows::{AppliedRow, CallRow, LegPlace, LegRow, NumberRow, View, Wanted};
use crate::fold::NumberLeg;
use crate::keys::Key;

/// What this transaction can do.
pub(super) fn statements(tx: &mut Transaction) -> &mut dyn Statements {
    match tx {
        Transaction::Postgres(tx) => tx,
        Transaction::Sqlite(tx) => tx,
    }
}

/// An open transaction. All lists of calls, legs and numbers that are written or locked are sorted
/// by key and without repeats, unless said otherwise.
#[async_trait]
pub(super) trait Statements: Sql {
    /// Writes the calls that are not there, in the order of keys. Returns which these were, and
    /// the number of each.
    async fn open_calls(&mut self, calls: &[CallRow]) -> Result<HashMap<Key, i64>, StoreError>;

    /// Locks calls, in the order of keys. Returns the number of each, and how many bytes its events
    /// take.
    async fn lock_calls(&mut self, keys: &[Key]) -> Result<Vec<(i64, i64)>, StoreError>;

    /// Reads calls by their numbers, which may be in any order.
    async fn read_calls(&mut self, calls: &[i64]) -> Result<Vec<CallRow>, StoreError>;

    /// The legs of the calls with these numbers.
    async fn legs_of_calls(&mut self, calls: &[i64]) -> Result<Vec<LegRow>, StoreError>;

    /// Writes events and times of calls that are locked.
    async fn write_calls(&mut self, calls: &[CallRow]) -> Result<(), StoreError>;

    /// Writes legs that are not there, of calls that are new or locked; in any order.
    async fn open_legs(&mut self, legs: &[LegRow]) -> Result<(), StoreError>;

    /// Writes legs over those that are there, of calls that are locked; in any order.
    async fn write_legs(&mut self, legs: &[LegRow]) -> Result<(), StoreError>;

    /// Removes legs of calls that are locked.
    async fn remove_legs(&mut self, legs: &[LegPlace]) -> Result<(), StoreError>;

    /// Writes the numbers that are not there, in the order of keys, and marks them as changed.
    /// Returns which these were.
    async fn open_numbers(&mut self, numbers: &[NumberRow]) -> Result<HashSet<Key>, StoreError>;

    /// Locks and reads numbers, in the order of keys.
    async fn lock_numbers(&mut self, keys: &[Key]) -> Result<Vec<NumberRow>, StoreError>;

    /// The legs of each number that are on at its instant, and, to show, of those that are over
    /// the last.
    async fn legs_of_numbers(
        &mut self,
        numbers: &[Wanted],
        view: View,
    ) -> Result<Vec<(Key, NumberLeg)>, StoreError>;

    /// Writes numbers that are locked and marks them as changed.
    async fn write_numbers(&mut self, numbers: &[NumberRow]) -> Result<(), StoreError>;

    /// Numbers, without locking.
    async fn read_numbers(&mut self, keys: &[Key]) -> Result<Vec<NumberRow>, StoreError>;

    /// Notes what was applied from some sources.
    async fn note_applied(&mut self, rows: &[AppliedRow]) -> Result<(), StoreError>;

    /// Removes changes of a shard that were published and have not changed again; in any order.
    /// Waits for nobody: what another transaction is changing again is left to it.
    async fn remove_changed(&mut self, shard: i32, tickets: &[i64]) -> Result<(), StoreError>;

    /// Locks those of the calls of which still nothing was heard since, in the order of keys.
    /// Returns the number of each.
    async fn lock_aged(&mut self, keys: &[Key], before_ms: i64) -> Result<Vec<i64>, StoreError>;

    /// Removes calls whose legs were removed before.
    async fn remove_calls(&mut self, calls: &[i64]) -> Result<(), StoreError>;
}
