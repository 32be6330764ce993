//! Proves that a text is JSON, in one pass that also notes where each value begins and ends.
//!
//! Accepts exactly what serde_json does, which a test holds it to. Nothing recurses, so depth of
//! nesting costs no stack: while an array or object is open, its token names the one around it. A
//! token takes 16 bytes, and a text has at most one for each byte.

use crate::json_text::Kind;

/// One value, or one key of an object; those inside of it follow it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    /// Where its first byte stands.
    pub(crate) start: u32,
    /// Where it has ended.
    pub(crate) end: u32,
    /// Number of the first token that is not inside of it. While it is open: of the token around.
    pub(crate) behind: u32,
    pub(crate) kind: Kind,
    /// Whether a string has a backslash, itself or inside.
    pub(crate) escaped: bool,
}

/// What a text consists of.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// In the order in which they begin.
    pub(crate) list: Vec<Token>,
    /// How many arrays and objects are around the deepest value, itself included.
    pub(crate) depth: usize,
}

/// Stands for no token; a text is shorter than that.
const NONE: u32 = u32::MAX;

/// A value and its comma are seldom shorter. A guess: what a list of tokens begins with.
const BYTES_OF_A_TOKEN: usize = 10;

/// The tokens of a text; `None` where it is not one JSON value, or longer than 4 GiB.
pub(crate) fn tokens(text: &str) -> Option<Tokens> {
    if text.len() >= NONE as usize {
        return None;
    }
    let list = Vec::with_capacity(text.len() / BYTES_OF_A_TOKEN + 1);
    let parser = Parser { bytes: text.as_bytes(), at: 0, list, open: NONE, depth: 0, deepest: 0 };
    parser.run()
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    list: Vec<Token>,
    /// The innermost array or object that has not ended.
    open: u32,
    /// How many of them there are.
    depth: usize,
    deepest: usize,
}

impl Parser<'_> {
    fn run(mut self) -> Option<Tokens> {
        loop {
            self.skip_blanks();
            match self.peek()? {
                b'"' => self.string()?,
                b'{' => {
                    self.open(Kind::Object);
                    if self.peek()? != b'}' {
                        self.key()?;
                        continue;
                    }
                    self.close();
                }
                b'[' => {
                    self.open(Kind::Array);
                    if self.peek()? != b']' {
                        continue;
                    }
                    self.close();
                }
                b't' => self.literal(b"true", Kind::Boolean)?,
                b'f' => self.literal(b"false", Kind::Boolean)?,
                b'n' => self.literal(b"null", Kind::Null)?,
                _ => self.number()?,
            }
            // A value has ended, and maybe what it is the last of.
            while self.next_is_end()? {
                if self.open == NONE {
                    return Some(Tokens { list: self.list, depth: self.deepest });
                }
                self.close();
            }
        }
    }

    /// Behind a value: whether the text or what is open ends here, or goes on behind a comma (and
    /// a key), which are passed.
    fn next_is_end(&mut self) -> Option<bool> {
        self.skip_blanks();
        if self.open == NONE {
            return (self.at == self.bytes.len()).then_some(true);
        }
        let in_object = self.list[self.open as usize].kind == Kind::Object;
        match self.peek()? {
            b',' => {
                self.at += 1;
                if in_object {
                    self.skip_blanks();
                    self.key()?;
                }
                Some(false)
            }
            b'}' => in_object.then_some(true),
            b']' => (!in_object).then_some(true),
            _ => None,
        }
    }

    fn open(&mut self, kind: Kind) {
        let token = self.list.len() as u32;
        let start = self.at as u32;
        self.add(Token { start, end: start, behind: self.open, kind, escaped: false });
        self.open = token;
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        self.at += 1;
        self.skip_blanks();
    }

    /// At the closing bracket.
    fn close(&mut self) {
        self.at += 1;
        let behind = self.list.len() as u32;
        let token = &mut self.list[self.open as usize];
        let (around, escaped) = (token.behind, token.escaped);
        token.end = self.at as u32;
        token.behind = behind;
        self.open = around;
        self.depth -= 1;
        self.note_escape(escaped);
    }

    fn note_escape(&mut self, escaped: bool) {
        if escaped && self.open != NONE {
            self.list[self.open as usize].escaped = true;
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Option<()> {
        if self.peek()? != b'"' {
            return None;
        }
        self.string()?;
        self.skip_blanks();
        self.expect(b':')
    }

    fn string(&mut self) -> Option<()> {
        let start = self.at;
        let mut at = start + 1;
        let mut escaped = false;
        loop {
            at += plain_length(&self.bytes[at..]);
            match self.bytes.get(at)? {
                b'"' => break,
                b'\\' => at += escape_length(&self.bytes[at..])?,
                _ => return None,
            }
            escaped = true;
        }
        self.at = at + 1;
        self.push(start, Kind::Text, escaped);
        self.note_escape(escaped);
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        self.skip(b"-");
        if !self.skip(b"0") {
            self.digits()?;
        }
        if self.skip(b".") {
            self.digits()?;
        }
        if self.skip(b"eE") {
            self.skip(b"+-");
            self.digits()?;
        }
        self.push(start, Kind::Number, false);
        Some(())
    }

    /// One digit at least.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn literal(&mut self, word: &[u8], kind: Kind) -> Option<()> {
        let start = self.at;
        self.bytes[start..].starts_with(word).then_some(())?;
        self.at += word.len();
        self.push(start, kind, false);
        Some(())
    }

    /// A token with nothing inside.
    fn push(&mut self, start: usize, kind: Kind, escaped: bool) {
        let behind = self.list.len() as u32 + 1;
        let (start, end) = (start as u32, self.at as u32);
        self.add(Token { start, end, behind, kind, escaped });
    }

    fn add(&mut self, token: Token) {
        // Once at most, to all that the rest can need: doubling could end at twice as much.
        if self.list.len() == self.list.capacity() {
            self.list.reserve_exact(self.bytes.len() - self.at + 1);
        }
        self.list.push(token);
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// Moves past one of these bytes, if it comes next, and says whether it did.
    fn skip(&mut self, any_of: &[u8]) -> bool {
        let found = self.peek().is_some_and(|byte| any_of.contains(&byte));
        self.at += usize::from(found);
        found
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
}

/// Length of the escape that the bytes begin with, if it is well formed, whatever it stands for.
fn escape_length(bytes: &[u8]) -> Option<usize> {
    match bytes.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => bytes.get(2..6)?.iter().all(u8::is_ascii_hexdigit).then_some(6),
        _ => None,
    }
}

/// How many bytes stand before the first quote, backslash or control character.
///
/// Eight at a time: most strings are so short that to call a search for one takes longer.
fn plain_length(bytes: &[u8]) -> usize {
    const fn all(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    // Sets the high bit of a byte that is less than `limit`, and maybe of bytes above the lowest
    // such byte, where the subtraction has borrowed; the lowest one is right.
    let less = |eight: u64, limit: u8| eight.wrapping_sub(all(limit)) & !eight & all(0x80);
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk() {
        let eight = u64::from_le_bytes(*eight);
        let ends = less(eight ^ all(b'"'), 1) | less(eight ^ all(b'\\'), 1) | less(eight, b' ');
        if ends != 0 {
            return at + ends.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..b' ');
    at + bytes[at..].iter().position(ends).unwrap_or(bytes.len() - at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn agree(text: &str) -> Result<(), TestCaseError> {
        let proved = serde_json::from_str::<IgnoredAny>(text).is_ok();
        prop_assert_eq!(tokens(text).is_some(), proved, "{}", text);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn what_is_json_is_what_serde_json_says(
            text in prop_oneof![
                any::<String>(),
                r#"[\[\]{}",:0-9aeE\\u \n\t.+-]{0,24}"#,
                r#"[{\[] ?"(\\u[dD][89abcdefg]0[0g]|\\["\\/bfnrtux]|a|é|[\x00-\x20\x7f]){0,6}" ?[]}:0]{0,3}"#,
                r"-?[01]{0,2}(\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?",
                "[ \r\n\t]?(true|false|null|nul|True|truefalse)[ \u{a0}\u{feff}\u{c}]?",
            ],
        ) {
            agree(&text)?;
        }

        #[test]
        fn the_same_holds_wherever_a_good_text_is_damaged(
            at in any::<prop::sample::Index>(),
            with in prop::sample::select(vec!["", "\"", "\\", "{", "}", "[", "]", ",", ":", "0", "\n", "\u{1f}"]),
            keep in any::<bool>(),
        ) {
            let text = r#" {"a":[1,-2.5e+3,{}, []],"b\"\\":{"c":null ,"d":true,"a long text":"of more than 8"}} "#;
            let at = at.index(text.len());
            agree(&format!("{}{with}{}", &text[..at], &text[at + usize::from(!keep)..]))?;
        }

        #[test]
        fn a_string_ends_where_a_search_byte_by_byte_ends(bytes in prop::collection::vec(
            prop_oneof![4 => any::<u8>(), 1 => prop::sample::select(b"\"\\\x1f \x7f\x80\xa2".to_vec())], 0..40,
        )) {
            let expected = bytes.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)).count();
            prop_assert_eq!(plain_length(&bytes), expected);
        }
    }

    #[test]
    fn every_token_knows_its_place_and_its_escapes() {
        let text = r#" {"a" : [1, "\n"], "b":{}} "#;
        let Tokens { list, depth } = tokens(text).unwrap();
        let found: Vec<_> = list
            .iter()
            .map(|it| (&text[it.start as usize..it.end as usize], it.behind, it.escaped))
            .collect();
        let expected = [
            (text.trim(), 7, true),
            ("\"a\"", 2, false),
            (r#"[1, "\n"]"#, 5, true),
            ("1", 4, false),
            (r#""\n""#, 5, true),
            ("\"b\"", 6, false),
            ("{}", 7, false),
        ];
        assert_eq!(found, expected);
        assert_eq!(depth, 2);
    }
}
