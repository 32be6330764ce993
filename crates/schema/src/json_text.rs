//! JSON as it was written, taken apart without building a tree.
//!
//! The syntax is proved once for each text, and where each value stands is noted on the way
//! (`json_tokens`). A record's fields, its items and its canonical text are all read from the same
//! proof; no value is looked through again to find its end, and none is copied.

use std::borrow::Cow;

use serde::de::{Error as _, IgnoredAny};

use crate::json_tokens::{Token, Tokens, tokens};

/// A text that is JSON: one value and nothing else.
#[derive(Debug)]
pub struct Json<'a> {
    text: &'a str,
    tokens: Tokens,
}

impl<'a> Json<'a> {
    /// Proves the syntax of a text, which may be 4 GiB long. What stands behind the escapes of its
    /// strings is not looked at.
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        match tokens(text) {
            Some(tokens) => Ok(Self { text, tokens }),
            None => Err(why_not(text)),
        }
    }

    /// The value.
    pub fn value(&self) -> JsonText<'_> {
        JsonText { json: self, number: 0 }
    }

    /// The member whose key has this number.
    pub(crate) fn member(&self, number: u32) -> (JsonText<'_>, JsonText<'_>) {
        (JsonText { json: self, number }, JsonText { json: self, number: number + 1 })
    }

    /// How many arrays and objects are around its deepest value, itself included.
    pub(crate) fn depth(&self) -> usize {
        self.tokens.depth
    }
}

/// What serde_json says, which tells lines and columns.
fn why_not(text: &str) -> serde_json::Error {
    let error = serde_json::from_str::<IgnoredAny>(text).err();
    error.unwrap_or_else(|| serde_json::Error::custom("longer than 4 GiB"))
}

/// One JSON value as written, without the blanks around it, or a key of an object.
#[derive(Debug, Clone, Copy)]
pub struct JsonText<'a> {
    json: &'a Json<'a>,
    /// Of its token.
    number: u32,
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
    /// As written.
    pub fn as_str(self) -> &'a str {
        let Token { start, end, .. } = self.token();
        &self.json.text[start as usize..end as usize]
    }

    /// Its type.
    pub fn kind(self) -> Kind {
        self.token().kind
    }

    /// Keys and values of an object, in order; nothing of anything else.
    pub fn members(self) -> Members<'a> {
        Members(self.inside(Kind::Object))
    }

    /// Items of an array, in order; nothing of anything else.
    pub fn items(self) -> Items<'a> {
        self.inside(Kind::Array)
    }

    /// The characters of a string; `None` if it contains a lone surrogate, or is no string.
    #[inline]
    pub fn decode(self) -> Option<Cow<'a, str>> {
        let Token { start, end, kind, escaped, .. } = self.token();
        if escaped {
            return self.unescape().map(Cow::Owned);
        }
        let is_text = kind == Kind::Text;
        is_text.then(|| Cow::Borrowed(&self.json.text[start as usize + 1..end as usize - 1]))
    }

    #[cold]
    fn unescape(self) -> Option<String> {
        // The escapes are well formed, so all that can be wrong is what they stand for.
        serde_json::from_str(self.as_str()).ok()
    }

    /// Whether it says nothing: `null`, `""` or a string of blanks.
    pub fn is_blank(self) -> bool {
        match self.kind() {
            Kind::Null => true,
            Kind::Text => self.decode().is_some_and(|text| text.chars().all(char::is_whitespace)),
            _ => false,
        }
    }

    /// Whether it is, or has inside, a string with a backslash.
    pub(crate) fn is_escaped(self) -> bool {
        self.token().escaped
    }

    /// Where it begins in the whole text.
    pub(crate) fn start(self) -> usize {
        self.token().start as usize
    }

    /// Grows in the order of the text.
    pub(crate) fn number(self) -> u32 {
        self.number
    }

    /// The text that it is a part of.
    pub(crate) fn whole(self) -> &'a Json<'a> {
        self.json
    }

    /// A member of an object as written, where that is its canonical text: nothing is nested or
    /// escaped, and nothing but the colon stands between key and value.
    pub(crate) fn plain_member((key, value): (Self, Self)) -> Option<&'a str> {
        let (text, key, value) = (key.json.text, key.token(), value.token());
        let is_plain = !key.escaped
            && !value.escaped
            && !matches!(value.kind, Kind::Object | Kind::Array)
            && key.end + 1 == value.start;
        is_plain.then(|| &text[key.start as usize..value.end as usize])
    }

    fn token(self) -> Token {
        self.json.tokens.list[self.number as usize]
    }

    fn inside(self, kind: Kind) -> Items<'a> {
        let Token { behind, kind: found, .. } = self.token();
        let next = if found == kind { self.number + 1 } else { behind };
        Items { json: self.json, next, behind }
    }
}

/// See [`JsonText::members`].
#[derive(Debug, Clone)]
pub struct Members<'a>(Items<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (JsonText<'a>, JsonText<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}

/// See [`JsonText::items`].
#[derive(Debug, Clone)]
pub struct Items<'a> {
    json: &'a Json<'a>,
    next: u32,
    behind: u32,
}

impl<'a> Iterator for Items<'a> {
    type Item = JsonText<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.behind {
            return None;
        }
        let item = JsonText { json: self.json, number: self.next };
        self.next = item.token().behind;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(text: &str) -> Vec<(&str, &str)> {
        let json = Json::parse(text).unwrap();
        let ends = |part: JsonText<'_>| part.start()..part.start() + part.as_str().len();
        let members = json.value().members();
        members.map(|(key, value)| (&text[ends(key)], &text[ends(value)])).collect()
    }

    fn items(text: &str) -> Vec<&str> {
        let json = Json::parse(text).unwrap();
        let ends = |part: JsonText<'_>| part.start()..part.start() + part.as_str().len();
        json.value().items().map(|item| &text[ends(item)]).collect()
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
        for text in [
            "",
            " ",
            "{",
            "{}{}",
            "{}x",
            "{\"a\":1,}",
            "{\"a\":1} {}",
            "[1,]",
            "\u{a0}1",
            "01",
            "\"\0\"",
            "nul",
        ] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn strings_are_decoded_and_lone_surrogates_told_apart() {
        let decode = |text| Json::parse(text).unwrap().value().decode().map(Cow::into_owned);
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
            prop_assert_eq!(rebuilt(Json::parse(&text).unwrap().value()), value);
        }
    }
}
