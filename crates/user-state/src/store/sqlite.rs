//! The statements in SQLite: row by row, which costs nothing within one process.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};
use tollgate_store::{classify, sqlite};
use tollgate_stream::{Claim, Outgoing, StoreError};

use super::rows::{
    Applied, AppliedRow, CallRow, Census, Changed, LegRow, MAX_OPEN_LEGS, NumberRow, Statements,
    View, key, side, text,
};
use crate::fold::{Leg, NumberLeg};
use crate::keys::{Key, shard};

type Tx<'c> = Transaction<'c, Sqlite>;

/// Open legs by everything that is known; `?1` the number, `?2` its instant, `?3` how many. Session
/// ids, if they are wanted, are in another table.
macro_rules! open_known {
    ($session_id:literal, $join:literal) => {
        concat!(
            "SELECT leg.*, ",
            $session_id,
            " AS session_id FROM state_leg AS leg ",
            $join,
            " WHERE leg.number_key = ?1 AND leg.ended = 0 AND leg.until_ms > ?2
             ORDER BY leg.until_ms DESC LIMIT ?3"
        )
    };
}

/// The last that is over, likewise.
macro_rules! over_known {
    ($session_id:literal, $join:literal) => {
        concat!(
            "SELECT leg.*, ",
            $session_id,
            " AS session_id FROM state_leg AS leg ",
            $join,
            " WHERE leg.number_key = ?1 AND (leg.ended = 1 OR leg.until_ms <= ?2)
             ORDER BY leg.until_ms DESC, leg.session_key DESC, leg.side DESC LIMIT ?3"
        )
    };
}

const OPEN_COMPUTE: &str = open_known!("x''", "");
const OVER_COMPUTE: &str = over_known!("x''", "");
const OPEN_SHOW: &str =
    open_known!("call.session_id", "JOIN state_call AS call USING (session_key)");
const OVER_SHOW: &str =
    over_known!("call.session_id", "JOIN state_call AS call USING (session_key)");

const OPEN_PAST: &str = "
    SELECT leg.*, call.session_id FROM state_leg AS leg JOIN state_call AS call USING (session_key)
    WHERE leg.number_key = ?1 AND leg.until_ms > ?2
      AND min(coalesce(leg.started_ms, leg.alerting_ms, leg.answered_ms, leg.until_ms),
              coalesce(leg.alerting_ms, leg.answered_ms, leg.started_ms, leg.until_ms),
              coalesce(leg.answered_ms, leg.started_ms, leg.alerting_ms, leg.until_ms)) <= ?2
    ORDER BY leg.until_ms LIMIT ?3";

const OVER_PAST: &str = "
    SELECT leg.*, call.session_id FROM state_leg AS leg JOIN state_call AS call USING (session_key)
    WHERE leg.number_key = ?1 AND leg.until_ms <= ?2
    ORDER BY leg.until_ms DESC, leg.session_key DESC, leg.side DESC LIMIT ?3";

impl Statements for Tx<'_> {
    async fn lock_calls(&mut self, calls: &[(Key, &str)]) -> Result<Vec<(Key, i64)>, StoreError> {
        let mut sizes = Vec::with_capacity(calls.len());
        for (key, session_id) in calls {
            sqlx::query(
                "INSERT INTO state_call (session_key, session_id, events, last_event_ms, touched_ms)
                 VALUES (?1, ?2, x'', 0, 0) ON CONFLICT (session_key) DO NOTHING",
            )
            .bind(key.as_slice())
            .bind(session_id.as_bytes())
            .execute(&mut **self)
            .await
            .map_err(classify)?;
            let bytes: i64 =
                sqlx::query_scalar("SELECT length(events) FROM state_call WHERE session_key = ?1")
                    .bind(key.as_slice())
                    .fetch_one(&mut **self)
                    .await
                    .map_err(classify)?;
            sizes.push((*key, bytes));
        }
        Ok(sizes)
    }

    async fn read_calls(&mut self, keys: &[Key]) -> Result<Vec<CallRow>, StoreError> {
        let mut calls = Vec::with_capacity(keys.len());
        for key in keys {
            let row = sqlx::query("SELECT * FROM state_call WHERE session_key = ?1")
                .bind(key.as_slice())
                .fetch_optional(&mut **self)
                .await
                .map_err(classify)?;
            if let Some(row) = row {
                calls.push(read_call(&row)?);
            }
        }
        Ok(calls)
    }

    async fn legs_of_calls(&mut self, keys: &[Key]) -> Result<Vec<LegRow>, StoreError> {
        let mut legs = Vec::new();
        for session_key in keys {
            let rows = sqlx::query("SELECT * FROM state_leg WHERE session_key = ?1 ORDER BY leg")
                .bind(session_key.as_slice())
                .fetch_all(&mut **self)
                .await
                .map_err(classify)?;
            for row in &rows {
                legs.push(LegRow {
                    session_key: *session_key,
                    leg: get(row, "leg")?,
                    number_key: key(get(row, "number_key")?)?,
                    facts: read_leg(row)?,
                });
            }
        }
        Ok(legs)
    }

    async fn write_calls(&mut self, calls: &[CallRow]) -> Result<(), StoreError> {
        for call in calls {
            sqlx::query(
                "UPDATE state_call SET events = ?2, last_event_ms = ?3, touched_ms = ?4
                 WHERE session_key = ?1",
            )
            .bind(call.key.as_slice())
            .bind(&call.events)
            .bind(call.last_event_ms)
            .bind(call.touched_ms)
            .execute(&mut **self)
            .await
            .map_err(classify)?;
        }
        Ok(())
    }

    async fn write_legs(&mut self, legs: &[LegRow]) -> Result<(), StoreError> {
        for leg in legs {
            sqlx::query(
                "INSERT OR REPLACE INTO state_leg
                     (session_key, leg, number_key, side, started_ms, alerting_ms, answered_ms,
                      ended, until_ms, state_code, release_reason, cause, sip_status)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )
            .bind(leg.session_key.as_slice())
            .bind(leg.leg)
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
            .execute(&mut **self)
            .await
            .map_err(classify)?;
        }
        Ok(())
    }

    async fn remove_legs(&mut self, legs: &[(Key, i16)]) -> Result<(), StoreError> {
        for (session_key, leg) in legs {
            sqlx::query("DELETE FROM state_leg WHERE session_key = ?1 AND leg = ?2")
                .bind(session_key.as_slice())
                .bind(leg)
                .execute(&mut **self)
                .await
                .map_err(classify)?;
        }
        Ok(())
    }

    async fn lock_numbers(
        &mut self,
        numbers: &[(Key, Option<&str>)],
        partitions: i32,
    ) -> Result<Vec<NumberRow>, StoreError> {
        for (key, number) in numbers {
            let Some(number) = number else { continue };
            sqlx::query(
                "INSERT INTO state_number (number_key, number, version, as_of_ms, presence, shard)
                 VALUES (?1, ?2, 0, 0, 1, ?3) ON CONFLICT (number_key) DO NOTHING",
            )
            .bind(key.as_slice())
            .bind(number.as_bytes())
            .bind(shard(key, partitions))
            .execute(&mut **self)
            .await
            .map_err(classify)?;
        }
        let keys: Vec<Key> = numbers.iter().map(|(key, _)| *key).collect();
        self.read_numbers(&keys).await
    }

    async fn legs_of_numbers(
        &mut self,
        numbers: &[(Key, i64)],
        view: View,
    ) -> Result<Vec<(Key, NumberLeg)>, StoreError> {
        let (open, over) = match view {
            View::Compute => (OPEN_COMPUTE, OVER_COMPUTE),
            View::Show => (OPEN_SHOW, OVER_SHOW),
            View::Past => (OPEN_PAST, OVER_PAST),
        };
        let mut legs = Vec::new();
        for (number_key, as_of_ms) in numbers {
            for (statement, limit) in [(open, MAX_OPEN_LEGS), (over, 1)] {
                let rows = sqlx::query(statement)
                    .bind(number_key.as_slice())
                    .bind(as_of_ms)
                    .bind(limit)
                    .fetch_all(&mut **self)
                    .await
                    .map_err(classify)?;
                for row in &rows {
                    let leg = NumberLeg {
                        session_key: key(get(row, "session_key")?)?,
                        session_id: text(get(row, "session_id")?),
                        leg: read_leg(row)?,
                    };
                    legs.push((*number_key, leg));
                }
            }
        }
        Ok(legs)
    }

    async fn write_numbers(&mut self, numbers: &[NumberRow]) -> Result<(), StoreError> {
        for row in numbers {
            sqlx::query(
                "UPDATE state_number SET version = ?2, as_of_ms = ?3, presence = ?4, shard = ?5,
                        next_expiry_ms = ?6
                 WHERE number_key = ?1",
            )
            .bind(row.key.as_slice())
            .bind(row.version)
            .bind(row.as_of_ms)
            .bind(row.presence)
            .bind(row.shard)
            .bind(row.next_expiry_ms)
            .execute(&mut **self)
            .await
            .map_err(classify)?;
            // Replacing the row draws a new ticket.
            sqlx::query(
                "INSERT OR REPLACE INTO state_changed (number_key, shard, version)
                 VALUES (?1, ?2, ?3)",
            )
            .bind(row.key.as_slice())
            .bind(row.shard)
            .bind(row.version)
            .execute(&mut **self)
            .await
            .map_err(classify)?;
        }
        Ok(())
    }

    async fn read_numbers(&mut self, keys: &[Key]) -> Result<Vec<NumberRow>, StoreError> {
        let mut numbers = Vec::with_capacity(keys.len());
        for key in keys {
            let row = sqlx::query("SELECT * FROM state_number WHERE number_key = ?1")
                .bind(key.as_slice())
                .fetch_optional(&mut **self)
                .await
                .map_err(classify)?;
            if let Some(row) = row {
                numbers.push(read_number(&row)?);
            }
        }
        Ok(numbers)
    }

    async fn note_applied(&mut self, rows: &[AppliedRow]) -> Result<(), StoreError> {
        for row in rows {
            sqlx::query(
                "INSERT INTO state_applied AS old (source, event_ms, record_ms, applied_ms)
                 VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (source) DO UPDATE
                 SET event_ms = max(coalesce(old.event_ms, excluded.event_ms),
                                    coalesce(excluded.event_ms, old.event_ms)),
                     record_ms = excluded.record_ms, applied_ms = excluded.applied_ms",
            )
            .bind(row.source.as_slice())
            .bind(row.event_ms)
            .bind(row.record_ms)
            .bind(row.applied_ms)
            .execute(&mut **self)
            .await
            .map_err(classify)?;
        }
        Ok(())
    }

    async fn append(&mut self, outboxes: &[(&Claim, Vec<Outgoing>)]) -> Result<(), StoreError> {
        sqlite::append_outbox(&mut *self, outboxes).await
    }

    async fn changed(&mut self, shard: i32, limit: usize) -> Result<Vec<Changed>, StoreError> {
        let rows = sqlx::query(
            "SELECT ticket, number_key FROM state_changed WHERE shard = ?1
             ORDER BY ticket LIMIT ?2",
        )
        .bind(shard)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        rows.iter()
            .map(|row| {
                let number_key = key(get(row, "number_key")?)?;
                Ok(Changed { ticket: get(row, "ticket")?, number_key })
            })
            .collect()
    }

    async fn remove_changed(&mut self, shard: i32, tickets: &[i64]) -> Result<(), StoreError> {
        for ticket in tickets {
            sqlx::query("DELETE FROM state_changed WHERE ticket = ?1 AND shard = ?2")
                .bind(ticket)
                .bind(shard)
                .execute(&mut **self)
                .await
                .map_err(classify)?;
        }
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

    async fn lock_aged(&mut self, keys: &[Key], before_ms: i64) -> Result<Vec<Key>, StoreError> {
        let mut aged = Vec::with_capacity(keys.len());
        for key in keys {
            let found =
                sqlx::query("SELECT 1 FROM state_call WHERE session_key = ?1 AND touched_ms < ?2")
                    .bind(key.as_slice())
                    .bind(before_ms)
                    .fetch_optional(&mut **self)
                    .await
                    .map_err(classify)?;
            aged.extend(found.map(|_| *key));
        }
        Ok(aged)
    }

    async fn remove_calls(&mut self, keys: &[Key]) -> Result<(), StoreError> {
        for key in keys {
            sqlx::query("DELETE FROM state_call WHERE session_key = ?1")
                .bind(key.as_slice())
                .execute(&mut **self)
                .await
                .map_err(classify)?;
        }
        Ok(())
    }

    async fn applied(&mut self) -> Result<Option<Applied>, StoreError> {
        let row = sqlx::query(
            "SELECT max(event_ms) AS event_ms, max(record_ms) AS record_ms,
                    max(applied_ms) AS applied_ms, max(applied_ms - record_ms) AS delay_ms
             FROM state_applied HAVING count(*) > 0",
        )
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
            "SELECT presence, count(*) AS numbers FROM state_number WHERE presence > 1
             GROUP BY presence",
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
        key: key(get(row, "session_key")?)?,
        session_id: text(get(row, "session_id")?),
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
