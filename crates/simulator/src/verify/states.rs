//! What every number is doing after all.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::findings::Findings;
use super::index::Index;
use super::records::Records;
use crate::evidence::{NumberLastCall, NumberState};
use crate::expect::{self, Known, LastCall, State, side_name, state};
use crate::journal::{CDR, Part};
use crate::report::Tally;
use crate::script::Call;

/// The numbers of a run, until each is judged.
pub(super) struct States<'a> {
    index: &'a Index,
    records: &'a Records<'a>,
    is_alone: bool,
    verdicts: BTreeMap<&'a str, Verdict>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Right,
    NotJudged,
    /// What differs, and the record it is about.
    Wrong(String, String),
}

impl<'a> States<'a> {
    pub fn new(index: &'a Index, records: &'a Records<'a>, is_alone: bool) -> Self {
        let unasked = || Verdict::Wrong("no answer".to_owned(), String::new());
        let verdicts = index.numbers.keys().map(|number| (number.as_str(), unasked())).collect();
        Self { index, records, is_alone, verdicts }
    }

    /// Numbers whose answers were not right so far.
    pub fn open(&self) -> Vec<String> {
        let is_open = |(_, verdict): &(&&str, &Verdict)| matches!(verdict, Verdict::Wrong(..));
        self.verdicts.iter().filter(is_open).map(|(number, _)| (*number).to_owned()).collect()
    }

    /// Compares answers given at an instant, in seconds since 1970.
    pub fn compare(&mut self, answers: &[NumberState], now: i64) {
        for answer in answers {
            let Some((number, calls)) = self.index.numbers.get_key_value(&answer.number) else {
                continue;
            };
            let verdict = self.judge_number(number, calls, answer, now);
            self.verdicts.insert(number.as_str(), verdict);
        }
    }

    fn judge_number(&self, number: &str, calls: &[u64], answer: &NumberState, now: i64) -> Verdict {
        let calls = self.that_matter(calls);
        let known: Vec<Known<'_>> = calls.iter().map(|call| self.known(call)).collect();
        let Some(expected) = state(number, &known, now) else { return Verdict::NotJudged };
        let is_foreign = |session: &str| !self.index.sessions.contains_key(session);
        let last_ended = expected.last_calls.first().map(|last| last.ended_at);
        let has_foreign_last = answer.last_call.as_ref().is_some_and(|last| {
            let ended = last.ended_at.map(Timestamp::as_second);
            is_foreign(&last.session_id) && ended >= last_ended
        });
        if has_foreign_last || answer.calls.iter().any(|call| is_foreign(&call.session_id)) {
            if self.is_alone {
                return Verdict::Wrong("a session that was never sent".to_owned(), String::new());
            }
            // Another run calls the same numbers.
            return Verdict::NotJudged;
        }
        let wrong = differences(&expected, answer);
        if wrong.is_empty() {
            return Verdict::Right;
        }
        let about = expected.last_calls.first().map(|it| it.session_id.as_str());
        let about = about.or(calls.first().map(|call| call.session_id.as_str()));
        let record = calls
            .iter()
            .find(|call| Some(call.session_id.as_str()) == about)
            .map(|call| expect::cdr(call).record_id)
            .unwrap_or_default();
        Verdict::Wrong(wrong.join(", "), record)
    }

    /// Of the calls that are over by their record only those that ended last decide anything.
    fn that_matter(&self, calls: &[u64]) -> Vec<Call> {
        let is_over = |call: &u64| self.records.is_there(Part { call: *call, part: CDR });
        let last = calls.iter().filter(|call| is_over(call)).map(|call| self.index.ends(*call));
        let last = last.max();
        calls
            .iter()
            .filter(|call| !is_over(call) || Some(self.index.ends(**call)) == last)
            .map(|call| self.index.call(*call))
            .collect()
    }

    fn known<'b>(&self, call: &'b Call) -> Known<'b> {
        let is_there = |part: u8| self.records.is_there(Part { call: call.index, part });
        let statuses = (0..call.statuses.len()).map(|number| is_there(number as u8)).collect();
        Known { call, statuses, cdr: is_there(CDR) }
    }

    pub fn judge(&self, findings: &mut Findings) -> Tally {
        let mut tally = Tally { place: "states", ..Tally::default() };
        for verdict in self.verdicts.values() {
            match verdict {
                Verdict::Right => {
                    tally.expected += 1;
                    tally.found += 1;
                }
                Verdict::NotJudged => tally.not_judged += 1,
                Verdict::Wrong(detail, record) => {
                    tally.expected += 1;
                    tally.wrong += 1;
                    findings.wrong("states", record.clone(), detail);
                }
            }
        }
        tally
    }
}

/// Names what differs.
fn differences(expected: &State, answer: &NumberState) -> Vec<String> {
    let mut wrong = Vec::new();
    if answer.presence != expected.presence.name() {
        wrong.push(format!("presence is {}, not {}", answer.presence, expected.presence.name()));
    }
    if expected.last_calls.is_empty() {
        return wrong;
    }
    let Some(last) = &answer.last_call else {
        wrong.push("last_call".to_owned());
        return wrong;
    };
    match expected.last_calls.iter().find(|call| call.session_id == last.session_id) {
        Some(call) => wrong.extend(differences_of_call(call, last)),
        None => wrong.push("last_call.session_id".to_owned()),
    }
    wrong
}

fn differences_of_call(expected: &LastCall, found: &NumberLastCall) -> Vec<String> {
    let side = found.side.as_deref().unwrap_or_default();
    let checks = [
        (side.eq_ignore_ascii_case(side_name(expected.side)), "side"),
        (found.ended_at.map(Timestamp::as_second) == Some(expected.ended_at), "ended_at"),
        (found.answered == expected.answered, "answered"),
        (found.state_code == expected.state_code, "state_code"),
        (found.release_reason == expected.release_reason, "release_reason"),
        (found.cause == expected.cause, "cause"),
        (found.sip_status == expected.sip_status, "sip_status"),
    ];
    checks
        .into_iter()
        .filter(|(is_right, _)| !is_right)
        .map(|(_, field)| format!("last_call.{field}"))
        .collect()
}
