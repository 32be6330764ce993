//! Work that commands ask for: the partitions' owners walk along the records of theirs and rate
//! them again. A command itself never writes a result.

use serde::Serialize;
use tollgate_schema::ids::RecordId;
use tollgate_store::Step;
use tollgate_store::sql::{Row, Sql, Value};
use tollgate_stream::{Claim, StoreError};

use super::tables::{Serials, tables};
use super::{BillingStore, check_complete, write};
use crate::error::BillingError;
use crate::metrics;
use crate::plan::{Need, Writes};
use crate::pricing::Desk;

/// Records looked at in one transaction.
const PAGE: usize = 500;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Rates what no tariff covered; every activation asks for it.
    RateUnrated = 1,
    /// Assesses and rates everything again, by the tariffs and rules of now.
    Rerate = 2,
}

/// How far a job is in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobStatus {
    /// Its number.
    pub job: i64,
    /// What it does.
    pub kind: JobKind,
    /// The partition.
    pub partition: i64,
    /// Records looked at.
    pub examined: i64,
    /// Records whose charge was replaced.
    pub changed: i64,
    /// Whether the partition is through.
    pub done: bool,
}

/// A job and how far this partition is.
struct Job {
    number: i64,
    kind: JobKind,
    to_ms: i64,
    /// The last record looked at: its instant of billing and its id.
    after: (i64, Vec<u8>),
    examined: i64,
    changed: i64,
}

impl Job {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let [number, kind, from_ms, to_ms, seen_ms, examined, changed] = row.ints(0)?;
        let seen_id = row.bytes(7)?.to_vec();
        // Every id is greater than the empty one, so that the first page begins at from_ms.
        let after = if seen_id.is_empty() { (from_ms, seen_id) } else { (seen_ms, seen_id) };
        Ok(Self { number, kind: kind_of(kind), to_ms, after, examined, changed })
    }
}

const fn kind_of(stored: i64) -> JobKind {
    if stored == 1 { JobKind::RateUnrated } else { JobKind::Rerate }
}

async fn next(sql: &mut dyn Sql, partition: i32) -> Result<Option<Job>, StoreError> {
    sql.row(
        "SELECT j.job, j.kind, j.from_ms, j.to_ms, p.billed_at_ms, p.examined, p.changed,
                p.record_id
         FROM billing_jobs AS j
         LEFT JOIN billing_job_progress AS p ON p.job = j.job AND p.partition = $1
         WHERE p.done IS NULL OR p.done = 0
         ORDER BY j.job LIMIT 1",
        vec![i64::from(partition).into()],
    )
    .await?
    .map(|row| Job::read(&row))
    .transpose()
}

impl BillingStore {
    /// Asks the partitions' owners to rate again what was billed in `from_ms..to_ms`
    /// (milliseconds since 1970 UTC). Returns the job's number.
    pub async fn rerate(&self, from_ms: i64, to_ms: i64, now_ms: i64) -> Result<i64, BillingError> {
        if from_ms >= to_ms {
            return Err(BillingError::InvalidQuery {
                what: "from is not before to".to_owned(),
                hint: "give two instants, the earlier first",
            });
        }
        self.ready().await?;
        let mut tx = self.database.begin().await?;
        let tables = tables(&mut tx);
        tables.stop_rating().await?;
        let job = add(tables, JobKind::Rerate, from_ms, to_ms, now_ms).await?;
        tx.commit().await?;
        Ok(job)
    }

    /// How far each job is in each partition that has begun it, newest first, at most 1,000 rows.
    pub async fn jobs(&self) -> Result<Vec<JobStatus>, BillingError> {
        let mut tx = self.snapshot().await?;
        let rows = tx
            .sql()
            .rows(
                "SELECT j.job, j.kind, p.partition, p.examined, p.changed, p.done
                 FROM billing_jobs AS j JOIN billing_job_progress AS p ON p.job = j.job
                 ORDER BY j.job DESC, p.partition LIMIT 1000",
                vec![],
            )
            .await?;
        let status = |row: &Row| {
            let [job, kind, partition, examined, changed, done] = row.ints(0)?;
            Ok(JobStatus {
                job,
                kind: kind_of(kind),
                partition,
                examined,
                changed,
                done: done == 1,
            })
        };
        rows.iter().map(status).collect::<Result<_, StoreError>>().map_err(BillingError::from)
    }

    /// One page of the oldest job this partition is not through with; whether there may be more.
    pub(super) async fn run_job(&self, claim: &Claim, now_ms: i64) -> Result<bool, StoreError> {
        let partition = claim.source.partition.partition;
        // Looked at without the fence first: there is nearly never a job.
        if next(self.snapshot().await?.sql(), partition).await?.is_none() {
            return Ok(false);
        }
        let mut tx = self.database.transaction(&Step::Hold(claim)).await?;
        let tables = tables(&mut tx);
        tables.hold_tariffs().await?;
        let Some(mut job) = next(tables, partition).await? else { return Ok(false) };
        let book = self.book(tables).await?;
        let desk = Desk { rules: &self.rules, book: &book };

        let page = page(tables, &job, claim).await?;
        let mut needs: Vec<_> = page
            .iter()
            .map(|(_, record_id)| Need { record_id: *record_id, event_ids: Vec::new() })
            .collect();
        needs.sort_unstable_by_key(|need| need.record_id);
        let mut serials = Serials::new();
        let accounts = tables.load(&needs, &mut serials).await?;
        check_complete(needs.len(), accounts.len())?;
        let mut writes = Writes::default();
        for mut account in accounts {
            if let Some(replacement) = account.rerate(&desk) {
                writes.replaced(replacement);
            }
        }
        let shares = [(claim, writes)];
        write(tables, now_ms, &shares, &serials).await?;
        let [(_, writes)] = shares;

        job.examined += page.len() as i64;
        job.changed += writes.replaced.len() as i64;
        let done = page.len() < PAGE;
        if let Some((billed_at_ms, record_id)) = page.last() {
            job.after = (*billed_at_ms, record_id.as_bytes().to_vec());
        }
        save(tables, &job, partition, done).await?;
        tx.commit().await?;
        metrics::committed(&writes);
        if done {
            tracing::info!(
                job = job.number,
                partition,
                examined = job.examined,
                changed = job.changed,
                "job is through this partition"
            );
        }
        Ok(true)
    }
}

/// The next records of a job that are this partition's.
async fn page(
    sql: &mut dyn Sql,
    job: &Job,
    claim: &Claim,
) -> Result<Vec<(i64, RecordId)>, StoreError> {
    let statement = match job.kind {
        JobKind::RateUnrated => {
            "SELECT billed_at_ms, record_id FROM billing_records
             WHERE status = 2 AND (billed_at_ms, record_id) > ($1, $2) AND billed_at_ms < $3
                   AND partition % $4 = $5
             ORDER BY billed_at_ms, record_id LIMIT $6"
        }
        JobKind::Rerate => {
            "SELECT billed_at_ms, record_id FROM billing_records
             WHERE (billed_at_ms, record_id) > ($1, $2) AND billed_at_ms < $3
                   AND partition % $4 = $5
             ORDER BY billed_at_ms, record_id LIMIT $6"
        }
    };
    let values: Vec<Value> = vec![
        job.after.0.into(),
        job.after.1.as_slice().into(),
        job.to_ms.into(),
        i64::from(claim.partitions.max(1)).into(),
        i64::from(claim.source.partition.partition).into(),
        (PAGE as i64).into(),
    ];
    let rows = sql.rows(statement, values).await?;
    rows.iter().map(|row| Ok((row.int(0)?, RecordId::from_bytes(row.key(1)?)))).collect()
}

async fn save(sql: &mut dyn Sql, job: &Job, partition: i32, done: bool) -> Result<(), StoreError> {
    sql.execute(
        "INSERT INTO billing_job_progress
             (job, partition, billed_at_ms, record_id, examined, changed, done)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (job, partition) DO UPDATE SET
             billed_at_ms = excluded.billed_at_ms, record_id = excluded.record_id,
             examined = excluded.examined, changed = excluded.changed, done = excluded.done",
        vec![
            job.number.into(),
            i64::from(partition).into(),
            job.after.0.into(),
            job.after.1.as_slice().into(),
            job.examined.into(),
            job.changed.into(),
            i64::from(done).into(),
        ],
    )
    .await?;
    Ok(())
}

/// Adds a job. The caller has stopped rating, so that numbers are given out one by one.
pub(super) async fn add(
    sql: &mut dyn Sql,
    kind: JobKind,
    from_ms: i64,
    to_ms: i64,
    now_ms: i64,
) -> Result<i64, StoreError> {
    let last = sql.row("SELECT MAX(job) FROM billing_jobs", vec![]).await?;
    let number = last.map_or(Ok(0), |row| row.int(0))? + 1;
    sql.execute(
        "INSERT INTO billing_jobs (job, kind, from_ms, to_ms, created_ms)
         VALUES ($1, $2, $3, $4, $5)",
        vec![number.into(), (kind as i64).into(), from_ms.into(), to_ms.into(), now_ms.into()],
    )
    .await?;
    Ok(number)
}
