//! What holds for every body, tried with bodies that nobody thought of.

mod common;

use std::fmt::Write as _;

use common::{ids, records, source};
use proptest::prelude::*;
use tollgate_voicecall::{Record, Source, fuzz, read};

/// A JSON value of this crate's tests: members stay in the order they were made in.
#[derive(Debug, Clone)]
enum Json {
    Token(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// How a relay writes what it forwards.
#[derive(Debug, Clone)]
struct Style {
    blank: &'static str,
    escape_all: bool,
    rotate: usize,
}

impl Json {
    fn write(&self, style: &Style, out: &mut String) {
        out.push_str(style.blank);
        match self {
            Self::Token(token) => out.push_str(token),
            Self::Text(text) => write_text(text, style, out),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    item.write(style, out);
                }
                out.push_str(style.blank);
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                let (head, tail) = members.split_at(style.rotate % members.len().max(1));
                for (index, (key, value)) in tail.iter().chain(head).enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    out.push_str(style.blank);
                    write_text(key, style, out);
                    out.push_str(style.blank);
                    out.push(':');
                    value.write(style, out);
                }
                out.push_str(style.blank);
                out.push('}');
            }
        }
        out.push_str(style.blank);
    }

    fn to_text(&self, style: &Style) -> String {
        let mut out = String::new();
        self.write(style, &mut out);
        out
    }
}

fn write_text(text: &str, style: &Style, out: &mut String) {
    if !style.escape_all {
        out.push_str(&serde_json::to_string(text).unwrap());
        return;
    }
    out.push('"');
    for unit in text.encode_utf16() {
        write!(out, "\\u{unit:04X}").unwrap();
    }
    out.push('"');
}

const PLAIN: Style = Style { blank: "", escape_all: false, rotate: 0 };

fn style() -> impl Strategy<Value = Style> {
    (prop::sample::select(vec!["", " ", "\r\n\t"]), any::<bool>(), 0usize..7)
        .prop_map(|(blank, escape_all, rotate)| Style { blank, escape_all, rotate })
}

fn anything() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        prop::sample::select(vec!["null", "true", "0", "-1.50", "1e3", "8104"])
            .prop_map(|token| Json::Token(token.to_owned())),
        ".{0,12}".prop_map(Json::Text),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            prop::collection::btree_map("[a-z😀\"\\\\]{1,4}", inner, 0..4)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

fn object(members: Vec<(&str, Json)>, extra: Json) -> Json {
    let mut members: Vec<(String, Json)> =
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    members.push(("extInfo".to_owned(), extra));
    Json::Object(members)
}

fn item() -> impl Strategy<Value = Json> {
    ("[a-z]{0,3}", ".{1,8}", 0i32..3, 10u32..60, anything()).prop_map(
        |(icid, session, direction, second, extra)| {
            object(
                vec![
                    ("appKey", Json::Text("k".to_owned())),
                    ("icid", Json::Text(icid)),
                    ("sessionId", Json::Text(session)),
                    ("direction", Json::Token(direction.to_string())),
                    ("callEndTime", Json::Text(format!("2024-05-20 03:06:{second}"))),
                ],
                extra,
            )
        },
    )
}

fn status() -> impl Strategy<Value = Json> {
    let types = ["callout", "CollectInfo", "disconnect", "hold"];
    (prop::sample::select(types.to_vec()), ".{1,8}", ".{0,3}", 10u32..60, anything()).prop_map(
        |(kind, session, digits, second, extra)| {
            let info = object(
                vec![
                    ("sessionId", Json::Text(session)),
                    ("timestamp", Json::Text(format!("2024-05-20 03:06:{second}"))),
                    ("digitInfo", Json::Text(digits)),
                ],
                Json::Token("1.0".to_owned()),
            );
            object(vec![("eventType", Json::Text(kind.to_owned())), ("statusInfo", info)], extra)
        },
    )
}

fn message() -> impl Strategy<Value = Json> {
    let fee = (prop::collection::vec(item(), 1..5), anything()).prop_map(|(items, extra)| {
        let kind = Json::Text("fee".to_owned());
        object(vec![("eventType", kind), ("feeLst", Json::Array(items))], extra)
    });
    prop_oneof![fee, status()]
}

/// Bytes that look enough like a notification to get somewhere.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (message(), style(), changes).prop_map(|(message, style, changes)| {
        let mut bytes = message.to_text(&style).into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    /// I5.
    #[test]
    fn any_bytes_are_read_into_records_that_account_for_them(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        fuzz::body(&bytes);
        fuzz::headers(&bytes);
    }

    #[test]
    fn any_json_is_read_into_records_that_account_for_it(json in anything(), style in style()) {
        fuzz::body(json.to_text(&style).as_bytes());
    }

    #[test]
    fn nearly_any_notification_is_read_into_records_that_account_for_it(bytes in nearly()) {
        fuzz::body(&bytes);
    }

    /// I4.
    #[test]
    fn order_of_keys_blanks_and_escapes_change_no_id(message in message(), style in style()) {
        let plain = records(message.to_text(&PLAIN));
        let restyled = records(message.to_text(&style));
        prop_assert!(!plain.iter().any(|record| matches!(record, Record::Quarantined(_))));
        prop_assert_eq!(ids(&plain), ids(&restyled));
    }

    /// I4.
    #[test]
    fn ids_and_content_do_not_depend_on_where_and_when_a_record_was_received(
        message in message(),
        millis in 0i64..4_000_000_000_000,
        edge_id in ".{0,8}",
        application in ".{0,8}",
        sequence in any::<u64>(),
    ) {
        let body = message.to_text(&PLAIN);
        let elsewhere = Source {
            received_at: jiff::Timestamp::from_millisecond(millis).unwrap(),
            edge_id: &edge_id,
            application: &application,
            spool_sequence: sequence,
            ..source()
        };
        let mut here = records(&body);
        let mut there = read(body.as_bytes(), &elsewhere);
        for record in here.iter_mut().chain(&mut there) {
            match record {
                Record::Status(event) => event.provenance = None,
                Record::Cdr(cdr) => cdr.provenance = None,
                Record::Quarantined(quarantined) => quarantined.provenance = None,
            }
        }
        prop_assert_eq!(here, there);
    }

    #[test]
    fn a_signature_over_anything_verifies(parts in prop::collection::vec("[^\"\n]{1,20}", 5)) {
        fuzz::headers(parts.join("\n").as_bytes());
    }
}
