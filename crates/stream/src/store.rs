//! What the consumer runtime asks of a database, and what a consumer makes of a record.

use std::fmt;

use async_trait::async_trait;

use crate::{Incoming, Outgoing, TopicPartition};

/// What one consumer computes and keeps. One implementation per domain and database.
///
/// Every method that writes begins its transaction with the fence: an update of the partition's
/// row that needs the claim's epoch, and for [`Store::apply`] also `from`, to be in force.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// What the pure step makes of a record.
    type Item: Send + Sync + 'static;

    /// Takes a partition over: raises its epoch, so that whoever held it can write no more.
    async fn fence(&self, source: &Source) -> Result<Fence, StoreError>;

    /// Writes the results of batches of different partitions and their offsets in one transaction:
    /// all of them, or after an error none. Which batch an error is about need not be known: what
    /// failed together is tried again apart.
    async fn apply(&self, batches: &[Batch<'_, Self::Item>]) -> Result<(), StoreError>;

    /// The oldest rows of this partition's outbox, in order, at most `limit`, and none after they
    /// have come to `bytes`.
    async fn pending(
        &self,
        claim: &Claim,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Pending>, StoreError>;

    /// Removes rows that were published.
    async fn published(&self, claim: &Claim, rows: &[Pending]) -> Result<(), StoreError>;

    /// Whether the claim is still in force: [`StoreError::Fenced`] when it is not. Called after a
    /// relay was opened and before it sends anything, so it must look at the fence row itself,
    /// in the database, and not at anything remembered.
    ///
    /// The default asks [`Store::published`] about no rows, which therefore must check the fence
    /// also when there is nothing to remove.
    async fn holds(&self, claim: &Claim) -> Result<(), StoreError> {
        self.published(claim, &[]).await
    }

    /// Work that time or another table asks for: expiries, jobs. Returns whether there is more.
    async fn tick(&self, _claim: &Claim, _now_ms: i64) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Waits until the data belongs to a newer release than this program, which can then write
    /// no more; says what to do. The default waits for ever.
    async fn outgrown(&self) -> String {
        std::future::pending().await
    }
}

/// The pure step: makes an item of a record, or says why it cannot. No IO, no clock.
pub trait Decode: Send + Sync + 'static {
    /// What comes out.
    type Item;
    /// Decodes and validates one record.
    fn decode(&self, record: &Incoming) -> Result<Self::Item, Rejection>;
}

/// A partition as a consumer group sees it on one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// Consumer group.
    pub group: String,
    /// Identity of the cluster that the offsets belong to.
    pub cluster_id: String,
    /// Topic and partition.
    pub partition: TopicPartition,
}

/// What a fence says about a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The epoch that was just taken.
    pub epoch: i64,
    /// Offset to apply next; 0 when nothing was ever applied.
    pub next_offset: i64,
    /// The last record that was applied; `None` when nothing ever was.
    pub mark: Option<Mark>,
}

/// Enough of the last applied record to recognise it: a recreated topic has other records at the
/// same offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp_ms: i64,
    /// Its `ce_id`, empty if it had none.
    pub event_id: String,
}

/// A partition held under an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which partition.
    pub source: Source,
    /// The epoch of the fence.
    pub epoch: i64,
    /// How many partitions the source topic has.
    pub partitions: i32,
}

/// Results of one partition, to be written in one transaction.
#[derive(Debug)]
pub struct Batch<'a, I> {
    /// Under which claim.
    pub claim: &'a Claim,
    /// `next_offset` as it must stand before.
    pub from: i64,
    /// `next_offset` as it stands after.
    pub to: i64,
    /// The last record of the batch.
    pub mark: &'a Mark,
    /// The records' results, in offset order.
    pub entries: &'a [Entry<I>],
    /// When the runtime handed the batch over, milliseconds since 1970; the only clock a store
    /// may use.
    pub now_ms: i64,
}

/// What became of one record.
#[derive(Debug)]
pub struct Entry<I> {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp_ms: i64,
    /// Apply this, or send that to quarantine through the outbox.
    pub outcome: Outcome<I>,
}

/// Result of the pure step, or of the database's refusal.
#[derive(Debug)]
pub enum Outcome<I> {
    /// Apply it.
    Apply(I),
    /// Only append this record to the outbox: a `Quarantined` for the quarantine topic.
    Poison(Outgoing),
}

/// A row of the outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// Orders the rows of one partition; for rows that are not in the outbox table, whatever the
    /// store needs to remove them.
    pub position: i64,
    /// What to publish.
    pub record: Outgoing,
}

/// Why the pure step refuses a record. Names fields and types, never values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection(pub String);

/// A store call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another consumer holds the partition: give it up.
    #[error("partition has been taken over by another consumer")]
    Fenced,
    /// The database refuses what was to be written: find the record and quarantine it. Carries
    /// SQLSTATE and constraint only, since details quote values.
    #[error("database refuses the data ({0})")]
    Rejected(String),
    /// Passes by itself: try again with back-off.
    #[error("database is not available ({0})")]
    Transient(String),
    /// Does not pass by itself: wrong schema, wrong password. Said loudly, tried again.
    #[error("database cannot be used: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether it passes by itself.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in group {}", self.partition, self.group)
    }
}
