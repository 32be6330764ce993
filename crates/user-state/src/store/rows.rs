//! The rows, and how they are read.

use std::collections::HashMap;

use tollgate_store::sql::Row;
use tollgate_stream::StoreError;

use crate::fold::{Leg, LegSide, MAX_CALLS, NumberLeg};
use crate::item::{MAX_SESSION_BYTES, truncate};
use crate::keys::Key;

/// Legs that are on, read per number: as many as are shown. Of more, those that expire last, which
/// are as a rule the answered ones and then those heard of last; in a look back, those that ended
/// soonest after it. The index has them in that order; by engagement all would have to be read.
pub(super) const MAX_OPEN_LEGS: i64 = MAX_CALLS as i64;

/// A call as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRow {
    /// Its number, given when it is written first; 0 before.
    pub serial: i64,
    /// Identity of the session.
    pub key: Key,
    /// The session id.
    pub session_id: String,
    /// The events, encoded.
    pub events: Vec<u8>,
    /// Time of the latest event.
    pub last_event_ms: i64,
    /// When something about it was heard last, rounded up.
    pub touched_ms: i64,
}

impl CallRow {
    /// A call of which nothing was heard yet.
    pub(super) fn begun(key: Key, session_id: &str, touched_ms: i64) -> Self {
        let session_id = session_id.to_owned();
        Self { serial: 0, key, session_id, events: Vec::new(), last_event_ms: 0, touched_ms }
    }
}

/// Where a leg is stored: the number of its call, and its index in the call.
pub(super) type LegPlace = (i64, i16);

/// A leg as stored: one that has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LegRow {
    pub place: LegPlace,
    pub session_key: Key,
    pub session_id: String,
    pub number_key: Key,
    /// Without its number, which stands with the number's row.
    pub facts: Leg,
}

/// A number as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberRow {
    /// Identity of the number.
    pub key: Key,
    /// The number.
    pub number: String,
    /// Raised by every change.
    pub version: i64,
    /// The instant the state was derived for.
    pub as_of_ms: i64,
    /// The presence then, as a number of the enum.
    pub presence: i16,
    /// Which partition of call-events relays it.
    pub shard: i32,
    /// When it changes by itself.
    pub next_expiry_ms: Option<i64>,
    /// Shard and ticket that its last change was given, by which PostgreSQL finds it.
    pub(super) marked: Option<(i32, i64)>,
}

impl NumberRow {
    /// A number of which nothing was heard yet.
    pub(super) fn begun(key: Key, number: &str, as_of_ms: i64) -> Self {
        let number = number.to_owned();
        Self {
            key,
            number,
            version: 0,
            as_of_ms,
            presence: 1,
            shard: 0,
            next_expiry_ms: None,
            marked: None,
        }
    }
}

/// A number and its legs at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberLegs {
    /// The number's row.
    pub row: NumberRow,
    /// Legs that are on, and the last that is over.
    pub legs: Vec<NumberLeg>,
}

/// What was applied from one source last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AppliedRow {
    pub source: [u8; 16],
    /// Time of its newest event.
    pub event_ms: Option<i64>,
    /// Timestamp of its last record.
    pub record_ms: i64,
    pub applied_ms: i64,
}

/// What has been applied, over all partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Time of the newest event.
    pub event_ms: Option<i64>,
    /// Timestamp of the newest record.
    pub record_ms: i64,
    /// When the last batch was applied.
    pub applied_ms: i64,
    /// The longest time that the last record of a partition had waited when it was applied; of
    /// partitions that something was applied from within the last day.
    pub delay_ms: i64,
}

/// Numbers that are not idle, and what waits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    /// Numbers per presence, as a number of the enum.
    pub numbers: Vec<(i16, i64)>,
    /// States to be published.
    pub unpublished: i64,
}

/// A number whose state is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changed {
    pub ticket: i64,
    pub key: Key,
    pub number: String,
    pub version: i64,
    /// The instant its state was derived for.
    pub as_of_ms: i64,
    /// Whether it was in a call then.
    pub is_busy: bool,
}

/// A number whose legs are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub key: Key,
    /// The instant they are asked for.
    pub as_of_ms: i64,
    /// Whether there may be legs that are on.
    pub is_busy: bool,
}

/// Which of a number's legs are asked for, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Those that are on by everything that is known, to compute with.
    Compute,
    /// By everything that is known, to show.
    Show,
    /// As they stood at the instant, to show.
    Past,
}

/// Legs by number.
pub(super) fn group(legs: Vec<(Key, NumberLeg)>) -> HashMap<Key, Vec<NumberLeg>> {
    let mut groups: HashMap<Key, Vec<NumberLeg>> = HashMap::new();
    for (key, leg) in legs {
        groups.entry(key).or_default().push(leg);
    }
    groups
}

/// The keys in column `key`, sorted.
pub(super) fn read_keys(rows: &[Row]) -> Result<Vec<Key>, StoreError> {
    let mut keys: Vec<Key> =
        rows.iter().map(|row| row.key("key")).collect::<Result<_, StoreError>>()?;
    keys.sort_unstable();
    Ok(keys)
}

pub(super) fn read_call(row: &Row) -> Result<CallRow, StoreError> {
    Ok(CallRow {
        serial: row.get("call_serial")?,
        key: row.key("session_key")?,
        session_id: session_id(row.get("session_id")?),
        events: row.get("events")?,
        last_event_ms: row.get("last_event_ms")?,
        touched_ms: row.get("touched_ms")?,
    })
}

/// A number, of which it is not known how its last change was marked.
pub(super) fn read_number(row: &Row) -> Result<NumberRow, StoreError> {
    Ok(NumberRow {
        key: row.key("number_key")?,
        number: text(row.get("number")?),
        version: row.get("version")?,
        as_of_ms: row.get("as_of_ms")?,
        presence: row.get("presence")?,
        shard: row.get("shard")?,
        next_expiry_ms: row.get("next_expiry_ms")?,
        marked: None,
    })
}

/// A leg of a call.
pub(super) fn read_leg_row(row: &Row) -> Result<LegRow, StoreError> {
    Ok(LegRow {
        place: (row.get("call_serial")?, row.get("leg")?),
        session_key: row.key("session_key")?,
        session_id: session_id(row.get("session_id")?),
        number_key: row.key("number_key")?,
        facts: read_leg(row)?,
    })
}

/// A leg of a number.
pub(super) fn read_number_leg(row: &Row) -> Result<(Key, NumberLeg), StoreError> {
    let leg = NumberLeg {
        session_key: row.key("session_key")?,
        session_id: session_id(row.get("session_id")?),
        leg: read_leg(row)?,
    };
    Ok((row.key("number_key")?, leg))
}

fn read_leg(row: &Row) -> Result<Leg, StoreError> {
    Ok(Leg {
        side: side(row.get("side")?),
        number: None,
        started_ms: row.get("started_ms")?,
        alerting_ms: row.get("alerting_ms")?,
        answered_ms: row.get("answered_ms")?,
        ended: row.get("ended")?,
        until_ms: row.get("until_ms")?,
        state_code: row.get("state_code")?,
        release_reason: row.get("release_reason")?,
        cause: row.get("cause")?,
        sip_status: row.get("sip_status")?,
    })
}

pub(super) fn read_changed(row: &Row) -> Result<Changed, StoreError> {
    Ok(Changed {
        ticket: row.get("ticket")?,
        key: row.key("number_key")?,
        number: text(row.get("number")?),
        version: row.get("version")?,
        as_of_ms: row.get("as_of_ms")?,
        is_busy: row.get("busy")?,
    })
}

/// Text as it comes from the database; it was UTF-8 when it was written.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A session id as it comes from the database; earlier versions wrote longer ones.
fn session_id(bytes: Vec<u8>) -> String {
    let mut text = text(bytes);
    truncate(&mut text, MAX_SESSION_BYTES);
    text
}

/// A side as it comes from the database.
fn side(number: i16) -> LegSide {
    LegSide::try_from(i32::from(number)).unwrap_or(LegSide::Unspecified)
}
