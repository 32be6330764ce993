//! What must be sent again, topic by topic: one that takes nothing, because it is not there or
//! because a right to it is missing, holds up only itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tollgate_stream::{Name, Outgoing};

use crate::meters::Published;

/// How long a topic rests before what was not confirmed is sent again: what was refused once in a
/// moment is likely refused again in it. Twice as long each time, until something is confirmed.
const FIRST_REST: Duration = Duration::from_millis(20);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// A record, by its request and its place there; in the order of the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Of the request, as `Flight::announce` gave it.
    pub number: u64,
    /// Among the request's records.
    pub index: usize,
}

/// A record as the books know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub part: Part,
    /// What it takes of the bound on bytes.
    pub size: usize,
    lane: usize,
}

/// One for each topic; there are three.
#[derive(Default)]
pub struct Lanes {
    lanes: Vec<Lane>,
    meters: Published,
}

struct Lane {
    topic: Name,
    /// Records that are on their way.
    flying: usize,
    /// Not confirmed, or never handed over; in the order they were first sent.
    again: BTreeMap<Part, Entry>,
    rests_until: Instant,
    rest: Duration,
}

impl Lanes {
    /// Enters a record.
    pub fn entry(&mut self, part: Part, record: &Outgoing) -> Entry {
        let known = self.lanes.iter().position(|lane| lane.topic == record.topic);
        let lane = known.unwrap_or_else(|| {
            self.lanes.push(Lane::new(record.topic.clone()));
            self.lanes.len() - 1
        });
        Entry { part, size: record.size(), lane }
    }

    /// It is on its way.
    pub fn taken_off(&mut self, entry: Entry) {
        self.lanes[entry.lane].flying += 1;
    }

    /// It is not any more.
    pub fn landed(&mut self, entry: Entry) {
        self.lanes[entry.lane].flying -= 1;
    }

    /// It is stored.
    pub fn confirmed(&mut self, entry: Entry) {
        let lane = &mut self.lanes[entry.lane];
        lane.rest = FIRST_REST;
        self.meters.count(&lane.topic);
    }

    /// Whether some of its topic must go again, so that it has to wait behind them.
    pub fn holds_back(&self, entry: Entry) -> bool {
        !self.lanes[entry.lane].again.is_empty()
    }

    /// It must go again, or could not go.
    pub fn hold_back(&mut self, entry: Entry, now: Instant) {
        let lane = &mut self.lanes[entry.lane];
        if lane.again.is_empty() {
            lane.rests_until = now + lane.rest;
            lane.rest = (lane.rest * 2).min(LONGEST_REST);
        }
        lane.again.insert(entry.part, entry);
    }

    /// Records that must go again.
    pub fn held_back(&self) -> usize {
        self.lanes.iter().map(|lane| lane.again.len()).sum()
    }

    /// Takes out all that must go again, in order, of the topics that have rested and of which
    /// nothing is on its way any more: sending earlier would let a record overtake its neighbours of
    /// the same session.
    pub fn take_due(&mut self, now: Instant) -> Vec<Vec<Entry>> {
        let due = self.lanes.iter_mut().filter(|lane| lane.due().is_some_and(|due| due <= now));
        due.map(|lane| std::mem::take(&mut lane.again).into_values().collect()).collect()
    }

    /// When the next of them has rested.
    pub fn next_due(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(Lane::due).min()
    }
}

impl Lane {
    fn new(topic: Name) -> Self {
        Self {
            topic,
            flying: 0,
            again: BTreeMap::new(),
            rests_until: Instant::now(),
            rest: FIRST_REST,
        }
    }

    /// When it may go on, if nothing but time keeps it.
    fn due(&self) -> Option<Instant> {
        (self.flying == 0 && !self.again.is_empty()).then_some(self.rests_until)
    }
}
