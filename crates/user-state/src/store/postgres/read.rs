//! Rows of PostgreSQL as ours.

use sqlx::postgres::PgRow;
use sqlx::types::Uuid;
use sqlx::{Postgres, Row};
use tollgate_store::classify;
use tollgate_stream::StoreError;

use super::super::rows::{CallRow, NumberRow, session_id, side, text};
use crate::fold::Leg;
use crate::keys::Key;

pub(super) fn get<'r, T>(row: &'r PgRow, column: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(column).map_err(classify)
}

pub(super) fn get_key(row: &PgRow, column: &str) -> Result<Key, StoreError> {
    get(row, column).map(Uuid::into_bytes)
}

pub(super) fn read_keys(rows: &[PgRow]) -> Result<Vec<Key>, StoreError> {
    let mut keys: Vec<Key> =
        rows.iter().map(|row| get_key(row, "key")).collect::<Result<_, StoreError>>()?;
    keys.sort_unstable();
    Ok(keys)
}

pub(super) fn read_call(row: &PgRow) -> Result<CallRow, StoreError> {
    Ok(CallRow {
        serial: get(row, "call_serial")?,
        key: get_key(row, "session_key")?,
        session_id: session_id(get(row, "session_id")?),
        events: get(row, "events")?,
        last_event_ms: get(row, "last_event_ms")?,
        touched_ms: get(row, "touched_ms")?,
    })
}

pub(super) fn read_number(row: &PgRow) -> Result<NumberRow, StoreError> {
    let shard = get(row, "shard")?;
    let ticket: Option<i64> = get(row, "ticket")?;
    Ok(NumberRow {
        key: get_key(row, "number_key")?,
        number: text(get(row, "number")?),
        version: get(row, "version")?,
        as_of_ms: get(row, "as_of_ms")?,
        presence: get(row, "presence")?,
        shard,
        next_expiry_ms: get(row, "next_expiry_ms")?,
        marked: ticket.map(|ticket| (shard, ticket)),
    })
}

pub(super) fn read_leg(row: &PgRow) -> Result<Leg, StoreError> {
    Ok(Leg {
        side: side(get(row, "side")?),
        number: None,
        started_ms: get(row, "started_ms")?,
        alerting_ms: get(row, "alerting_ms")?,
        answered_ms: get(row, "answered_ms")?,
        ended: get(row, "ended")?,
        until_ms: get(row, "until_ms")?,
        state_code: get(row, "state_code")?,
        release_reason: get(row, "release_reason")?,
        cause: get(row, "cause")?,
        sip_status: get(row, "sip_status")?,
    })
}
