//! Batches: events into calls, calls into legs, legs into numbers.

use std::collections::{BTreeMap, HashMap, HashSet};

use tollgate_store::source_id;
use tollgate_stream::{Batch, Outcome, Outgoing, StoreError};

use super::rows::{AppliedRow, CallRow, LegPlace, LegRow, NumberRow, View, Wanted, group};
use super::statements::Statements;
use crate::fold::{Call, EventSet, Expiry, Inserted, Kind, Leg, NumberLeg, derive, fold};
use crate::item::Item;
use crate::keys::{Key, number_key, shard};
use crate::metrics;

/// Events that are held in memory at a time, in bytes as stored; a call that takes more is held
/// by itself.
const PORTION_BYTES: i64 = 8 * 1024 * 1024;

/// `touched_ms` is rounded up to this. It is indexed: where it stays as it is, PostgreSQL can keep
/// an update of a call in its page and out of the indexes.
const TOUCHED_STEP_MS: i64 = 3_600_000;

/// What a transaction did; told to the metrics once it is committed.
#[derive(Debug, Default)]
pub(super) struct Counts {
    events: BTreeMap<(&'static str, &'static str), u64>,
    late: BTreeMap<&'static str, u64>,
    changes: BTreeMap<&'static str, u64>,
    pub forgotten: u64,
}

impl Counts {
    pub fn changed(&mut self, cause: &'static str, numbers: usize) {
        *self.changes.entry(cause).or_default() += numbers as u64;
    }

    fn merged(&mut self, merged: &Merged) {
        for (kind, outcome, late) in &merged.seen {
            *self.events.entry((kind_name(*kind), outcome_name(*outcome))).or_default() += 1;
            if *late {
                *self.late.entry(kind_name(*kind)).or_default() += 1;
            }
        }
    }

    /// Tells the metrics.
    pub fn record(&self) {
        for ((kind, outcome), count) in &self.events {
            ::metrics::counter!(metrics::EVENTS.name, "kind" => *kind, "outcome" => *outcome)
                .increment(*count);
        }
        for (kind, count) in &self.late {
            ::metrics::counter!(metrics::LATE.name, "kind" => *kind).increment(*count);
        }
        for (cause, count) in &self.changes {
            ::metrics::counter!(metrics::CHANGES.name, "cause" => *cause).increment(*count);
        }
        if self.forgotten > 0 {
            ::metrics::counter!(metrics::FORGOTTEN.name).increment(self.forgotten);
        }
    }
}

/// The name of a kind in metrics and answers.
pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Unknown => "unknown",
        Kind::Callin => "callin",
        Kind::Callout => "callout",
        Kind::Alerting => "alerting",
        Kind::Answer => "answer",
        Kind::CollectInfo => "collectInfo",
        Kind::Disconnect => "disconnect",
        Kind::Cdr => "cdr",
    }
}

fn outcome_name(outcome: Inserted) -> &'static str {
    match outcome {
        Inserted::New => "new",
        Inserted::Revision => "revision",
        Inserted::Improved => "improved",
        Inserted::Repeated => "repeated",
        Inserted::Capped => "capped",
    }
}

/// Applies batches within their transaction.
pub(super) async fn apply(
    tx: &mut dyn Statements,
    batches: &[Batch<'_, Item>],
    expiry: &Expiry,
    partitions: i32,
) -> Result<Counts, StoreError> {
    let mut counts = Counts::default();
    let now_ms = batches.iter().map(|batch| batch.now_ms).max().unwrap_or_default();
    let mut calls: BTreeMap<Key, Vec<&Item>> = BTreeMap::new();
    for item in batches.iter().flat_map(items) {
        calls.entry(item.session_key).or_default().push(item);
    }
    let mut applied: Vec<AppliedRow> = batches.iter().filter_map(applied_row).collect();
    applied.sort_unstable_by_key(|row| row.source);
    tx.note_applied(&applied).await?;
    let outboxes: Vec<_> = batches.iter().map(|batch| (batch.claim, poison(batch))).collect();
    tx.append_outbox(&outboxes).await?;
    if !calls.is_empty() {
        let touched = update_calls(tx, &calls, now_ms, expiry, &mut counts).await?;
        // Last: others wait for these numbers until the commit.
        let changed = recompute(tx, &touched, now_ms, partitions).await?;
        counts.changed("event", changed);
    }
    Ok(counts)
}

fn items<'a>(batch: &'a Batch<'_, Item>) -> impl Iterator<Item = &'a Item> {
    batch.entries.iter().filter_map(|entry| match &entry.outcome {
        Outcome::Apply(item) => Some(item),
        Outcome::Poison(_) => None,
    })
}

fn poison(batch: &Batch<'_, Item>) -> Vec<Outgoing> {
    let poison = batch.entries.iter().filter_map(|entry| match &entry.outcome {
        Outcome::Apply(_) => None,
        Outcome::Poison(record) => Some(record.clone()),
    });
    poison.collect()
}

fn applied_row(batch: &Batch<'_, Item>) -> Option<AppliedRow> {
    Some(AppliedRow {
        source: source_id(&batch.claim.source),
        event_ms: items(batch).map(|item| item.event.time_ms()).max(),
        record_ms: batch.entries.last()?.timestamp_ms,
        applied_ms: batch.now_ms,
    })
}

/// Merges the events into their calls. Returns the numbers whose legs differ from before.
///
/// Calls are folded as if none of their events had been seen before. Those that are new, and most
/// are where a backlog is worked off, are thereby written once; the others are locked, read and
/// merged.
async fn update_calls(
    tx: &mut dyn Statements,
    calls: &BTreeMap<Key, Vec<&Item>>,
    now_ms: i64,
    expiry: &Expiry,
    counts: &mut Counts,
) -> Result<BTreeMap<Key, Touched>, StoreError> {
    let touched_ms = now_ms.div_euclid(TOUCHED_STEP_MS).saturating_add(1) * TOUCHED_STEP_MS;
    let mut legs = LegChanges::default();
    let mut new: Vec<CallRow> = Vec::with_capacity(calls.len());
    let mut merged = Vec::with_capacity(calls.len());
    for (key, items) in calls {
        let mut row = CallRow::begun(*key, &items[0].session_id, touched_ms);
        merged.push(merge(&mut row, items, expiry)?);
        new.push(row);
    }
    let opened = tx.open_calls(&new).await?;
    drop(new);
    let mut known: Vec<Key> = Vec::new();
    for (key, merged) in calls.keys().zip(merged) {
        if let Some(serial) = opened.get(key) {
            counts.merged(&merged);
            let session_id = &calls[key][0].session_id;
            let rows = |call: Call| leg_rows(*serial, *key, session_id, call.legs);
            legs.compare(&mut HashMap::new(), merged.call.map_or_else(Vec::new, rows));
        } else {
            known.push(*key);
        }
    }
    if !known.is_empty() {
        update_known(tx, &known, &mut legs, |row| {
            let merged = merge(row, calls.get(&row.key).map_or(&[], Vec::as_slice), expiry)?;
            counts.merged(&merged);
            row.touched_ms = row.touched_ms.max(touched_ms);
            Ok(merged.call)
        })
        .await?;
    }
    legs.write(tx).await
}

/// Locks calls, and writes those of which `merge` makes a call that differs.
async fn update_known(
    tx: &mut dyn Statements,
    keys: &[Key],
    legs: &mut LegChanges,
    mut merge: impl FnMut(&mut CallRow) -> Result<Option<Call>, StoreError> + Send,
) -> Result<(), StoreError> {
    let sizes = tx.lock_calls(keys).await?;
    if sizes.len() < keys.len() {
        return Err(StoreError::Transient("a call was forgotten at this instant".to_owned()));
    }
    for portion in portions(&sizes) {
        let mut written: Vec<CallRow> = Vec::new();
        let mut after = Vec::new();
        for mut row in tx.read_calls(&portion).await? {
            if let Some(call) = merge(&mut row)? {
                after.extend(leg_rows(row.serial, row.key, &row.session_id, call.legs));
                written.push(row);
            }
        }
        if written.is_empty() {
            continue;
        }
        tx.write_calls(&written).await?;
        let serials: Vec<i64> = written.iter().map(|row| row.serial).collect();
        let before = tx.legs_of_calls(&serials).await?.into_iter();
        let mut before = before.map(|leg| (leg.place, leg)).collect();
        legs.compare(&mut before, after);
        legs.remove(before);
    }
    Ok(())
}

/// Cuts a list of calls so that the events of each part take a bounded number of bytes, or are
/// those of one call.
fn portions(sizes: &[(i64, i64)]) -> Vec<Vec<i64>> {
    let mut portions: Vec<Vec<i64>> = Vec::new();
    let mut left = 0;
    for (call, bytes) in sizes {
        left -= bytes;
        match portions.last_mut() {
            Some(portion) if left >= 0 => portion.push(*call),
            _ => {
                portions.push(vec![*call]);
                left = PORTION_BYTES - bytes;
            }
        }
    }
    portions
}

/// What came of merging events into a call.
struct Merged {
    /// The call, if that made a difference.
    call: Option<Call>,
    /// Kind and outcome of each event, and whether it was late.
    seen: Vec<(Kind, Inserted, bool)>,
}

/// Merges events into a call.
fn merge(row: &mut CallRow, items: &[&Item], expiry: &Expiry) -> Result<Merged, StoreError> {
    let mut set = EventSet::decode(&row.events).map_err(|_| {
        StoreError::Refused(
            "events of a call cannot be read; were they written by a newer release?".to_owned(),
        )
    })?;
    let mut seen = Vec::with_capacity(items.len());
    for item in items {
        let (kind, time) = (item.event.kind(), item.event.time_ms());
        let outcome = set.insert(item.event.clone());
        seen.push((kind, outcome, outcome == Inserted::New && time < row.last_event_ms));
    }
    if seen.iter().all(|(_, outcome, _)| *outcome == Inserted::Repeated) {
        return Ok(Merged { call: None, seen });
    }
    let (call, _) = fold(&set, expiry);
    row.events = set.encode();
    row.last_event_ms = call.last_event_ms;
    Ok(Merged { call: Some(call), seen })
}

/// A number whose legs differ from before.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// The number, if one of its legs was written.
    number: Option<String>,
    /// Those legs.
    legs: Vec<NumberLeg>,
}

/// Legs that differ from before.
#[derive(Default)]
struct LegChanges {
    opened: Vec<LegRow>,
    written: Vec<LegRow>,
    removed: Vec<LegPlace>,
    touched: BTreeMap<Key, Touched>,
}

impl LegChanges {
    /// Notes the legs that were not there before, or otherwise, and takes them out of `before`.
    fn compare(&mut self, before: &mut HashMap<LegPlace, LegRow>, after: Vec<(LegRow, String)>) {
        for (leg, number) in after {
            let old = before.remove(&leg.place);
            if old.as_ref() == Some(&leg) {
                continue;
            }
            let touched = self.touched.entry(leg.number_key).or_default();
            touched.number = Some(number);
            touched.legs.push(NumberLeg {
                session_key: leg.session_key,
                session_id: String::new(),
                leg: leg.facts.clone(),
            });
            match old {
                None => self.opened.push(leg),
                Some(old) => {
                    self.touched.entry(old.number_key).or_default();
                    self.written.push(leg);
                }
            }
        }
    }

    /// Notes legs that are no more.
    fn remove(&mut self, legs: HashMap<LegPlace, LegRow>) {
        for (place, old) in legs {
            self.touched.entry(old.number_key).or_default();
            self.removed.push(place);
        }
    }

    /// Writes what was noted, and returns the numbers of these legs, before and after.
    async fn write(
        mut self,
        tx: &mut dyn Statements,
    ) -> Result<BTreeMap<Key, Touched>, StoreError> {
        if !self.removed.is_empty() {
            self.removed.sort_unstable();
            tx.remove_legs(&self.removed).await?;
        }
        if !self.opened.is_empty() {
            tx.open_legs(&self.opened).await?;
        }
        if !self.written.is_empty() {
            tx.write_legs(&self.written).await?;
        }
        Ok(self.touched)
    }
}

/// The legs that have a number, in order, each with its number beside it.
fn leg_rows(
    serial: i64,
    session_key: Key,
    session_id: &str,
    legs: Vec<Leg>,
) -> Vec<(LegRow, String)> {
    (0..)
        .zip(legs)
        .filter_map(|(index, mut leg)| {
            let number = leg.number.take()?;
            let number_key = number_key(&number);
            let (place, session_id) = ((serial, index), session_id.to_owned());
            Some((LegRow { place, session_key, session_id, number_key, facts: leg }, number))
        })
        .collect()
}

/// Derives the states of the numbers anew and raises their versions. Returns how many.
///
/// A number that is not there yet has no legs but those of this transaction: whoever wrote another
/// has written the number too, or waits for this one to be committed. The others are locked, and
/// their legs read afterwards.
pub(super) async fn recompute(
    tx: &mut dyn Statements,
    touched: &BTreeMap<Key, Touched>,
    now_ms: i64,
    partitions: i32,
) -> Result<usize, StoreError> {
    let mut new: Vec<NumberRow> = Vec::new();
    for (key, it) in touched {
        let Some(number) = &it.number else { continue };
        let mut row = NumberRow::begun(*key, number, now_ms);
        restate(&mut row, &it.legs, partitions);
        new.push(row);
    }
    let opened = if new.is_empty() { HashSet::new() } else { tx.open_numbers(&new).await? };
    let known: Vec<Key> = touched.keys().filter(|key| !opened.contains(*key)).copied().collect();
    if known.is_empty() {
        return Ok(opened.len());
    }
    let mut rows = tx.lock_numbers(&known).await?;
    for row in &mut rows {
        row.as_of_ms = row.as_of_ms.max(now_ms);
    }
    // Of an idle number none is on but what this transaction has written.
    let wanted: Vec<Wanted> = rows
        .iter()
        .filter(|row| {
            let mut written = touched.get(&row.key).into_iter().flat_map(|it| &it.legs);
            row.next_expiry_ms.is_some() || written.any(|it| it.leg.is_active(row.as_of_ms))
        })
        .map(|row| Wanted { key: row.key, as_of_ms: row.as_of_ms, is_busy: true })
        .collect();
    let mut legs = group(tx.legs_of_numbers(&wanted, View::Compute).await?);
    for row in &mut rows {
        restate(row, &legs.remove(&row.key).unwrap_or_default(), partitions);
    }
    tx.write_numbers(&rows).await?;
    Ok(opened.len() + rows.len())
}

/// The next version of a number, by its legs at the instant it holds for.
fn restate(row: &mut NumberRow, legs: &[NumberLeg], partitions: i32) {
    let state = derive(legs, row.as_of_ms);
    row.version += 1;
    row.presence = state.presence as i16;
    row.shard = shard(&row.key, partitions);
    row.next_expiry_ms = state.next_expiry_ms;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_in_portions_of_bounded_size() {
        let most = PORTION_BYTES;
        let sizes = [most / 2, most / 2, 1, most * 3, 0, 5, 6];
        let calls: Vec<(i64, i64)> = (0..).zip(sizes).collect();
        let lengths: Vec<usize> = portions(&calls).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1, 1, 3]);
        assert_eq!(portions(&calls).concat(), calls.iter().map(|it| it.0).collect::<Vec<_>>());
        assert!(portions(&[]).is_empty());
    }
}
