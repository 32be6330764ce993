//! Does the ledger equal the aggregates, and is nothing missing? Asked in one snapshot, so that
//! the answer holds also while batches are applied.

use serde::Serialize;
use tollgate_store::Transaction;
use tollgate_store::sql::{Row, Sql};
use tollgate_stream::StoreError;

use super::BillingStore;
use crate::entry::Measures;
use crate::error::BillingError;

/// Most differences that are listed; more than a few mean the same.
const MOST: i64 = 100;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checks {
    /// Nothing is wrong.
    pub consistent: bool,
    /// Aggregate rows that are not the sum of their ledger entries; at most 100.
    pub differences: Vec<Difference>,
    /// What each partition wrote.
    pub sources: Vec<SourceCheck>,
    /// Records known.
    pub records: i64,
    /// Charges less reversals; one for each record when all is well.
    pub charges_in_force: i64,
    /// Records whose row does not name the last charge of the ledger.
    pub misplaced: i64,
}

/// An aggregate row that is not the sum of its ledger entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Start of the hour, milliseconds since 1970 UTC.
    pub hour_ms: i64,
    /// Key of the partition, hexadecimal.
    pub source: String,
    /// ISO 4217; empty for what is not rated.
    pub currency: String,
    /// Service.
    pub service: String,
    /// A number of `tollgate.v1.RatingStatus`.
    pub status: i64,
    /// Ledger less aggregate.
    pub attempts: i64,
    /// Ledger less aggregate.
    pub seconds: i64,
    /// Ledger less aggregate.
    pub billed_minutes: i64,
    /// Ledger less aggregate.
    pub amount_micros: i64,
}

/// What one partition wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceCheck {
    /// Cluster of the topic.
    pub cluster_id: String,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i64,
    /// Offset to apply next.
    pub next_offset: i64,
    /// Entries in the ledger.
    pub entries: i64,
    /// Entries it counted; equals `entries` when none is missing.
    pub counted: i64,
    /// Of them, those that wait in the outbox: the others were published to `rated-cdrs`.
    pub waiting: i64,
}

impl BillingStore {
    /// Runs every check in one snapshot. Reads the whole ledger: minutes on a large one.
    pub async fn checks(&self) -> Result<Checks, BillingError> {
        let mut tx = self.snapshot().await?;
        if let Transaction::Postgres(tx) = &mut tx {
            tx.execute("SET LOCAL statement_timeout = '15min'", vec![]).await?;
        }
        let sql = tx.sql();
        let differences = differences(sql).await?;
        let sources = sources(sql).await?;
        let [records] = counts(sql, "SELECT COUNT(*) FROM billing_records").await?;
        let [charges_in_force] = counts(
            sql,
            "SELECT CAST(SUM(CASE kind WHEN 1 THEN 1 ELSE -1 END) AS bigint) FROM billing_ledger",
        )
        .await?;
        let [misplaced] = counts(
            sql,
            "SELECT COUNT(*) FROM billing_records AS r
             WHERE NOT EXISTS (
                     SELECT 1 FROM billing_ledger AS l
                     WHERE l.number = r.number AND l.revision = r.revision AND l.kind = 1
                           AND l.record_id = r.record_id AND l.event_id = r.event_id
                           AND l.status = r.status)
                OR EXISTS (
                     SELECT 1 FROM billing_ledger AS l
                     WHERE l.number = r.number AND l.revision = r.revision AND l.kind = 2)",
        )
        .await?;
        let consistent = differences.is_empty()
            && sources.iter().all(|source| source.entries == source.counted)
            && records == charges_in_force
            && misplaced == 0;
        Ok(Checks { consistent, differences, sources, records, charges_in_force, misplaced })
    }
}

async fn counts<const N: usize>(
    sql: &mut dyn Sql,
    statement: &'static str,
) -> Result<[i64; N], StoreError> {
    sql.row(statement, vec![]).await?.map_or(Ok([0; N]), |row| row.ints(0))
}

async fn differences(sql: &mut dyn Sql) -> Result<Vec<Difference>, StoreError> {
    // The aggregates count negative: whatever does not come to nothing differs.
    let rows = sql
        .rows(
            "SELECT source, currency, service, hour_ms, status,
                    CAST(SUM(attempts) AS bigint), CAST(SUM(answered) AS bigint),
                    CAST(SUM(seconds) AS bigint), CAST(SUM(talk_seconds) AS bigint),
                    CAST(SUM(billed_minutes) AS bigint), CAST(SUM(amount_micros) AS bigint),
                    CAST(SUM(pdd_ms) AS bigint), CAST(SUM(pdd_samples) AS bigint)
             FROM (SELECT source, hour_ms, currency, application_key, service, status, attempts,
                          answered, seconds, talk_seconds, billed_minutes, amount_micros, pdd_ms,
                          pdd_samples
                   FROM billing_ledger
                   UNION ALL
                   SELECT source, hour_ms, currency, application_key, service, status, -attempts,
                          -answered, -seconds, -talk_seconds, -billed_minutes, -amount_micros,
                          -pdd_ms, -pdd_samples
                   FROM billing_aggregates) AS both_sides
             GROUP BY source, hour_ms, currency, application_key, service, status
             HAVING SUM(attempts) <> 0 OR SUM(answered) <> 0 OR SUM(seconds) <> 0
                 OR SUM(talk_seconds) <> 0 OR SUM(billed_minutes) <> 0
                 OR SUM(amount_micros) <> 0 OR SUM(pdd_ms) <> 0 OR SUM(pdd_samples) <> 0
             LIMIT $1",
            vec![MOST.into()],
        )
        .await?;
    let difference = |row: &Row| {
        let measures = Measures::from_columns(row.ints(5)?);
        Ok(Difference {
            source: hex::encode(row.bytes(0)?),
            currency: row.text(1)?.to_owned(),
            service: row.text(2)?.to_owned(),
            hour_ms: row.int(3)?,
            status: row.int(4)?,
            attempts: measures.attempts,
            seconds: measures.seconds,
            billed_minutes: measures.billed_minutes,
            amount_micros: measures.amount_micros,
        })
    };
    rows.iter().map(difference).collect()
}

async fn sources(sql: &mut dyn Sql) -> Result<Vec<SourceCheck>, StoreError> {
    let rows = sql
        .rows(
            "SELECT f.cluster_id, f.topic, CAST(f.partition AS bigint), f.next_offset, s.entries,
                    (SELECT COUNT(*) FROM billing_ledger AS l WHERE l.source = s.source),
                    (SELECT COUNT(*) FROM tollgate_outbox AS o
                     WHERE o.source = s.source AND o.topic = 'rated-cdrs')
             FROM billing_sources AS s JOIN tollgate_fence AS f ON f.source = s.source
             ORDER BY f.cluster_id, f.topic, f.partition",
            vec![],
        )
        .await?;
    let source = |row: &Row| {
        let [partition, next_offset, counted, entries, waiting] = row.ints(2)?;
        Ok(SourceCheck {
            cluster_id: row.text(0)?.to_owned(),
            topic: row.text(1)?.to_owned(),
            partition,
            next_offset,
            entries,
            counted,
            waiting,
        })
    };
    rows.iter().map(source).collect()
}
