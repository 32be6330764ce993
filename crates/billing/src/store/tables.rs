//! What a transaction that writes can do: the part that is done in bulk, and therefore
//! differently, in each database.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tollgate_schema::ids::{EventId, RecordId};
use tollgate_schema::v1;
use tollgate_store::Transaction;
use tollgate_store::sql::{Row, Sql, misfit};
use tollgate_stream::{Claim, Outgoing, StoreError};

use crate::applications::service_named;
use crate::digest::{Authenticity, Digest, Place, ReadAt};
use crate::entry::{Bucket, Entry, Kind, Measures};
use crate::item::Content;
use crate::ledger::Account;
use crate::plan::{Need, Writes};
use crate::texts;

/// What is written for one partition.
pub type Share<'a> = (&'a Claim, Writes);
/// The serial of each record, under which its rows stand: column `number`.
pub type Serials = HashMap<RecordId, i64>;
/// What is to be published for one partition.
pub type Outbox<'a> = (&'a Claim, Vec<Outgoing>);

/// An open, fenced transaction.
#[async_trait]
pub trait Tables: Sql {
    /// Until the end of the transaction, no tariff is activated. Comes before the first look at
    /// the activations.
    async fn hold_tariffs(&mut self) -> Result<(), StoreError>;

    /// Until the end of the transaction, nobody rates and nobody activates.
    async fn stop_rating(&mut self) -> Result<(), StoreError>;

    /// Inserts the rows of records that are not there yet, each for the partition beside it, and
    /// says which those are.
    async fn open(
        &mut self,
        accounts: &[Account],
        partitions: &[i32],
    ) -> Result<Serials, StoreError>;

    /// Locks records in the order given and loads their accounts and serials. A record that is not
    /// there is left out.
    async fn load(
        &mut self,
        needs: &[Need],
        serials: &mut Serials,
    ) -> Result<Vec<Account>, StoreError>;

    /// Writes digests, records, ledger entries and aggregates. The outboxes, in the order of the
    /// shares, begin with the messages of the entries: the ledger keeps what is published. Every
    /// record has a serial.
    async fn write(
        &mut self,
        now_ms: i64,
        shares: &[Share<'_>],
        outboxes: &[Outbox<'_>],
        serials: &Serials,
    ) -> Result<(), StoreError>;
}

/// What this transaction can do.
pub fn tables(tx: &mut Transaction) -> &mut dyn Tables {
    match tx {
        Transaction::Postgres(tx) => tx,
        Transaction::Sqlite(tx) => tx,
    }
}

/// The serial of a record that was opened or loaded.
pub fn serial(serials: &Serials, record_id: &RecordId) -> Result<i64, StoreError> {
    let serial = serials.get(record_id).copied();
    serial.ok_or_else(|| StoreError::Refused("a record has no number".to_owned()))
}

/// Columns of an entry, in the order in which [`entry`] reads them.
macro_rules! entry_columns {
    () => {
        "l.record_id, l.revision, l.kind, l.event_id, l.hour_ms, l.day, l.month, l.currency, \
         l.application, l.service, l.status, l.attempts, l.answered, l.seconds, l.talk_seconds, \
         l.billed_minutes, l.amount_micros, l.pdd_ms, l.pdd_samples, l.message"
    };
}
pub(crate) use entry_columns;

/// How many columns [`entry_columns`] names.
pub const ENTRY_COLUMNS: usize = 20;

/// An entry from a row that begins with the columns of [`entry_columns`].
pub fn entry(row: &Row) -> Result<Entry, StoreError> {
    use prost::Message;

    Ok(Entry {
        record_id: RecordId::from_bytes(row.key(0)?),
        revision: u32::try_from(row.int(1)?).map_err(|_| misfit(1, "a revision"))?,
        kind: Kind::from_stored(row.int(2)?),
        event_id: EventId::from_bytes(row.key(3)?),
        bucket: Bucket {
            hour_ms: row.int(4)?,
            day: row.text(5)?.to_owned(),
            month: row.text(6)?.to_owned(),
            currency: row.text(7)?.to_owned(),
            application: String::from_utf8_lossy(row.bytes(8)?).into_owned(),
            service: service_named(row.text(9)?),
            status: row.int(10)?,
        },
        measures: Measures::from_columns(row.ints(11)?),
        message: v1::RatedCdr::decode(row.bytes(19)?).map_err(|_| misfit(19, "a RatedCdr"))?,
    })
}

/// Columns of a digest, in the order in which [`digest`] reads them; `r` is its record, `f` the
/// fence row of the partition where it was first read.
macro_rules! digest_columns {
    () => {
        "r.record_id, d.event_id, d.authenticity, d.first_received_ms, d.application, \
         d.application_at_ms, d.source, d.source_offset, d.content, f.cluster_id, f.topic, \
         CAST(f.partition AS bigint)"
    };
}
pub(crate) use digest_columns;

/// A digest and its record, from a row of [`digest_columns`].
pub fn digest(row: &Row) -> Result<(RecordId, Digest), StoreError> {
    let content = Content::decode(row.bytes(8)?).map_err(|_| misfit(8, "a trimmed CDR"))?;
    let digest = Digest {
        event_id: EventId::from_bytes(row.key(1)?),
        authenticity: Authenticity::from_stored(row.int(2)?),
        first_received_ms: row.int(3)?,
        // Earlier versions kept it whole, and a repeat is compared with it.
        application: texts::short(String::from_utf8_lossy(row.bytes(4)?).into_owned()),
        application_at_ms: row.int(5)?,
        read_at: ReadAt {
            place: Arc::new(Place {
                source: row.key(6)?,
                cluster_id: row.text(9)?.to_owned(),
                topic: row.text(10)?.to_owned(),
                partition: row.int(11)? as i32,
            }),
            offset: row.int(7)?,
        },
        content: content.into(),
    };
    Ok((RecordId::from_bytes(row.key(0)?), digest))
}

/// Accounts out of their charges and digests. A digest may come more than once.
pub fn accounts(charges: Vec<Entry>, digests: Vec<(RecordId, Digest)>) -> Vec<Account> {
    let mut accounts: Vec<_> = charges
        .into_iter()
        .map(|charge| Account { record_id: charge.record_id, charge, digests: Vec::new() })
        .collect();
    accounts.sort_unstable_by_key(|account| account.record_id);
    for (record_id, digest) in digests {
        if let Ok(index) = accounts.binary_search_by_key(&record_id, |account| account.record_id) {
            crate::digest::add(&mut accounts[index].digests, digest);
        }
    }
    accounts
}
