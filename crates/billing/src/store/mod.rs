//! The ledger in a database: PostgreSQL in production, SQLite when embedded.
//!
//! ```text
//!  apply:  fences ▶ hold tariffs ▶ read activations ▶ open records ▶ load the known ones
//!          ▶ decide (pure) ▶ digests, records, ledger, aggregates, outbox ▶ commit
//!  tick:   fence ▶ hold tariffs ▶ a page of a job's records ▶ rate again (pure) ▶ the same writes
//!  command: stop rating ▶ activation + job ▶ commit
//!  query:  one snapshot
//! ```
//!
//! What a transaction does is written once, here and in the modules beside; only what is done in
//! bulk differs between [`postgres`] and [`sqlite`].

mod checks;
mod jobs;
mod postgres;
mod queries;
mod sqlite;
mod tables;
mod tariffs;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::OnceCell;
use tollgate_rating::Tariff;
use tollgate_schema::ids::RecordId;
use tollgate_store::{Database, Found, Migration, Schema, Step, Transaction};
use tollgate_stream::{Batch, Claim, Fence, Pending, Source, Store, StoreError};

use crate::item::CdrItem;
use crate::metrics;
use crate::plan::{Need, Sightings, Writes};
use crate::pricing::{Book, Desk};
use crate::rules::Rules;

pub use checks::{Checks, Difference, SourceCheck};
pub use jobs::{JobKind, JobStatus};
pub use queries::{Cursor, Groups, LedgerEntry, Page, Period, Span, UsageRow};

use tables::{Serials, Share, Tables, tables};
pub use tariffs::{ActivationRow, TariffRow};

/// The tables of billing.
const MIGRATIONS: &[Migration] = &[
    Migration {
        postgres: include_str!("../../migrations/0001.postgres.sql"),
        sqlite: include_str!("../../migrations/0001.sqlite.sql"),
    },
    Migration {
        postgres: include_str!("../../migrations/0002.postgres.sql"),
        sqlite: include_str!("../../migrations/0002.sqlite.sql"),
    },
];

/// In the order in which transactions come to them; the first is the one that all begin with.
const TABLES: &[&str] = &[
    "billing_activations",
    "billing_tariffs",
    "billing_jobs",
    "billing_job_progress",
    "billing_records",
    "billing_digests",
    "billing_sources",
    "billing_ledger",
    "billing_aggregates",
    "billing_facts",
];

/// The ledger of one database. Cheap calls only wait for the database; nothing is cached but
/// tariffs, which never change under their version.
#[derive(Debug)]
pub struct BillingStore {
    database: Database,
    rules: Rules,
    schema: Schema,
    zone: String,
    zone_checked: OnceCell<()>,
    tariffs: Mutex<HashMap<String, Arc<Tariff>>>,
}

impl BillingStore {
    /// A store over these pools. `zone` is the name of the billing time zone; a database whose
    /// hours were cut by another one is refused.
    pub fn new(database: Database, rules: Rules, zone: &str) -> Self {
        Self {
            database,
            rules,
            schema: Schema::new("billing", TABLES, MIGRATIONS),
            zone: zone.to_owned(),
            zone_checked: OnceCell::const_new(),
            tariffs: Mutex::default(),
        }
    }

    /// The rules it assesses by.
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The database underneath.
    pub const fn database(&self) -> &Database {
        &self.database
    }

    /// Brings the tables up to date and checks that they were made for this time zone. Called
    /// by everything else when it is first needed.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.schema.ensure(&self.database).await?;
        self.zone_checked.get_or_try_init(|| self.check_zone()).await?;
        Ok(())
    }

    /// What is there of the tables; makes and changes nothing.
    pub async fn find(&self) -> Result<Found, StoreError> {
        self.schema.find(&self.database).await
    }

    /// Whether a consumer of this group has ever held a partition here. The tables must be there.
    pub async fn has_served(&self, group: &str) -> Result<bool, StoreError> {
        let mut tx = self.database.snapshot().await?;
        let held = "SELECT 1 FROM tollgate_fence WHERE group_name = $1 LIMIT 1";
        Ok(tx.sql().row(held, vec![group.into()]).await?.is_some())
    }

    /// The first start writes the zone down; a later one must name the same.
    async fn check_zone(&self) -> Result<(), StoreError> {
        let mut tx = self.database.begin().await?;
        let sql = tx.sql();
        sql.execute(
            "INSERT INTO billing_facts (name, value) VALUES ('time_zone', $1)
             ON CONFLICT (name) DO NOTHING",
            vec![self.zone.as_str().into()],
        )
        .await?;
        let row =
            sql.row("SELECT value FROM billing_facts WHERE name = 'time_zone'", vec![]).await?;
        let stored = row.map(|row| row.text(0).map(str::to_owned)).transpose()?;
        tx.commit().await?;
        match stored {
            Some(stored) if stored != self.zone => Err(StoreError::Refused(format!(
                "its hours were cut in time zone {stored}, and time_zone is {}; keep the zone, or \
                 rebuild into a fresh schema",
                self.zone
            ))),
            _ => Ok(()),
        }
    }

    async fn snapshot(&self) -> Result<Transaction, StoreError> {
        self.ready().await?;
        self.database.snapshot().await
    }

    /// Everything about batches but their transaction.
    async fn apply_in<'a>(
        &self,
        tables: &mut dyn Tables,
        batches: &[Batch<'a, CdrItem>],
    ) -> Result<Vec<Share<'a>>, StoreError> {
        let sightings = Sightings::of(batches);
        let mut shares: Vec<Share<'a>> =
            batches.iter().map(|batch| (batch.claim, Writes::of_poison(batch))).collect();
        let share_of = |record_id: &RecordId| sightings.batch_of(record_id);
        tables.hold_tariffs().await?;
        let book = self.book(tables).await?;
        let desk = Desk { rules: &self.rules, book: &book };

        // Rated as if none had been seen before, which is nearly always so; what the insert does
        // not take is known, and is decided against what is stored.
        let accounts = sightings.open(&desk);
        let partitions: Vec<i32> = accounts
            .iter()
            .map(|account| shares[share_of(&account.record_id)].0.source.partition.partition)
            .collect();
        let mut serials = tables.open(&accounts, &partitions).await?;
        let mut needs = Vec::new();
        for account in accounts {
            if serials.contains_key(&account.record_id) {
                shares[share_of(&account.record_id)].1.opened(account);
            } else {
                let known = sightings.of_record(&account.record_id);
                needs.push(Need::of(account.record_id, known));
            }
        }
        let known = tables.load(&needs, &mut serials).await?;
        check_complete(needs.len(), known.len())?;
        metrics::repeated(known.len());
        for mut account in known {
            let change = account.see(sightings.of_record(&account.record_id), &desk);
            shares[share_of(&account.record_id)].1.changed(account.record_id, change);
        }
        let now_ms = batches.iter().map(|batch| batch.now_ms).max().unwrap_or_default();
        write(tables, now_ms, &shares, &serials).await?;
        Ok(shares)
    }

    /// The tariffs in force, as this transaction sees them.
    async fn book(&self, tables: &mut dyn Tables) -> Result<Book, StoreError> {
        let mut book = Book::default();
        for activation in tariffs::activations(tables).await? {
            let tariff = if let Some(tariff) = self.cached(&activation.version) {
                tariff
            } else {
                let tariff = tariffs::load(tables, &activation.version).await?;
                self.cache(&activation.version, &tariff);
                tariff
            };
            book.activate(activation.from_ms, tariff);
        }
        Ok(book)
    }

    fn cached(&self, version: &str) -> Option<Arc<Tariff>> {
        let tariffs = self.tariffs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tariffs.get(version).cloned()
    }

    fn cache(&self, version: &str, tariff: &Arc<Tariff>) {
        let mut tariffs = self.tariffs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tariffs.insert(version.to_owned(), Arc::clone(tariff));
    }
}

/// Writes what each partition has to write, and its outbox.
async fn write(
    tables: &mut dyn Tables,
    now_ms: i64,
    shares: &[Share<'_>],
    serials: &Serials,
) -> Result<(), StoreError> {
    let outboxes: Vec<_> =
        shares.iter().map(|(claim, writes)| (*claim, writes.outgoing())).collect();
    tables.write(now_ms, shares, &outboxes, serials).await?;
    tables.append_outbox(&outboxes).await
}

/// Every record has a charge in force and the digest it came from.
fn check_complete(wanted: usize, found: usize) -> Result<(), StoreError> {
    if wanted == found {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "{} of {wanted} records have no charge in the ledger; were own tables changed by hand?",
        wanted - found
    )))
}

#[async_trait]
impl Store for BillingStore {
    type Item = CdrItem;

    async fn fence(&self, source: &Source) -> Result<Fence, StoreError> {
        self.ready().await?;
        self.database.fence(source).await
    }

    async fn outgrown(&self) -> String {
        self.schema.outgrown(&self.database).await
    }

    async fn apply(&self, batches: &[Batch<'_, CdrItem>]) -> Result<(), StoreError> {
        let mut tx = self.database.transaction(&Step::advance(batches)).await?;
        let shares = self.apply_in(tables(&mut tx), batches).await?;
        tx.commit().await?;
        for (_, writes) in &shares {
            metrics::committed(writes);
        }
        Ok(())
    }

    async fn pending(
        &self,
        claim: &Claim,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Pending>, StoreError> {
        self.database.read_outbox(claim, limit, bytes).await
    }

    async fn published(&self, claim: &Claim, rows: &[Pending]) -> Result<(), StoreError> {
        // Without rows it asks whether the claim is in force: see `Store::holds`.
        let last = rows.iter().map(|row| row.position).max().unwrap_or(i64::MIN);
        self.database.delete_outbox(claim, last).await
    }

    async fn tick(&self, claim: &Claim, now_ms: i64) -> Result<bool, StoreError> {
        self.run_job(claim, now_ms).await
    }
}
