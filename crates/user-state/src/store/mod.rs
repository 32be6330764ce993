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
mod relay;
mod rows;
mod sqlite;
mod sweep;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use async_trait::async_trait;
use tollgate_schema::topics::CALL_EVENTS;
use tollgate_store::{Database, Migration, Schema, Step};
use tollgate_stream::{Batch, Claim, Fence, Pending, Source, Store, StoreError};

pub(crate) use apply::kind_name;
pub use rows::{Applied, CallRow, Census, NumberLegs, NumberRow};

use crate::fold::Expiry;
use crate::item::Item;
use crate::keys::{Key, Pseudonyms};
use rows::Statements;

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
        self.ensure_schema().await?;
        match &self.database {
            Database::Postgres(pool) => {
                rows::numbers(
                    &mut tollgate_store::postgres::snapshot(pool).await?,
                    keys,
                    as_of_ms,
                    past,
                )
                .await
            }
            Database::Sqlite(pools) => {
                rows::numbers(
                    &mut tollgate_store::sqlite::snapshot(pools).await?,
                    keys,
                    as_of_ms,
                    past,
                )
                .await
            }
        }
    }

    /// A call, if it is known.
    pub async fn call(&self, key: &Key) -> Result<Option<CallRow>, StoreError> {
        self.ensure_schema().await?;
        match &self.database {
            Database::Postgres(pool) => {
                rows::call(&mut tollgate_store::postgres::snapshot(pool).await?, key).await
            }
            Database::Sqlite(pools) => {
                rows::call(&mut tollgate_store::sqlite::snapshot(pools).await?, key).await
            }
        }
    }

    /// What has been applied so far.
    pub async fn applied(&self) -> Result<Option<Applied>, StoreError> {
        self.ensure_schema().await?;
        match &self.database {
            Database::Postgres(pool) => {
                tollgate_store::postgres::snapshot(pool).await?.applied().await
            }
            Database::Sqlite(pools) => {
                tollgate_store::sqlite::snapshot(pools).await?.applied().await
            }
        }
    }

    /// How many numbers are not idle, and how many states wait to be published.
    pub async fn census(&self) -> Result<Census, StoreError> {
        self.ensure_schema().await?;
        match &self.database {
            Database::Postgres(pool) => {
                tollgate_store::postgres::snapshot(pool).await?.census().await
            }
            Database::Sqlite(pools) => {
                tollgate_store::sqlite::snapshot(pools).await?.census().await
            }
        }
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
        let step = Step::advance(batches);
        match &self.database {
            Database::Postgres(pool) => {
                let mut tx = tollgate_store::postgres::transaction(pool, &step).await?;
                let counts =
                    apply::apply(&mut tx, batches, &self.options.expiry, self.partitions()).await?;
                tollgate_store::postgres::commit(tx).await?;
                counts.record();
            }
            Database::Sqlite(pools) => {
                let mut tx = tollgate_store::sqlite::transaction(pools, &step).await?;
                let counts =
                    apply::apply(&mut tx, batches, &self.options.expiry, self.partitions()).await?;
                tollgate_store::sqlite::commit(tx).await?;
                counts.record();
            }
        }
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
        let states = match &self.database {
            Database::Postgres(pool) => {
                let mut tx = tollgate_store::postgres::snapshot(pool).await?;
                relay::changed_states(&mut tx, shard, left, &self.options).await?
            }
            Database::Sqlite(pools) => {
                let mut tx = tollgate_store::sqlite::snapshot(pools).await?;
                relay::changed_states(&mut tx, shard, left, &self.options).await?
            }
        };
        pending.extend(states);
        Ok(pending)
    }

    async fn published(&self, claim: &Claim, rows: &[Pending]) -> Result<(), StoreError> {
        let done = relay::Published::sort(rows);
        let shard = claim.source.partition.partition;
        match &self.database {
            Database::Postgres(pool) => {
                use tollgate_store::postgres;
                let mut tx = postgres::transaction(pool, &Step::Hold(claim)).await?;
                if let Some(up_to) = done.outbox_up_to {
                    postgres::delete_outbox_rows(&mut tx, claim, up_to).await?;
                }
                tx.remove_changed(shard, &done.tickets).await?;
                postgres::commit(tx).await?;
            }
            Database::Sqlite(pools) => {
                use tollgate_store::sqlite;
                let mut tx = sqlite::transaction(pools, &Step::Hold(claim)).await?;
                if let Some(up_to) = done.outbox_up_to {
                    sqlite::delete_outbox_rows(&mut tx, claim, up_to).await?;
                }
                tx.remove_changed(shard, &done.tickets).await?;
                sqlite::commit(tx).await?;
            }
        }
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
        match &self.database {
            Database::Postgres(pool) => {
                let mut probe = tollgate_store::postgres::snapshot(pool).await?;
                let due = sweep::Due::find(&mut probe, claim, now_ms, self.options.keep_ms).await?;
                drop(probe);
                if due.is_empty() {
                    return Ok(false);
                }
                let mut tx =
                    tollgate_store::postgres::transaction(pool, &Step::Hold(claim)).await?;
                let counts = due.work_off(&mut tx, now_ms, self.partitions()).await?;
                tollgate_store::postgres::commit(tx).await?;
                counts.record();
                Ok(due.may_have_more())
            }
            Database::Sqlite(pools) => {
                let mut probe = tollgate_store::sqlite::snapshot(pools).await?;
                let due = sweep::Due::find(&mut probe, claim, now_ms, self.options.keep_ms).await?;
                drop(probe);
                if due.is_empty() {
                    return Ok(false);
                }
                let mut tx = tollgate_store::sqlite::transaction(pools, &Step::Hold(claim)).await?;
                let counts = due.work_off(&mut tx, now_ms, self.partitions()).await?;
                tollgate_store::sqlite::commit(tx).await?;
                counts.record();
                Ok(due.may_have_more())
            }
        }
    }
}
