//! One transaction's worth of rows, computed before anything is written.

use std::collections::{BTreeMap, HashMap};

use tollgate_schema::ids::{EventId, RecordId};
use tollgate_stream::{Batch, Outcome, Outgoing};

use crate::digest::{Digest, Place};
use crate::entry::{Bucket, Entry, Measures};
use crate::item::CdrItem;
use crate::ledger::{Account, Change};
use crate::pricing::Desk;

/// The sightings of some batches, grouped by record and in the order of record ids: the order in
/// which every transaction locks, so that two never wait for each other.
#[derive(Debug, Default)]
pub struct Sightings(BTreeMap<RecordId, Sighted>);

#[derive(Debug)]
struct Sighted {
    /// Index of the first batch that has seen it: what it changes is written for that partition.
    batch: usize,
    digests: Vec<Digest>,
}

impl Sightings {
    /// Groups what is to be applied.
    pub fn of(batches: &[Batch<'_, CdrItem>]) -> Self {
        let mut grouped: BTreeMap<RecordId, Sighted> = BTreeMap::new();
        for (index, batch) in batches.iter().enumerate() {
            let place = Place::of(&batch.claim.source);
            for entry in batch.entries {
                let Outcome::Apply(item) = &entry.outcome else { continue };
                grouped
                    .entry(item.record_id)
                    .or_insert_with(|| Sighted { batch: index, digests: Vec::new() })
                    .digests
                    .push(Digest::of(item, &place));
            }
        }
        Self(grouped)
    }

    /// The accounts as they are if none of the records was ever seen.
    pub fn open(&self, desk: &Desk<'_>) -> Vec<Account> {
        self.0
            .iter()
            .filter_map(|(record_id, sighted)| Account::open(*record_id, &sighted.digests, desk))
            .collect()
    }

    /// The sightings of one record.
    pub fn of_record(&self, record_id: &RecordId) -> &[Digest] {
        self.0.get(record_id).map_or(&[], |sighted| &sighted.digests)
    }

    /// Index of the batch that a record's changes are written for.
    pub fn batch_of(&self, record_id: &RecordId) -> usize {
        self.0.get(record_id).map_or(0, |sighted| sighted.batch)
    }
}

/// A record whose account is to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Which record.
    pub record_id: RecordId,
    /// The digests that are at hand: their stored state is needed, and beside them the greatest
    /// of the others.
    pub event_ids: Vec<EventId>,
}

impl Need {
    /// What the sightings of a record need.
    pub fn of(record_id: RecordId, sightings: &[Digest]) -> Self {
        let mut event_ids: Vec<_> = sightings.iter().map(|sighting| sighting.event_id).collect();
        event_ids.sort_unstable();
        event_ids.dedup();
        Self { record_id, event_ids }
    }
}

/// Rows to write for one partition.
#[derive(Debug, Default)]
pub struct Writes {
    /// Digests of records that are new, to insert.
    pub opened: Vec<(RecordId, Digest)>,
    /// Digests of known records, to insert or to replace.
    pub digests: Vec<(RecordId, Digest)>,
    /// Charges that replaced another one: the record's row names the charge in force.
    pub replaced: Vec<Entry>,
    /// Ledger entries, in the order in which they happened.
    pub entries: Vec<Entry>,
    /// For the outbox, after the entries' own messages.
    pub poison: Vec<Outgoing>,
}

impl Writes {
    /// What of a batch cannot be applied.
    pub fn of_poison(batch: &Batch<'_, CdrItem>) -> Self {
        let poison = batch.entries.iter().filter_map(|entry| match &entry.outcome {
            Outcome::Apply(_) => None,
            Outcome::Poison(record) => Some(record.clone()),
        });
        Self { poison: poison.collect(), ..Self::default() }
    }

    /// A record's first charge.
    pub fn opened(&mut self, account: Account) {
        self.opened.extend(account.digests.into_iter().map(|digest| (account.record_id, digest)));
        self.entries.push(account.charge);
    }

    /// What further sightings changed.
    pub fn changed(&mut self, record_id: RecordId, change: Change) {
        self.digests.extend(change.digests.into_iter().map(|digest| (record_id, digest)));
        if let Some(replacement) = change.replacement {
            self.replaced(replacement);
        }
    }

    /// A charge that takes another's place.
    pub fn replaced(&mut self, [reversal, charge]: [Entry; 2]) {
        self.entries.push(reversal);
        self.replaced.push(charge.clone());
        self.entries.push(charge);
    }

    /// What the entries add to the aggregates, each bucket once and in order.
    pub fn aggregates(&self) -> Vec<(&Bucket, Measures)> {
        let mut sums: HashMap<&Bucket, Measures> = HashMap::new();
        for entry in &self.entries {
            *sums.entry(&entry.bucket).or_default() += entry.measures;
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_unstable_by_key(|(bucket, _)| *bucket);
        sums
    }

    /// The outbox rows: every entry's message, then what is quarantined.
    pub fn outgoing(&self) -> Vec<Outgoing> {
        self.entries.iter().map(Entry::outgoing).chain(self.poison.iter().cloned()).collect()
    }
}
