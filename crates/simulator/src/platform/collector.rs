//! Merges CDRs into messages: those of one application that end in the same second, at most 50
//! (P 2.5).

use std::collections::HashMap;

use crate::journal::{CDR, MALFORMED, Part};
use crate::script::{Call, Delivery, MERGED_AT_MOST, message};

/// How long after the second is over its records are sent, milliseconds.
const MERGE_MS: i64 = 200;
/// How long a message that is to be full and to hold an unreadable record waits for others.
const HOLD_MS: i64 = 1_500;

/// Which records share a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// An application's of one second.
    Second(usize, i64),
    /// An application's until the message is full, or has waited long enough.
    Held(usize),
}

/// A message to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Batch {
    pub application: usize,
    pub parts: Vec<Part>,
    items: Vec<String>,
    /// Those of the first record.
    pub delivery: Delivery,
    pub loses_answer: bool,
}

impl Batch {
    fn of(call: &Call) -> Self {
        Self {
            application: call.application,
            parts: Vec::new(),
            items: Vec::new(),
            delivery: call.cdr_delivery,
            loses_answer: call.loses_answer,
        }
    }

    pub fn body(&self) -> String {
        message(self.items.iter().map(String::as_str))
    }

    fn add(&mut self, call: &Call) {
        if let Some(item) = call.malformed_item() {
            self.parts.push(Part { call: call.index, part: MALFORMED });
            self.items.push(item);
        }
        self.parts.push(Part { call: call.index, part: CDR });
        self.items.push(call.item());
    }
}

/// What is being merged.
#[derive(Debug, Default)]
pub(super) struct Collector {
    open: HashMap<Key, Batch>,
}

impl Collector {
    /// Takes a call's record. Gives back messages that are full, and when to ask for the one it
    /// was put into, if that is a new one: milliseconds since 1970.
    pub fn add(&mut self, call: &Call) -> (Option<Batch>, Option<(Key, i64)>) {
        let second = call.cdr_due_ms.div_euclid(1000);
        let held = Key::Held(call.application);
        let (key, until) = if call.has_malformed_neighbour || self.open.contains_key(&held) {
            (held, call.cdr_due_ms + HOLD_MS)
        } else {
            (Key::Second(call.application, second), (second + 1) * 1000 + MERGE_MS)
        };
        let needed = 1 + usize::from(call.has_malformed_neighbour);
        let is_full = |batch: &Batch| batch.items.len() + needed > MERGED_AT_MOST;
        let full =
            if self.open.get(&key).is_some_and(is_full) { self.open.remove(&key) } else { None };
        let is_new = !self.open.contains_key(&key);
        self.open.entry(key).or_insert_with(|| Batch::of(call)).add(call);
        (full, is_new.then_some((key, until)))
    }

    /// The message of this key, if it was not full before.
    pub fn take(&mut self, key: Key) -> Option<Batch> {
        self.open.remove(&key)
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::tests::plan;
    use crate::{Fault, Faults};

    fn calls(faults: Faults, count: u64) -> Vec<Call> {
        let plan = plan(faults);
        (0..count)
            .map(|index| Call { cdr_due_ms: 5_500, application: 0, ..plan.call(index) })
            .collect()
    }

    #[test]
    fn records_of_one_second_are_sent_together_and_never_more_than_50() {
        let mut collector = Collector::default();
        let mut full = Vec::new();
        let mut timers = Vec::new();
        for call in calls(Faults::none(), 120) {
            let (batch, timer) = collector.add(&call);
            full.extend(batch);
            timers.extend(timer);
        }
        assert_eq!(full.iter().map(|it| it.parts.len()).collect::<Vec<_>>(), [50, 50]);
        assert_eq!(timers[0], (Key::Second(0, 5), 6_200));
        let rest = collector.take(Key::Second(0, 5)).unwrap();
        assert_eq!(rest.parts.len(), 20);
        let body: serde_json::Value = serde_json::from_str(&rest.body()).unwrap();
        assert_eq!(body["feeLst"].as_array().unwrap().len(), 20);
        assert!(collector.is_empty());
    }

    #[test]
    fn an_unreadable_record_comes_within_a_message_that_is_filled_up() {
        let mut collector = Collector::default();
        let faulty = Faults::none().with(Fault::MalformedRecord, 1.0);
        let first = calls(faulty, 1).remove(0);
        let (_, timer) = collector.add(&first);
        assert_eq!(timer, Some((Key::Held(0), 7_000)));
        let full = calls(Faults::none(), 60)
            .iter()
            .skip(1)
            .find_map(|call| collector.add(call).0)
            .unwrap();
        assert_eq!(full.parts.len(), 50);
        assert_eq!(full.parts[0], Part { call: 0, part: MALFORMED });
    }
}
