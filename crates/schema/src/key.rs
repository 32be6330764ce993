//! Keys of objects, made to be compared.

use std::borrow::Cow;

/// A key, in the order of its UTF-8 bytes. Its first bytes are kept as a number, which tells most
/// keys apart: an object of a CDR has thirty, and each is compared about ten times.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key<'a> {
    /// Big endian, so that numbers compare as the bytes do; zeros behind a short text.
    head: u128,
    /// Decides where the heads are equal, also between "a" and "a\0".
    text: Cow<'a, str>,
}

impl Key<'static> {
    /// A key that is known beforehand.
    pub const fn known(text: &'static str) -> Self {
        let bytes = text.as_bytes();
        let mut head = [0; 16];
        let mut at = 0;
        while at < bytes.len() && at < head.len() {
            head[at] = bytes[at];
            at += 1;
        }
        Self { head: u128::from_be_bytes(head), text: Cow::Borrowed(text) }
    }
}

impl<'a> Key<'a> {
    /// A key as received, unescaped.
    pub fn new(text: Cow<'a, str>) -> Self {
        let bytes = text.as_bytes();
        let length = bytes.len().min(16);
        let mut head = [0; 16];
        head[..length].copy_from_slice(&bytes[..length]);
        Self { head: u128::from_be_bytes(head), text }
    }

    /// Its characters.
    pub const fn as_str(&self) -> &str {
        match &self.text {
            Cow::Borrowed(text) => text,
            Cow::Owned(text) => text.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_known_beforehand_is_the_same_key() {
        for text in ["", "appKey", "sixteen bytes...", "more than sixteen bytes"] {
            assert_eq!(Key::known(text), Key::new(text.into()));
        }
    }

    proptest! {
        #[test]
        fn keys_compare_as_their_bytes(left in "[a\0é]{0,3}(x{14}[ab]{0,3})?", right in "[a\0é]{0,3}(x{14}[ab]{0,3})?") {
            let order = Key::new(left.as_str().into()).cmp(&Key::new(right.as_str().into()));
            prop_assert_eq!(order, left.as_bytes().cmp(right.as_bytes()));
        }
    }
}
