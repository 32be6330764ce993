//! Fences, offsets and outbox in SQLite. Same functions as [`crate::postgres`].

use std::sync::Arc;

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection, Transaction};
use tollgate_stream::{Claim, Fence, Outgoing, Pending, Source, StoreError};

use crate::error::{classify, classify_own};
use crate::metrics::{self, counted};
use crate::rows::{read_fence, read_pending};
use crate::sql::Row;
use crate::{Advance, SqlitePools, Step, headers, source_id};

/// A transaction of this database.
pub type Tx = Transaction<'static, Sqlite>;

/// A statement and the values bound to it.
pub type Bound = Query<'static, Sqlite, SqliteArguments>;

/// So many copies of a statement are sent to the driver's thread at a time. Each number of copies
/// is a text of its own and stays prepared.
const COPIES: [usize; 3] = [32, 4, 1];

/// Runs a statement for each of these items, in order. Returns the rows of all of them. Its
/// parameters are plain `?`, bound in their order.
///
/// A message to the driver's thread and the way back wake two threads, so many statements go
/// together: one by one, user-state's some twenty a record took 693 µs of CPU.
pub async fn each<T: Sync>(
    tx: &mut SqliteConnection,
    statement: &'static str,
    items: &[T],
    bind: impl Fn(Bound, &T) -> Bound + Send,
) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    let mut left = items;
    for copies in COPIES {
        if left.len() < copies {
            continue;
        }
        let text = Arc::new(format!("{statement};").repeat(copies));
        while let Some((now, later)) = left.split_at_checked(copies) {
            let query = sqlx::query(AssertSqlSafe(Arc::clone(&text)));
            let query = now.iter().fold(query, &bind);
            rows.extend(Row::all(query.fetch_all(&mut *tx).await.map_err(classify)?));
            left = later;
        }
    }
    Ok(rows)
}

/// Takes a partition over: raises its epoch, making its row first if need be, and says where to
/// go on. Waits for a transaction of the former holder that is just running.
pub async fn fence(pools: &SqlitePools, source: &Source) -> Result<Fence, StoreError> {
    let row = sqlx::query(
        "INSERT INTO tollgate_fence AS fence
             (source, group_name, cluster_id, topic, partition, epoch, next_offset,
              outbox_position)
         VALUES (?1, ?2, ?3, ?4, ?5, 1, 0, 0)
         ON CONFLICT (source) DO UPDATE SET epoch = fence.epoch + 1
         RETURNING epoch, next_offset, mark_offset, mark_timestamp, mark_event_id",
    )
    .bind(source_id(source).as_slice())
    .bind(&source.group)
    .bind(&source.cluster_id)
    .bind(&*source.partition.topic)
    .bind(source.partition.partition)
    .fetch_one(&pools.writer)
    .await
    .map_err(classify_own)?;
    ::metrics::counter!(metrics::FENCES.name).increment(1);
    read_fence(&row.into())
}

/// Begins a transaction without a fence: for what no partition owns, such as commands.
pub async fn begin(pools: &SqlitePools) -> Result<Tx, StoreError> {
    let tx = pools.writer.begin_with("BEGIN IMMEDIATE").await.map_err(classify_own)?;
    metrics::connections(&[&pools.writer, &pools.readers]);
    Ok(tx)
}

/// Begins a transaction that holds its partitions until it ends. [`StoreError::Fenced`] when the
/// epoch of a claim, or the offset before, is not in force.
pub async fn transaction(pools: &SqlitePools, step: &Step<'_>) -> Result<Tx, StoreError> {
    let mut tx = begin(pools).await?;
    match step {
        Step::Advance(partitions) => {
            for partition in partitions {
                advance(&mut tx, partition).await?;
            }
        }
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
pub async fn snapshot(pools: &SqlitePools) -> Result<Tx, StoreError> {
    pools.readers.begin().await.map_err(classify_own)
}

/// Moves a partition's offset; comes first in the transaction that writes its batch.
async fn advance(tx: &mut SqliteConnection, partition: &Advance<'_>) -> Result<(), StoreError> {
    let Advance { claim, from, to, mark } = partition;
    let done = sqlx::query(
        "UPDATE tollgate_fence
         SET next_offset = ?4, mark_offset = ?5, mark_timestamp = ?6, mark_event_id = ?7
         WHERE source = ?1 AND epoch = ?2 AND next_offset = ?3",
    )
    .bind(source_id(&claim.source).as_slice())
    .bind(claim.epoch)
    .bind(from)
    .bind(to)
    .bind(mark.offset)
    .bind(mark.timestamp_ms)
    .bind(mark.event_id.as_bytes())
    .execute(tx)
    .await
    .map_err(classify_own)?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(counted(StoreError::Fenced)) }
}

/// Holds the partition without moving the offset; the first statement of any other transaction
/// that writes for it.
pub async fn hold(tx: &mut SqliteConnection, claim: &Claim) -> Result<(), StoreError> {
    // BEGIN IMMEDIATE has locked the whole file; what is read here stays true until the end.
    let row = sqlx::query("SELECT 1 FROM tollgate_fence WHERE source = ?1 AND epoch = ?2")
        .bind(source_id(&claim.source).as_slice())
        .bind(claim.epoch)
        .fetch_optional(tx)
        .await
        .map_err(classify_own)?;
    row.map(drop).ok_or_else(|| counted(StoreError::Fenced))
}

/// Appends records to the outboxes of partitions, in order, within a transaction that holds them.
pub async fn append_outbox(
    tx: &mut SqliteConnection,
    outboxes: &[(&Claim, Vec<Outgoing>)],
) -> Result<(), StoreError> {
    for (claim, records) in outboxes.iter().filter(|(_, records)| !records.is_empty()) {
        append(tx, claim, records).await?;
    }
    Ok(())
}

async fn append(
    tx: &mut SqliteConnection,
    claim: &Claim,
    records: &[Outgoing],
) -> Result<(), StoreError> {
    let source = source_id(&claim.source);
    let count = records.len() as i64;
    let last: Option<i64> = sqlx::query_scalar(
        "UPDATE tollgate_fence SET outbox_position = outbox_position + ?3
         WHERE source = ?1 AND epoch = ?2 RETURNING outbox_position",
    )
    .bind(source.as_slice())
    .bind(claim.epoch)
    .bind(count)
    .fetch_optional(&mut *tx)
    .await
    .map_err(classify_own)?;
    let last = last.ok_or_else(|| counted(StoreError::Fenced))?;

    let rows: Vec<(i64, &Outgoing)> = (last - count + 1..).zip(records).collect();
    each(
        tx,
        "INSERT INTO tollgate_outbox (source, position, topic, key, value, headers)
         VALUES (?, ?, ?, ?, ?, ?)",
        &rows,
        |query, (position, record)| {
            query
                .bind(source.as_slice())
                .bind(position)
                .bind(&*record.topic)
                .bind(&*record.key)
                .bind(record.value.as_deref())
                .bind(headers::encode(&record.headers))
        },
    )
    .await?;
    ::metrics::counter!(metrics::OUTBOX_APPENDED.name).increment(records.len() as u64);
    Ok(())
}

/// The oldest rows of the partition's outbox, in order, at most `limit`, and none after keys and
/// values have come to `bytes`.
pub async fn read_outbox(
    pools: &SqlitePools,
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
                     WHERE source = ?1 ORDER BY position LIMIT ?2) AS oldest) AS sized
         WHERE COALESCE(size_before, 0) < ?3 ORDER BY position",
    )
    .bind(source_id(&claim.source).as_slice())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
    .fetch_all(&pools.readers)
    .await
    .map_err(classify_own)?;
    Row::all(rows).iter().map(read_pending).collect()
}

/// Removes the rows of the partition's outbox up to this position, within a fenced transaction.
pub async fn delete_outbox_rows(
    tx: &mut SqliteConnection,
    claim: &Claim,
    up_to: i64,
) -> Result<(), StoreError> {
    let done = sqlx::query("DELETE FROM tollgate_outbox WHERE source = ?1 AND position <= ?2")
        .bind(source_id(&claim.source).as_slice())
        .bind(up_to)
        .execute(tx)
        .await
        .map_err(classify_own)?;
    ::metrics::counter!(metrics::OUTBOX_DELETED.name).increment(done.rows_affected());
    Ok(())
}
