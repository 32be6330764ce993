//! Batches: events into calls, calls into legs, legs into numbers.

use std::collections::{BTreeMap, HashMap};

use tollgate_store::source_id;
use tollgate_stream::{Batch, Outcome, Outgoing, StoreError};

use super::rows::{AppliedRow, CallRow, LegRow, Statements, View, group};
use crate::fold::{Call, EventSet, Expiry, Inserted, Kind, Leg, derive, fold};
use crate::item::Item;
use crate::keys::{Key, number_key, shard};
use crate::metrics;

/// Events that are held in memory at a time, in bytes as stored; a call that takes more is held
/// by itself.
const PORTION_BYTES: i64 = 8 * 1024 * 1024;

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

    fn inserted(&mut self, kind: Kind, outcome: Inserted, late: bool) {
        *self.events.entry((kind_name(kind), outcome_name(outcome))).or_default() += 1;
        if late {
            *self.late.entry(kind_name(kind)).or_default() += 1;
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
pub(super) async fn apply<S: Statements>(
    tx: &mut S,
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
    tx.append(&outboxes).await?;
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

/// Merges the events into their calls, all of which are locked first. Returns the numbers whose
/// legs differ from before.
async fn update_calls<S: Statements>(
    tx: &mut S,
    calls: &BTreeMap<Key, Vec<&Item>>,
    now_ms: i64,
    expiry: &Expiry,
    counts: &mut Counts,
) -> Result<BTreeMap<Key, Option<String>>, StoreError> {
    let named: Vec<(Key, &str)> =
        calls.iter().map(|(key, items)| (*key, items[0].session_id.as_str())).collect();
    let sizes = tx.lock_calls(&named).await?;
    let mut touched = BTreeMap::new();
    for keys in portions(&sizes) {
        let mut written: Vec<CallRow> = Vec::new();
        let mut legs: Vec<(Key, Vec<(LegRow, String)>)> = Vec::new();
        for mut row in tx.read_calls(&keys).await? {
            let items = calls.get(&row.key).map_or(&[][..], Vec::as_slice);
            if let Some(call) = merge(&mut row, items, expiry, counts)? {
                row.touched_ms = row.touched_ms.max(now_ms);
                legs.push((row.key, leg_rows(row.key, call.legs)));
                written.push(row);
            }
        }
        if !written.is_empty() {
            tx.write_calls(&written).await?;
            update_legs(tx, legs, &mut touched).await?;
        }
    }
    Ok(touched)
}

/// Cuts a list of calls so that the events of each part take a bounded number of bytes, or are
/// those of one call.
fn portions(sizes: &[(Key, i64)]) -> Vec<Vec<Key>> {
    let mut portions: Vec<Vec<Key>> = Vec::new();
    let mut left = 0;
    for (key, bytes) in sizes {
        left -= bytes;
        match portions.last_mut() {
            Some(portion) if left >= 0 => portion.push(*key),
            _ => {
                portions.push(vec![*key]);
                left = PORTION_BYTES - bytes;
            }
        }
    }
    portions
}

/// Merges events into a call. Returns the call if that made a difference.
fn merge(
    row: &mut CallRow,
    items: &[&Item],
    expiry: &Expiry,
    counts: &mut Counts,
) -> Result<Option<Call>, StoreError> {
    let mut set = EventSet::decode(&row.events).map_err(|_| {
        StoreError::Refused(
            "events of a call cannot be read; were they written by a newer release?".to_owned(),
        )
    })?;
    let mut differs = false;
    for item in items {
        let (kind, time) = (item.event.kind(), item.event.time_ms());
        let outcome = set.insert(item.event.clone());
        counts.inserted(kind, outcome, outcome == Inserted::New && time < row.last_event_ms);
        differs |= outcome != Inserted::Repeated;
    }
    if !differs {
        return Ok(None);
    }
    let (call, _) = fold(&set, expiry);
    row.events = set.encode();
    row.last_event_ms = call.last_event_ms;
    Ok(Some(call))
}

/// Writes the legs that differ from those before, removes those that are no more, and adds the
/// numbers of both to `touched`.
async fn update_legs<S: Statements>(
    tx: &mut S,
    after: Vec<(Key, Vec<(LegRow, String)>)>,
    touched: &mut BTreeMap<Key, Option<String>>,
) -> Result<(), StoreError> {
    let keys: Vec<Key> = after.iter().map(|(key, _)| *key).collect();
    let mut before: HashMap<(Key, i16), LegRow> = HashMap::new();
    for leg in tx.legs_of_calls(&keys).await? {
        before.insert((leg.session_key, leg.leg), leg);
    }
    let mut written: Vec<LegRow> = Vec::new();
    for (leg, number) in after.into_iter().flat_map(|(_, legs)| legs) {
        let old = before.remove(&(leg.session_key, leg.leg));
        if old.as_ref() == Some(&leg) {
            continue;
        }
        if let Some(old) = old {
            touched.entry(old.number_key).or_default();
        }
        touched.insert(leg.number_key, Some(number));
        written.push(leg);
    }
    let mut removed: Vec<(Key, i16)> = Vec::new();
    for (place, old) in before {
        touched.entry(old.number_key).or_default();
        removed.push(place);
    }
    if !removed.is_empty() {
        removed.sort_unstable();
        tx.remove_legs(&removed).await?;
    }
    if !written.is_empty() {
        tx.write_legs(&written).await?;
    }
    Ok(())
}

/// The legs that have a number, in order, each with its number beside it.
fn leg_rows(session_key: Key, legs: Vec<Leg>) -> Vec<(LegRow, String)> {
    (0..)
        .zip(legs)
        .filter_map(|(index, mut leg)| {
            let number = leg.number.take()?;
            let number_key = number_key(&number);
            Some((LegRow { session_key, leg: index, number_key, facts: leg }, number))
        })
        .collect()
}

/// Locks the numbers, derives their states anew from their legs and raises their versions.
/// Returns how many.
pub(super) async fn recompute<S: Statements>(
    tx: &mut S,
    touched: &BTreeMap<Key, Option<String>>,
    now_ms: i64,
    partitions: i32,
) -> Result<usize, StoreError> {
    if touched.is_empty() {
        return Ok(0);
    }
    let named: Vec<(Key, Option<&str>)> =
        touched.iter().map(|(key, number)| (*key, number.as_deref())).collect();
    let mut rows = tx.lock_numbers(&named, partitions).await?;
    for row in &mut rows {
        row.as_of_ms = row.as_of_ms.max(now_ms);
    }
    let wanted: Vec<(Key, i64)> = rows.iter().map(|row| (row.key, row.as_of_ms)).collect();
    let mut legs = group(tx.legs_of_numbers(&wanted, View::Compute).await?);
    for row in &mut rows {
        let state = derive(&legs.remove(&row.key).unwrap_or_default(), row.as_of_ms);
        row.version += 1;
        row.presence = state.presence as i16;
        row.shard = shard(&row.key, partitions);
        row.next_expiry_ms = state.next_expiry_ms;
    }
    tx.write_numbers(&rows).await?;
    Ok(rows.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_in_portions_of_bounded_size() {
        let most = PORTION_BYTES;
        let sizes = [most / 2, most / 2, 1, most * 3, 0, 5, 6];
        let keyed: Vec<(Key, i64)> =
            (0..).zip(sizes).map(|(index, size)| ([index; 16], size)).collect();
        let lengths: Vec<usize> = portions(&keyed).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1, 1, 3]);
        assert_eq!(portions(&keyed).concat(), keyed.iter().map(|it| it.0).collect::<Vec<_>>());
        assert!(portions(&[]).is_empty());
    }
}
