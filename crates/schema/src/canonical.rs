//! The canonical text of a record: what two deliveries of the same content have in common.
//!
//! A relay may reorder keys, re-indent or escape differently; none of that is a revision. So:
//! keys sorted by the UTF-8 bytes of their unescaped text, of doubled keys the last, strings
//! unescaped and written with as few escapes as JSON allows, no blanks. Numbers stay as received,
//! digit by digit: `1`, `1.0` and `1e0` are different contents, since nobody can say what the
//! next reader makes of them.
//!
//! ```text
//!  text ──JsonText: is it JSON?──▶ walk: copy tokens, unescape strings ──▶ sort each object
//! ```

use std::borrow::Cow;
use std::ops::Range;

use crate::json_text::{JsonText, end_of_string, end_of_token};
use crate::key::Key;

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
/// Takes time in proportion to the text times its depth at most, memory in proportion to the
/// text, and stack in proportion to [`MAX_DEPTH`].
pub fn canonical_json(text: &str) -> Result<String, CanonicalError> {
    JsonText::check(text)
        .map_err(|error| CanonicalError::Syntax { line: error.line(), column: error.column() })?;
    walk(text)
}

/// The same, where the syntax is proved already; offsets in errors count from the value's begin.
pub fn canonical_of(value: JsonText<'_>) -> Result<String, CanonicalError> {
    walk(value.as_str())
}

fn walk(text: &str) -> Result<String, CanonicalError> {
    let mut walk = Walk { text, at: 0, out: String::with_capacity(text.len()) };
    walk.value(0)?;
    Ok(walk.out)
}

/// A walk over valid JSON.
struct Walk<'a> {
    text: &'a str,
    at: usize,
    out: String,
}

/// A member of an object: its unescaped key, and where it stands in the output, key included.
struct Member<'a> {
    key: Key<'a>,
    written: Range<usize>,
}

impl<'a> Walk<'a> {
    fn value(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.skip_blanks();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(drop),
            _ => {
                self.token();
                Ok(())
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.enter(depth)?;
        self.out.push('{');
        let begin = self.out.len();
        let mut members: Vec<Member<'a>> = Vec::new();
        let mut in_order = true;
        while !self.leaves(b'}') {
            if self.out.len() > begin {
                self.out.push(',');
            }
            let start = self.out.len();
            let key = Key::new(self.string()?);
            self.skip_blanks();
            self.at += 1; // the colon
            self.out.push(':');
            self.value(depth + 1)?;
            in_order &= members.last().is_none_or(|last| last.key < key);
            members.push(Member { key, written: start..self.out.len() });
        }
        if !in_order {
            self.arrange(begin, members);
        }
        self.out.push('}');
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.enter(depth)?;
        self.out.push('[');
        let begin = self.out.len();
        while !self.leaves(b']') {
            if self.out.len() > begin {
                self.out.push(',');
            }
            self.value(depth + 1)?;
        }
        self.out.push(']');
        Ok(())
    }

    /// Puts the members written since `begin` into order, and keeps the last of equals only.
    fn arrange(&mut self, begin: usize, mut members: Vec<Member<'a>>) {
        // Stable: of equal keys the last received stays last.
        members.sort_by(|left, right| left.key.cmp(&right.key));
        let mut sorted = String::with_capacity(self.out.len() - begin);
        for (index, member) in members.iter().enumerate() {
            if members.get(index + 1).is_some_and(|next| next.key == member.key) {
                continue;
            }
            if !sorted.is_empty() {
                sorted.push(',');
            }
            sorted.push_str(&self.out[member.written.clone()]);
        }
        self.out.truncate(begin);
        self.out.push_str(&sorted);
    }

    fn enter(&mut self, depth: usize) -> Result<(), CanonicalError> {
        if depth >= MAX_DEPTH {
            return Err(CanonicalError::TooDeep { at: self.at });
        }
        self.at += 1; // the bracket
        Ok(())
    }

    /// Moves to the next item, or past the closing bracket and says so.
    fn leaves(&mut self, closing: u8) -> bool {
        self.skip_blanks();
        if self.peek() == Some(b',') {
            self.at += 1;
            self.skip_blanks();
        }
        let leaves = self.peek() == Some(closing);
        if leaves {
            self.at += 1;
        }
        leaves
    }

    /// Writes a string token in its canonical form; gives its characters.
    fn string(&mut self) -> Result<Cow<'a, str>, CanonicalError> {
        let start = self.at;
        let (length, escaped) = end_of_string(&self.text.as_bytes()[start..]);
        self.at += length;
        let token = &self.text[start..self.at];
        if !escaped {
            // Where nothing is escaped, nothing has to be.
            self.out.push_str(token);
            return Ok(Cow::Borrowed(&token[1..token.len() - 1]));
        }
        // The escapes are well formed, so all that can be wrong is what they stand for.
        let text: String =
            serde_json::from_str(token).map_err(|_| CanonicalError::LoneSurrogate { at: start })?;
        write_string(&mut self.out, &text);
        Ok(Cow::Owned(text))
    }

    /// Copies a number, true, false or null as it stands.
    fn token(&mut self) {
        let rest = &self.text[self.at..];
        let token = &rest[..end_of_token(rest.as_bytes())];
        self.out.push_str(token);
        self.at += token.len();
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
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
