//! The statements in SQLite: one per row, many at a time.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use tollgate_store::sqlite::{Bound, Tx, each};
use tollgate_stream::StoreError;

use super::rows::{
    AppliedRow, CallRow, LegPlace, LegRow, MAX_OPEN_LEGS, NumberRow, View, Wanted, read_call,
    read_keys, read_leg_row, read_number, read_number_leg,
};
use super::statements::Statements;
use crate::fold::NumberLeg;
use crate::keys::Key;

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

#[async_trait]
impl Statements for Tx {
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
        opened.iter().map(|row| Ok((row.key("session_key")?, row.get("call_serial")?))).collect()
    }

    async fn lock_calls(&mut self, keys: &[Key]) -> Result<Vec<(i64, i64)>, StoreError> {
        // BEGIN IMMEDIATE has locked the whole file.
        let statement = "
            SELECT call_serial, length(events) AS bytes FROM state_call WHERE session_key = ?";
        let rows = each(self, statement, keys, bind_key).await?;
        rows.iter().map(|row| Ok((row.get("call_serial")?, row.get("bytes")?))).collect()
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
        rows.iter().map(read_leg_row).collect()
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
                legs.push(read_number_leg(row)?);
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

    async fn remove_changed(&mut self, shard: i32, tickets: &[i64]) -> Result<(), StoreError> {
        let statement = "DELETE FROM state_changed WHERE ticket = ? AND shard = ?";
        each(self, statement, tickets, |query, ticket| query.bind(*ticket).bind(shard)).await?;
        Ok(())
    }

    async fn lock_aged(&mut self, keys: &[Key], before_ms: i64) -> Result<Vec<i64>, StoreError> {
        let statement = "
            SELECT call_serial FROM state_call WHERE session_key = ? AND touched_ms < ?";
        let rows =
            each(self, statement, keys, |query, key| bind_key(query, key).bind(before_ms)).await?;
        rows.iter().map(|row| row.get("call_serial")).collect()
    }

    async fn remove_calls(&mut self, calls: &[i64]) -> Result<(), StoreError> {
        each(self, "DELETE FROM state_call WHERE call_serial = ?", calls, |query, call| {
            query.bind(*call)
        })
        .await?;
        Ok(())
    }
}

async fn mark_changed(tx: &mut Tx, numbers: &[&NumberRow]) -> Result<(), StoreError> {
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
