//! Status notifications (P 4).

use std::borrow::Cow;

use jiff::tz::Offset;
use tollgate_schema::ids::{self, RecordId, RecordKind, Rule};
use tollgate_schema::json_text::{JsonText, Kind};
use tollgate_schema::time::proto_from_millis;
use tollgate_schema::v1::{CallEvent, EventType, Party};

use crate::field::{Damage, Fields, name};
use crate::message;
use crate::names::Names;

/// Known members of statusInfo.
pub(crate) static NAMES: Names = Names::of(&[
    "callRelDirection",
    "called",
    "caller",
    "digitInfo",
    "notifyMode",
    "partyType",
    "sessionId",
    "stateCode",
    "stateDesc",
    "subscriptionId",
    "timestamp",
    "userData",
]);

/// The documented spellings.
const TYPES: [(&str, EventType); 6] = [
    ("callin", EventType::Callin),
    ("callout", EventType::Callout),
    ("alerting", EventType::Alerting),
    ("answer", EventType::Answer),
    ("collectInfo", EventType::CollectInfo),
    ("disconnect", EventType::Disconnect),
];

/// Reads a status notification. `body` is the whole of it, `event_type` and `info` are its
/// members as written. The event has its record id; event id and provenance are the caller's.
pub(crate) fn read(
    body: &str,
    event_type: JsonText<'_>,
    info: Option<JsonText<'_>>,
    zone: Offset,
) -> Result<(RecordId, CallEvent), Damage> {
    let type_text = message::event_type(event_type)?;
    let type_name = type_text.trim();
    let known = TYPES.iter().find(|(name, _)| type_name.eq_ignore_ascii_case(name));
    let mut fields = match info {
        None => Fields::none(zone),
        Some(info) if info.kind() == Kind::Object => Fields::of(info, &NAMES, zone),
        Some(info) => {
            let found = info.kind().name();
            return Err(Damage { field: "statusInfo", expected: "an object", found });
        }
    };

    let session_id = fields.text(name!("sessionId"))?.unwrap_or_default();
    let occurred_at = fields.time(name!("timestamp"))?;
    let called = fields.text(name!("called"))?;
    let is_collect_info = known.is_some_and(|(_, kind)| *kind == EventType::CollectInfo);
    let digits = fields.text_or_empty(name!("digitInfo"))?;
    // Only there "" is an answer: nothing was pressed.
    let digits = digits.filter(|digits| is_collect_info || !digits.is_empty());
    let (hung_up_by, hung_up_by_text) = hung_up_by(&mut fields)?;

    let event = CallEvent {
        session_id,
        r#type: known.map_or(EventType::Unspecified, |(_, kind)| *kind).into(),
        type_text: known.is_none().then(|| type_text.clone().into_owned()),
        occurred_at: occurred_at.map(proto_from_millis),
        caller: fields.text(name!("caller"))?,
        called,
        digits,
        state_code: fields.integer(name!("stateCode"))?,
        state_description: fields.text(name!("stateDesc"))?,
        hung_up_by: hung_up_by.into(),
        hung_up_by_text,
        user_data: fields.text(name!("userData"))?,
        subscription_id: fields.text(name!("subscriptionId"))?,
        notify_mode: fields.text(name!("notifyMode"))?,
        unreadable_fields: fields.into_unreadable(),
        original_json: body.to_owned(),
        ..CallEvent::default()
    };

    let type_name = known.map_or_else(
        || Cow::Owned(type_name.to_ascii_lowercase()),
        |(documented, _)| Cow::Borrowed(*documented),
    );
    Ok((identity(&event, &type_name, occurred_at), event))
}

/// The record's identity: the rules of P 2.5 in their order.
fn identity(event: &CallEvent, type_name: &str, occurred_at: Option<i64>) -> RecordId {
    let Some(instant) = occurred_at.filter(|_| !event.session_id.is_empty()) else {
        let bytes = event.original_json.as_bytes();
        return ids::record_id(RecordKind::Status, Rule::ByBytes, &[bytes]);
    };
    let is_collect_info = event.r#type() == EventType::CollectInfo;
    ids::record_id(
        RecordKind::Status,
        Rule::StatusByEvent,
        &[
            event.session_id.as_bytes(),
            type_name.as_bytes(),
            text(event.called.as_ref()),
            instant.to_string().as_bytes(),
            text(event.digits.as_ref().filter(|_| is_collect_info)),
        ],
    )
}

fn text(value: Option<&String>) -> &[u8] {
    value.map_or(&[], |text| text.as_bytes())
}

/// Who hung up: partyType of a callback (P 4.1), else callRelDirection of PrivateNumber (P 6.1).
/// What is not known is kept as text.
fn hung_up_by(fields: &mut Fields<'_>) -> Result<(Party, Option<String>), Damage> {
    let party_type = fields.text(name!("partyType"))?;
    let direction = fields.integer(name!("callRelDirection"))?;
    let by_type = party_type.as_deref().and_then(|text| match text.trim() {
        text if text.eq_ignore_ascii_case("caller") => Some(Party::Caller),
        text if text.eq_ignore_ascii_case("callee") => Some(Party::Callee),
        text if text.eq_ignore_ascii_case("platform") => Some(Party::Platform),
        _ => None,
    });
    if let Some(party) = by_type {
        return Ok((party, None));
    }
    Ok(match direction {
        Some(1) => (Party::Caller, party_type),
        Some(2) => (Party::Callee, party_type),
        Some(other) => (Party::Unspecified, party_type.or_else(|| Some(other.to_string()))),
        None => (Party::Unspecified, party_type),
    })
}

#[cfg(test)]
mod tests {
    use tollgate_schema::json_text::Json;

    use super::*;

    fn event(event_type: &str, info: &str) -> CallEvent {
        let json = |text| Json::parse(text).unwrap();
        let (event_type, info) = (json(event_type), json(info));
        read("{}", event_type.value(), Some(info.value()), Offset::UTC).unwrap().1
    }

    #[test]
    fn who_hung_up_is_read_from_party_type_then_from_the_release_direction() {
        let by = |info| {
            let event = event("\"disconnect\"", info);
            (event.hung_up_by(), event.hung_up_by_text)
        };
        assert_eq!(by(r#"{"partyType":"caller"}"#), (Party::Caller, None));
        assert_eq!(by(r#"{"partyType":"CALLEE"}"#), (Party::Callee, None));
        assert_eq!(by(r#"{"partyType":"platform"}"#), (Party::Platform, None));
        assert_eq!(by(r#"{"partyType":"sbc"}"#), (Party::Unspecified, Some("sbc".into())));
        assert_eq!(by(r#"{"callRelDirection":1}"#), (Party::Caller, None));
        assert_eq!(by(r#"{"callRelDirection":"2"}"#), (Party::Callee, None));
        assert_eq!(by(r#"{"callRelDirection":3}"#), (Party::Unspecified, Some("3".into())));
        assert_eq!(by("{}"), (Party::Unspecified, None));
    }

    #[test]
    fn empty_digits_are_an_answer_only_of_collect_info() {
        assert_eq!(event("\"collectInfo\"", r#"{"digitInfo":""}"#).digits, Some(String::new()));
        assert_eq!(event("\"collectInfo\"", r#"{"digitInfo":null}"#).digits, None);
        assert_eq!(event("\"collectInfo\"", "{}").digits, None);
        assert_eq!(event("\"answer\"", r#"{"digitInfo":""}"#).digits, None);
        assert_eq!(event("\"answer\"", r#"{"digitInfo":"0*#"}"#).digits.unwrap(), "0*#");
    }
}
