//! The transitions of a record's account. Pure: what is stored and what was seen go in, entries
//! come out.
//!
//! ```text
//!  nothing stored + sightings  ──open──▶  charge, revision 1
//!  account + sightings         ──see───▶  nothing            (another digest, or none, in force)
//!                                    └──▶  reversal r, charge r + 1
//!  account + tariff or rules   ──rerate─▶ nothing, or reversal r, charge r + 1
//! ```
//!
//! Revisions number a record's charges from 1, and a reversal carries the revision of the charge
//! it takes back; entry ids derive from record, kind and revision alone. So every account is a
//! chain charge 1, reversal 1, charge 2, … that ends in the one charge in force, and its sum is
//! that charge's.

use tollgate_schema::ids::{EventId, RecordId};

use crate::digest::{self, Digest};
use crate::entry::Entry;
use crate::pricing::Desk;

/// What is stored for a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// Which record.
    pub record_id: RecordId,
    /// The charge in force.
    pub charge: Entry,
    /// The digests seen: at least the one in force, and whatever else may come into force by the
    /// sightings at hand.
    pub digests: Vec<Digest>,
}

/// What a step changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Change {
    /// Digests to insert, or to replace.
    pub digests: Vec<Digest>,
    /// The charge that is taken back and the one that takes its place.
    pub replacement: Option<[Entry; 2]>,
}

impl Account {
    /// Opens the account of a record that was never seen before. `None` without a sighting.
    pub fn open(record_id: RecordId, sightings: &[Digest], desk: &Desk<'_>) -> Option<Self> {
        let mut digests = Vec::new();
        for sighting in sightings {
            digest::add(&mut digests, sighting.clone());
        }
        let first = digest::in_force(&digests)?;
        let charge = desk.charge(record_id, 1, first, &desk.assess(first));
        Some(Self { record_id, charge, digests })
    }

    /// Takes further sightings in.
    ///
    /// A sighting of a known digest changes nothing, except where it makes that digest earlier or
    /// better authenticated. Another digest in force, or the same one under other facts (say, the
    /// application of its best sighting), replaces the charge.
    pub fn see(&mut self, sightings: &[Digest], desk: &Desk<'_>) -> Change {
        let before = digest::in_force(&self.digests).map(|d| (d.event_id, desk.assess(d)));
        let mut touched: Vec<EventId> = Vec::new();
        for sighting in sightings {
            if digest::add(&mut self.digests, sighting.clone())
                && !touched.contains(&sighting.event_id)
            {
                touched.push(sighting.event_id);
            }
        }
        if touched.is_empty() {
            return Change::default();
        }
        let digests: Vec<_> =
            self.digests.iter().filter(|d| touched.contains(&d.event_id)).cloned().collect();
        let after = digest::in_force(&self.digests).map(|d| (d, desk.assess(d)));
        let replacement = after
            .filter(|(digest, assessment)| {
                before.as_ref().is_none_or(|(event_id, facts)| {
                    *event_id != digest.event_id || facts != assessment
                })
            })
            .map(|(digest, assessment)| {
                desk.charge(self.record_id, self.charge.revision + 1, digest, &assessment)
            });
        Change { digests, replacement: replacement.map(|charge| self.replace(charge)) }
    }

    /// Rates what is in force again, by the tariffs and rules of now. `None` when it comes to the
    /// same as before.
    pub fn rerate(&mut self, desk: &Desk<'_>) -> Option<[Entry; 2]> {
        let digest = digest::in_force(&self.digests)?;
        let charge =
            desk.charge(self.record_id, self.charge.revision + 1, digest, &desk.assess(digest));
        (!charge.comes_to_the_same(&self.charge)).then(|| self.replace(charge))
    }

    fn replace(&mut self, charge: Entry) -> [Entry; 2] {
        let reversal = self.charge.reversal();
        self.charge = charge.clone();
        [reversal, charge]
    }
}
