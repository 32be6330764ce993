//! What a body is, decided by its top level alone (P 1, P 4, P 5), never by its path.

use std::borrow::Cow;

use tollgate_schema::json_text::{Json, JsonText, Kind};

use crate::field::{Damage, LONE_SURROGATE};

/// What a body is.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    /// JSON that is no notification.
    Unknown(Damage),
    /// A CDR notification.
    Fee {
        /// The value of feeLst; `None` if it is absent or says nothing.
        list: Option<JsonText<'a>>,
        /// What came beside it.
        envelope: Envelope<'a>,
    },
    /// A status notification.
    Status {
        /// The whole body.
        body: JsonText<'a>,
        /// The string token of eventType.
        event_type: JsonText<'a>,
        /// The value of statusInfo; `None` if it is absent or says nothing.
        info: Option<JsonText<'a>>,
    },
}

impl<'a> Message<'a> {
    /// Sorts a body.
    pub(crate) fn of(body: &'a Json<'_>) -> Self {
        let body = body.value();
        if body.kind() != Kind::Object {
            let found = body.kind().name();
            return Self::Unknown(Damage { field: "", expected: "an object", found });
        }
        let (mut event_type, mut list, mut info) = (None, None, None);
        for (key, value) in body.members() {
            match key.decode().as_deref() {
                Some("eventType") => event_type = Some(value),
                Some("feeLst") => list = Some(value),
                Some("statusInfo") => info = Some(value),
                _ => {}
            }
        }

        let list = list.filter(|value| !value.is_blank());
        let kind = EventType::of(event_type);
        let is_fee = match kind {
            EventType::Fee => true,
            // A relay's serializer writes an empty list into every message; a status stays one.
            EventType::Other => list.is_some_and(|list| !is_empty_array(list)),
            EventType::Absent | EventType::NotText(_) => list.is_some(),
        };
        if is_fee {
            let says_more = matches!(kind, EventType::Other | EventType::NotText(_));
            return Self::Fee { list, envelope: Envelope { body, says_more } };
        }
        match (kind, event_type) {
            (EventType::Other, Some(event_type)) => {
                let info = info.filter(|info| !info.is_blank());
                Self::Status { body, event_type, info }
            }
            (EventType::NotText(kind), _) => {
                Self::Unknown(Damage { field: "eventType", expected: "text", found: kind.name() })
            }
            _ => Self::Unknown(Damage {
                field: "",
                expected: "an object with eventType or feeLst",
                found: "an object without both",
            }),
        }
    }
}

fn is_empty_array(value: JsonText<'_>) -> bool {
    value.kind() == Kind::Array && value.items().next().is_none()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventType {
    Absent,
    Fee,
    /// Text other than `fee`; also text that is not Unicode, which the status reader reports.
    Other,
    NotText(Kind),
}

impl EventType {
    fn of(value: Option<JsonText<'_>>) -> Self {
        let Some(value) = value.filter(|value| !value.is_blank()) else { return Self::Absent };
        match value.kind() {
            Kind::Text => {
                let fee = value.decode().is_some_and(|text| is(&text, "fee"));
                if fee { Self::Fee } else { Self::Other }
            }
            kind => Self::NotText(kind),
        }
    }
}

/// Whether an event type is this one; case and surrounding blanks do not matter.
pub(crate) fn is(text: &str, name: &str) -> bool {
    text.trim().eq_ignore_ascii_case(name)
}

/// What a CDR notification has beside eventType and feeLst.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    body: JsonText<'a>,
    /// Whether eventType says something else than `fee`.
    says_more: bool,
}

impl Envelope<'_> {
    /// Its members as written, as a JSON object; `None` if there are none. Those occurrences of
    /// doubled keys that do not count are among them.
    pub(crate) fn to_json(&self) -> Option<String> {
        let (mut event_type, mut list) = (None, None);
        let mut text = String::new();
        let mut add = |(key, value): (JsonText<'_>, JsonText<'_>)| {
            text.push(if text.is_empty() { '{' } else { ',' });
            text.push_str(key.as_str());
            text.push(':');
            text.push_str(value.as_str());
        };
        for member in self.body.members() {
            let beside = match member.0.decode().as_deref() {
                Some("eventType") => event_type.replace(member),
                Some("feeLst") => list.replace(member),
                _ => Some(member),
            };
            beside.into_iter().for_each(&mut add);
        }
        event_type.filter(|_| self.says_more).into_iter().for_each(&mut add);
        if text.is_empty() {
            return None;
        }
        text.push('}');
        Some(text)
    }
}

/// The type of an event, as received.
pub(crate) fn event_type(token: JsonText<'_>) -> Result<Cow<'_, str>, Damage> {
    token.decode().ok_or(Damage { field: "eventType", expected: "text", found: LONE_SURROGATE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fee(text: &str) -> (Option<String>, Option<String>) {
        match Message::of(&Json::parse(text).unwrap()) {
            Message::Fee { list, envelope } => {
                (list.map(|it| it.as_str().to_owned()), envelope.to_json())
            }
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn fee_in_any_case_or_a_list_makes_a_cdr_notification() {
        assert_eq!(fee(r#"{"eventType":"fee","feeLst":[{}]}"#), (Some("[{}]".to_owned()), None));
        assert_eq!(fee(r#"{"eventType":"FEE"}"#), (None, None));
        assert_eq!(fee(r#"{"eventType":"f\u0065E","feeLst":null}"#), (None, None));
        assert_eq!(fee(r#"{"feeLst":[]}"#), (Some("[]".to_owned()), None));
        assert_eq!(fee(r#"{"eventType":"","feeLst":{}}"#).0.unwrap(), "{}");
        assert_eq!(
            fee(r#"{"eventType":"callout","feeLst":[1]}"#),
            (Some("[1]".to_owned()), Some(r#"{"eventType":"callout"}"#.to_owned()))
        );
    }

    #[test]
    fn a_status_with_an_empty_list_beside_it_stays_a_status() {
        for list in ["null", "\"\"", "[]", "[ ]"] {
            let text = format!(r#"{{"eventType":"callout","feeLst":{list},"statusInfo":{{}}}}"#);
            match Message::of(&Json::parse(&text).unwrap()) {
                Message::Status { body, event_type, info } => {
                    assert_eq!(body.as_str(), text);
                    assert_eq!(event_type.as_str(), "\"callout\"");
                    assert_eq!(info.map(JsonText::as_str), Some("{}"));
                }
                other => panic!("{text} is {other:?}"),
            }
        }
    }

    #[test]
    fn all_else_of_the_envelope_is_kept_as_written() {
        let text = r#"{"a":1.0, "eventType":"fee","\ud800":["\udfff"],"feeLst":[1],"a":{ }}"#;
        assert_eq!(fee(text).1.unwrap(), r#"{"a":1.0,"\ud800":["\udfff"],"a":{ }}"#);
    }

    #[test]
    fn the_earlier_of_doubled_lists_is_kept_in_the_envelope() {
        let (list, envelope) = fee(r#"{"eventType":"fee","feeLst":[1],"feeLst":[2]}"#);
        assert_eq!(list.unwrap(), "[2]");
        assert_eq!(envelope.unwrap(), r#"{"feeLst":[1]}"#);
    }

    #[test]
    fn what_is_neither_is_unknown_and_says_what_was_found() {
        let found = |text| match Message::of(&Json::parse(text).unwrap()) {
            Message::Unknown(damage) => (damage.field, damage.found),
            other => panic!("{text} is {other:?}"),
        };
        assert_eq!(found("[]"), ("", "an array"));
        assert_eq!(found(" 17 "), ("", "a number"));
        assert_eq!(found("{}"), ("", "an object without both"));
        assert_eq!(found(r#"{"eventType":" "}"#), ("", "an object without both"));
        assert_eq!(found(r#"{"eventType":7}"#), ("eventType", "a number"));
        assert_eq!(found(r#"{"eventType":{},"feeLst":null}"#), ("eventType", "an object"));
    }
}
