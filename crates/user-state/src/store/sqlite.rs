//! The statements in SQLite: one per row, many at a time.

use std::collections::{HashMap, HashSet};

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};
use tollgate_store::sqlite::{Bound, each};
use tollgate_store::{classify, sqlite};
use tollgate_stream::{Claim, Outgoing, StoreError};

use super::rows::{
    Applied, AppliedRow, CallRow, Census, Changed, DELAY_KNOWN_MS, LegPlace, LegRow, MAX_OPEN_LEGS,
    NumberRow, Statements, View, Wanted, key, session_id, side, text,
};
use crate::fold::{Leg, NumberLeg};
use crate::keys::Key;

type Tx<'c> = Transaction<'c, Sqlite>;

/// Open legs by everything that is known, of a number at an instant, so many.
const OPEN: &str = "
    SELECT * FROM state_leg WHERE number_key = ? AND ended = 0 AND until_ms > ?
    ORDER BY until_ms DESC LIMIT ?";

/// The last that is over, likewise.
const OVER: &str = "
    SELECT * FROM state_leg WHERE number_key = ? AND (ended = 1 OR until_ms <= ?)
    ORDER BY until_ms DESC, session_key DESC, side DESC LIMIT ?";

/// As they stood at the instant, which is asked for twice.
const OPEN_PAST: &str = "
    SELECT * FROM state_leg WHERE number_key = ? AND until_ms > ?
      AND min(coalesce(started_ms, alerting_ms, answered_ms, until_ms),
              coalesce(alerting_ms, answered_ms, started_ms, until_ms),
              coalesce(answered_ms, started_ms, alerting_ms, until_ms)) <= ?
    ORDER BY until_ms LIMIT ?";

const OVER_PAST: &str = "
    SELECT * FROM state_leg WHERE number_key = ? AND until_ms <= ?
    ORDER BY until_ms DESC, session_key DESC, side DESC LIMIT ?";

impl Statements for Tx<'_> {
    async fn open_calls(&mut self, calls: &[CallRow]) -> Result<HashMap<Key, i64>, StoreError> {
        let opened = each(
            self,
            "INSERT INTO state_call (session_key, session_id, events, last_event_ms, touched_ms)
             VALUES (?, ?, ?, ?, ?) ON CONFLICT (session_key) DO NOTHING
             RETURNING session_key, call_serial",
            calls,
            |query, call| {
                query
                    .bind(call.key.as_slice())
                    .bind(call.session_id.as_bytes())
                    .bind(call.events.as_slice())
                    .bind(call.last_event_ms)
                    .bind(call.touched_ms)
            },
        )
        .await?;
        opened
            .iter()
            .map(|row| Ok((key(get(row, "session_key")?)?, get(row, "call_serial")?)))
            .collect()
    }

    async fn lock_calls(&mut self, keys: &[Key]) -> Result<Vec<(i64, i64)>, StoreError> {
        // BEGIN IMMEDIATE has locked the whole file.
        let statement = "
            SELECT call_serial, length(events) AS bytes FROM state_call WHERE session_key = ?";
        let rows = each(self, statement, keys, bind_key).await?;
        rows.iter().map(|row| Ok((get(row, "call_serial")?, get(row, "bytes")?))).collect()
    }

    async fn find_call(&mut self, key: &Key) -> Result<Option<i64>, StoreError> {
        sqlx::query_scalar("SELECT call_serial FROM state_call WHERE session_key = ?1")
            .bind(key.as_slice())
            .fetch_optional(&mut **self)
            .await
            .map_err(classify)
    }

    async fn read_calls(&mut self, calls: &[i64]) -> Result<Vec<CallRow>, StoreError> {
        let statement = "SELECT * FROM state_call WHERE call_serial = ?";
        each(self, statement, calls, |query, call| query.bind(*call))
            .await?
            .iter()
            .map(read_call)
            .collect()
    }

    async fn legs_of_calls(&mut self, calls: &[i64]) -> Result<Vec<LegRow>, StoreError> {
        let statement = "SELECT * FROM state_leg WHERE call_serial = ? ORDER BY leg";
        let rows = each(self, statement, calls, |query, call| query.bind(*call)).await?;
        rows.iter()
            .map(|row| {
                Ok(LegRow {
                    place: (get(row, "call_serial")?, get(row, "leg")?),
                    session_key: key(get(row, "session_key")?)?,
                    session_id: session_id(get(row, "session_id")?),
                    number_key: key(get(row, "number_key")?)?,
                    facts: read_leg(row)?,
                })
            })
            .collect()
    }

    async fn write_calls(&mut self, calls: &[CallRow]) -> Result<(), StoreError> {
        each(
            self,
            "UPDATE state_call SET events = ?, last_event_ms = ?, touched_ms = ?
             WHERE call_serial = ?",
            calls,
            |query, call| {
                query
                    .bind(call.events.as_slice())
                    .bind(call.last_event_ms)
                    .bind(call.touched_ms)
                    .bind(call.serial)
            },
        )
        .await?;
        Ok(())
    }

    async fn open_legs(&mut self, legs: &[LegRow]) -> Result<(), StoreError> {
        each(
            self,
            "INSERT INTO state_leg
                 (number_key, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
                  state_code, release_reason, cause, sip_status, session_key, session_id,
                  call_serial, leg)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            legs,
            bind_leg,
        )
        .await?;
        Ok(())
    }

    async fn write_legs(&mut self, legs: &[LegRow]) -> Result<(), StoreError> {
        each(
            self,
            "UPDATE state_leg
             SET number_key = ?, side = ?, started_ms = ?, alerting_ms = ?, answered_ms = ?,
                 ended = ?, until_ms = ?, state_code = ?, release_reason = ?, cause = ?,
                 sip_status = ?, session_key = ?, session_id = ?
             WHERE call_serial = ? AND leg = ?",
            legs,
            bind_leg,
        )
        .await?;
        Ok(())
    }

    async fn remove_legs(&mut self, legs: &[LegPlace]) -> Result<(), StoreError> {
        let statement = "DELETE FROM state_leg WHERE call_serial = ? AND leg = ?";
        let bind = |query: Bound, (call, leg): &LegPlace| query.bind(*call).bind(*leg);
        each(self, statement, legs, bind).await?;
        Ok(())
    }

    async fn open_numbers(&mut self, numbers: &[NumberRow]) -> Result<HashSet<Key>, StoreError> {
        let opened = each(
            self,
            "INSERT INTO state_number
                 (number_key, number, version, as_of_ms, presence, shard, next_expiry_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (number_key) DO NOTHING
             RETURNING number_key AS key",
            numbers,
            |query, row| {
                query
                    .bind(row.key.as_slice())
                    .bind(row.number.as_bytes())
                    .bind(row.version)
                    .bind(row.as_of_ms)
                    .bind(row.presence)
                    .bind(row.shard)
                    .bind(row.next_expiry_ms)
            },
        )
        .await?;
        let opened: HashSet<Key> = read_keys(&opened)?.into_iter().collect();
        let marked: Vec<&NumberRow> =
            numbers.iter().filter(|row| opened.contains(&row.key)).collect();
        mark_changed(self, &marked).await?;
        Ok(opened)
    }

    async fn lock_numbers(&mut self, keys: &[Key]) -> Result<Vec<NumberRow>, StoreError> {
        self.read_numbers(keys).await
    }

    async fn legs_of_numbers(
        &mut self,
        numbers: &[Wanted],
        view: View,
    ) -> Result<Vec<(Key, NumberLeg)>, StoreError> {
        let busy: Vec<Wanted> = numbers.iter().filter(|it| it.is_busy).copied().collect();
        // Each statement, of which numbers, how often it asks for the instant, and for how many legs.
        let statements: &[(_, &[Wanted], i32, i64)] = match view {
            View::Compute => &[(OPEN, &busy, 1, MAX_OPEN_LEGS)],
            View::Show => &[(OPEN, &busy, 1, MAX_OPEN_LEGS), (OVER, numbers, 1, 1)],
            View::Past => &[(OPEN_PAST, &busy, 2, MAX_OPEN_LEGS), (OVER_PAST, numbers, 1, 1)],
        };
        let mut legs = Vec::new();
        for &(statement, numbers, instants, limit) in statements {
            let bind = |query, wanted: &Wanted| {
                let query = bind_key(query, &wanted.key);
                (0..instants).fold(query, |query, _| query.bind(wanted.as_of_ms)).bind(limit)
            };
            for row in &each(self, statement, numbers, bind).await? {
                let leg = NumberLeg {
                    session_key: key(get(row, "session_key")?)?,
                    session_id: session_id(get(row, "session_id")?),
                    leg: read_leg(row)?,
                };
                legs.push((key(get(row, "number_key")?)?, leg));
            }
        }
        Ok(legs)
    }

    async fn write_numbers(&mut self, numbers: &[NumberRow]) -> Result<(), StoreError> {
        each(
            self,
            "UPDATE state_number SET version = ?, as_of_ms = ?, presence = ?, shard = ?,
                    next_expiry_ms = ?
             WHERE number_key = ?",
            numbers,
            |query, row| {
                query
                    .bind(row.version)
                    .bind(row.as_of_ms)
                    .bind(row.presence)
                    .bind(row.shard)
                    .bind(row.next_expiry_ms)
                    .bind(row.key.as_slice())
            },
        )
        .await?;
        mark_changed(self, &numbers.iter().collect::<Vec<_>>()).await
    }

    async fn read_numbers(&mut self, keys: &[Key]) -> Result<Vec<NumberRow>, StoreError> {
        let statement = "SELECT * FROM state_number WHERE number_key = ?";
        each(self, statement, keys, bind_key).await?.iter().map(read_number).collect()
    }

    async fn note_applied(&mut self, rows: &[AppliedRow]) -> Result<(), StoreError> {
        each(
            self,
            "INSERT INTO state_applied AS old (source, event_ms, record_ms, applied_ms)
             VALUES (?, ?, ?, ?)
             ON CONFLICT (source) DO UPDATE
             SET event_ms = max(coalesce(old.event_ms, excluded.event_ms),
                                coalesce(excluded.event_ms, old.event_ms)),
                 record_ms = excluded.record_ms, applied_ms = excluded.applied_ms",
            rows,
            |query, row| {
                query
                    .bind(row.source.as_slice())
                    .bind(row.event_ms)
                    .bind(row.record_ms)
                    .bind(row.applied_ms)
            },
        )
        .await?;
        Ok(())
    }

    async fn append(&mut self, outboxes: &[(&Claim, Vec<Outgoing>)]) -> Result<(), StoreError> {
        sqlite::append_outbox(&mut *self, outboxes).await
    }

    async fn changed(&mut self, shard: i32, limit: usize) -> Result<Vec<Changed>, StoreError> {
        let rows = sqlx::query(
            "SELECT ticket, number_key, number, version, as_of_ms, busy FROM state_changed
             WHERE shard = ?1 ORDER BY ticket LIMIT ?2",
        )
        .bind(shard)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        rows.iter()
            .map(|row| {
                Ok(Changed {
                    ticket: get(row, "ticket")?,
                    key: key(get(row, "number_key")?)?,
                    number: text(get(row, "number")?),
                    version: get(row, "version")?,
                    as_of_ms: get(row, "as_of_ms")?,
                    is_busy: get(row, "busy")?,
                })
            })
            .collect()
    }

    async fn remove_changed(&mut self, shard: i32, tickets: &[i64]) -> Result<(), StoreError> {
        let statement = "DELETE FROM state_changed WHERE ticket = ? AND shard = ?";
        each(self, statement, tickets, |query, ticket| query.bind(*ticket).bind(shard)).await?;
        Ok(())
    }

    async fn expired(
        &mut self,
        shard: i32,
        now_ms: i64,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let rows = sqlx::query(
            "SELECT number_key AS key FROM state_number
             WHERE shard = ?1 AND next_expiry_ms <= ?2 ORDER BY next_expiry_ms LIMIT ?3",
        )
        .bind(shard)
        .bind(now_ms)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        read_keys(&rows)
    }

    async fn aged(&mut self, before_ms: i64, limit: usize) -> Result<Vec<Key>, StoreError> {
        let rows = sqlx::query(
            "SELECT session_key AS key FROM state_call WHERE touched_ms < ?1
             ORDER BY touched_ms LIMIT ?2",
        )
        .bind(before_ms)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        read_keys(&rows)
    }

    async fn lock_aged(&mut self, keys: &[Key], before_ms: i64) -> Result<Vec<i64>, StoreError> {
        let statement = "
            SELECT call_serial FROM state_call WHERE session_key = ? AND touched_ms < ?";
        let rows =
            each(self, statement, keys, |query, key| bind_key(query, key).bind(before_ms)).await?;
        rows.iter().map(|row| get(row, "call_serial")).collect()
    }

    async fn remove_calls(&mut self, calls: &[i64]) -> Result<(), StoreError> {
        each(self, "DELETE FROM state_call WHERE call_serial = ?", calls, |query, call| {
            query.bind(*call)
        })
        .await?;
        Ok(())
    }

    async fn applied(&mut self) -> Result<Option<Applied>, StoreError> {
        let row = sqlx::query(
            "SELECT max(event_ms) AS event_ms, max(record_ms) AS record_ms,
                    max(applied_ms) AS applied_ms,
                    max(applied_ms - record_ms) FILTER (
                        WHERE applied_ms > (SELECT max(applied_ms) FROM state_applied) - ?1
                    ) AS delay_ms
             FROM state_applied HAVING count(*) > 0",
        )
        .bind(DELAY_KNOWN_MS)
        .fetch_optional(&mut **self)
        .await
        .map_err(classify)?;
        row.map(|row| {
            Ok(Applied {
                event_ms: get(&row, "event_ms")?,
                record_ms: get(&row, "record_ms")?,
                applied_ms: get(&row, "applied_ms")?,
                delay_ms: get(&row, "delay_ms")?,
            })
        })
        .transpose()
    }

    async fn census(&mut self) -> Result<Census, StoreError> {
        let rows = sqlx::query(
            "SELECT presence, count(*) AS numbers FROM state_number
             WHERE next_expiry_ms IS NOT NULL GROUP BY presence",
        )
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        let numbers = rows
            .iter()
            .map(|row| Ok((get(row, "presence")?, get(row, "numbers")?)))
            .collect::<Result<_, StoreError>>()?;
        let unpublished = sqlx::query_scalar("SELECT count(*) FROM state_changed")
            .fetch_one(&mut **self)
            .await
            .map_err(classify)?;
        Ok(Census { numbers, unpublished })
    }
}

async fn mark_changed(tx: &mut Tx<'_>, numbers: &[&NumberRow]) -> Result<(), StoreError> {
    // Replacing the row draws a new ticket.
    let statement = "
        INSERT OR REPLACE INTO state_changed (number_key, shard, version, number, as_of_ms, busy)
        VALUES (?, ?, ?, ?, ?, ?)";
    each(tx, statement, numbers, |query, row| {
        query
            .bind(row.key.as_slice())
            .bind(row.shard)
            .bind(row.version)
            .bind(row.number.as_bytes())
            .bind(row.as_of_ms)
            .bind(row.next_expiry_ms.is_some())
    })
    .await?;
    Ok(())
}

fn bind_key(query: Bound, key: &Key) -> Bound {
    query.bind(key.as_slice())
}

/// What is known of a leg, then which leg it is.
fn bind_leg(query: Bound, leg: &LegRow) -> Bound {
    query
        .bind(leg.number_key.as_slice())
        .bind(leg.facts.side as i16)
        .bind(leg.facts.started_ms)
        .bind(leg.facts.alerting_ms)
        .bind(leg.facts.answered_ms)
        .bind(leg.facts.ended)
        .bind(leg.facts.until_ms)
        .bind(leg.facts.state_code)
        .bind(leg.facts.release_reason)
        .bind(leg.facts.cause)
        .bind(leg.facts.sip_status)
        .bind(leg.session_key.as_slice())
        .bind(leg.session_id.as_bytes())
        .bind(leg.place.0)
        .bind(leg.place.1)
}

fn get<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
{
    row.try_get(column).map_err(classify)
}

fn read_keys(rows: &[SqliteRow]) -> Result<Vec<Key>, StoreError> {
    let mut keys: Vec<Key> =
        rows.iter().map(|row| key(get(row, "key")?)).collect::<Result<_, StoreError>>()?;
    keys.sort_unstable();
    Ok(keys)
}

fn read_call(row: &SqliteRow) -> Result<CallRow, StoreError> {
    Ok(CallRow {
        serial: get(row, "call_serial")?,
        key: key(get(row, "session_key")?)?,
        session_id: session_id(get(row, "session_id")?),
        events: get(row, "events")?,
        last_event_ms: get(row, "last_event_ms")?,
        touched_ms: get(row, "touched_ms")?,
    })
}

fn read_number(row: &SqliteRow) -> Result<NumberRow, StoreError> {
    Ok(NumberRow {
        key: key(get(row, "number_key")?)?,
        number: text(get(row, "number")?),
        version: get(row, "version")?,
        as_of_ms: get(row, "as_of_ms")?,
        presence: get(row, "presence")?,
        shard: get(row, "shard")?,
        next_expiry_ms: get(row, "next_expiry_ms")?,
        marked: None,
    })
}

fn read_leg(row: &SqliteRow) -> Result<Leg, StoreError> {
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
