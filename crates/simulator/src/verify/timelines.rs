//! What user-state has heard of every call.

use std::collections::BTreeMap;

use super::findings::Findings;
use super::index::Index;
use super::records::Records;
use crate::evidence::Timeline;
use crate::expect::parse_id;
use crate::journal::{MALFORMED, Part};
use crate::report::Tally;

/// What the topics of user-state hold of each call, until it has been heard.
pub(super) struct Timelines<'a> {
    index: &'a Index,
    records: &'a Records<'a>,
    expected: u64,
    /// By session.
    unheard: BTreeMap<String, Vec<Part>>,
}

impl<'a> Timelines<'a> {
    pub fn new(index: &'a Index, records: &'a Records<'a>) -> Self {
        let mut unheard = BTreeMap::new();
        let mut expected = 0;
        for (session, call) in &index.sessions {
            let parts = index.parts_of(*call).iter().map(|(part, _)| *part);
            let parts: Vec<Part> = parts
                .filter(|part| *part != MALFORMED)
                .map(|part| Part { call: *call, part })
                .filter(|part| records.is_there(*part))
                .collect();
            expected += parts.len() as u64;
            if !parts.is_empty() {
                unheard.insert(session.clone(), parts);
            }
        }
        Self { index, records, expected, unheard }
    }

    /// Sessions of which something was not heard so far.
    pub fn open(&self) -> Vec<String> {
        self.unheard.keys().cloned().collect()
    }

    /// Takes out what is in the answers.
    pub fn compare(&mut self, answers: &[Timeline]) {
        for answer in answers {
            let Some(parts) = self.unheard.get_mut(&answer.session_id) else { continue };
            for event in &answer.events {
                let heard = parse_id(&event.event_id).and_then(|id| self.index.parts.get(&id));
                parts.retain(|part| Some(part) != heard);
            }
            if parts.is_empty() {
                self.unheard.remove(&answer.session_id);
            }
        }
    }

    pub fn judge(&self, findings: &mut Findings) -> Tally {
        let place = "timelines";
        let mut tally = Tally { place, expected: self.expected, ..Tally::default() };
        for part in self.unheard.values().flatten() {
            tally.lost += 1;
            let detail = format!("{} is on its topic", self.records.describe(*part));
            findings.lost(place, self.records.id(*part), &detail);
        }
        tally.found = tally.expected - tally.lost;
        tally
    }
}
