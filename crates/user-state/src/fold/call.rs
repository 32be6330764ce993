//! The fold: what a call's events say about its legs.

use super::place::{Draft, Placement};
use super::{Event, EventSet, Kind, LegSide};

/// How long a call lives after its last event when no end is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// A leg that is being called or rings, milliseconds.
    pub unanswered_ms: i64,
    /// An answered leg, milliseconds.
    pub answered_ms: i64,
}

/// A call as its events tell it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Call {
    /// The legs, in order of appearance.
    pub legs: Vec<Leg>,
    /// Time of the latest event.
    pub last_event_ms: i64,
    /// Whether a disconnect or a CDR has been seen.
    pub ended: bool,
    /// Whether events or parties were left out for a cap.
    pub capped: bool,
}

/// One party's part in a call. Instants in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Which leg; unspecified beyond the two that a call has.
    pub side: LegSide,
    /// The party, where an event or the CDR names it.
    pub number: Option<String>,
    /// When the platform began to call it, or it called in.
    pub started_ms: Option<i64>,
    /// When it rang.
    pub alerting_ms: Option<i64>,
    /// When it answered, where that is known; of a party that called in, when the other answered.
    pub answered_ms: Option<i64>,
    /// Whether the end has been heard of.
    pub ended: bool,
    /// The end; while none is heard of, the instant at which the leg expires.
    pub until_ms: i64,
    /// stateCode of the disconnect.
    pub state_code: Option<i32>,
    /// ulFailReason of the CDR.
    pub release_reason: Option<i32>,
    /// Q.850 cause of this leg.
    pub cause: Option<i32>,
    /// SIP status of the failure.
    pub sip_status: Option<i32>,
}

/// An event of a call and the index of the leg it was placed on.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// The event.
    pub event: &'a Event,
    /// Index into [`Call::legs`].
    pub leg: Option<usize>,
}

/// Derives a call from its events.
///
/// A call is over once a disconnect or a CDR is among them, whatever else is: a session never
/// starts again, and a stray answer must not keep a phone busy for a day. One disconnect ends
/// both legs; when there are two, each leg takes its own. Times, answers and the end come from
/// the CDR where there is one; an end that it does not state comes from the disconnect.
pub fn fold<'a>(set: &'a EventSet, expiry: &Expiry) -> (Call, Vec<Placed<'a>>) {
    let events = set.in_force();
    let mut placement = Placement::default();
    let cdrs: Vec<&Event> = events.iter().copied().filter(|it| it.kind() == Kind::Cdr).collect();
    for cdr in &cdrs {
        placement.seed(cdr);
    }
    for event in &events {
        placement.note(event);
    }
    let placed: Vec<Placed<'_>> =
        events.iter().map(|event| Placed { event, leg: placement.place(event) }).collect();
    placement.name_sides();

    let last_event_ms = events.iter().map(|event| event.time_ms()).max().unwrap_or_default();
    let ending = Ending {
        cdr: cdrs.last().copied(),
        disconnect: events.iter().copied().find(|event| event.kind() == Kind::Disconnect),
    };
    let mut legs: Vec<Leg> = placement.legs.iter().map(|draft| ending.leg(draft)).collect();
    answers_of_others(&placement.legs, &mut legs);
    for leg in legs.iter_mut().filter(|leg| !leg.ended) {
        let life =
            if leg.answered_ms.is_some() { expiry.answered_ms } else { expiry.unanswered_ms };
        leg.until_ms = last_event_ms.saturating_add(life);
    }
    let ended = ending.cdr.is_some() || ending.disconnect.is_some();
    let capped = set.is_capped() || placement.capped;
    (Call { legs, last_event_ms, ended, capped }, placed)
}

/// What ended the call.
struct Ending<'a> {
    cdr: Option<&'a Event>,
    disconnect: Option<&'a Event>,
}

impl Ending<'_> {
    fn leg(&self, draft: &Draft<'_>) -> Leg {
        let mut leg = Leg {
            side: draft.side,
            number: draft.number.map(str::to_owned),
            started_ms: draft.started_ms,
            alerting_ms: draft.alerting_ms,
            answered_ms: draft.answered_ms,
            ended: false,
            until_ms: 0,
            state_code: None,
            release_reason: None,
            cause: None,
            sip_status: None,
        };
        let disconnect = draft.disconnect.or(self.disconnect);
        if let Some(disconnect) = disconnect {
            leg.ended = true;
            leg.until_ms = disconnect.time_ms();
            leg.state_code = disconnect.state_code;
        }
        let source = draft.cdr.map(|(_, event)| event).or(self.cdr);
        if let Some((event, cdr)) = source.and_then(|event| Some((event, event.cdr.as_deref()?))) {
            leg.ended = true;
            // A CDR that states no end may count from its receipt, hours later.
            let heard = disconnect.map(Event::time_ms);
            leg.until_ms = event.stated_end_ms().or(heard).unwrap_or_else(|| event.time_ms());
            leg.release_reason = cdr.release_reason;
            leg.sip_status = cdr.sip_status;
        }
        if let Some((cdr_leg, event)) = draft.cdr {
            let end = event.time_ms();
            // An alerting time of another year has been seen; it must not break the record.
            let settle = |stated: Option<i64>, heard: Option<i64>| {
                stated.filter(|instant| *instant <= end).or(heard.filter(|_| event.is_incomplete()))
            };
            leg.started_ms = settle(cdr_leg.started_ms, draft.started_ms);
            leg.answered_ms = settle(cdr_leg.answered_ms, draft.answered_ms);
            leg.alerting_ms = settle(cdr_leg.alerting_ms, draft.alerting_ms)
                .filter(|instant| leg.started_ms.is_none_or(|started| started <= *instant));
            leg.cause = cdr_leg.cause;
        }
        leg
    }
}

/// What one leg says about the other. A party that called in is connected when the other side
/// answers. And the platform calls B only once A has answered, so that a B that is being called
/// tells of an answer that was lost, unless a CDR that could be read tells better.
fn answers_of_others(drafts: &[Draft<'_>], legs: &mut [Leg]) {
    let inbound = drafts.iter().position(|draft| draft.inbound);
    let side = |side: LegSide| drafts.iter().position(|draft| draft.side == side);
    if let Some(inbound) = inbound {
        let answered = legs
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != inbound)
            .filter_map(|(_, leg)| leg.answered_ms)
            .min();
        let own = legs[inbound].answered_ms;
        legs[inbound].answered_ms = own.into_iter().chain(answered).min();
        return;
    }
    let (Some(a), Some(b)) = (side(LegSide::A), side(LegSide::B)) else { return };
    let proves_nothing = drafts[a].cdr.is_none_or(|(_, event)| event.is_incomplete());
    if proves_nothing && legs[a].answered_ms.is_none() {
        let b = &legs[b];
        legs[a].answered_ms =
            [b.started_ms, b.alerting_ms, b.answered_ms].into_iter().flatten().min();
    }
}
