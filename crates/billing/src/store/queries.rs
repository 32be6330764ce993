//! Questions to the ledger, each answered from one snapshot.

use std::fmt;
use std::str::FromStr;

use tollgate_rating::Service;
use tollgate_schema::ids::RecordId;
use tollgate_stream::StoreError;

use super::BillingStore;
use super::sql::Row;
use super::tables::{self, ENTRY_COLUMNS, entry_columns};
use crate::applications::service_named;
use crate::entry::{Entry, Measures};
use crate::error::BillingError;
use crate::keys;

/// Most entries that one question about a record or a session is answered with.
const MOST: i64 = 1000;

/// Which span a row of usage sums over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Hours of the billing time zone.
    Hour,
    /// Days of it.
    Day,
    /// Months of it.
    Month,
}

/// A sum of the aggregates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// Start of the hour in milliseconds, or the day or month in words.
    pub period: Period,
    /// ISO 4217; empty for what is not rated.
    pub currency: String,
    /// Name of the application.
    pub application: String,
    /// Service.
    pub service: Option<Service>,
    /// Rated, or why not; a number of `tollgate.v1.RatingStatus`.
    pub status: i64,
    /// The sums.
    pub measures: Measures,
}

/// The period of a row of usage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// Start of the hour, milliseconds since 1970 UTC.
    Hour(i64),
    /// A day or a month, as stored.
    Name(String),
}

/// A ledger entry as it stands in the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerEntry {
    /// Who wrote it, and as which of its entries.
    pub cursor: Cursor,
    /// The entry.
    pub entry: Entry,
}

/// A place in the ledger: the partition that wrote, and the number of its entry. Within a
/// partition entries become visible in the order of their numbers, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Key of the partition.
    pub source: [u8; 16],
    /// Number of the entry, from 1.
    pub position: i64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", hex::encode(self.source), self.position)
    }
}

impl FromStr for Cursor {
    type Err = BillingError;

    fn from_str(text: &str) -> Result<Self, BillingError> {
        let parse = || {
            let (source, position) = text.split_once('-')?;
            let mut key = [0; 16];
            hex::decode_to_slice(source, &mut key).ok()?;
            Some(Self { source: key, position: position.parse().ok().filter(|p| *p >= 0)? })
        };
        parse().ok_or(BillingError::InvalidQuery {
            what: "after is not a cursor".to_owned(),
            hint: "take it from next of the answer before, or leave it out to begin",
        })
    }
}

/// A page of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Entries, by partition and number.
    pub entries: Vec<LedgerEntry>,
    /// Where to go on; `None` when this snapshot has no more.
    pub next: Option<Cursor>,
}

fn ledger_entry(row: &Row) -> Result<LedgerEntry, StoreError> {
    let cursor = Cursor { source: row.key(ENTRY_COLUMNS)?, position: row.int(ENTRY_COLUMNS + 1)? };
    Ok(LedgerEntry { cursor, entry: tables::entry(row)? })
}

impl BillingStore {
    /// The aggregates of the hours that begin in `from_ms..to_ms`, summed over the partitions.
    pub async fn usage(
        &self,
        span: Span,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<UsageRow>, BillingError> {
        macro_rules! sums_by {
            ($period:literal) => {
                concat!(
                    "SELECT ",
                    $period,
                    ", currency, application, service, status,
                     CAST(SUM(attempts) AS bigint), CAST(SUM(answered) AS bigint),
                     CAST(SUM(seconds) AS bigint), CAST(SUM(talk_seconds) AS bigint),
                     CAST(SUM(billed_minutes) AS bigint), CAST(SUM(amount_micros) AS bigint),
                     CAST(SUM(pdd_ms) AS bigint), CAST(SUM(pdd_samples) AS bigint)
                     FROM billing_aggregates WHERE hour_ms >= $1 AND hour_ms < $2
                     GROUP BY ",
                    $period,
                    ", currency, application, service, status"
                )
            };
        }
        let statement = match span {
            Span::Hour => sums_by!("hour_ms"),
            Span::Day => sums_by!("day"),
            Span::Month => sums_by!("month"),
        };
        let mut tx = self.snapshot().await?;
        let rows = tx.tables().rows(statement, vec![from_ms.into(), to_ms.into()]).await?;
        let usage = |row: &Row| {
            Ok(UsageRow {
                period: match span {
                    Span::Hour => Period::Hour(row.int(0)?),
                    Span::Day | Span::Month => Period::Name(row.text(0)?.to_owned()),
                },
                currency: row.text(1)?.to_owned(),
                application: String::from_utf8_lossy(row.bytes(2)?).into_owned(),
                service: service_named(row.text(3)?),
                status: row.int(4)?,
                measures: Measures::from_columns(row.ints(5)?),
            })
        };
        Ok(rows.iter().map(usage).collect::<Result<_, StoreError>>()?)
    }

    /// The entries of a record, in the order in which they happened.
    pub async fn entries_of_record(
        &self,
        record_id: &RecordId,
    ) -> Result<Vec<LedgerEntry>, BillingError> {
        let mut tx = self.snapshot().await?;
        let rows = tx
            .tables()
            .rows(
                concat!(
                    "SELECT ",
                    entry_columns!(),
                    ", l.source, l.position FROM billing_ledger AS l WHERE l.record_id = $1
                     ORDER BY l.revision, l.kind LIMIT $2"
                ),
                vec![record_id.as_bytes().as_slice().into(), MOST.into()],
            )
            .await?;
        Ok(rows.iter().map(ledger_entry).collect::<Result<_, StoreError>>()?)
    }

    /// The entries of every record of a session, by record and in the order in which they
    /// happened.
    pub async fn entries_of_session(
        &self,
        session_id: &str,
    ) -> Result<Vec<LedgerEntry>, BillingError> {
        let mut tx = self.snapshot().await?;
        let rows = tx
            .tables()
            .rows(
                concat!(
                    "SELECT ",
                    entry_columns!(),
                    ", l.source, l.position FROM billing_ledger AS l WHERE l.session_key = $1
                     ORDER BY l.record_id, l.revision, l.kind LIMIT $2"
                ),
                vec![keys::session_key(session_id).into(), MOST.into()],
            )
            .await?;
        let mut entries: Vec<LedgerEntry> =
            rows.iter().map(ledger_entry).collect::<Result<_, StoreError>>()?;
        entries.retain(|found| found.entry.message.session_id == session_id);
        Ok(entries)
    }

    /// A page of the whole ledger.
    pub async fn ledger(&self, after: Option<Cursor>, limit: usize) -> Result<Page, BillingError> {
        let after = after.unwrap_or(Cursor { source: [0; 16], position: 0 });
        let mut tx = self.snapshot().await?;
        // One more than asked for tells whether there is a next page.
        let rows = tx
            .tables()
            .rows(
                concat!(
                    "SELECT ",
                    entry_columns!(),
                    ", l.source, l.position FROM billing_ledger AS l
                     WHERE (l.source, l.position) > ($1, $2)
                     ORDER BY l.source, l.position LIMIT $3"
                ),
                vec![after.source.into(), after.position.into(), (limit as i64 + 1).into()],
            )
            .await?;
        let mut entries: Vec<LedgerEntry> =
            rows.iter().map(ledger_entry).collect::<Result<_, StoreError>>()?;
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next = if more { entries.last().map(|last| last.cursor) } else { None };
        Ok(Page { entries, next })
    }

    /// How many records wait for a tariff, counted up to 100,001.
    pub async fn unrated(&self) -> Result<i64, BillingError> {
        let mut tx = self.snapshot().await?;
        let row = tx
            .tables()
            .row(
                "SELECT COUNT(*) FROM
                     (SELECT 1 FROM billing_records WHERE status = 2 LIMIT 100001) AS waiting",
                vec![],
            )
            .await?;
        Ok(row.map_or(Ok(0), |row| row.int(0))?)
    }
}
