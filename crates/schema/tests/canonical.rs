//! What the canonical text promises: the same for every way to write one content, different for
//! different contents.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tollgate_schema::canonical::{CanonicalError, MAX_DEPTH, canonical_json};

/// A JSON content. Numbers are tokens; an object has no order and no doubled keys.
#[derive(Debug, Clone, PartialEq)]
enum Content {
    Token(String),
    Text(String),
    Array(Vec<Content>),
    Object(BTreeMap<String, Content>),
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]{0,2}",
        2 => any::<String>(),
        1 => prop::collection::vec(
            prop::sample::select(vec![
                '"', '\\', '/', '\u{0}', '\u{8}', '\t', '\n', '\u{b}', '\u{c}', '\r', '\u{1f}', ' ',
                '\u{7f}', 'é', '中', '\u{2028}', '\u{ffff}', '😀', '\u{10ffff}',
            ]),
            0..6
        )
        .prop_map(|chars| chars.into_iter().collect()),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let tokens = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "1.0",
        "1e0",
        "1E+0",
        "10",
        "123456789012345678901234567890.5",
    ];
    let leaf = prop_oneof![
        prop::sample::select(tokens.to_vec()).prop_map(|token| Content::Token(token.to_owned())),
        text().prop_map(Content::Text),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Content::Array),
            prop::collection::btree_map(text(), inner, 0..4).prop_map(Content::Object),
        ]
    })
}

/// One way to write a content: order of keys, blanks, escapes and doubled keys are taken from a
/// list of choices.
struct Writer<'a> {
    choices: &'a [u8],
    next: usize,
    out: String,
}

impl Writer<'_> {
    fn write(content: &Content, choices: &[u8]) -> String {
        let mut writer = Writer { choices, next: 0, out: String::new() };
        writer.blanks();
        writer.content(content);
        writer.blanks();
        writer.out
    }

    fn choose(&mut self, among: usize) -> usize {
        self.next += 1;
        let choice = self.choices.get(self.next % self.choices.len().max(1)).copied();
        usize::from(choice.unwrap_or(0)) % among
    }

    fn blanks(&mut self) {
        let blanks = ["", "", "", " ", "\n\t", "\r\n  "][self.choose(6)];
        self.out.push_str(blanks);
    }

    fn content(&mut self, content: &Content) {
        match content {
            Content::Token(token) => self.out.push_str(token),
            Content::Text(text) => self.text(text),
            Content::Array(items) => {
                self.out.push('[');
                self.blanks();
                for (index, item) in items.iter().enumerate() {
                    self.comma(index);
                    self.content(item);
                    self.blanks();
                }
                self.out.push(']');
            }
            Content::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                let shift = self.choose(members.len().max(1));
                members.rotate_left(shift);
                self.out.push('{');
                self.blanks();
                let mut written = 0;
                for (key, value) in members {
                    if self.choose(8) == 7 {
                        // Loses against what follows under the same key.
                        self.member(written, key, &Content::Token("99".to_owned()));
                        written += 1;
                    }
                    self.member(written, key, value);
                    written += 1;
                }
                self.out.push('}');
            }
        }
    }

    fn member(&mut self, index: usize, key: &str, value: &Content) {
        self.comma(index);
        self.text(key);
        self.blanks();
        self.out.push(':');
        self.blanks();
        self.content(value);
        self.blanks();
    }

    fn comma(&mut self, index: usize) {
        if index > 0 {
            self.out.push(',');
            self.blanks();
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            let short = match c {
                '"' => Some("\\\""),
                '\\' => Some("\\\\"),
                '/' => Some("\\/"),
                '\u{8}' => Some("\\b"),
                '\t' => Some("\\t"),
                '\n' => Some("\\n"),
                '\u{c}' => Some("\\f"),
                '\r' => Some("\\r"),
                _ => None,
            };
            let must = c < ' ' || c == '"' || c == '\\';
            match (self.choose(4), short) {
                (0, Some(short)) => self.out.push_str(short),
                (1, Some(short)) if must => self.out.push_str(short),
                (2 | 3, _) if !must => self.out.push(c),
                (style, _) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let unit = if style == 2 {
                            format!("\\u{unit:04X}")
                        } else {
                            format!("\\u{unit:04x}")
                        };
                        self.out.push_str(&unit);
                    }
                }
            }
        }
        self.out.push('"');
    }
}

proptest! {
    #[test]
    fn order_blanks_escapes_and_overwritten_keys_do_not_matter(
        content in content(),
        left in prop::collection::vec(any::<u8>(), 1..64),
        right in prop::collection::vec(any::<u8>(), 1..64),
    ) {
        let (left, right) = (Writer::write(&content, &left), Writer::write(&content, &right));
        prop_assert_eq!(canonical_json(&left), canonical_json(&right), "{} and {}", left, right);
    }

    #[test]
    fn different_contents_have_different_texts(left in content(), right in content()) {
        let texts = (canonical_json(&Writer::write(&left, &[])), canonical_json(&Writer::write(&right, &[])));
        prop_assert_eq!(texts.0 == texts.1, left == right);
    }

    #[test]
    fn the_canonical_text_is_its_own_canonical_text(
        content in content(),
        choices in prop::collection::vec(any::<u8>(), 1..64),
    ) {
        let once = canonical_json(&Writer::write(&content, &choices)).unwrap();
        prop_assert_eq!(canonical_json(&once).unwrap(), once);
    }

    #[test]
    fn the_canonical_text_means_the_same_and_is_never_longer(
        content in content(),
        choices in prop::collection::vec(any::<u8>(), 1..64),
    ) {
        let text = Writer::write(&content, &choices);
        let canonical = canonical_json(&text).unwrap();
        prop_assert!(canonical.len() <= text.len());
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        prop_assert_eq!(value(&canonical), value(&text));
    }

    #[test]
    fn members_stand_in_the_order_of_their_bytes_and_the_last_of_equals_stays(
        keys in prop::collection::vec("(xxxxxx)?[xé\0]{0,4}[a\0]{0,2}", 0..24),
    ) {
        let member = |(at, key)| format!("{}:{at}", serde_json::to_string(key).unwrap());
        let text = format!("{{{}}}", (0..).zip(&keys).map(member).collect::<Vec<_>>().join(","));
        let expected: BTreeMap<_, _> = keys.iter().zip(0_i64..).collect();
        let found: serde_json::Map<_, _> = serde_json::from_str(&canonical_json(&text).unwrap()).unwrap();
        let found = found.iter().map(|(key, at)| (key, at.as_i64().unwrap()));
        prop_assert!(found.eq(expected), "{}", text);
    }

    #[test]
    fn any_text_has_a_canonical_form_or_an_error_and_json_has_the_former(
        text in prop_oneof![
            any::<String>(),
            r#"[\[\]{}",:0-9a-f\\u \n.+-]{0,24}"#,
            r#"[{\["]"(\\u[dD][89abcdef]00|\\n|a){0,4}"[]}:0]{0,3}"#,
        ],
    ) {
        match canonical_json(&text) {
            Ok(canonical) => prop_assert_eq!(canonical_json(&canonical), Ok(canonical.clone())),
            Err(error) => {
                // Another reader of JSON refuses it too.
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_err(), "{}", error);
            }
        }
    }
}

#[test]
fn the_form_is_the_documented_one() {
    let text = " { \"b\" : [ 1.50 , -0, 1E5 ] , \"a\\u0062\":\"\\u4e2d\\/\\u001F\\n\", \"\" :null,\"b\":{}} ";
    let canonical = canonical_json(text).unwrap();
    assert_eq!(canonical, "{\"\":null,\"ab\":\"中/\\u001f\\n\",\"b\":{}}");
    assert_eq!(canonical_json("[ 1.50 , -0, 1E5 ]").unwrap(), "[1.50,-0,1E5]");
}

#[test]
fn keys_are_sorted_by_utf_8_and_not_by_utf_16() {
    // UTF-16 would put the surrogates of U+10000 before U+FFFF.
    let canonical = canonical_json("{\"\\ud800\\udc00\":1,\"\\uffff\":2,\"Z\":3,\"a\":4}").unwrap();
    assert_eq!(canonical, "{\"Z\":3,\"a\":4,\"\u{ffff}\":2,\"\u{10000}\":1}");
}

#[test]
fn a_lone_surrogate_is_named_by_its_place_also_where_it_is_overwritten() {
    let at = |text| match canonical_json(text) {
        Err(CanonicalError::LoneSurrogate { at }) => at,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(at(r#"{"a":"\ud800"}"#), 5);
    assert_eq!(at(r#"{"\udc00":1}"#), 1);
    assert_eq!(at(r#"{"a":"\ud800\ud800\udc00"}"#), 5);
    assert_eq!(at(r#"{"a":"\ud800","a":1}"#), 5);
}

#[test]
fn broken_syntax_is_named_by_its_place_and_never_quoted() {
    for text in [
        "",
        " ",
        "{\"a\":+8613800000021}",
        "[1,]",
        "{\"a\" 1}",
        "\"a\nb\"",
        "[1] x",
        "01",
        "\u{feff}1",
    ] {
        let error = canonical_json(text).unwrap_err();
        assert!(matches!(error, CanonicalError::Syntax { .. }), "{text}: {error}");
        assert!(!error.to_string().contains("861380"), "{error}");
    }
    let error = canonical_json("{\n\"a\": x}").unwrap_err();
    assert_eq!(error, CanonicalError::Syntax { line: 2, column: 6 });
}

#[test]
fn depth_is_bounded_and_the_stack_with_it() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}0{}", open.repeat(depth), close.repeat(depth))
    };
    // Far less stack than any thread of the system has.
    let deep = std::thread::Builder::new().stack_size(256 * 1024).spawn(move || {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deepest = nested(open, close, MAX_DEPTH);
            assert_eq!(canonical_json(&deepest), Ok(deepest.clone()));
            let at = open.len() * MAX_DEPTH;
            for depth in [MAX_DEPTH + 1, 200_000] {
                let too_deep = nested(open, close, depth);
                assert_eq!(canonical_json(&too_deep), Err(CanonicalError::TooDeep { at }));
            }
            let unclosed = open.repeat(200_000);
            assert!(matches!(canonical_json(&unclosed), Err(CanonicalError::Syntax { .. })));
        }
    });
    deep.unwrap().join().unwrap();
}
