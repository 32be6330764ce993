//! The statements in PostgreSQL: one per step, over arrays.

mod legs;

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use sqlx::types::Uuid;
use tollgate_store::classify;
use tollgate_store::new_rows::{NewRows, bigint, boolean, bytea, integer, smallint, uuid};
use tollgate_store::postgres::Tx;
use tollgate_store::sql::Row;
use tollgate_stream::StoreError;

use super::rows::{
    AppliedRow, CallRow, LegPlace, LegRow, MAX_OPEN_LEGS, NumberRow, View, Wanted, read_call,
    read_keys, read_leg_row, read_number, read_number_leg,
};
use super::statements::Statements;
use crate::fold::NumberLeg;
use crate::keys::Key;

#[async_trait]
impl Statements for Tx {
    async fn open_calls(&mut self, calls: &[CallRow]) -> Result<HashMap<Key, i64>, StoreError> {
        // Written in the order of the arrays: unnest keeps it.
        let opened = sqlx::query(
            "INSERT INTO state_call (session_key, session_id, events, last_event_ms, touched_ms)
             SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[])
             ON CONFLICT (session_key) DO NOTHING
             RETURNING session_key, call_serial",
        )
        .bind(column(calls, |call| as_uuid(&call.key)))
        .bind(column(calls, |call| call.session_id.as_bytes()))
        .bind(column(calls, |call| call.events.as_slice()))
        .bind(column(calls, |call| call.last_event_ms))
        .bind(column(calls, |call| call.touched_ms))
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        Row::all(opened)
            .iter()
            .map(|row| Ok((row.key("session_key")?, row.get("call_serial")?)))
            .collect()
    }

    async fn lock_calls(&mut self, keys: &[Key]) -> Result<Vec<(i64, i64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT call_serial, octet_length(events)::bigint AS bytes FROM state_call
             WHERE session_key = ANY($1) ORDER BY session_key FOR UPDATE",
        )
        .bind(uuids(keys))
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        Row::all(rows).iter().map(|row| Ok((row.get("call_serial")?, row.get("bytes")?))).collect()
    }

    async fn read_calls(&mut self, calls: &[i64]) -> Result<Vec<CallRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT call_serial, session_key, session_id, events, last_event_ms, touched_ms
             FROM state_call WHERE call_serial = ANY($1)",
        )
        .bind(calls)
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        Row::all(rows).iter().map(read_call).collect()
    }

    async fn legs_of_calls(&mut self, calls: &[i64]) -> Result<Vec<LegRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT call_serial, leg, session_key, number_key, side, ended, started_ms, alerting_ms,
                    answered_ms, until_ms, state_code, release_reason, cause, sip_status, session_id
             FROM state_leg WHERE call_serial = ANY($1) ORDER BY call_serial, leg",
        )
        .bind(calls)
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        Row::all(rows).iter().map(read_leg_row).collect()
    }

    async fn write_calls(&mut self, calls: &[CallRow]) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE state_call AS call
             SET events = row.events, last_event_ms = row.last_event_ms, touched_ms = row.touched_ms
             FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[])
                  AS row (call_serial, events, last_event_ms, touched_ms)
             WHERE call.call_serial = row.call_serial",
        )
        .bind(column(calls, |call| call.serial))
        .bind(column(calls, |call| call.events.as_slice()))
        .bind(column(calls, |call| call.last_event_ms))
        .bind(column(calls, |call| call.touched_ms))
        .execute(&mut **self)
        .await
        .map_err(classify)?;
        Ok(())
    }

    async fn open_legs(&mut self, legs: &[LegRow]) -> Result<(), StoreError> {
        let columns = [
            bigint("call_serial"),
            smallint("leg"),
            uuid("session_key"),
            uuid("number_key"),
            smallint("side"),
            boolean("ended"),
            bigint("started_ms"),
            bigint("alerting_ms"),
            bigint("answered_ms"),
            bigint("until_ms"),
            integer("state_code"),
            integer("release_reason"),
            integer("cause"),
            integer("sip_status"),
            bytea("session_id"),
        ];
        let mut rows = NewRows::of("state_leg", &columns);
        for LegRow { place: (call, leg), session_key, session_id, number_key, facts } in legs {
            rows.row()
                .field(*call)
                .field(*leg)
                .field(session_key)
                .field(number_key)
                .field(facts.side as i16)
                .field(facts.ended)
                .field(facts.started_ms)
                .field(facts.alerting_ms)
                .field(facts.answered_ms)
                .field(facts.until_ms)
                .field(facts.state_code)
                .field(facts.release_reason)
                .field(facts.cause)
                .field(facts.sip_status)
                .field(session_id);
        }
        rows.write(self).await
    }

    async fn write_legs(&mut self, legs: &[LegRow]) -> Result<(), StoreError> {
        let statement = "
            UPDATE state_leg AS own
            SET number_key = row.number_key, side = row.side, started_ms = row.started_ms,
                alerting_ms = row.alerting_ms, answered_ms = row.answered_ms, ended = row.ended,
                until_ms = row.until_ms, state_code = row.state_code,
                release_reason = row.release_reason, cause = row.cause, sip_status = row.sip_status
            FROM unnest($1::bigint[], $2::smallint[], $3::uuid[], $4::smallint[],
                $5::bigint[], $6::bigint[], $7::bigint[], $8::boolean[], $9::bigint[],
                $10::integer[], $11::integer[], $12::integer[], $13::integer[])
                AS row (call_serial, leg, number_key, side, started_ms, alerting_ms, answered_ms,
                        ended, until_ms, state_code, release_reason, cause, sip_status)
            WHERE own.call_serial = row.call_serial AND own.leg = row.leg";
        sqlx::query(statement)
            .bind(column(legs, |leg| leg.place.0))
            .bind(column(legs, |leg| leg.place.1))
            .bind(column(legs, |leg| as_uuid(&leg.number_key)))
            .bind(column(legs, |leg| leg.facts.side as i16))
            .bind(column(legs, |leg| leg.facts.started_ms))
            .bind(column(legs, |leg| leg.facts.alerting_ms))
            .bind(column(legs, |leg| leg.facts.answered_ms))
            .bind(column(legs, |leg| leg.facts.ended))
            .bind(column(legs, |leg| leg.facts.until_ms))
            .bind(column(legs, |leg| leg.facts.state_code))
            .bind(column(legs, |leg| leg.facts.release_reason))
            .bind(column(legs, |leg| leg.facts.cause))
            .bind(column(legs, |leg| leg.facts.sip_status))
            .execute(&mut **self)
            .await
            .map_err(classify)?;
        Ok(())
    }

    async fn remove_legs(&mut self, legs: &[LegPlace]) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM state_leg AS leg
             USING unnest($1::bigint[], $2::smallint[]) AS gone (call_serial, leg)
             WHERE leg.call_serial = gone.call_serial AND leg.leg = gone.leg",
        )
        .bind(column(legs, |(call, _)| *call))
        .bind(column(legs, |(_, leg)| *leg))
        .execute(&mut **self)
        .await
        .map_err(classify)?;
        Ok(())
    }

    async fn open_numbers(&mut self, numbers: &[NumberRow]) -> Result<HashSet<Key>, StoreError> {
        // Written in the order of the arrays, as above. What was there is not marked.
        let opened = sqlx::query(
            "WITH opened AS (
                 INSERT INTO state_number (number_key, number, version, as_of_ms, presence, shard,
                                           next_expiry_ms, ticket)
                 SELECT row.*, nextval('state_ticket')
                 FROM unnest($1::uuid[], $2::bytea[], $3::bigint[], $4::bigint[], $5::smallint[],
                             $6::integer[], $7::bigint[]) AS row
                 ON CONFLICT (number_key) DO NOTHING
                 RETURNING number_key, shard, version, number, as_of_ms,
                           next_expiry_ms IS NOT NULL AS busy, ticket)
             INSERT INTO state_changed (number_key, shard, version, number, as_of_ms, busy, ticket)
             SELECT * FROM opened
             RETURNING number_key AS key",
        )
        .bind(column(numbers, |row| as_uuid(&row.key)))
        .bind(column(numbers, |row| row.number.as_bytes()))
        .bind(column(numbers, |row| row.version))
        .bind(column(numbers, |row| row.as_of_ms))
        .bind(column(numbers, |row| row.presence))
        .bind(column(numbers, |row| row.shard))
        .bind(column(numbers, |row| row.next_expiry_ms))
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        Ok(read_keys(&Row::all(opened))?.into_iter().collect())
    }

    async fn lock_numbers(&mut self, keys: &[Key]) -> Result<Vec<NumberRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT number_key, number, version, as_of_ms, presence, shard, next_expiry_ms, ticket
             FROM state_number WHERE number_key = ANY($1) ORDER BY number_key FOR UPDATE",
        )
        .bind(uuids(keys))
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        Row::all(rows).iter().map(read_marked).collect()
    }

    async fn legs_of_numbers(
        &mut self,
        numbers: &[Wanted],
        view: View,
    ) -> Result<Vec<(Key, NumberLeg)>, StoreError> {
        let rows = sqlx::query(match view {
            View::Compute => legs::COMPUTE,
            View::Show => legs::SHOW,
            View::Past => legs::PAST,
        })
        .bind(column(numbers, |wanted| as_uuid(&wanted.key)))
        .bind(column(numbers, |wanted| wanted.as_of_ms))
        .bind(column(numbers, |wanted| wanted.is_busy))
        .bind(MAX_OPEN_LEGS)
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        Row::all(rows).iter().map(read_number_leg).collect()
    }

    async fn write_numbers(&mut self, numbers: &[NumberRow]) -> Result<(), StoreError> {
        sqlx::query(
            "WITH row AS (
                 SELECT row.*, nextval('state_ticket') AS ticket
                 FROM unnest($1::uuid[], $2::bytea[], $3::bigint[], $4::bigint[], $5::smallint[],
                             $6::integer[], $7::bigint[], $8::integer[], $9::bigint[])
                      AS row (number_key, number, version, as_of_ms, presence, shard,
                              next_expiry_ms, old_shard, old_ticket)),
             written AS (
                 UPDATE state_number AS number
                 SET version = row.version, as_of_ms = row.as_of_ms, presence = row.presence,
                     shard = row.shard, next_expiry_ms = row.next_expiry_ms, ticket = row.ticket
                 FROM row WHERE number.number_key = row.number_key),
             replaced AS (
                 DELETE FROM state_changed AS old USING row
                 WHERE old.shard = row.old_shard AND old.ticket = row.old_ticket)
             INSERT INTO state_changed (number_key, shard, version, number, as_of_ms, busy, ticket)
             SELECT number_key, shard, version, number, as_of_ms, next_expiry_ms IS NOT NULL, ticket
             FROM row",
        )
        .bind(column(numbers, |row| as_uuid(&row.key)))
        .bind(column(numbers, |row| row.number.as_bytes()))
        .bind(column(numbers, |row| row.version))
        .bind(column(numbers, |row| row.as_of_ms))
        .bind(column(numbers, |row| row.presence))
        .bind(column(numbers, |row| row.shard))
        .bind(column(numbers, |row| row.next_expiry_ms))
        .bind(column(numbers, |row| row.marked.map(|(shard, _)| shard)))
        .bind(column(numbers, |row| row.marked.map(|(_, ticket)| ticket)))
        .execute(&mut **self)
        .await
        .map_err(classify)?;
        Ok(())
    }

    async fn read_numbers(&mut self, keys: &[Key]) -> Result<Vec<NumberRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT number_key, number, version, as_of_ms, presence, shard, next_expiry_ms, ticket
             FROM state_number WHERE number_key = ANY($1) ORDER BY number_key",
        )
        .bind(uuids(keys))
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        Row::all(rows).iter().map(read_marked).collect()
    }

    async fn note_applied(&mut self, rows: &[AppliedRow]) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO state_applied AS old (source, event_ms, record_ms, applied_ms)
             SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[])
             ON CONFLICT (source) DO UPDATE
             SET event_ms = greatest(old.event_ms, excluded.event_ms),
                 record_ms = excluded.record_ms, applied_ms = excluded.applied_ms",
        )
        .bind(rows.iter().map(|row| row.source.as_slice()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.event_ms).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.record_ms).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.applied_ms).collect::<Vec<_>>())
        .execute(&mut **self)
        .await
        .map_err(classify)?;
        Ok(())
    }

    async fn remove_changed(&mut self, shard: i32, tickets: &[i64]) -> Result<(), StoreError> {
        // A batch locks these rows in another order, so each could wait for the other. What it has
        // locked gets another ticket; if it fails, the state is published once more.
        sqlx::query(
            "DELETE FROM state_changed WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM state_changed WHERE shard = $1 AND ticket = ANY($2)
                 FOR UPDATE SKIP LOCKED))",
        )
        .bind(shard)
        .bind(tickets)
        .execute(&mut **self)
        .await
        .map_err(classify)?;
        Ok(())
    }

    async fn lock_aged(&mut self, keys: &[Key], before_ms: i64) -> Result<Vec<i64>, StoreError> {
        let rows = sqlx::query(
            "SELECT call_serial FROM state_call
             WHERE session_key = ANY($1) AND touched_ms < $2 ORDER BY session_key FOR UPDATE",
        )
        .bind(uuids(keys))
        .bind(before_ms)
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        Row::all(rows).iter().map(|row| row.get("call_serial")).collect()
    }

    async fn remove_calls(&mut self, calls: &[i64]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM state_call WHERE call_serial = ANY($1)")
            .bind(calls)
            .execute(&mut **self)
            .await
            .map_err(classify)?;
        Ok(())
    }
}

/// A number, and how its last change was marked.
fn read_marked(row: &Row) -> Result<NumberRow, StoreError> {
    let ticket: Option<i64> = row.get("ticket")?;
    let number = read_number(row)?;
    Ok(NumberRow { marked: ticket.map(|ticket| (number.shard, ticket)), ..number })
}

fn column<'a, R, T>(rows: &'a [R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

fn as_uuid(key: &Key) -> Uuid {
    Uuid::from_bytes(*key)
}

fn uuids(keys: &[Key]) -> Vec<Uuid> {
    column(keys, as_uuid)
}
