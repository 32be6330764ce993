//! Fences, offsets and outbox in PostgreSQL. Same functions as [`crate::sqlite`].

use std::collections::HashMap;

use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tollgate_stream::{Claim, Fence, Outgoing, Pending, Source, StoreError};

use crate::error::{classify, classify_own};
use crate::metrics::{self, counted};
use crate::new_rows::{NewRows, bigint, bytea, text};
use crate::rows::{read_fence, read_pending};
use crate::sql::Row;
use crate::{Advance, Step, headers, source_id};

/// A transaction of this database.
pub type Tx = Transaction<'static, Postgres>;

/// Takes a partition over: raises its epoch, making its row first if need be, and says where to
/// go on. Waits for a transaction of the former holder that is just running; a holder that was
/// stopped in one is thrown out by its idle timeout.
pub async fn fence(pool: &PgPool, source: &Source) -> Result<Fence, StoreError> {
    let row = sqlx::query(
        "INSERT INTO tollgate_fence AS fence
             (source, group_name, cluster_id, topic, partition, epoch, next_offset,
              outbox_position)
         VALUES ($1, $2, $3, $4, $5, 1, 0, 0)
         ON CONFLICT (source) DO UPDATE SET epoch = fence.epoch + 1
         RETURNING epoch, next_offset, mark_offset, mark_timestamp, mark_event_id",
    )
    .bind(source_id(source).as_slice())
    .bind(&source.group)
    .bind(&source.cluster_id)
    .bind(&*source.partition.topic)
    .bind(source.partition.partition)
    .fetch_one(pool)
    .await;
    if row.as_ref().is_err_and(is_lock_timeout) {
        end_stopped_copies(pool).await?;
    }
    let row = row.map_err(classify_own)?;
    ::metrics::counter!(metrics::FENCES.name).increment(1);
    read_fence(&row.into())
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("55P03"))
}

/// A holder that was stopped while it copies rows is not idle, and no time-out of the server ends
/// it: ends such sessions of this user. Nobody who runs takes so long to send a batch.
async fn end_stopped_copies(pool: &PgPool) -> Result<(), StoreError> {
    let ended = sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE usename = current_user AND datname = current_database()
           AND application_name = current_setting('application_name')
           AND state = 'active' AND wait_event = 'ClientRead'
           AND query_start < clock_timestamp()
                 - current_setting('idle_in_transaction_session_timeout')::interval",
    )
    .execute(pool)
    .await
    .map_err(classify_own)?;
    if ended.rows_affected() > 0 {
        tracing::warn!(
            sessions = ended.rows_affected(),
            "ended sessions that had stopped while they held a partition"
        );
    }
    Ok(())
}

/// Begins a transaction without a fence: for what no partition owns, such as commands.
pub async fn begin(pool: &PgPool) -> Result<Tx, StoreError> {
    let tx = pool.begin().await.map_err(classify_own)?;
    metrics::connections(&[pool]);
    Ok(tx)
}

/// Begins a transaction that holds its partitions until it ends. [`StoreError::Fenced`] when the
/// epoch of a claim, or the offset before, is not in force.
pub async fn transaction(pool: &PgPool, step: &Step<'_>) -> Result<Tx, StoreError> {
    let mut tx = begin(pool).await?;
    match step {
        Step::Advance(partitions) => advance(&mut tx, partitions).await?,
        Step::Hold(claim) => hold(&mut tx, claim).await?,
    }
    Ok(tx)
}

/// Commits. After [`StoreError::Transient`] it is not known whether it did: fence again, and go
/// on from where that says.
pub async fn commit(tx: Tx) -> Result<(), StoreError> {
    tx.commit().await.map_err(classify)?;
    ::metrics::counter!(metrics::COMMITS.name).increment(1);
    Ok(())
}

/// Begins a reading transaction in which every statement sees the same rows.
pub async fn snapshot(pool: &PgPool) -> Result<Tx, StoreError> {
    pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(classify_own)
}

/// Moves the offsets; the first statement of the transaction that writes the batches. The rows are
/// locked in the order of their keys, so that two who claim the same partitions never deadlock.
async fn advance(tx: &mut PgConnection, partitions: &[Advance<'_>]) -> Result<(), StoreError> {
    let ints =
        |read: fn(&Advance<'_>) -> i64| -> Vec<i64> { partitions.iter().map(read).collect() };
    let sources: Vec<_> = partitions.iter().map(|it| source_id(&it.claim.source)).collect();
    let marks: Vec<&[u8]> = partitions.iter().map(|it| it.mark.event_id.as_bytes()).collect();
    let done = sqlx::query(
        "WITH held AS (
             SELECT own.source, row.* FROM tollgate_fence AS own
             JOIN unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
                         $6::bigint[], $7::bytea[])
                  AS row (key, epoch, before, after, mark_offset, mark_timestamp, mark_event_id)
                  ON own.source = row.key AND own.epoch = row.epoch
                     AND own.next_offset = row.before
             ORDER BY own.source FOR NO KEY UPDATE OF own)
         UPDATE tollgate_fence AS fence
         SET next_offset = held.after, mark_offset = held.mark_offset,
             mark_timestamp = held.mark_timestamp, mark_event_id = held.mark_event_id
         FROM held WHERE fence.source = held.source",
    )
    .bind(sources.iter().map(<[u8; 16]>::as_slice).collect::<Vec<_>>())
    .bind(ints(|it| it.claim.epoch))
    .bind(ints(|it| it.from))
    .bind(ints(|it| it.to))
    .bind(ints(|it| it.mark.offset))
    .bind(ints(|it| it.mark.timestamp_ms))
    .bind(marks)
    .execute(tx)
    .await
    .map_err(classify_own)?;
    let all = partitions.len() as u64;
    if done.rows_affected() == all { Ok(()) } else { Err(counted(StoreError::Fenced)) }
}

/// Holds the partition without moving the offset; the first statement of any other transaction
/// that writes for it.
pub async fn hold(tx: &mut PgConnection, claim: &Claim) -> Result<(), StoreError> {
    // Locks as an update would, without leaving a dead row behind.
    let row = sqlx::query(
        "SELECT 1 FROM tollgate_fence WHERE source = $1 AND epoch = $2 FOR NO KEY UPDATE",
    )
    .bind(source_id(&claim.source).as_slice())
    .bind(claim.epoch)
    .fetch_optional(tx)
    .await
    .map_err(classify_own)?;
    row.map(drop).ok_or_else(|| counted(StoreError::Fenced))
}

/// Appends records to the outboxes of partitions, in order, within a transaction that holds them.
pub async fn append_outbox(
    tx: &mut PgConnection,
    outboxes: &[(&Claim, Vec<Outgoing>)],
) -> Result<(), StoreError> {
    let outboxes: Vec<_> = outboxes.iter().filter(|(_, records)| !records.is_empty()).collect();
    if outboxes.is_empty() {
        return Ok(());
    }
    let sources: Vec<_> = outboxes.iter().map(|(claim, _)| source_id(&claim.source)).collect();
    let last: Vec<(Vec<u8>, i64)> = sqlx::query_as(
        "UPDATE tollgate_fence AS fence SET outbox_position = outbox_position + row.count
         FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS row (source, epoch, count)
         WHERE fence.source = row.source AND fence.epoch = row.epoch
         RETURNING fence.source, fence.outbox_position",
    )
    .bind(sources.iter().map(<[u8; 16]>::as_slice).collect::<Vec<_>>())
    .bind(outboxes.iter().map(|(claim, _)| claim.epoch).collect::<Vec<_>>())
    .bind(outboxes.iter().map(|(_, records)| records.len() as i64).collect::<Vec<_>>())
    .fetch_all(&mut *tx)
    .await
    .map_err(classify_own)?;
    let last: HashMap<Vec<u8>, i64> = last.into_iter().collect();

    let columns = [
        bytea("source"),
        bigint("position"),
        text("topic"),
        bytea("key"),
        bytea("value"),
        bytea("headers"),
    ];
    let mut rows = NewRows::of("tollgate_outbox", &columns);
    let mut appended = 0;
    for (source, (_, records)) in sources.iter().zip(&outboxes) {
        let last = last.get(source.as_slice()).ok_or_else(|| counted(StoreError::Fenced))?;
        for (position, record) in (last - records.len() as i64 + 1..).zip(records) {
            rows.row()
                .field(source)
                .field(position)
                .field(&*record.topic)
                .field(&record.key)
                .field(record.value.as_deref())
                .field(&headers::encode(&record.headers));
        }
        appended += records.len() as u64;
    }
    rows.write(tx).await?;
    ::metrics::counter!(metrics::OUTBOX_APPENDED.name).increment(appended);
    Ok(())
}

/// The oldest rows of the partition's outbox, in order, at most `limit`, and none after keys and
/// values have come to `bytes`.
pub async fn read_outbox(
    pool: &PgPool,
    claim: &Claim,
    limit: usize,
    bytes: usize,
) -> Result<Vec<Pending>, StoreError> {
    let rows = sqlx::query(
        "SELECT position, topic, key, value, headers
         FROM (SELECT oldest.*,
                      SUM(length(key) + COALESCE(length(value), 0)) OVER (
                          ORDER BY position
                          ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS size_before
               FROM (SELECT * FROM tollgate_outbox
                     WHERE source = $1 ORDER BY position LIMIT $2) AS oldest) AS sized
         WHERE COALESCE(size_before, 0) < $3 ORDER BY position",
    )
    .bind(source_id(&claim.source).as_slice())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await
    .map_err(classify_own)?;
    Row::all(rows).iter().map(read_pending).collect()
}

/// Removes the rows of the partition's outbox up to this position, within a fenced transaction.
pub async fn delete_outbox_rows(
    tx: &mut PgConnection,
    claim: &Claim,
    up_to: i64,
) -> Result<(), StoreError> {
    let done = sqlx::query("DELETE FROM tollgate_outbox WHERE source = $1 AND position <= $2")
        .bind(source_id(&claim.source).as_slice())
        .bind(up_to)
        .execute(tx)
        .await
        .map_err(classify_own)?;
    ::metrics::counter!(metrics::OUTBOX_DELETED.name).increment(done.rows_affected());
    Ok(())
}
