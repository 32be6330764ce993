//! The rows, and the statements that each database implements.

use std::collections::{HashMap, HashSet};
use std::future::Future;

use tollgate_stream::{Claim, Outgoing, StoreError};

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

/// A partition that nothing was applied from for so long before the latest, milliseconds, says
/// nothing of delay: it may be no more.
pub(super) const DELAY_KNOWN_MS: i64 = 86_400_000;

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

/// The statements of one transaction. All lists of calls, legs and numbers that are written or
/// locked are sorted by key and without repeats, unless said otherwise.
pub(super) trait Statements: Send {
    /// Writes the calls that are not there, in the order of keys. Returns which these were, and
    /// the number of each.
    fn open_calls(
        &mut self,
        calls: &[CallRow],
    ) -> impl Future<Output = Result<HashMap<Key, i64>, StoreError>> + Send;

    /// Locks calls, in the order of keys. Returns the number of each, and how many bytes its events
    /// take.
    fn lock_calls(
        &mut self,
        keys: &[Key],
    ) -> impl Future<Output = Result<Vec<(i64, i64)>, StoreError>> + Send;

    /// The number of a call, if it is there; nothing is locked.
    fn find_call(
        &mut self,
        key: &Key,
    ) -> impl Future<Output = Result<Option<i64>, StoreError>> + Send;

    /// Reads calls by their numbers, which may be in any order.
    fn read_calls(
        &mut self,
        calls: &[i64],
    ) -> impl Future<Output = Result<Vec<CallRow>, StoreError>> + Send;

    /// The legs of the calls with these numbers.
    fn legs_of_calls(
        &mut self,
        calls: &[i64],
    ) -> impl Future<Output = Result<Vec<LegRow>, StoreError>> + Send;

    /// Writes events and times of calls that are locked.
    fn write_calls(
        &mut self,
        calls: &[CallRow],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes legs that are not there, of calls that are new or locked; in any order.
    fn open_legs(&mut self, legs: &[LegRow])
    -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes legs over those that are there, of calls that are locked; in any order.
    fn write_legs(
        &mut self,
        legs: &[LegRow],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes legs of calls that are locked.
    fn remove_legs(
        &mut self,
        legs: &[LegPlace],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes the numbers that are not there, in the order of keys, and marks them as changed.
    /// Returns which these were.
    fn open_numbers(
        &mut self,
        numbers: &[NumberRow],
    ) -> impl Future<Output = Result<HashSet<Key>, StoreError>> + Send;

    /// Locks and reads numbers, in the order of keys.
    fn lock_numbers(
        &mut self,
        keys: &[Key],
    ) -> impl Future<Output = Result<Vec<NumberRow>, StoreError>> + Send;

    /// The legs of each number that are on at its instant, and, to show, of those that are over
    /// the last.
    fn legs_of_numbers(
        &mut self,
        numbers: &[Wanted],
        view: View,
    ) -> impl Future<Output = Result<Vec<(Key, NumberLeg)>, StoreError>> + Send;

    /// Writes numbers that are locked and marks them as changed.
    fn write_numbers(
        &mut self,
        numbers: &[NumberRow],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Numbers, without locking.
    fn read_numbers(
        &mut self,
        keys: &[Key],
    ) -> impl Future<Output = Result<Vec<NumberRow>, StoreError>> + Send;

    /// Notes what was applied from some sources.
    fn note_applied(
        &mut self,
        rows: &[AppliedRow],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Appends to outboxes.
    fn append(
        &mut self,
        outboxes: &[(&Claim, Vec<Outgoing>)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The oldest changes of a shard, in order.
    fn changed(
        &mut self,
        shard: i32,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Changed>, StoreError>> + Send;

    /// Removes changes of a shard that were published and have not changed again; in any order.
    /// Waits for nobody: what another transaction is changing again is left to it.
    fn remove_changed(
        &mut self,
        shard: i32,
        tickets: &[i64],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Numbers of a shard whose state changed by itself, sorted.
    fn expired(
        &mut self,
        shard: i32,
        now_ms: i64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Key>, StoreError>> + Send;

    /// Calls of which nothing was heard since this instant, sorted by key.
    fn aged(
        &mut self,
        before_ms: i64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Key>, StoreError>> + Send;

    /// Locks those of the calls of which still nothing was heard since, in the order of keys.
    /// Returns the number of each.
    fn lock_aged(
        &mut self,
        keys: &[Key],
        before_ms: i64,
    ) -> impl Future<Output = Result<Vec<i64>, StoreError>> + Send;

    /// Removes calls whose legs were removed before.
    fn remove_calls(
        &mut self,
        calls: &[i64],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What has been applied.
    fn applied(&mut self) -> impl Future<Output = Result<Option<Applied>, StoreError>> + Send;

    /// How many numbers are busy.
    fn census(&mut self) -> impl Future<Output = Result<Census, StoreError>> + Send;
}

/// A call, if it is known.
pub(super) async fn call<S: Statements>(
    tx: &mut S,
    key: &Key,
) -> Result<Option<CallRow>, StoreError> {
    let Some(serial) = tx.find_call(key).await? else { return Ok(None) };
    Ok(tx.read_calls(&[serial]).await?.into_iter().next())
}

/// Numbers with their legs, in the order of keys. Numbers never seen are left out.
pub(super) async fn numbers<S: Statements>(
    tx: &mut S,
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

/// Legs by number.
pub(super) fn group(legs: Vec<(Key, NumberLeg)>) -> HashMap<Key, Vec<NumberLeg>> {
    let mut groups: HashMap<Key, Vec<NumberLeg>> = HashMap::new();
    for (key, leg) in legs {
        groups.entry(key).or_default().push(leg);
    }
    groups
}

/// A key as it comes from the database, whose own check makes it 16 bytes.
pub(super) fn key(bytes: &[u8]) -> Result<Key, StoreError> {
    bytes.try_into().map_err(|_| {
        StoreError::Refused("a key is not 16 bytes; was the schema changed by hand?".to_owned())
    })
}

/// Text as it comes from the database; it was UTF-8 when it was written.
pub(super) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A session id as it comes from the database; earlier versions wrote longer ones.
pub(super) fn session_id(bytes: Vec<u8>) -> String {
    let mut text = text(bytes);
    truncate(&mut text, MAX_SESSION_BYTES);
    text
}

/// A side as it comes from the database.
pub(super) fn side(number: i16) -> LegSide {
    LegSide::try_from(i32::from(number)).unwrap_or(LegSide::Unspecified)
}
