//! What is answered about one call.

use serde::Serialize;
use tollgate_schema::time::rfc3339;
use tollgate_stream::StoreError;

use super::answer::{Freshness, presence, side};
use crate::fold::{Event, EventSet, Expiry, Kind, Leg, Presence, Trust, fold};
use crate::reason::reason;
use crate::store::{CallRow, kind_name};

/// One call's whole timeline; in a look back as far as it had come. Instants in RFC 3339, UTC.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallAnswer {
    /// The session.
    pub session_id: String,
    /// Whether anybody is still in it.
    pub active: bool,
    /// Whether events or parties were left out because there were too many.
    pub capped: bool,
    /// Contents of records that were replaced by a revision.
    pub revisions: usize,
    /// Everything heard, in order.
    pub events: Vec<EventAnswer>,
    /// Who took part.
    pub legs: Vec<LegAnswer>,
    /// What the CDRs say; one as a rule.
    pub cdrs: Vec<CdrAnswer>,
    /// How it ended, when it has.
    pub end: Option<EndAnswer>,
    /// The instant this was derived for.
    pub as_of: Option<String>,
    /// How fresh it is.
    pub freshness: Freshness,
}

/// One event of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventAnswer {
    /// When it happened.
    pub at: Option<String>,
    /// When it was received first.
    pub received_at: Option<String>,
    /// `callin`, `callout`, `alerting`, `answer`, `collectInfo`, `disconnect`, `cdr` or
    /// `unknown`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The type as received, when it is unknown.
    pub type_text: Option<String>,
    /// The leg it belongs to: an index into `legs`.
    pub leg: Option<usize>,
    /// `a` or `b`.
    pub side: Option<&'static str>,
    /// The party, as the event names it.
    pub called: Option<String>,
    /// The number shown, or the caller of a callin.
    pub caller: Option<String>,
    /// Keys pressed.
    pub digits: Option<String>,
    /// Hang-up cause.
    pub state_code: Option<i32>,
    /// The platform's words for it.
    pub state_description: Option<String>,
    /// Who hung up.
    pub hung_up_by: Option<String>,
    /// Echo of what the customer sent.
    pub user_data: Option<String>,
    /// `verified`, `absent` or `failed`.
    pub authenticity: &'static str,
    /// Identity of the record.
    pub record_id: String,
    /// Identity of its content.
    pub event_id: String,
}

/// One leg of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LegAnswer {
    /// `a` or `b`.
    pub side: Option<&'static str>,
    /// The party.
    pub number: Option<String>,
    /// `idle` before it begins and once it is over.
    pub presence: &'static str,
    /// When it began.
    pub started_at: Option<String>,
    /// When it rang.
    pub alerting_at: Option<String>,
    /// When it was answered, where that is known.
    pub answered_at: Option<String>,
    /// When it ended or expired.
    pub ended_at: Option<String>,
    /// When it expires if nothing is heard.
    pub expires_at: Option<String>,
    /// Q.850 cause.
    pub cause: Option<i32>,
}

/// What a CDR says beside the legs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CdrAnswer {
    /// Identity of the record.
    pub record_id: String,
    /// The platform's id of the record.
    pub icid: Option<String>,
    /// Application.
    pub app_key: String,
    /// serviceType as received.
    pub service_type: Option<String>,
    /// End of the call, where it is stated.
    pub ended_at: Option<String>,
    /// ulFailReason.
    pub release_reason: Option<i32>,
    /// SIP status of the failure.
    pub sip_status: Option<i32>,
    /// Keys of a digit dialogue.
    pub ivr_path: Option<String>,
    /// Whether it was recorded.
    pub recorded: Option<bool>,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndAnswer {
    /// When.
    pub ended_at: Option<String>,
    /// Whether any leg was answered.
    pub answered: bool,
    /// stateCode of the disconnect.
    pub state_code: Option<i32>,
    /// ulFailReason of the CDR.
    pub release_reason: Option<i32>,
    /// SIP status of the failure.
    pub sip_status: Option<i32>,
    /// Group for reports.
    pub group: &'static str,
    /// In English.
    pub description: String,
}

/// Derives the answer from a stored call. With `past` it looks back: what is later than the instant
/// is left out, and the legs are as they stood then.
pub(super) fn timeline(
    row: &CallRow,
    expiry: &Expiry,
    as_of_ms: i64,
    past: bool,
    freshness: Freshness,
) -> Result<CallAnswer, StoreError> {
    let set = EventSet::decode(&row.events).map_err(|_| {
        StoreError::Refused("events of a call cannot be read; is a newer release writing?".into())
    })?;
    let (call, mut placed) = fold(&set, expiry);
    if past {
        placed.retain(|placed| placed.event.time_ms() <= as_of_ms);
    }
    let events: Vec<EventAnswer> = placed
        .iter()
        .map(|placed| {
            let side = placed.leg.and_then(|leg| side(call.legs[leg].side));
            event_answer(placed.event, placed.leg, side)
        })
        .collect();
    let then = |leg: &Leg| if past { leg.rewind(as_of_ms) } else { Some(leg.clone()) };
    let legs: Vec<LegAnswer> =
        call.legs.iter().map(|leg| leg_answer(leg, then(leg).as_ref(), as_of_ms)).collect();
    let begun: Vec<Leg> = call.legs.iter().filter_map(then).collect();
    let active = begun.iter().any(|leg| leg.is_active(as_of_ms));
    let cdrs = placed.iter().filter_map(|placed| cdr_answer(placed.event)).collect();
    let end = if active { None } else { end_answer(&begun) };
    Ok(CallAnswer {
        session_id: row.session_id.clone(),
        active,
        capped: call.capped,
        revisions: set.revisions(),
        events,
        legs,
        cdrs,
        end,
        as_of: rfc3339(as_of_ms),
        freshness,
    })
}

fn event_answer(event: &Event, leg: Option<usize>, side: Option<&'static str>) -> EventAnswer {
    EventAnswer {
        at: rfc3339(event.time_ms()),
        received_at: rfc3339(event.received_ms),
        kind: kind_name(event.kind()),
        type_text: event.type_text.clone(),
        leg,
        side,
        called: event.called.clone(),
        caller: event.caller.clone(),
        digits: event.digits.clone(),
        state_code: event.state_code,
        state_description: event.state_description.clone(),
        hung_up_by: event.hung_up_by.clone(),
        user_data: event.user_data.clone(),
        authenticity: match event.trust() {
            Trust::Failed => "failed",
            Trust::Absent => "absent",
            Trust::Verified => "verified",
        },
        record_id: hex::encode(&event.record_id),
        event_id: hex::encode(&event.event_id),
    }
}

fn cdr_answer(event: &Event) -> Option<CdrAnswer> {
    let cdr = event.cdr.as_deref().filter(|_| event.kind() == Kind::Cdr)?;
    Some(CdrAnswer {
        record_id: hex::encode(&event.record_id),
        icid: cdr.icid.clone(),
        app_key: cdr.app_key.clone(),
        service_type: cdr.service_type.clone(),
        ended_at: event.stated_end_ms().and_then(rfc3339),
        release_reason: cdr.release_reason,
        sip_status: cdr.sip_status,
        ivr_path: cdr.ivr_path.clone(),
        recorded: cdr.recorded,
    })
}

/// Of a leg that had not begun by then, only whose it is.
fn leg_answer(leg: &Leg, then: Option<&Leg>, as_of_ms: i64) -> LegAnswer {
    let on = then.filter(|leg| leg.is_active(as_of_ms));
    let over = then.filter(|leg| !leg.is_active(as_of_ms));
    LegAnswer {
        side: side(leg.side),
        number: leg.number.clone(),
        presence: presence(on.map_or(Presence::Idle, |leg| leg.engagement().0)),
        started_at: then.and_then(|leg| leg.started_ms).and_then(rfc3339),
        alerting_at: then.and_then(|leg| leg.alerting_ms).and_then(rfc3339),
        answered_at: then.and_then(|leg| leg.answered_ms).and_then(rfc3339),
        ended_at: over.and_then(|leg| rfc3339(leg.until_ms)),
        expires_at: on.and_then(|leg| rfc3339(leg.until_ms)),
        cause: then.and_then(|leg| leg.cause),
    }
}

/// By the leg that went wrong, if one did: it has the cause.
fn end_answer(legs: &[Leg]) -> Option<EndAnswer> {
    let failed = legs.iter().rev().find(|leg| !leg.was_answered());
    let leg = failed.or(legs.last())?;
    let (group, description) = reason(leg);
    Some(EndAnswer {
        ended_at: legs.iter().map(|leg| leg.until_ms).max().and_then(rfc3339),
        answered: legs.iter().any(Leg::was_answered),
        state_code: leg.state_code,
        release_reason: leg.release_reason,
        sip_status: leg.sip_status,
        group: group.as_str(),
        description,
    })
}
