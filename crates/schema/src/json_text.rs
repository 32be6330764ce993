//! JSON as it was written, taken apart without building a tree.
//!
//! serde_json proves the syntax, once for each text; from then on quotes and brackets alone tell
//! where a value ends. A record's fields, its items and its canonical text are all read from the
//! same proof: proving again for each of them took a fifth of the instructions of normalising.
//!
//! Nothing here recurses, so depth of nesting costs no stack, and no value is copied.

use std::borrow::Cow;

use memchr::memchr2;
use serde::de::IgnoredAny;

/// Blanks of JSON; Unicode knows more.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// One JSON value as written, without the blanks around it. Its syntax is proved; what stands
/// behind the escapes of its strings is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonText<'a> {
    text: &'a str,
    /// Whether it has a backslash; looked for in strings only.
    escaped: bool,
}

/// A JSON value's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    Text,
    /// Any number.
    Number,
    /// `true` or `false`
    Boolean,
    /// `null`
    Null,
}

impl Kind {
    /// For a person, with its article.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::Text => "text",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Null => "null",
        }
    }
}

impl<'a> JsonText<'a> {
    /// Proves the syntax of a text: one value and nothing else.
    pub fn check(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<IgnoredAny>(text)?;
        Ok(Cursor { text: text.trim_matches(BLANKS), at: 0 }.value())
    }

    /// As written.
    pub fn as_str(self) -> &'a str {
        self.text
    }

    /// Told from the first character.
    pub fn kind(self) -> Kind {
        match self.text.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::Text,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    /// Keys and values of an object, in order; nothing of anything else.
    pub fn members(self) -> Members<'a> {
        Members(self.inside(Kind::Object))
    }

    /// Items of an array, in order; nothing of anything else.
    pub fn items(self) -> Items<'a> {
        Items(self.inside(Kind::Array))
    }

    /// The characters of a string; `None` if it contains a lone surrogate, or is no string.
    pub fn decode(self) -> Option<Cow<'a, str>> {
        let inner = self.text.strip_prefix('"')?.strip_suffix('"')?;
        if self.escaped {
            // The escapes are well formed, so all that can be wrong is what they stand for.
            serde_json::from_str(self.text).ok().map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(inner))
        }
    }

    /// Whether it says nothing: `null`, `""` or a string of blanks.
    pub fn is_blank(self) -> bool {
        match self.kind() {
            Kind::Null => true,
            Kind::Text => self.decode().is_some_and(|text| text.trim().is_empty()),
            _ => false,
        }
    }

    fn inside(self, kind: Kind) -> Cursor<'a> {
        let at = if self.kind() == kind { 1 } else { self.text.len() };
        Cursor { text: self.text, at }
    }
}

/// See [`JsonText::members`].
#[derive(Debug, Clone)]
pub struct Members<'a>(Cursor<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (JsonText<'a>, JsonText<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.0.next_item()?;
        self.0.skip(b':');
        Some((key, self.0.value()))
    }
}

/// See [`JsonText::items`].
#[derive(Debug, Clone)]
pub struct Items<'a>(Cursor<'a>);

impl<'a> Iterator for Items<'a> {
    type Item = JsonText<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_item()
    }
}

/// A place inside an object or array.
#[derive(Debug, Clone)]
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// What stands behind a comma or the opening bracket; `None` at the closing one.
    fn next_item(&mut self) -> Option<JsonText<'a>> {
        self.skip(b',');
        match self.peek() {
            None | Some(b'}' | b']') => None,
            Some(_) => Some(self.value()),
        }
    }

    fn value(&mut self) -> JsonText<'a> {
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        let (length, escaped) = match rest.first() {
            Some(b'"') => end_of_string(rest),
            Some(b'{' | b'[') => (end_of_nested(rest), false),
            _ => (end_of_token(rest), false),
        };
        self.at += length;
        JsonText { text: &self.text[start..self.at], escaped }
    }

    /// Moves past blanks, at most one `mark`, and blanks.
    fn skip(&mut self, mark: u8) {
        self.skip_blanks();
        if self.peek() == Some(mark) {
            self.at += 1;
            self.skip_blanks();
        }
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

/// Length of the string that the bytes begin with, quotes included, and whether anything in it is
/// escaped.
pub(crate) fn end_of_string(bytes: &[u8]) -> (usize, bool) {
    let (mut at, mut escaped) = (1, false);
    while let Some(found) = memchr2(b'"', b'\\', &bytes[at..]) {
        at += found;
        if bytes[at] == b'"' {
            return (at + 1, escaped);
        }
        escaped = true;
        at += 2;
    }
    (bytes.len(), escaped)
}

/// Length of the object or array that the bytes begin with.
fn end_of_nested(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += end_of_string(&bytes[at..]).0;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

/// Length of the number, true, false or null that the bytes begin with.
pub(crate) fn end_of_token(bytes: &[u8]) -> usize {
    let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
    bytes.iter().position(ends).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(text: &str) -> Vec<(&str, &str)> {
        let value = JsonText::check(text).unwrap();
        value.members().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    fn items(text: &str) -> Vec<&str> {
        JsonText::check(text).unwrap().items().map(JsonText::as_str).collect()
    }

    #[test]
    fn members_come_as_written_and_in_order() {
        assert_eq!(
            members(" { \"b\" : [1, 2] ,\"a\\u0041\":1e5,\"\\ud800\":null,\"b\":{} } "),
            [
                ("\"b\"", "[1, 2]"),
                ("\"a\\u0041\"", "1e5"),
                ("\"\\ud800\"", "null"),
                ("\"b\"", "{}")
            ]
        );
        assert!(members("{ }").is_empty() && members("[1]").is_empty() && members("7").is_empty());
    }

    #[test]
    fn brackets_and_quotes_inside_of_strings_end_nothing() {
        let text = r#"{"a\"}":"]\\","b":[{"c":"}]\\\""},"["]}"#;
        let found = members(text);
        assert_eq!(found, [(r#""a\"}""#, r#""]\\""#), ("\"b\"", r#"[{"c":"}]\\\""},"["]"#)]);
        assert_eq!(items(found[1].1), [r#"{"c":"}]\\\""}"#, "\"[\""]);
    }

    #[test]
    fn items_come_as_written_and_in_order() {
        assert_eq!(items(" [ 1 , {} ,\"x\"\n] "), ["1", "{}", "\"x\""]);
        assert!(items("[]").is_empty() && items("{\"a\":1}").is_empty());
    }

    #[test]
    fn a_value_nested_a_million_deep_is_passed_without_recursion() {
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(members(&deep).len(), 1);
    }

    #[test]
    fn what_is_not_one_value_is_no_json() {
        for text in ["", " ", "{", "{}{}", "[1,]", "\u{a0}1", "01", "\"\0\"", "nul"] {
            assert!(JsonText::check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn strings_are_decoded_and_lone_surrogates_told_apart() {
        let decode = |text| JsonText::check(text).unwrap().decode().map(Cow::into_owned);
        assert_eq!(decode(r#""plain""#).as_deref(), Some("plain"));
        assert_eq!(decode(r#""a\n\u00e9\ud83d\ude00\u0000""#).as_deref(), Some("a\né😀\0"));
        assert_eq!(decode(r#""\ud83d""#), None);
        assert_eq!(decode(r#""\ude00\ud83d""#), None);
        assert_eq!(decode("7"), None);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "[\\[\\]{}\",:\\\\ a\u{e9}\n]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::vec(("[{}\",\\\\a-c]{0,3}", inner), 0..4)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Built again out of its parts.
    fn rebuilt(value: JsonText<'_>) -> serde_json::Value {
        match value.kind() {
            Kind::Object => {
                let member = |(key, value): (JsonText<'_>, _)| {
                    (key.decode().unwrap().into_owned(), rebuilt(value))
                };
                serde_json::Value::Object(value.members().map(member).collect())
            }
            Kind::Array => value.items().map(rebuilt).collect(),
            _ => serde_json::from_str(value.as_str()).unwrap(),
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_apart_is_what_serde_json_reads(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(rebuilt(JsonText::check(&text).unwrap()), value);
        }
    }
}
