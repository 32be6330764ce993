//! What a body is, decided by its top level alone (P 1, P 4, P 5), never by its path.

use tollgate_schema::json_text::{JsonText, Kind};

use crate::field::{Damage, LONE_SURROGATE};

/// What a body is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// Not JSON.
    Malformed,
    /// JSON that is no notification.
    Unknown(Damage),
    /// A CDR notification.
    Fee {
        /// The value of feeLst; `None` if it is absent or says nothing.
        list: Option<JsonText<'a>>,
        /// What came beside eventType and feeLst, as a JSON object; `None` if nothing did.
        envelope: Option<String>,
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
    /// Sorts a body, whose byte order mark is removed.
    pub(crate) fn of(text: &'a str) -> Self {
        Self::sort(text, true)
    }

    /// Whether a body is a CDR notification, at the least expense.
    pub(crate) fn is_fee(text: &str) -> bool {
        matches!(Message::sort(text, false), Message::Fee { .. })
    }

    fn sort(text: &'a str, keep_envelope: bool) -> Self {
        let Ok(body) = JsonText::check(text) else { return Self::Malformed };
        if body.kind() != Kind::Object {
            let found = body.kind().name();
            return Self::Unknown(Damage { field: "", expected: "an object", found });
        }
        let mut event_type = None;
        let mut list = None;
        let mut info = None;
        let mut envelope = Envelope { keep: keep_envelope, text: String::new() };
        for (key, value) in body.members() {
            match key.decode().as_deref() {
                Some("eventType") => envelope.add_superseded(event_type.replace((key, value))),
                Some("feeLst") => envelope.add_superseded(list.replace((key, value))),
                Some("statusInfo") => {
                    info = Some(value);
                    envelope.add(key, value);
                }
                _ => envelope.add(key, value),
            }
        }

        let list = list.map(|(_, value)| value).filter(|value| !value.is_blank());
        let kind = EventType::of(event_type.map(|(_, value)| value));
        let is_fee = match kind {
            EventType::Fee => true,
            // A relay's serializer writes an empty list into every message; a status stays one.
            EventType::Other => list.is_some_and(|list| !is_empty_array(list)),
            EventType::Absent | EventType::NotText(_) => list.is_some(),
        };
        if is_fee {
            if matches!(kind, EventType::Other | EventType::NotText(_)) {
                envelope.add_superseded(event_type);
            }
            return Self::Fee { list, envelope: envelope.finish() };
        }
        match (kind, event_type) {
            (EventType::Other, Some((_, event_type))) => {
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

/// Collects members as written.
struct Envelope {
    keep: bool,
    text: String,
}

impl Envelope {
    fn add(&mut self, key: JsonText<'_>, value: JsonText<'_>) {
        if self.keep {
            self.text.push(if self.text.is_empty() { '{' } else { ',' });
            self.text.push_str(key.as_str());
            self.text.push(':');
            self.text.push_str(value.as_str());
        }
    }

    /// Keeps an occurrence of a doubled key that does not count.
    fn add_superseded(&mut self, member: Option<(JsonText<'_>, JsonText<'_>)>) {
        if let Some((key, value)) = member {
            self.add(key, value);
        }
    }

    fn finish(mut self) -> Option<String> {
        if self.text.is_empty() {
            return None;
        }
        self.text.push('}');
        Some(self.text)
    }
}

/// The type of an event: its known name, or the text as received.
pub(crate) fn event_type(token: JsonText<'_>) -> Result<String, Damage> {
    token.decode().map(std::borrow::Cow::into_owned).ok_or(Damage {
        field: "eventType",
        expected: "text",
        found: LONE_SURROGATE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fee(text: &str) -> (Option<&str>, Option<String>) {
        match Message::of(text) {
            Message::Fee { list, envelope } => (list.map(JsonText::as_str), envelope),
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn fee_in_any_case_or_a_list_makes_a_cdr_notification() {
        assert_eq!(fee(r#"{"eventType":"fee","feeLst":[{}]}"#), (Some("[{}]"), None));
        assert_eq!(fee(r#"{"eventType":"FEE"}"#), (None, None));
        assert_eq!(fee(r#"{"eventType":"f\u0065E","feeLst":null}"#), (None, None));
        assert_eq!(fee(r#"{"feeLst":[]}"#), (Some("[]"), None));
        assert_eq!(fee(r#"{"eventType":"","feeLst":{}}"#).0, Some("{}"));
        assert_eq!(
            fee(r#"{"eventType":"callout","feeLst":[1]}"#),
            (Some("[1]"), Some(r#"{"eventType":"callout"}"#.to_owned()))
        );
    }

    #[test]
    fn a_status_with_an_empty_list_beside_it_stays_a_status() {
        for list in ["null", "\"\"", "[]", "[ ]"] {
            let text = format!(r#"{{"eventType":"callout","feeLst":{list},"statusInfo":{{}}}}"#);
            let body = JsonText::check(&text).unwrap();
            let event_type = JsonText::check("\"callout\"").unwrap();
            let info = JsonText::check("{}").ok();
            let expected = Message::Status { body, event_type, info };
            assert_eq!(Message::of(&text), expected, "{text}");
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
        assert_eq!(list, Some("[2]"));
        assert_eq!(envelope.unwrap(), r#"{"feeLst":[1]}"#);
    }

    #[test]
    fn what_is_neither_is_unknown_and_says_what_was_found() {
        let found = |text| match Message::of(text) {
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

    #[test]
    fn broken_syntax_is_malformed_wherever_it_is() {
        for text in ["", "{", "nul", "{}x", "{\"a\":1,}", "\u{a0}{}", "{\"eventType\":\"fee\"} {}"]
        {
            assert_eq!(Message::of(text), Message::Malformed, "{text}");
        }
    }
}
