//! Status notifications as they are sent (P 4).

use serde_json::{Value, json};

use super::call::{Call, Delivery};
use super::style::{Object, write};
use super::{Leg, Party, words};
use crate::Service;

/// What a status says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Callout,
    Alerting,
    Answer,
    CollectInfo(String),
    Disconnect,
    /// A type that no page documents.
    Unknown(&'static str),
}

impl Kind {
    /// eventType as documented.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Callout => "callout",
            Self::Alerting => "alerting",
            Self::Answer => "answer",
            Self::CollectInfo(_) => "collectInfo",
            Self::Disconnect => "disconnect",
            Self::Unknown(name) => name,
        }
    }
}

/// One status notification of a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Status {
    pub kind: Kind,
    /// When it happened, seconds since 1970.
    pub at: i64,
    /// When it is sent, milliseconds since 1970.
    pub due_ms: i64,
    pub caller: Option<&'static str>,
    pub called: Option<String>,
    pub state_code: Option<i32>,
    pub description: Option<&'static str>,
    pub party: Option<Party>,
    pub delivery: Delivery,
}

impl Party {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Callee => "callee",
            Self::Platform => "platform",
        }
    }
}

impl Status {
    /// The body of the request.
    pub fn body(&self, call: &Call) -> String {
        let mut info = Object::new(call.style);
        info.text("sessionId", &call.session_id);
        info.time("timestamp", self.at);
        info.optional_text("caller", self.caller);
        info.optional_text("called", self.called.as_deref());
        if let Kind::CollectInfo(keys) = &self.kind {
            info.text("digitInfo", keys);
        }
        info.optional_text("userData", call.user_data.as_deref());
        info.optional_text("partyType", self.party.map(Party::name));
        if let Some(code) = self.state_code {
            info.integer("stateCode", code);
        }
        info.optional_text("stateDesc", self.description);
        info.unknown_fields();
        let body: Value = json!({"eventType": self.kind.name(), "statusInfo": info.value()});
        write(&body, call.style)
    }
}

/// What of the statuses was drawn beforehand.
pub(super) struct Draws {
    /// Verification and notification: answer and the like carry no numbers.
    pub bare: bool,
    /// The disconnect has no code.
    pub no_code: bool,
    /// The customer asked who hung up.
    pub party: bool,
    pub missing_alerting: bool,
    pub missing_disconnect: bool,
    pub two_disconnects: bool,
    pub unknown_event_type: bool,
    pub out_of_order: Option<u32>,
    pub cdr_before_disconnect: bool,
}

/// The statuses of a call in the order in which they happen.
pub(super) fn statuses(
    call: &Call,
    draws: &Draws,
    due_ms: impl Fn(i64) -> i64,
    delivery: impl Fn(usize) -> Delivery,
) -> Vec<Status> {
    let mut made = Vec::new();
    let a = Some(call.number_a.as_str());
    let b = call.number_b.as_deref();
    let shown_to_a = Some(words::SHOWN_TO_A);
    let mut add = |kind: Kind, offset: i64, caller, called: Option<&str>| {
        made.push(Status {
            kind,
            at: call.begins_at + offset,
            due_ms: due_ms(offset),
            caller,
            called: called.map(str::to_owned),
            state_code: None,
            description: None,
            party: None,
            delivery: Delivery::Plain,
        });
    };

    if let Some(leg) = &call.course.a {
        add_leg(&mut add, leg, shown_to_a, a, draws.missing_alerting);
    }
    if draws.unknown_event_type {
        let at = call.course.a.map_or(0, |leg| leg.answered.unwrap_or(leg.started));
        add(Kind::Unknown("playStart"), at, shown_to_a, a);
    }
    if let (Some(leg), Some(_)) = (&call.course.b, b) {
        add_leg(&mut add, leg, Some(words::SHOWN_TO_B), b, draws.missing_alerting);
    }
    for (at, keys) in &call.course.keys {
        add(Kind::CollectInfo(keys.clone()), *at, None, None);
    }
    let ends = call.course.ends;
    let pair = match b {
        Some(_) if call.course.b.is_some() => (Some(words::SHOWN_TO_B), b),
        _ => (shown_to_a, a),
    };
    if !draws.missing_disconnect {
        add(Kind::Disconnect, ends, pair.0, pair.1);
    }
    if draws.two_disconnects {
        // The other leg at the same instant, or the same leg a second later: never the same record.
        let later = i64::from(pair.1 == a);
        add(Kind::Disconnect, ends + later, shown_to_a, a);
    }
    if draws.bare && call.service != Service::Callback {
        for status in made.iter_mut().filter(|it| it.kind == Kind::Answer) {
            (status.caller, status.called) = (None, None);
        }
    }
    finish(&mut made, call, draws, delivery);
    made
}

/// The statuses of one leg.
fn add_leg(
    add: &mut impl FnMut(Kind, i64, Option<&'static str>, Option<&str>),
    leg: &Leg,
    shown: Option<&'static str>,
    called: Option<&str>,
    missing_alerting: bool,
) {
    add(Kind::Callout, leg.started, shown, called);
    if let Some(at) = leg.alerting.filter(|_| !missing_alerting) {
        add(Kind::Alerting, at, shown, called);
    }
    if let Some(at) = leg.answered {
        add(Kind::Answer, at, shown, called);
    }
}

/// Codes, ways of delivery, and what is sent at another time than its own.
fn finish(made: &mut [Status], call: &Call, draws: &Draws, delivery: impl Fn(usize) -> Delivery) {
    let codes = call.course.ending.codes();
    for (index, status) in made.iter_mut().enumerate() {
        status.delivery = delivery(index);
        if status.kind == Kind::Disconnect {
            if !draws.no_code {
                status.state_code = Some(codes.state);
                status.description = Some(codes.description);
            }
            if draws.party && call.service == Service::Callback {
                status.party = Some(call.course.ending.party());
            }
            if draws.cdr_before_disconnect {
                status.due_ms += LATE_MS;
            }
        }
    }
    if let Some(draw) = draws.out_of_order
        && made.len() > 1
    {
        let index = draw as usize % (made.len() - 1);
        // Later than its own time in any case: nothing is told before it happens.
        made[index].due_ms = made[index].due_ms.max(made[index + 1].due_ms) + OVERTAKEN_MS;
    }
}

/// How much later than usual a disconnect comes that the CDR overtakes: more than a CDR waits for
/// others to be merged with.
const LATE_MS: i64 = 3_000;
/// How long after the next status an overtaken one comes.
const OVERTAKEN_MS: i64 = 100;
