//! What stands for a session id or a phone number in a log line.

use std::sync::OnceLock;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

static KEY: OnceLock<Vec<u8>> = OnceLock::new();

/// Sets the key. Without this call, or after it, the first key stays: a process has one.
pub fn set_key(key: Vec<u8>) {
    let _ = KEY.set(key);
}

/// A keyed hash, 16 hex digits: equal texts are equal within one key, and nobody without the key
/// can try numbers until one fits.
pub fn of(text: &str) -> String {
    let key = KEY.get_or_init(|| rand::random::<[u8; 32]>().to_vec());
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    hex::encode(&mac.finalize().into_bytes()[..8])
}

/// A phone number with its middle hidden: the first four and the last two characters stay.
pub fn mask(number: &str) -> String {
    let characters: Vec<char> = number.chars().collect();
    if characters.len() < 8 {
        return "*".repeat(characters.len());
    }
    let hidden = characters.len() - 6;
    let head: String = characters[..4].iter().collect();
    let tail: String = characters[characters.len() - 2..].iter().collect();
    format!("{head}{}{tail}", "*".repeat(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_equal_hashes_and_show_nothing() {
        assert_eq!(of("+8613800000021"), of("+8613800000021"));
        assert_ne!(of("+8613800000021"), of("+8613800000022"));
        assert!(!of("+8613800000021").contains("13800000021"));
    }

    #[test]
    fn a_masked_number_keeps_its_ends_only() {
        assert_eq!(mask("+8613800000021"), "+861********21");
        assert_eq!(mask("12345"), "*****");
    }
}
