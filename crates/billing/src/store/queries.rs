//! Questions to the ledger, each answered from one snapshot.

use std::fmt;
use std::str::FromStr;

use tollgate_rating::Service;
use tollgate_schema::ids::RecordId;
use tollgate_store::sql::{Row, Value};
use tollgate_stream::StoreError;

use super::BillingStore;
use super::tables::{self, ENTRY_COLUMNS, entry_columns};
use crate::applications::service_named;
use crate::entry::{Entry, Measures};
use crate::error::BillingError;
use crate::keys;
use crate::texts;

/// Most entries that one question about a record or a session is answered with.
const MOST: usize = 1000;
/// Most rows of usage in one answer.
const MOST_ROWS: usize = 20_000;
/// Most bytes of messages, or of names of applications, in one answer; a single larger message
/// still comes.
const MOST_BYTES: i64 = 8 * 1024 * 1024;

/// Entries, with what else they are joined to, that match, in this order, as many as fit: `$1` and
/// `$2` are the match's own, `$3` is how many, `$4` how many bytes. The last column says how many
/// there would have been.
macro_rules! entries_where {
    ($entries:expr, $matches:literal, $order:literal) => {
        concat!(
            "SELECT ",
            entry_columns!(),
            ", l.source, l.position, l.found
             FROM (SELECT f.*, COUNT(*) OVER () AS found,
                          SUM(length(f.message)) OVER (ORDER BY ",
            $order,
            " ROWS UNBOUNDED PRECEDING) - length(f.message) AS size_before
                   FROM (",
            $entries,
            " WHERE ",
            $matches,
            " ORDER BY ",
            $order,
            " LIMIT $3) AS f) AS l
             WHERE l.size_before < $4 ORDER BY ",
            $order
        )
    };
}

/// The whole ledger.
macro_rules! all_entries {
    () => {
        "SELECT * FROM billing_ledger"
    };
}

/// Hour by hour, as the index of sessions has it. From hour to hour it goes by the first of the next,
/// however many rows of aggregates an hour has.
macro_rules! entries_by_hour {
    () => {
        "WITH RECURSIVE hours (hour_ms) AS (
             SELECT MIN(hour_ms) FROM billing_aggregates
             UNION ALL
             SELECT (SELECT MIN(a.hour_ms) FROM billing_aggregates AS a
                     WHERE a.hour_ms > hours.hour_ms)
             FROM hours WHERE hours.hour_ms IS NOT NULL)
         SELECT l.* FROM hours CROSS JOIN billing_ledger AS l"
    };
}

/// Rows of usage by a period, in no order: `$1` and `$2` are the range, `$3` to `$5` say whether
/// rows are told apart by application, service and status, `$6` is how many, `$7` how many bytes.
/// The last column says how many there would have been.
macro_rules! sums_by {
    ($period:literal) => {
        concat!(
            "SELECT period, currency, application, service, status, attempts, answered, seconds,
                    talk_seconds, billed_minutes, amount_micros, pdd_ms, pdd_samples, found
             FROM (SELECT sums.*, COUNT(*) OVER () AS found,
                          SUM(COALESCE(length(application), 0))
                              OVER (ROWS UNBOUNDED PRECEDING) AS size
                   FROM (SELECT ",
            $period,
            " AS period, currency,
                                CASE WHEN $3 = 1 THEN application END AS application,
                                CASE WHEN $4 = 1 THEN service ELSE '' END AS service,
                                CASE WHEN $5 = 1 THEN status ELSE 0 END AS status,
                                CAST(SUM(attempts) AS bigint) AS attempts,
                                CAST(SUM(answered) AS bigint) AS answered,
                                CAST(SUM(seconds) AS bigint) AS seconds,
                                CAST(SUM(talk_seconds) AS bigint) AS talk_seconds,
                                CAST(SUM(billed_minutes) AS bigint) AS billed_minutes,
                                CAST(SUM(amount_micros) AS bigint) AS amount_micros,
                                CAST(SUM(pdd_ms) AS bigint) AS pdd_ms,
                                CAST(SUM(pdd_samples) AS bigint) AS pdd_samples
                         FROM billing_aggregates WHERE hour_ms >= $1 AND hour_ms < $2
                         GROUP BY 1, 2, 3, 4, 5) AS sums
                   LIMIT $6) AS fitting
             WHERE size <= $7"
        )
    };
}

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

/// What rows of usage are told apart by, beside their currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// What a row sums over.
    pub span: Span,
    /// Whether rows are told apart by application.
    pub by_application: bool,
    /// Whether rows are told apart by service.
    pub by_service: bool,
    /// Whether rows are told apart by status.
    pub by_status: bool,
}

/// A sum of the aggregates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// Start of the hour in milliseconds, or the day or month in words.
    pub period: Period,
    /// ISO 4217; empty for what is not rated.
    pub currency: String,
    /// APP_Key of the application; empty where rows are not told apart by it.
    pub application: String,
    /// Service; `None` where rows are not told apart by it.
    pub service: Option<Service>,
    /// Rated, or why not; a number of `tollgate.v1.RatingStatus`, 0 where rows are not told apart
    /// by it.
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

/// Entries of the ledger, as many as fit into an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// In the order asked for.
    pub entries: Vec<LedgerEntry>,
    /// Whether this snapshot has more.
    pub more: bool,
}

impl Page {
    /// Where to go on in the whole ledger; `None` when this snapshot has no more.
    pub fn next(&self) -> Option<Cursor> {
        self.entries.last().filter(|_| self.more).map(|last| last.cursor)
    }
}

fn ledger_entry(row: &Row) -> Result<LedgerEntry, StoreError> {
    let cursor = Cursor { source: row.key(ENTRY_COLUMNS)?, position: row.int(ENTRY_COLUMNS + 1)? };
    Ok(LedgerEntry { cursor, entry: tables::entry(row)? })
}

impl BillingStore {
    /// The aggregates of the hours that begin in `from_ms..to_ms`, summed over the partitions and
    /// whatever else rows are not told apart by. An answer too long to be given is refused.
    pub async fn usage(
        &self,
        groups: Groups,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<UsageRow>, BillingError> {
        let statement = match groups.span {
            Span::Hour => sums_by!("hour_ms"),
            Span::Day => sums_by!("day"),
            Span::Month => sums_by!("month"),
        };
        let values: Vec<Value> = vec![
            from_ms.into(),
            to_ms.into(),
            i64::from(groups.by_application).into(),
            i64::from(groups.by_service).into(),
            i64::from(groups.by_status).into(),
            (MOST_ROWS as i64).into(),
            MOST_BYTES.into(),
        ];
        let mut tx = self.snapshot().await?;
        let rows = tx.sql().rows(statement, values).await?;
        let found = rows.first().map_or(Ok(0), |row| row.int(13))?;
        if found > rows.len() as i64 {
            return Err(BillingError::InvalidQuery {
                what: format!("an answer of {found} rows is too long"),
                hint: "ask for a shorter range, or group by a longer period or by less",
            });
        }
        let usage = |row: &Row| {
            Ok(UsageRow {
                period: match groups.span {
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
    pub async fn entries_of_record(&self, record_id: &RecordId) -> Result<Page, BillingError> {
        let key = record_id.as_bytes().as_slice().into();
        let statement = entries_where!(
            all_entries!(),
            "number = (SELECT number FROM billing_records WHERE record_id = $1)
             AND position > $2",
            "revision, kind"
        );
        self.page(statement, [key, 0.into()], MOST).await
    }

    /// The entries of every record of a session, by record and in the order in which they
    /// happened.
    pub async fn entries_of_session(&self, session_id: &str) -> Result<Page, BillingError> {
        // As it is kept, and whole, as earlier versions kept it.
        let kept = keys::session_key(&texts::session(session_id.to_owned()));
        let whole = keys::session_key(session_id);
        let statement = entries_where!(
            entries_by_hour!(),
            "l.hour_ms = hours.hour_ms AND session_key IN ($1, $2)",
            "record_id, revision, kind"
        );
        self.page(statement, [kept.into(), whole.into()], MOST).await
    }

    /// The whole ledger, by partition and number, from after a place on; at most `limit` entries
    /// (1 or more).
    pub async fn ledger(&self, after: Option<Cursor>, limit: usize) -> Result<Page, BillingError> {
        let after = after.unwrap_or(Cursor { source: [0; 16], position: 0 });
        let statement =
            entries_where!(all_entries!(), "(source, position) > ($1, $2)", "source, position");
        self.page(statement, [after.source.into(), after.position.into()], limit).await
    }

    async fn page(
        &self,
        statement: &'static str,
        [first, second]: [Value; 2],
        limit: usize,
    ) -> Result<Page, BillingError> {
        // One more than asked for tells whether there is more.
        let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let values = vec![first, second, most.into(), MOST_BYTES.into()];
        let mut tx = self.snapshot().await?;
        let rows = tx.sql().rows(statement, values).await?;
        let found = rows.first().map_or(Ok(0), |row| row.int(ENTRY_COLUMNS + 2))?;
        let mut entries: Vec<LedgerEntry> =
            rows.iter().map(ledger_entry).collect::<Result<_, StoreError>>()?;
        entries.truncate(limit);
        Ok(Page { more: found > entries.len() as i64, entries })
    }

    /// How many records wait for a tariff, counted up to 100,001.
    pub async fn unrated(&self) -> Result<i64, BillingError> {
        let mut tx = self.snapshot().await?;
        let row = tx
            .sql()
            .row(
                "SELECT COUNT(*) FROM
                     (SELECT 1 FROM billing_records WHERE status = 2 LIMIT 100001) AS waiting",
                vec![],
            )
            .await?;
        Ok(row.map_or(Ok(0), |row| row.int(0))?)
    }
}
