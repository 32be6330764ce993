//! Questions that read the same in both dialects.

use tollgate_store::sql::{Sql, Value};
use tollgate_stream::StoreError;

use super::rows::{
    Applied, CallRow, Census, Changed, NumberLegs, View, Wanted, group, read_changed, read_keys,
};
use super::statements::Statements;
use crate::keys::Key;

/// A partition that nothing was applied from for so long before the latest, milliseconds, says
/// nothing of delay: it may be no more.
const DELAY_KNOWN_MS: i64 = 86_400_000;

/// A call, if it is known; nothing is locked.
pub(super) async fn call(
    tx: &mut dyn Statements,
    key: &Key,
) -> Result<Option<CallRow>, StoreError> {
    let statement = "SELECT call_serial FROM state_call WHERE session_key = $1";
    let Some(row) = tx.row(statement, vec![Value::Uuid(*key)]).await? else { return Ok(None) };
    Ok(tx.read_calls(&[row.get("call_serial")?]).await?.into_iter().next())
}

/// Numbers with their legs, in the order of keys. Numbers never seen are left out.
pub(super) async fn numbers(
    tx: &mut dyn Statements,
    keys: &[Key],
    as_of_ms: i64,
    past: bool,
) -> Result<Vec<NumberLegs>, StoreError> {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys.dedup();
    let rows = tx.read_numbers(&keys).await?;
    let wanted: Vec<Wanted> =
        rows.iter().map(|row| Wanted { key: row.key, as_of_ms, is_busy: true }).collect();
    let view = if past { View::Past } else { View::Show };
    let legs = tx.legs_of_numbers(&wanted, view).await?;
    let mut legs = group(legs);
    Ok(rows
        .into_iter()
        .map(|row| NumberLegs { legs: legs.remove(&row.key).unwrap_or_default(), row })
        .collect())
}

/// The oldest changes of a shard, in order.
pub(super) async fn changed(
    sql: &mut dyn Sql,
    shard: i32,
    limit: usize,
) -> Result<Vec<Changed>, StoreError> {
    let rows = sql
        .rows(
            "SELECT ticket, number_key, number, version, as_of_ms, busy FROM state_changed
             WHERE shard = $1 ORDER BY ticket LIMIT $2",
            vec![i64::from(shard).into(), at_most(limit)],
        )
        .await?;
    rows.iter().map(read_changed).collect()
}

/// Numbers of a shard whose state changed by itself, sorted.
pub(super) async fn expired(
    sql: &mut dyn Sql,
    shard: i32,
    now_ms: i64,
    limit: usize,
) -> Result<Vec<Key>, StoreError> {
    let rows = sql
        .rows(
            "SELECT number_key AS key FROM state_number
             WHERE shard = $1 AND next_expiry_ms <= $2 ORDER BY next_expiry_ms LIMIT $3",
            vec![i64::from(shard).into(), now_ms.into(), at_most(limit)],
        )
        .await?;
    read_keys(&rows)
}

/// Calls of which nothing was heard since this instant, sorted by key.
pub(super) async fn aged(
    sql: &mut dyn Sql,
    before_ms: i64,
    limit: usize,
) -> Result<Vec<Key>, StoreError> {
    let rows = sql
        .rows(
            "SELECT session_key AS key FROM state_call WHERE touched_ms < $1
             ORDER BY touched_ms LIMIT $2",
            vec![before_ms.into(), at_most(limit)],
        )
        .await?;
    read_keys(&rows)
}

/// What has been applied.
pub(super) async fn applied(sql: &mut dyn Sql) -> Result<Option<Applied>, StoreError> {
    let row = sql
        .row(
            "SELECT max(event_ms) AS event_ms, max(record_ms) AS record_ms,
                    max(applied_ms) AS applied_ms,
                    max(applied_ms - record_ms) FILTER (
                        WHERE applied_ms > (SELECT max(applied_ms) FROM state_applied) - $1
                    ) AS delay_ms
             FROM state_applied HAVING count(*) > 0",
            vec![DELAY_KNOWN_MS.into()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Applied {
        event_ms: row.get("event_ms")?,
        record_ms: row.get("record_ms")?,
        applied_ms: row.get("applied_ms")?,
        delay_ms: row.get("delay_ms")?,
    }))
}

/// How many numbers are busy.
pub(super) async fn census(sql: &mut dyn Sql) -> Result<Census, StoreError> {
    let rows = sql
        .rows(
            "SELECT presence, count(*) AS numbers FROM state_number
             WHERE next_expiry_ms IS NOT NULL GROUP BY presence",
            vec![],
        )
        .await?;
    let numbers = rows
        .iter()
        .map(|row| Ok((row.get("presence")?, row.get("numbers")?)))
        .collect::<Result<_, StoreError>>()?;
    let unpublished = sql.row("SELECT count(*) FROM state_changed", vec![]).await?;
    let unpublished = unpublished.map_or(Ok(0), |row| row.int(0))?;
    Ok(Census { numbers, unpublished })
}

fn at_most(limit: usize) -> Value {
    i64::try_from(limit).unwrap_or(i64::MAX).into()
}
