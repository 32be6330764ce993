//! Reading JSON without building a tree: members and items as the text they are.
//!
//! Everything here is iterative (`RawValue` skips a nested value without recursion), so depth of
//! nesting costs no stack, and a value is never copied before it is known to be wanted.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON value's type, told from its first character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    Text,
    Number,
    Boolean,
    Null,
}

impl Kind {
    /// The type of a value that is known to be well-formed.
    pub(crate) fn of(raw: &str) -> Self {
        match raw.trim_start().as_bytes().first() {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b'"') => Self::Text,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'n') | None => Self::Null,
            Some(_) => Self::Number,
        }
    }

    /// For a person, with its article.
    pub(crate) fn name(self) -> &'static str {
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

/// Whether the text is one well-formed JSON value and nothing else.
pub(crate) fn is_well_formed(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The characters of a well-formed JSON string; `None` if it contains a lone surrogate.
pub(crate) fn decode(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Calls `each` with key and value of every member of an object, as written and in order.
pub(crate) fn members<'a>(
    text: &'a str,
    each: impl FnMut(&'a str, &'a str),
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(EachMember(each))?;
    deserializer.end()
}

/// The items of an array as written, or `None` if there are more than `limit`.
pub(crate) fn items(text: &str, limit: usize) -> Result<Option<Vec<&str>>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let items = deserializer.deserialize_seq(AtMost(limit))?;
    deserializer.end()?;
    Ok(items)
}

struct EachMember<F>(F);

impl<'de, F: FnMut(&'de str, &'de str)> Visitor<'de> for EachMember<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        // Keys stay raw as well: decoding one with a lone surrogate would fail the whole object.
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            (self.0)(key.get(), value.get());
        }
        Ok(())
    }
}

struct AtMost(usize);

impl<'de> Visitor<'de> for AtMost {
    type Value = Option<Vec<&'de str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<&'de RawValue>()? {
            if items.len() == self.0 {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(None);
            }
            items.push(item.get());
        }
        Ok(Some(items))
    }
}

/// Whether a value says nothing: `null`, `""` or a string of blanks.
pub(crate) fn is_blank(raw: &str) -> bool {
    match Kind::of(raw) {
        Kind::Null => true,
        Kind::Text => decode(raw).is_some_and(|text| text.trim().is_empty()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<(&str, &str)> {
        let mut found = Vec::new();
        members(text, |key, value| found.push((key, value))).unwrap();
        found
    }

    #[test]
    fn members_come_as_written_and_in_order() {
        assert_eq!(
            keys(" { \"b\" : [1, 2] ,\"a\\u0041\":1e5,\"\\ud800\":null,\"b\":{} } "),
            [
                ("\"b\"", "[1, 2]"),
                ("\"a\\u0041\"", "1e5"),
                ("\"\\ud800\"", "null"),
                ("\"b\"", "{}")
            ]
        );
    }

    #[test]
    fn a_value_nested_a_million_deep_is_skipped_without_recursion() {
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(keys(&deep).len(), 1);
        assert!(is_well_formed(&deep));
    }

    #[test]
    fn a_member_that_imitates_the_raw_value_marker_is_an_ordinary_member() {
        let text = r#"{"$serde_json::private::RawValue":"{}","a":1}"#;
        assert_eq!(keys(text).len(), 2);
        assert_eq!(keys(text)[1], ("\"a\"", "1"));
    }

    #[test]
    fn items_beyond_the_limit_are_refused_as_a_whole() {
        assert_eq!(items("[1, {}, \"x\"]", 3).unwrap(), Some(vec!["1", "{}", "\"x\""]));
        assert_eq!(items("[1, 2, 3, 4]", 3).unwrap(), None);
        assert!(items("[1, 2, 3, 4,]", 3).is_err());
    }

    #[test]
    fn strings_are_decoded_and_lone_surrogates_told_apart() {
        assert_eq!(decode(r#""plain""#).as_deref(), Some("plain"));
        assert_eq!(decode(r#""a\n\u00e9\ud83d\ude00\u0000""#).as_deref(), Some("a\né😀\0"));
        assert_eq!(decode(r#""\ud83d""#), None);
        assert_eq!(decode(r#""\ude00\ud83d""#), None);
    }
}
