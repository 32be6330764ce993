//! The pure step: from a record of call-events or cdrs to an event of a call.

use prost::Message;
use tollgate_schema::ids::{EventId, RecordId};
use tollgate_schema::time::proto_to_millis;
use tollgate_schema::topics::{CALL_EVENTS, CDRS};
use tollgate_schema::v1;
use tollgate_stream::{Decode, Incoming, Rejection};

use crate::fold::{Cdr, CdrLeg, Event, Kind, Trust};
use crate::keys::{Key, session_key};
use crate::metrics;

/// Longest number that is tracked, in bytes; the platform's have at most 128.
pub const MAX_NUMBER_BYTES: usize = 256;
/// Longest session id that is shown whole, in bytes; longer ones are cut, their identity is not.
/// Each leg has a copy of its own.
pub const MAX_SESSION_BYTES: usize = 1_024;
/// Longest userData that is shown whole, in bytes: 256 characters.
pub const MAX_USER_DATA_BYTES: usize = 1_024;
/// Longest other text that is shown whole, in bytes.
pub const MAX_TEXT_BYTES: usize = 256;

/// One event and the call it belongs to.
#[derive(Clone, PartialEq)]
pub struct Item {
    /// Identity of the session.
    pub session_key: Key,
    /// The session id, for people; cut where it is too long.
    pub session_id: String,
    /// The event.
    pub event: Event,
}

/// Decodes records of call-events and cdrs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Decoder;

impl Decode for Decoder {
    type Item = Item;

    fn decode(&self, record: &Incoming) -> Result<Item, Rejection> {
        let topic = &*record.partition.topic;
        let known = [CALL_EVENTS.name, CDRS.name].into_iter().find(|name| *name == topic);
        let decoded = match (&record.value, known) {
            (None, _) => Err(Rejection("value is missing: a tombstone has no meaning here".into())),
            (Some(value), Some(name)) if name == CDRS.name => decode_cdr(value),
            (Some(value), Some(_)) => decode_status(value),
            (Some(_), None) => Err(Rejection("topic is not one that user-state consumes".into())),
        };
        if decoded.is_err() {
            ::metrics::counter!(metrics::REJECTED.name, "topic" => known.unwrap_or("other"))
                .increment(1);
        }
        decoded
    }
}

fn decode_status(value: &[u8]) -> Result<Item, Rejection> {
    let status = v1::CallEvent::decode(value)
        .map_err(|_| Rejection("value is not a tollgate.v1.CallEvent".to_owned()))?;
    let kind = match status.r#type() {
        v1::EventType::Unspecified => Kind::Unknown,
        v1::EventType::Callin => Kind::Callin,
        v1::EventType::Callout => Kind::Callout,
        v1::EventType::Alerting => Kind::Alerting,
        v1::EventType::Answer => Kind::Answer,
        v1::EventType::CollectInfo => Kind::CollectInfo,
        v1::EventType::Disconnect => Kind::Disconnect,
    };
    let hung_up_by = match status.hung_up_by() {
        v1::Party::Unspecified => status.hung_up_by_text.map(|it| cut("hung_up_by", it)),
        v1::Party::Caller => Some("caller".to_owned()),
        v1::Party::Callee => Some("callee".to_owned()),
        v1::Party::Platform => Some("platform".to_owned()),
    };
    let event = Event {
        occurred_ms: status.occurred_at.as_ref().and_then(proto_to_millis),
        caller: status.caller.and_then(number),
        called: status.called.and_then(number),
        digits: status.digits.map(|it| cut("digits", it)),
        state_code: status.state_code,
        state_description: status.state_description.map(|it| cut("state_description", it)),
        hung_up_by,
        type_text: status.type_text.map(|it| cut("type", it)),
        user_data: status.user_data.map(|it| shorten("user_data", it, MAX_USER_DATA_BYTES)),
        ..head(&status.record_id, &status.event_id, kind, status.provenance.as_ref())?
    };
    Ok(item(status.session_id, event))
}

fn decode_cdr(value: &[u8]) -> Result<Item, Rejection> {
    let record = v1::CallDetailRecord::decode(value)
        .map_err(|_| Rejection("value is not a tollgate.v1.CallDetailRecord".to_owned()))?;
    let service = record.service_type();
    let private = matches!(service, v1::ServiceType::PrivateAx | v1::ServiceType::PrivateAxb);
    let head = head(&record.record_id, &record.event_id, Kind::Cdr, record.provenance.as_ref())?;
    let cdr = Cdr {
        a: record.a_leg.map(cdr_leg),
        b: record.b_leg.map(cdr_leg),
        inbound: private || record.dialled_number.is_some(),
        incomplete: !record.unreadable_fields.is_empty(),
        release_reason: record.release_reason,
        sip_status: record.sip_status,
        service_type: record.service_type_text.map(|it| cut("service_type", it)),
        app_key: cut("app_key", record.app_key),
        icid: record.icid.map(|it| cut("icid", it)),
        ivr_path: record.ivr_path.map(|it| cut("ivr_path", it)),
        recorded: record.recording.and_then(|recording| recording.recorded),
        dialled: record.dialled_number.and_then(number),
    };
    let ended = record.ended_at.or(record.failed_at);
    let event = Event {
        occurred_ms: ended.as_ref().and_then(proto_to_millis),
        user_data: record.user_data.map(|it| shorten("user_data", it, MAX_USER_DATA_BYTES)),
        cdr: Some(Box::new(cdr)),
        ..head
    };
    Ok(item(record.session_id, event))
}

fn cdr_leg(leg: v1::Leg) -> CdrLeg {
    let millis =
        |instant: Option<prost_types::Timestamp>| instant.as_ref().and_then(proto_to_millis);
    CdrLeg {
        number: leg.number.and_then(number),
        number_shown: leg.number_shown.and_then(number),
        started_ms: millis(leg.started_at),
        alerting_ms: millis(leg.alerting_at),
        answered_ms: millis(leg.answered_at),
        cause: leg.cause,
    }
}

/// What a status and a CDR have in common.
fn head(
    record_id: &str,
    event_id: &str,
    kind: Kind,
    provenance: Option<&v1::Provenance>,
) -> Result<Event, Rejection> {
    let record_id = RecordId::from_hex(record_id)
        .map_err(|_| Rejection("record_id is not 32 hex digits".to_owned()))?;
    let event_id = EventId::from_hex(event_id)
        .map_err(|_| Rejection("event_id is not 32 hex digits".to_owned()))?;
    let received_ms = provenance
        .and_then(|it| it.received_at.as_ref())
        .and_then(proto_to_millis)
        .ok_or_else(|| Rejection("provenance.received_at is missing".to_owned()))?;
    let trust = match provenance.map_or(v1::Authenticity::Unspecified, v1::Provenance::authenticity)
    {
        v1::Authenticity::Unspecified | v1::Authenticity::Absent => Trust::Absent,
        v1::Authenticity::Failed => Trust::Failed,
        v1::Authenticity::VerifiedP1
        | v1::Authenticity::VerifiedP2
        | v1::Authenticity::VerifiedP3
        | v1::Authenticity::VerifiedP4
        | v1::Authenticity::VerifiedP5 => Trust::Verified,
    };
    Ok(Event {
        record_id: record_id.as_bytes().to_vec(),
        event_id: event_id.as_bytes().to_vec(),
        kind: kind.into(),
        received_ms,
        trust: trust.into(),
        ..Event::default()
    })
}

fn item(session_id: String, event: Event) -> Item {
    let session_key = session_key(&session_id, &event.record_id);
    Item { session_key, session_id: shorten("session_id", session_id, MAX_SESSION_BYTES), event }
}

/// A number, unless it is none: empty, or too long to be one.
fn number(text: String) -> Option<String> {
    if text.len() > MAX_NUMBER_BYTES {
        ::metrics::counter!(metrics::CUT.name, "field" => "number").increment(1);
        return None;
    }
    Some(text).filter(|text| !text.is_empty())
}

/// A text for people.
fn cut(field: &'static str, text: String) -> String {
    shorten(field, text, MAX_TEXT_BYTES)
}

fn shorten(field: &'static str, mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        ::metrics::counter!(metrics::CUT.name, "field" => field).increment(1);
        truncate(&mut text, bytes);
    }
    text
}

/// Cuts a text to so many bytes at most, and gives the memory of the rest back.
pub(crate) fn truncate(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
    text.shrink_to_fit();
}
