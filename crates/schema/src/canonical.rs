//! The canonical text of a record: what two deliveries of the same content have in common.
//!
//! A relay may reorder keys, re-indent or escape differently; none of that is a revision. So:
//! keys sorted by the UTF-8 bytes of their unescaped text, of doubled keys the last, strings
//! unescaped and written with as few escapes as JSON allows, no blanks. Numbers stay as received,
//! digit by digit: `1`, `1.0` and `1e0` are different contents, since nobody can say what the
//! next reader makes of them.
//!
//! ```text
//!  text ──Json: is it JSON?──▶ check: has it a form? ──▶ write: objects in order of their keys
//! ```

use crate::json_text::{Json, JsonText, Kind};

/// Deepest nesting of arrays and objects that is canonicalised.
pub const MAX_DEPTH: usize = 128;

/// A text without a canonical form: such a record goes to quarantine, where the message is shown.
/// Names places, never content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// The text is not JSON.
    #[error("not JSON: syntax error at line {line}, column {column}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
    /// A string has an escape that is no Unicode text: half of a surrogate pair.
    #[error("string at byte {at} has a lone surrogate, which stands for no Unicode text")]
    LoneSurrogate {
        /// Offset of the string's opening quote.
        at: usize,
    },
    /// Arrays and objects are nested more than [`MAX_DEPTH`] deep.
    #[error("nested more than {MAX_DEPTH} levels deep at byte {at}")]
    TooDeep {
        /// Offset of the bracket that is one too many.
        at: usize,
    },
}

/// The canonical form of one JSON text.
///
/// Takes time in proportion to the text, but for the sorting of each object's keys, memory in
/// proportion to the text, and stack in proportion to [`MAX_DEPTH`].
pub fn canonical_json(text: &str) -> Result<String, CanonicalError> {
    let json = Json::parse(text)
        .map_err(|error| CanonicalError::Syntax { line: error.line(), column: error.column() })?;
    canonical(json.value(), 0)
}

/// The same, where the syntax is proved already; offsets in errors count from the value's begin.
pub fn canonical_of(value: JsonText<'_>) -> Result<String, CanonicalError> {
    canonical(value, value.start())
}

/// Offsets in errors count from `origin` in the whole text.
fn canonical(value: JsonText<'_>, origin: usize) -> Result<String, CanonicalError> {
    // Nothing else can be wrong, and most texts need no look.
    if value.is_escaped() || value.whole().depth() > MAX_DEPTH {
        check(value, 0, origin)?;
    }
    let text = String::with_capacity(value.as_str().len());
    let mut writer = Writer { text, members: Vec::with_capacity(MEMBERS) };
    writer.value(value);
    Ok(writer.text)
}

/// Finds the first trouble in the order of the text, also in members that are overwritten.
fn check(value: JsonText<'_>, depth: usize, origin: usize) -> Result<(), CanonicalError> {
    let at = value.start() - origin;
    match value.kind() {
        Kind::Text if value.decode().is_none() => Err(CanonicalError::LoneSurrogate { at }),
        Kind::Object | Kind::Array if depth >= MAX_DEPTH => Err(CanonicalError::TooDeep { at }),
        Kind::Array => value.items().try_for_each(|item| check(item, depth + 1, origin)),
        Kind::Object => value.members().try_for_each(|(key, value)| {
            check(key, depth + 1, origin)?;
            check(value, depth + 1, origin)
        }),
        _ => Ok(()),
    }
}

/// More members than an object of a CDR has.
const MEMBERS: usize = 64;

struct Writer {
    text: String,
    /// Of the objects that are being written, each sorted, the innermost last: the first bytes of
    /// the key, which tell most keys apart, and its number.
    members: Vec<(u64, u32)>,
}

impl Writer {
    fn value(&mut self, value: JsonText<'_>) {
        match value.kind() {
            Kind::Object => self.object(value),
            Kind::Array => self.array(value),
            Kind::Text => self.string(value),
            Kind::Number | Kind::Boolean | Kind::Null => self.text.push_str(value.as_str()),
        }
    }

    fn array(&mut self, array: JsonText<'_>) {
        self.text.push('[');
        for (index, item) in array.items().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.value(item);
        }
        self.text.push(']');
    }

    fn object(&mut self, object: JsonText<'_>) {
        let first = self.members.len();
        self.members.extend(object.members().map(|(key, _)| (head(key), key.number())));
        let behind = self.members.len();
        sort(&mut self.members[first..], object.whole());
        self.text.push('{');
        let begin = self.text.len();
        for at in first..behind {
            let member = self.members[at];
            let next = self.members[at + 1..behind].first();
            if next.is_some_and(|next| is_same(member, *next, object.whole())) {
                continue;
            }
            if self.text.len() > begin {
                self.text.push(',');
            }
            self.member(object.whole().member(member.1));
        }
        self.text.push('}');
        self.members.truncate(first);
    }

    fn member(&mut self, (key, value): (JsonText<'_>, JsonText<'_>)) {
        if let Some(text) = JsonText::plain_member((key, value)) {
            return self.text.push_str(text);
        }
        self.string(key);
        self.text.push(':');
        self.value(value);
    }

    fn string(&mut self, string: JsonText<'_>) {
        match string.decode() {
            Some(text) if string.is_escaped() => write_string(&mut self.text, &text),
            // Where nothing is escaped, nothing has to be.
            _ => self.text.push_str(string.as_str()),
        }
    }
}

/// A key's first eight bytes as a number that compares as they do; zeros behind a short one.
fn head(key: JsonText<'_>) -> u64 {
    let key = key.decode().unwrap_or_default();
    let bytes = key.as_bytes();
    match bytes.first_chunk() {
        Some(head) => u64::from_be_bytes(*head),
        None => bytes.iter().rev().fold(0, |head, byte| head >> 8 | u64::from(*byte) << 56),
    }
}

/// Sorts members by their keys; of equal keys the last received stays last.
fn sort(members: &mut [(u64, u32)], json: &Json<'_>) {
    // An object of a CDR takes 2 950 instructions this way, and 5 500 by whole keys.
    members.sort_unstable();
    for alike in members.chunk_by_mut(|left, right| left.0 == right.0) {
        if alike.len() > 1 {
            alike.sort_by_cached_key(|(_, number)| json.member(*number).0.decode());
        }
    }
}

fn is_same(left: (u64, u32), right: (u64, u32), json: &Json<'_>) -> bool {
    let key = |number| json.member(number).0.decode();
    left.0 == right.0 && key(left.1) == key(right.1)
}

/// Writes a JSON string with the fewest escapes: `\"`, `\\`, `\b`, `\t`, `\n`, `\f`, `\r`, and
/// `\u00xx` with lower-case digits for the other control characters.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(char::from(DIGITS[c as usize >> 4]));
                out.push(char::from(DIGITS[c as usize & 15]));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
