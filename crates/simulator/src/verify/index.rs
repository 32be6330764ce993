//! What must be there, by the identities under which it is found.

use std::collections::{BTreeMap, HashMap};

use crate::expect::{Id, quarantine_id, record_ids};
use crate::journal::{CDR, Journal, MALFORMED, Outcome, Part};
use crate::script::{Call, Plan};

/// Where each part of a run is to be found.
pub(super) struct Index {
    plan: Plan,
    /// Per call and part, what became of it; `None` where the call has no such part.
    outcomes: Vec<Vec<(u8, Outcome)>>,
    /// Seconds since 1970.
    ends: Vec<i64>,
    /// By event_id, or by quarantine_id.
    pub parts: HashMap<Id, Part>,
    /// CDRs by record_id.
    pub records: HashMap<Id, u64>,
    pub sessions: HashMap<String, u64>,
    /// The calls of each number.
    pub numbers: BTreeMap<String, Vec<u64>>,
    expected: u64,
}

impl Index {
    pub fn new(journal: &Journal) -> Self {
        let plan = journal.plan.clone();
        let mut index = Self {
            plan,
            outcomes: Vec::new(),
            ends: Vec::new(),
            parts: HashMap::new(),
            records: HashMap::new(),
            sessions: HashMap::new(),
            numbers: BTreeMap::new(),
            expected: 0,
        };
        for number in 0..journal.calls() {
            let call = index.plan.call(number);
            index.add(&call, journal);
        }
        index
    }

    fn add(&mut self, call: &Call, journal: &Journal) {
        let mut outcomes = Vec::with_capacity(call.statuses.len() + 2);
        let mut add = |parts: &mut HashMap<Id, Part>, number: u8, id: Id| {
            let part = Part { call: call.index, part: number };
            parts.insert(id, part);
            outcomes.push((number, journal.outcome(part)));
        };
        for (number, status) in call.statuses.iter().enumerate() {
            let ids = record_ids(call, Some(status), &status.body(call));
            add(&mut self.parts, number as u8, ids.event);
        }
        let ids = record_ids(call, None, &call.item());
        add(&mut self.parts, CDR, ids.event);
        if let Some(item) = call.malformed_item() {
            add(&mut self.parts, MALFORMED, quarantine_id(item.as_bytes()));
        }
        self.records.insert(ids.record, call.index);
        self.sessions.insert(call.session_id.clone(), call.index);
        let b = call.number_b.iter().filter(|_| call.course.b.is_some());
        for number in std::iter::once(&call.number_a).chain(b) {
            self.numbers.entry(number.clone()).or_default().push(call.index);
        }
        let acknowledged = |(_, it): &&(u8, Outcome)| *it == Outcome::Acknowledged;
        self.expected += outcomes.iter().filter(acknowledged).count() as u64;
        self.outcomes.push(outcomes);
        self.ends.push(call.begins_at + call.course.ends);
    }

    /// The call with this number.
    pub fn call(&self, number: u64) -> Call {
        self.plan.call(number)
    }

    /// Whether a status says by its path or signature whose it is.
    pub fn is_named(&self, call: &Call) -> bool {
        self.plan.applications.get(call.application).is_some_and(|it| it.is_named)
    }

    pub fn calls(&self) -> u64 {
        self.outcomes.len() as u64
    }

    /// The parts of a call, and what became of them.
    pub fn parts_of(&self, call: u64) -> &[(u8, Outcome)] {
        self.outcomes.get(call as usize).map_or(&[], Vec::as_slice)
    }

    pub fn outcome(&self, part: Part) -> Option<Outcome> {
        let parts = self.parts_of(part.call);
        parts.iter().find(|(number, _)| *number == part.part).map(|(_, outcome)| *outcome)
    }

    /// When a call ends, seconds since 1970.
    pub fn ends(&self, call: u64) -> i64 {
        self.ends.get(call as usize).copied().unwrap_or_default()
    }

    /// How many parts were acknowledged.
    pub fn expected_parts(&self) -> u64 {
        self.expected
    }
}
