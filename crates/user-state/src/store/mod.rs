//! The store: what is written in the transaction of some batches, once for both databases.
//!
//! ```text
//!  batch ─▶ fence ─▶ outbox ─▶ write new calls ─▶ lock the others (sorted), merge events, fold
//!                                                                     │ legs that differ
//!     commit ◀─ raise versions, mark changed ◀─ lock the others ◀─ write new numbers
//!                                               (sorted), then
//!                                               read their legs again
//! ```
//!
//! Two sources may touch one call, and any two may touch one number. Calls come before numbers;
//! of each, those that are new are written first, then those that were there are locked, both in
//! the order of their keys. So transactions wait and never deadlock: whoever waits holds only rows
//! that come before the one that is waited for. A relay, which takes changes away, waits for no
//! batch. Numbers come last: others wait for them until the commit.
//! Legs are read again, in a statement of their own, once the numbers are locked: what another
//! transaction committed before it let go of the lock is seen, and the last one through sees all.

mod apply;
mod postgres;
mod queries;
mod relay;
mod rows;
mod sqlite;
mod statements;
mod sweep;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use async_trait::async_trait;
use tollgate_schema::topics::CALL_EVENTS;
use tollgate_store::{Database, Migration, Schema, Step, Transaction};
use tollgate_stream::{Batch, Claim, Fence, Pending, Source, Store, StoreError};

pub(crate) use apply::kind_name;
pub use rows::{Applied, CallRow, Census, NumberLegs, NumberRow};

use crate::fold::Expiry;
use crate::item::Item;
use crate::keys::{Key, Pseudonyms};
use statements::statements;

const MIGRATIONS: &[Migration] = &[
    Migration {
        postgres: include_str!("../../migrations/0001.postgres.sql"),
        sqlite: include_str!("../../migrations/0001.sqlite.sql"),
    },
    Migration {
        postgres: include_str!("../../migrations/0002.postgres.sql"),
        sqlite: include_str!("../../migrations/0002.sqlite.sql"),
    },
    Migration {
        postgres: include_str!("../../migrations/0003.postgres.sql"),
        sqlite: include_str!("../../migrations/0003.sqlite.sql"),
    },
    Migration {
        postgres: include_str!("../../migrations/0004.postgres.sql"),
        sqlite: include_str!("../../migrations/0004.sqlite.sql"),
    },
];

/// In the order in which transactions come to them.
const TABLES: &[&str] =
    &["state_applied", "state_call", "state_leg", "state_number", "state_changed"];

/// What the store needs to know beside the data.
#[derive(Clone)]
pub struct Options {
    /// How long calls live.
    pub expiry: Expiry,
    /// How long calls are kept after anything new was heard, milliseconds; `None` is for ever.
    pub keep_ms: Option<i64>,
    /// What the published states show instead of numbers and session ids.
    pub pseudonyms: Option<Pseudonyms>,
}

/// Calls, legs and numbers in a database. Cheap to clone.
#[derive(Clone)]
pub struct UserStateStore {
    database: Database,
    options: Options,
    /// How many partitions topic call-events has; each relays its share of the numbers.
    partitions: Arc<AtomicI32>,
    schema: Arc<Schema>,
}

impl UserStateStore {
    /// Uses this database; nothing is asked of it yet. Before anything is applied,
    /// [`UserStateStore::relay_over`] must be told how many partitions there are.
    pub fn new(database: Database, options: Options) -> Self {
        let schema = Arc::new(Schema::new("user-state", TABLES, MIGRATIONS));
        Self { database, options, partitions: Arc::new(AtomicI32::new(1)), schema }
    }

    /// Spreads the numbers over this many partitions of call-events, for this store and its
    /// clones. A number goes to another partition's owner when the topic grows; for the moment
    /// of the change its states may be published out of turn, the next one mends it.
    pub fn relay_over(&self, partitions: i32) {
        self.partitions.store(partitions.max(1), Ordering::Relaxed);
    }

    fn partitions(&self) -> i32 {
        self.partitions.load(Ordering::Relaxed)
    }

    /// Brings the schema up to date, once.
    pub async fn ensure_schema(&self) -> Result<(), StoreError> {
        self.schema.ensure(&self.database).await
    }

    /// The legs of these numbers: those that are on at the instant, and of those that are over
    /// the last. With `past`, as they stood then. Numbers never seen are left out.
    pub async fn numbers(
        &self,
        keys: &[Key],
        as_of_ms: i64,
        past: bool,
    ) -> Result<Vec<NumberLegs>, StoreError> {
        let mut tx = self.snapshot().await?;
        queries::numbers(statements(&mut tx), keys, as_of_ms, past).await
    }

    /// A call, if it is known.
    pub async fn call(&self, key: &Key) -> Result<Option<CallRow>, StoreError> {
        let mut tx = self.snapshot().await?;
        queries::call(statements(&mut tx), key).await
    }

    /// What has been applied so far.
    pub async fn applied(&self) -> Result<Option<Applied>, StoreError> {
        let mut tx = self.snapshot().await?;
        queries::applied(tx.sql()).await
    }

    /// How many numbers are not idle, and how many states wait to be published.
    pub async fn census(&self) -> Result<Census, StoreError> {
        let mut tx = self.snapshot().await?;
        queries::census(tx.sql()).await
    }

    async fn snapshot(&self) -> Result<Transaction, StoreError> {
        self.ensure_schema().await?;
        self.database.snapshot().await
    }

    /// What the published states show instead of numbers.
    pub fn pseudonyms(&self) -> Option<&Pseudonyms> {
        self.options.pseudonyms.as_ref()
    }

    /// How long calls live.
    pub fn expiry(&self) -> &Expiry {
        &self.options.expiry
    }
}

fn relays_states(claim: &Claim) -> bool {
    &*claim.source.partition.topic == CALL_EVENTS.name
}

#[async_trait]
impl Store for UserStateStore {
    type Item = Item;

    async fn fence(&self, source: &Source) -> Result<Fence, StoreError> {
        self.ensure_schema().await?;
        self.database.fence(source).await
    }

    async fn apply(&self, batches: &[Batch<'_, Item>]) -> Result<(), StoreError> {
        let mut tx = self.database.transaction(&Step::advance(batches)).await?;
        let (expiry, partitions) = (&self.options.expiry, self.partitions());
        let counts = apply::apply(statements(&mut tx), batches, expiry, partitions).await?;
        tx.commit().await?;
        counts.record();
        Ok(())
    }

    async fn pending(
        &self,
        claim: &Claim,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Pending>, StoreError> {
        let mut pending = self.database.read_outbox(claim, limit, bytes).await?;
        let left = limit.saturating_sub(pending.len());
        if left == 0 || !relays_states(claim) {
            return Ok(pending);
        }
        let shard = claim.source.partition.partition;
        let mut tx = self.database.snapshot().await?;
        let states = relay::changed_states(statements(&mut tx), shard, left, &self.options).await?;
        pending.extend(states);
        Ok(pending)
    }

    async fn published(&self, claim: &Claim, rows: &[Pending]) -> Result<(), StoreError> {
        let done = relay::Published::sort(rows);
        let shard = claim.source.partition.partition;
        let mut tx = self.database.transaction(&Step::Hold(claim)).await?;
        if let Some(up_to) = done.outbox_up_to {
            tx.sql().delete_outbox_rows(claim, up_to).await?;
        }
        statements(&mut tx).remove_changed(shard, &done.tickets).await?;
        tx.commit().await?;
        ::metrics::counter!(crate::metrics::PUBLISHED.name).increment(done.tickets.len() as u64);
        Ok(())
    }

    async fn outgrown(&self) -> String {
        self.schema.outgrown(&self.database).await
    }

    async fn tick(&self, claim: &Claim, now_ms: i64) -> Result<bool, StoreError> {
        if !relays_states(claim) {
            return Ok(false);
        }
        // Looks first without holding anything: most of the time there is nothing to do.
        let mut probe = self.database.snapshot().await?;
        let due = sweep::Due::find(probe.sql(), claim, now_ms, self.options.keep_ms).await?;
        drop(probe);
        if due.is_empty() {
            return Ok(false);
        }
        let mut tx = self.database.transaction(&Step::Hold(claim)).await?;
        let counts = due.work_off(statements(&mut tx), now_ms, self.partitions()).await?;
        tx.commit().await?;
        counts.record();
        Ok(due.may_have_more())
    }
}
