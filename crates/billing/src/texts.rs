//! What is kept of the texts that a sender chose. Each may be as long as a whole request; kept
//! whole, a batch of small records could load gigabytes of what was said about them before.

use crate::keys;

/// Longest session id that is kept whole, in bytes; the platform's have at most 256 characters.
pub const MAX_SESSION_BYTES: usize = 1_024;
/// Longest other text that is kept whole, in bytes; the platform's have at most 128 characters.
pub const MAX_TEXT_BYTES: usize = 256;

/// A session id as it is kept and looked up.
pub fn session(text: String) -> String {
    shorten(text, MAX_SESSION_BYTES)
}

/// Any other text as it is kept and compared.
pub fn short(text: String) -> String {
    shorten(text, MAX_TEXT_BYTES)
}

/// Cuts what is longer, and ends it with a hash of the whole, so that different texts stay
/// different. Shortening again changes nothing.
fn shorten(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let end = format!("…{}", hex::encode(keys::text_key(&text)));
    let begin = &text[..text.floor_char_boundary(most - end.len())];
    format!("{begin}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_still_tells_itself_from_others() {
        let long = |end: &str| format!("{}{end}", "é".repeat(200));
        let kept = short(long("a"));
        assert!(kept.len() <= MAX_TEXT_BYTES && kept.starts_with("éé"), "{kept}");
        assert_ne!(kept, short(long("b")));
        assert_eq!(short(kept.clone()), kept);
    }

    #[test]
    fn a_text_of_usual_length_is_kept_as_it_is() {
        for length in [0, 1, MAX_TEXT_BYTES] {
            let text = "s".repeat(length);
            assert_eq!(short(text.clone()), text);
        }
        let id = "\u{10ffff}".repeat(256);
        assert_eq!(session(id.clone()), id);
    }
}
