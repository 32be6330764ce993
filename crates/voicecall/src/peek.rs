//! The cheap look at a body before the answer: what it is, and whether it is JSON at all.
//!
//! Used when a spool nears its bound or a path has spent its quota (blueprint 3.2). Both looks
//! take time and memory in proportion to the body.

use tollgate_schema::json_text::Json;

use crate::message::Message;
use crate::read::text_of;

/// What a body is, as far as the choice between taking and refusing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peek {
    /// A CDR notification: the platform sends it again.
    Cdr,
    /// Anything else, a status notification above all: it never comes again.
    Other,
}

/// Sorts a body by its top-level eventType and feeLst, exactly as [`crate::read`] does.
pub fn peek(body: &[u8]) -> Peek {
    match text_of(body).map(Json::parse) {
        Some(Ok(body)) if matches!(Message::of(&body), Message::Fee { .. }) => Peek::Cdr,
        _ => Peek::Other,
    }
}

/// Whether the body is well-formed JSON in UTF-8; a byte order mark is allowed.
pub fn is_well_formed(body: &[u8]) -> bool {
    text_of(body).is_some_and(|text| Json::parse(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cdr_notifications_are_told_apart() {
        assert_eq!(peek(br#"{"eventType":"fee","feeLst":[]}"#), Peek::Cdr);
        assert_eq!(peek(b"\xef\xbb\xbf {\"EventType\":1,\"feeLst\":[{}]}"), Peek::Cdr);
        assert_eq!(peek(br#"{"statusInfo":{"feeLst":[1],"eventType":"fee"}}"#), Peek::Other);
        assert_eq!(peek(br#"{"eventType":"callout"}"#), Peek::Other);
        assert_eq!(peek(br#"{"eventType":"fee","feeLst":[}"#), Peek::Other);
        assert_eq!(peek(b"\xff"), Peek::Other);
    }

    #[test]
    fn json_of_any_shape_is_well_formed_and_nothing_else_is() {
        for body in [&b"null"[..], b" [1,2] ", b"\xef\xbb\xbf{}", br#""\ud800""#] {
            assert!(is_well_formed(body));
        }
        for body in [&b""[..], b"{", b"\"\xff\"", b"{}{}", b"\"\0\"", b"01", b"\xfe\xff\0{\0}"] {
            assert!(!is_well_formed(body));
        }
    }
}
