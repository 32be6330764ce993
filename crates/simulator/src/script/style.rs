//! How a record is written down: variations that change no meaning.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::words;

/// How a call's records are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Style {
    pub numbers_as_strings: bool,
    pub double_blanks: bool,
    pub unknown_fields: bool,
    /// Everything beyond ASCII as `\u` escapes.
    pub escaped: bool,
    /// Times without a value come as "" instead of not at all.
    pub empty_for_absent: bool,
}

/// A JSON object while it is being written, in the order of its members.
pub(super) struct Object {
    members: Map<String, Value>,
    style: Style,
}

impl Object {
    pub fn new(style: Style) -> Self {
        Self { members: Map::new(), style }
    }

    pub fn text(&mut self, name: &str, value: &str) {
        self.members.insert(name.to_owned(), Value::from(value));
    }

    pub fn optional_text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub fn integer(&mut self, name: &str, value: i32) {
        let value = if self.style.numbers_as_strings {
            Value::from(value.to_string())
        } else {
            Value::from(value)
        };
        self.members.insert(name.to_owned(), value);
    }

    /// A time in seconds since 1970.
    pub fn time(&mut self, name: &str, seconds: i64) {
        self.text(name, &words::time(seconds, self.style.double_blanks));
    }

    /// A time that may have no value.
    pub fn optional_time(&mut self, name: &str, seconds: Option<i64>) {
        match seconds {
            Some(seconds) => self.time(name, seconds),
            None if self.style.empty_for_absent => self.text(name, ""),
            None => {}
        }
    }

    pub fn unknown_fields(&mut self) {
        if self.style.unknown_fields {
            self.members.insert("endToEndID".into(), Value::from(543_207_693));
            self.members.insert("callType".into(), Value::Null);
            self.members.insert(
                "extInfo".into(),
                serde_json::json!({"区域": "cn-north-1", "a": [1.50, {}]}),
            );
        }
    }

    pub fn value(self) -> Value {
        Value::Object(self.members)
    }
}

/// The text of a JSON value.
pub(super) fn write(value: &Value, style: Style) -> String {
    let text = value.to_string();
    if !style.escaped || text.is_ascii() {
        return text;
    }
    // Beyond ASCII there is nothing outside of strings, so every such character may be escaped.
    let mut escaped = String::with_capacity(text.len() * 2);
    for character in text.chars() {
        if character.is_ascii() {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Cannot fail: a String takes whatever is written.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}
