//! The events of one call: at most one in force per record, at most 256 records.

use std::collections::BTreeMap;

use super::{Event, Kind};

/// Records kept per call.
pub const MAX_RECORDS: usize = 256;

/// Contents kept per record: a record has one, a revised one two; more is somebody playing.
pub const MAX_DIGESTS: usize = 8;

/// What became of an event that was put into a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// A record not seen before.
    New,
    /// Another content of a record seen before.
    Revision,
    /// A content seen before, now with an earlier receipt or a better authenticity.
    Improved,
    /// Nothing new.
    Repeated,
    /// Beyond the cap, and not among those to keep.
    Capped,
}

/// The events of one call.
///
/// Inserting is commutative, associative and idempotent: equal events are merged by the smallest
/// receipt and the best authenticity, and what is dropped at a cap is decided by properties of an
/// event that no later one can change. Therefore the content is a function of the set of events
/// seen, however they came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EventSet {
    records: BTreeMap<Vec<u8>, Vec<Event>>,
    capped: bool,
}

/// The stored form.
#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(message, repeated, tag = "1")]
    events: Vec<Event>,
    #[prost(bool, tag = "2")]
    capped: bool,
}

impl EventSet {
    /// Puts an event in.
    pub fn insert(&mut self, event: Event) -> Inserted {
        let record_id = event.record_id.clone();
        let new = !self.records.contains_key(&record_id);
        let outcome = self.merge(event);
        if !new || self.records.len() <= MAX_RECORDS {
            return outcome;
        }
        self.capped = true;
        let last = self
            .records
            .iter()
            .max_by_key(|(id, digests)| keep_order(id, digests))
            .map(|(id, _)| id.clone());
        match last {
            Some(last) => {
                self.records.remove(&last);
                if last == record_id { Inserted::Capped } else { outcome }
            }
            None => outcome,
        }
    }

    fn merge(&mut self, event: Event) -> Inserted {
        let digests = self.records.entry(event.record_id.clone()).or_default();
        if let Some(known) = digests.iter_mut().find(|known| known.event_id == event.event_id) {
            let received_ms = known.received_ms.min(event.received_ms);
            let trust = known.trust.max(event.trust);
            if (received_ms, trust) == (known.received_ms, known.trust) {
                return Inserted::Repeated;
            }
            known.received_ms = received_ms;
            known.trust = trust;
            return Inserted::Improved;
        }
        let outcome = if digests.is_empty() { Inserted::New } else { Inserted::Revision };
        let event_id = event.event_id.clone();
        digests.push(event);
        digests.sort_by(|one, other| one.event_id.cmp(&other.event_id));
        if digests.len() <= MAX_DIGESTS {
            return outcome;
        }
        // By id, which never changes, so that a dropped content stays dropped.
        self.capped = true;
        match digests.pop() {
            Some(dropped) if dropped.event_id == event_id => Inserted::Capped,
            _ => outcome,
        }
    }

    /// The event in force of each record, sorted by (event time, rank, event id).
    pub fn in_force(&self) -> Vec<&Event> {
        let mut events: Vec<&Event> = self
            .records
            .values()
            .filter_map(|digests| digests.iter().max_by_key(|event| event.force()))
            .collect();
        events.sort_by(|one, other| one.order().cmp(&other.order()));
        events
    }

    /// Whether events were left out for a cap.
    pub fn is_capped(&self) -> bool {
        self.capped
    }

    /// How many contents beside those in force are kept.
    pub fn revisions(&self) -> usize {
        self.records.values().map(|digests| digests.len().saturating_sub(1)).sum()
    }

    /// The stored form.
    pub fn encode(self) -> Vec<u8> {
        let events = self.records.into_values().flatten().collect();
        prost::Message::encode_to_vec(&Stored { events, capped: self.capped })
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        let stored: Stored = prost::Message::decode(bytes)?;
        let mut set = Self { records: BTreeMap::new(), capped: stored.capped };
        for event in stored.events {
            set.records.entry(event.record_id.clone()).or_default().push(event);
        }
        Ok(set)
    }
}

impl FromIterator<Event> for EventSet {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Self {
        let mut set = Self::default();
        for event in events {
            set.insert(event);
        }
        set
    }
}

/// Orders records by how much they are to be kept, smallest first. A status' type and time are
/// part of its record id and so the same in every content of it; a CDR's end is not, and a
/// revision could change it, so CDRs go by id alone.
fn keep_order<'a>(record_id: &'a [u8], digests: &[Event]) -> (u8, i64, &'a [u8]) {
    digests
        .iter()
        .map(|event| {
            let time =
                if event.kind() == Kind::Cdr { 0 } else { event.occurred_ms.unwrap_or(i64::MAX) };
            (event.kind().keep_class(), time, record_id)
        })
        .min()
        .unwrap_or((u8::MAX, i64::MAX, record_id))
}
