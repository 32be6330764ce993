//! Topic rated-cdrs and the ledger: one charge in force for each record, with the right amount.

use std::collections::HashMap;

use prost::Message as _;
use tollgate_schema::v1;

use super::findings::Findings;
use super::index::Index;
use super::records::Records;
use crate::Options;
use crate::evidence::{LedgerEntry, TopicRecord};
use crate::expect::{self, Charge, parse_id, side_name};
use crate::journal::{CDR, Outcome, Part};
use crate::report::Tally;

pub(super) const RATED: &str = "rated-cdrs";
pub(super) const LEDGER: &str = "ledger";

/// A ledger entry, wherever it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    id: String,
    record_id: String,
    event_id: String,
    is_reversal: bool,
    revision: u32,
    status: String,
    legs: Vec<EntryLeg>,
    currency: String,
    amount_micros: i64,
    app_key: String,
    session_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct EntryLeg {
    side: String,
    seconds: i64,
    minutes: i64,
    amount_micros: i64,
}

impl From<LedgerEntry> for Entry {
    fn from(entry: LedgerEntry) -> Self {
        let leg = |leg: crate::evidence::LedgerLeg| EntryLeg {
            side: leg.side.to_ascii_uppercase(),
            seconds: leg.seconds,
            minutes: leg.billed_minutes,
            amount_micros: leg.amount_micros,
        };
        Self {
            id: entry.entry_id,
            record_id: entry.record_id,
            event_id: entry.event_id,
            is_reversal: entry.kind == "reversal",
            revision: entry.revision,
            status: entry.status,
            legs: entry.legs.into_iter().map(leg).collect(),
            currency: entry.currency,
            amount_micros: entry.amount_micros,
            app_key: entry.app_key,
            session_id: entry.session_id,
        }
    }
}

impl From<v1::RatedCdr> for Entry {
    fn from(rated: v1::RatedCdr) -> Self {
        let status = match rated.status() {
            v1::RatingStatus::Rated => "rated",
            v1::RatingStatus::Unrated => "unrated",
            v1::RatingStatus::Implausible => "implausible",
            v1::RatingStatus::ApplicationMismatch => "application_mismatch",
            v1::RatingStatus::Unspecified => "unspecified",
        };
        let leg = |leg: &v1::RatedLeg| EntryLeg {
            side: side_name(leg.side()).to_owned(),
            seconds: leg.seconds,
            minutes: leg.billed_minutes,
            amount_micros: leg.amount_micros,
        };
        Self {
            is_reversal: rated.kind() == v1::EntryKind::Reversal,
            legs: rated.legs.iter().map(leg).collect(),
            status: status.to_owned(),
            id: rated.entry_id,
            record_id: rated.record_id,
            event_id: rated.event_id,
            revision: rated.revision,
            currency: rated.currency,
            amount_micros: rated.amount_micros,
            app_key: rated.app_key,
            session_id: rated.session_id,
        }
    }
}

/// Sums over all records, micro-units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub expected: i64,
    pub found: i64,
}

/// The entries of this run.
pub(super) struct Money<'a> {
    place: &'static str,
    index: &'a Index,
    /// Entries by call, each once.
    entries: HashMap<u64, Vec<Entry>>,
    /// Entries of this run's sessions for a record that was never sent.
    strays: HashMap<String, String>,
    read: u64,
    wrong: u64,
}

impl<'a> Money<'a> {
    pub fn new(place: &'static str, index: &'a Index) -> Self {
        Self { place, index, entries: HashMap::new(), strays: HashMap::new(), read: 0, wrong: 0 }
    }

    /// Different entries of this run so far.
    pub fn read(&self) -> u64 {
        self.read
    }

    pub fn take_record(&mut self, record: &TopicRecord, findings: &mut Findings) {
        let Ok(rated) = v1::RatedCdr::decode(record.value.clone()) else { return };
        let is_ours = self.index.sessions.contains_key(&rated.session_id);
        if is_ours && (rated.entry_id != record.ce_id || record.key != rated.record_id.as_bytes()) {
            self.wrong += 1;
            findings.wrong(self.place, rated.record_id.clone(), "ce_id or key");
        }
        self.take(rated.into(), findings);
    }

    pub fn take(&mut self, entry: Entry, findings: &mut Findings) {
        let call = parse_id(&entry.record_id).and_then(|id| self.index.records.get(&id)).copied();
        let Some(call) = call else {
            if self.index.sessions.contains_key(&entry.session_id) {
                self.read += u64::from(self.strays.insert(entry.id, entry.record_id).is_none());
            }
            return;
        };
        let entries = self.entries.entry(call).or_default();
        match entries.iter().find(|known| known.id == entry.id) {
            Some(known) if *known == entry => {}
            Some(_) => {
                self.wrong += 1;
                findings.wrong(self.place, entry.record_id, "one entry_id, two contents");
            }
            None => {
                self.read += 1;
                entries.push(entry);
            }
        }
    }

    /// Whether this record must be charged: acknowledged, or in the topic without an answer.
    fn must_be(&self, call: u64, records: &Records<'_>) -> bool {
        let part = Part { call, part: CDR };
        self.index.outcome(part) == Some(Outcome::Acknowledged) || records.is_there(part)
    }

    /// Records that must be charged, and are not yet.
    pub fn missing(&self, records: &Records<'_>) -> u64 {
        let is_missing = |call: &u64| self.must_be(*call, records) && self.in_force(*call) < 1;
        (0..self.index.calls()).filter(is_missing).count() as u64
    }

    /// Charges less reversals.
    fn in_force(&self, call: u64) -> i64 {
        let entries = self.entries.get(&call).map_or(&[][..], Vec::as_slice);
        entries.iter().map(|entry| if entry.is_reversal { -1 } else { 1 }).sum()
    }

    pub fn judge(
        &self,
        options: &Options,
        records: &Records<'_>,
        findings: &mut Findings,
    ) -> (Tally, Sums) {
        let mut tally = Tally { place: self.place, wrong: self.wrong, ..Tally::default() };
        let mut sums = Sums::default();
        for number in 0..self.index.calls() {
            let entries = self.entries.get(&number).map_or(&[][..], Vec::as_slice);
            let must_be = self.must_be(number, records);
            if !must_be && entries.is_empty() {
                continue;
            }
            let call = self.index.call(number);
            let charge = expect::charge(&call, options.price);
            sums.found += entries.iter().map(|entry| entry.amount_micros).sum::<i64>();
            sums.expected += charge.amount_micros;
            tally.expected += u64::from(must_be);
            tally.unknown_present += u64::from(!must_be);
            let in_force = self.in_force(number);
            if in_force < 1 {
                tally.lost += 1;
                let id = expect::cdr(&call).record_id;
                findings.lost(self.place, id, &format!("no charge in force for call {number}"));
                continue;
            }
            tally.found += u64::from(must_be);
            if in_force > 1 {
                tally.duplicated += 1;
                let id = expect::cdr(&call).record_id;
                findings.duplicated(self.place, id, &format!("{in_force} charges in force"));
                continue;
            }
            let wrong = compare(entries, &call, &charge, options);
            if !wrong.is_empty() {
                tally.wrong += 1;
                findings.wrong(self.place, expect::cdr(&call).record_id, &wrong.join(", "));
            }
        }
        for record_id in self.strays.values() {
            tally.duplicated += 1;
            findings.duplicated(
                self.place,
                record_id.clone(),
                "a charge for another record_id of a call that has one already",
            );
        }
        (tally, sums)
    }
}

/// Names what is wrong with the charge in force.
fn compare(
    entries: &[Entry],
    call: &crate::script::Call,
    expected: &Charge,
    options: &Options,
) -> Vec<String> {
    let is_reversed = |entry: &Entry| {
        entries.iter().any(|other| other.is_reversal && other.revision == entry.revision)
    };
    let Some(charge) = entries.iter().find(|it| !it.is_reversal && !is_reversed(it)) else {
        return vec!["reversals do not name the charges they take back".to_owned()];
    };
    let mut wrong = Vec::new();
    let mut check = |is_right: bool, field: &str| {
        if !is_right {
            wrong.push(field.to_owned());
        }
    };
    if charge.status != "rated" {
        return vec![format!("status is {}", charge.status)];
    }
    let total: i64 = entries.iter().map(|entry| entry.amount_micros).sum();
    check(charge.event_id == expect::cdr(call).event_id, "event_id");
    check(charge.amount_micros == expected.amount_micros, "amount_micros");
    let is_settled = entries.len() == 1 || total == expected.amount_micros;
    check(is_settled, "sum of charges and reversals");
    check(charge.currency == options.currency, "currency");
    check(charge.app_key == call.app_key, "app_key");
    check(charge.session_id == call.session_id, "session_id");
    for leg in &expected.legs {
        let side = side_name(leg.side);
        let found = charge.legs.iter().find(|found| found.side == side);
        check(found.is_some_and(|it| it.seconds == leg.seconds), &format!("legs.{side}.seconds"));
        check(
            found.is_some_and(|it| it.minutes == leg.minutes),
            &format!("legs.{side}.billed_minutes"),
        );
        check(
            found.is_some_and(|it| it.amount_micros == leg.amount_micros),
            &format!("legs.{side}.amount_micros"),
        );
    }
    let is_expected = |side: &str| expected.legs.iter().any(|leg| side_name(leg.side) == side);
    let has_more = charge
        .legs
        .iter()
        .any(|leg| !is_expected(&leg.side) && (leg.minutes != 0 || leg.amount_micros != 0));
    check(!has_more, "a leg that nobody answered");
    let sides: Vec<_> = charge.legs.iter().map(|leg| leg.side.as_str()).collect();
    let has_twice = sides.iter().enumerate().any(|(index, side)| sides[..index].contains(side));
    check(!has_twice, "a leg twice");
    wrong
}
