//! Topics call-events, cdrs and quarantine.

use prost::Message as _;
use tollgate_schema::v1;

use super::diff;
use super::findings::Findings;
use super::index::Index;
use crate::evidence::TopicRecord;
use crate::expect::{self, parse_id};
use crate::journal::{CDR, MALFORMED, Outcome, PARTS, Part};
use crate::report::Tally;
use crate::script::{Call, Kind, Status};

const CALL_EVENTS: &str = "call-events";
const CDRS: &str = "cdrs";
const QUARANTINE: &str = "quarantine";

/// What of this run the three topics hold.
pub(super) struct Records<'a> {
    index: &'a Index,
    is_alone: bool,
    /// How often each part was found; 255 stands for more.
    found: Vec<[u8; PARTS]>,
    /// Of this run, and under an id that nothing was sent with.
    strays: Vec<Stray>,
    wrong: [u64; 3],
    read: u64,
    /// The call that was looked at last: a call's records come close together.
    recent: Option<Call>,
}

/// A record of this run that has another id than any that was sent.
struct Stray {
    place: usize,
    record_id: String,
    /// The part that it tells of, if one can be found.
    part: Option<Part>,
}

impl<'a> Records<'a> {
    pub fn new(index: &'a Index, is_alone: bool) -> Self {
        Self {
            index,
            is_alone,
            found: vec![[0; PARTS]; index.calls() as usize],
            strays: Vec::new(),
            wrong: [0; 3],
            read: 0,
            recent: None,
        }
    }

    /// Records of this run so far, repeats included.
    pub fn read(&self) -> u64 {
        self.read
    }

    pub fn is_there(&self, part: Part) -> bool {
        self.count(part) > 0
    }

    fn count(&self, part: Part) -> u8 {
        let call = self.found.get(part.call as usize);
        call.and_then(|parts| parts.get(usize::from(part.part))).copied().unwrap_or_default()
    }

    /// Acknowledged and not there yet.
    pub fn missing(&self) -> u64 {
        let mut missing = 0;
        for call in 0..self.index.calls() {
            for (part, outcome) in self.index.parts_of(call) {
                let is_there = self.is_there(Part { call, part: *part });
                missing += u64::from(*outcome == Outcome::Acknowledged && !is_there);
            }
        }
        missing
    }

    pub fn take(&mut self, topic: &str, record: &TopicRecord, findings: &mut Findings) {
        match topic {
            CALL_EVENTS => self.take_event(record, findings),
            CDRS => self.take_cdr(record, findings),
            _ => self.take_quarantined(record, findings),
        }
    }

    fn call(&mut self, number: u64) -> Call {
        match self.recent.take() {
            Some(call) if call.index == number => call,
            _ => self.index.call(number),
        }
    }

    fn note(&mut self, part: Part) {
        self.read += 1;
        let call = self.found.get_mut(part.call as usize);
        if let Some(count) = call.and_then(|parts| parts.get_mut(usize::from(part.part))) {
            *count = count.saturating_add(1);
        }
    }

    fn is_wrong(&mut self, place: usize, id: String, detail: &str, findings: &mut Findings) {
        self.wrong[place] += 1;
        findings.wrong([CALL_EVENTS, CDRS, QUARANTINE][place], id, detail);
    }

    fn take_event(&mut self, record: &TopicRecord, findings: &mut Findings) {
        let part = parse_id(&record.ce_id).and_then(|id| self.index.parts.get(&id)).copied();
        let Ok(mut event) = v1::CallEvent::decode(record.value.clone()) else {
            if part.is_some() {
                let detail = "the message cannot be decoded";
                self.is_wrong(0, record.ce_id.clone(), detail, findings);
            }
            return;
        };
        let Some(part) = part.filter(|part| part.part < CDR) else {
            if let Some(number) = self.index.sessions.get(&event.session_id).copied() {
                self.read += 1;
                let call = self.call(number);
                let part = natural_part(&call, &event);
                self.strays.push(Stray { place: 0, record_id: event.record_id, part });
                self.recent = Some(call);
            }
            return;
        };
        self.note(part);
        let call = self.call(part.call);
        let provenance = event.provenance.take();
        if let Some(status) = call.statuses.get(usize::from(part.part)) {
            let expected = expect::call_event(&call, status);
            let application = if self.index.is_named(&call) { call.app_key.as_str() } else { "" };
            let mut wrong = envelope(record, &event.session_id, provenance, application);
            if event != expected {
                wrong.push(diff::fields(&expected, &event));
            }
            if !wrong.is_empty() {
                self.is_wrong(0, expected.record_id, &wrong.join(", "), findings);
            }
        }
        self.recent = Some(call);
    }

    fn take_cdr(&mut self, record: &TopicRecord, findings: &mut Findings) {
        let part = parse_id(&record.ce_id).and_then(|id| self.index.parts.get(&id)).copied();
        let Ok(mut cdr) = v1::CallDetailRecord::decode(record.value.clone()) else {
            if part.is_some() {
                let detail = "the message cannot be decoded";
                self.is_wrong(1, record.ce_id.clone(), detail, findings);
            }
            return;
        };
        let Some(part) = part.filter(|part| part.part == CDR) else {
            if let Some(call) = self.index.sessions.get(&cdr.session_id).copied() {
                self.read += 1;
                let part = Some(Part { call, part: CDR });
                self.strays.push(Stray { place: 1, record_id: cdr.record_id, part });
            }
            return;
        };
        self.note(part);
        let call = self.call(part.call);
        let expected = expect::cdr(&call);
        let provenance = cdr.provenance.take();
        let mut wrong = envelope(record, &cdr.session_id, provenance, &call.app_key);
        if cdr != expected {
            wrong.push(diff::fields(&expected, &cdr));
        }
        if !wrong.is_empty() {
            self.is_wrong(1, expected.record_id, &wrong.join(", "), findings);
        }
        self.recent = Some(call);
    }

    fn take_quarantined(&mut self, record: &TopicRecord, findings: &mut Findings) {
        let Ok(found) = v1::Quarantined::decode(record.value.clone()) else { return };
        if !found.found_by.is_empty() {
            if self.is_alone || self.holds_a_session(&found) {
                self.read += 1;
                let detail =
                    format!("given up by {} as {}", found.found_by, found.reason().as_str_name());
                self.is_wrong(2, found.quarantine_id, &detail, findings);
            }
            return;
        }
        let part = parse_id(&record.ce_id).and_then(|id| self.index.parts.get(&id)).copied();
        let Some(part) = part.filter(|part| part.part == MALFORMED) else {
            if self.names_a_session(&found.content) {
                self.read += 1;
                let detail =
                    format!("readable, and quarantined as {}", found.reason().as_str_name());
                self.is_wrong(2, found.quarantine_id, &detail, findings);
            }
            return;
        };
        self.note(part);
        let call = self.call(part.call);
        let mut wrong = Vec::new();
        if call.malformed_item().as_deref().map(str::as_bytes) != Some(&found.content[..]) {
            wrong.push("content");
        }
        if found.reason() != v1::QuarantineReason::UnreadableRecord {
            wrong.push("reason");
        }
        if found.quarantine_id != record.ce_id {
            wrong.push("quarantine_id");
        }
        if !wrong.is_empty() {
            self.is_wrong(2, record.ce_id.clone(), &wrong.join(", "), findings);
        }
        self.recent = Some(call);
    }

    /// Whether a message that a consumer gave up is of this run.
    fn holds_a_session(&self, found: &v1::Quarantined) -> bool {
        let content = &found.content[..];
        let topic = found.source.as_ref().map_or("", |source| source.topic.as_str());
        let session = match topic {
            CALL_EVENTS => v1::CallEvent::decode(content).map(|it| it.session_id),
            CDRS => v1::CallDetailRecord::decode(content).map(|it| it.session_id),
            _ => v1::RatedCdr::decode(content).map(|it| it.session_id),
        };
        session.is_ok_and(|session| self.index.sessions.contains_key(&session))
    }

    /// Whether quarantined bytes are a record of this run, or a message of such.
    fn names_a_session(&self, content: &[u8]) -> bool {
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(content) else { return false };
        let items = json["feeLst"].as_array().into_iter().flatten();
        [&json, &json["statusInfo"]]
            .into_iter()
            .chain(items)
            .filter_map(|object| object["sessionId"].as_str())
            .any(|session| self.index.sessions.contains_key(session))
    }

    /// Sums up, and names what is lost or was never sent.
    pub fn judge(&self, findings: &mut Findings) -> [Tally; 3] {
        let mut tallies =
            [CALL_EVENTS, CDRS, QUARANTINE].map(|place| Tally { place, ..Tally::default() });
        for (tally, wrong) in tallies.iter_mut().zip(self.wrong) {
            tally.wrong = wrong;
        }
        let mut told_of = std::collections::HashSet::new();
        for stray in &self.strays {
            let tally = &mut tallies[stray.place];
            let id = stray.record_id.clone();
            match stray.part {
                // The only result for what was sent, under other ids than it should have.
                Some(part) if !self.is_there(part) && told_of.insert((part.call, part.part)) => {
                    tally.wrong += 1;
                    findings.wrong(tally.place, id, "record_id or event_id");
                }
                Some(_) => {
                    tally.duplicated += 1;
                    findings.duplicated(tally.place, id, "another result for one identity");
                }
                None => {
                    tally.wrong += 1;
                    findings.wrong(tally.place, id, "was never sent");
                }
            }
        }
        for call in 0..self.index.calls() {
            for (number, outcome) in self.index.parts_of(call) {
                let part = Part { call, part: *number };
                let place = match *number {
                    CDR => 1,
                    MALFORMED => 2,
                    _ => 0,
                };
                let is_told_of = told_of.contains(&(call, *number));
                self.judge_part(part, *outcome, is_told_of, &mut tallies[place], findings);
            }
        }
        tallies
    }

    fn judge_part(
        &self,
        part: Part,
        outcome: Outcome,
        is_told_of: bool,
        tally: &mut Tally,
        findings: &mut Findings,
    ) {
        let count = u64::from(self.count(part));
        tally.repeats += count.saturating_sub(1);
        match (outcome, count > 0) {
            (Outcome::Acknowledged, true) => {
                tally.expected += 1;
                tally.found += 1;
            }
            (Outcome::Acknowledged, false) => {
                tally.expected += 1;
                if !is_told_of {
                    tally.lost += 1;
                    let detail = format!("{} was acknowledged", self.describe(part));
                    findings.lost(tally.place, self.id(part), &detail);
                }
            }
            (Outcome::Unknown | Outcome::Refused, true) => tally.unknown_present += 1,
            (Outcome::Unknown, false) => tally.unknown_absent += 1,
            (Outcome::Refused, false) => tally.refused += 1,
            (Outcome::NotSent, false) => {}
            (Outcome::NotSent, true) => {
                tally.wrong += 1;
                findings.wrong(tally.place, self.id(part), "was never sent");
            }
        }
    }

    /// Its record_id; of what is unreadable the quarantine_id.
    pub fn id(&self, part: Part) -> String {
        let call = self.index.call(part.call);
        match part.part {
            CDR => expect::cdr(&call).record_id,
            MALFORMED => {
                let item = call.malformed_item().unwrap_or_default();
                hex::encode(expect::quarantine_id(item.as_bytes()))
            }
            number => match call.statuses.get(usize::from(number)) {
                Some(status) => expect::call_event(&call, status).record_id,
                None => String::new(),
            },
        }
    }

    /// What it is, for people.
    pub fn describe(&self, part: Part) -> String {
        let call = self.index.call(part.call);
        let kind = match part.part {
            CDR => "CDR",
            MALFORMED => "unreadable record",
            number => call.statuses.get(usize::from(number)).map_or("", |it| it.kind.name()),
        };
        format!("{kind} of call {}", part.call)
    }
}

/// Key, ids and provenance: what surrounds the content.
fn envelope(
    record: &TopicRecord,
    session_id: &str,
    provenance: Option<v1::Provenance>,
    application: &str,
) -> Vec<String> {
    let mut wrong = Vec::new();
    if record.key != session_id.as_bytes() {
        wrong.push("key".to_owned());
    }
    let provenance = provenance.unwrap_or_default();
    if provenance.received_at.is_none() {
        wrong.push("provenance.received_at".to_owned());
    }
    if provenance.edge_id.is_empty() {
        wrong.push("provenance.edge_id".to_owned());
    }
    if provenance.application != application {
        wrong.push("provenance.application".to_owned());
    }
    wrong
}

/// Which status an event tells of, by what it says rather than by its ids.
fn natural_part(call: &Call, event: &v1::CallEvent) -> Option<Part> {
    let at = event.occurred_at.as_ref().map(|at| at.seconds);
    let says_the_same = |status: &Status| {
        let digits = match &status.kind {
            Kind::CollectInfo(keys) => Some(keys),
            _ => None,
        };
        let kind = expect::call_event(call, status).r#type;
        kind == event.r#type
            && status.called == event.called
            && Some(status.at) == at
            && digits == event.digits.as_ref()
    };
    let number = call.statuses.iter().position(says_the_same)?;
    Some(Part { call: call.index, part: number as u8 })
}
