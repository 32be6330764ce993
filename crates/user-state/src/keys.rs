//! Fixed-length identities of sessions and numbers, and the pseudonyms shown for them.
//!
//! The sender's texts are data, never keys: they may be kilobytes long or contain a NUL.

use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::UserStateError;

/// Identity of a session or of a number: 128 bits of SHA-256 over its kind and its text.
pub type Key = [u8; 16];

/// The key of a session. A record without a session id is a call of its own, named by its
/// record id.
pub fn session_key(session_id: &str, record_id: &[u8]) -> Key {
    if session_id.is_empty() {
        digest(b"tollgate-state-record-1", record_id)
    } else {
        digest(b"tollgate-state-session-1", session_id.as_bytes())
    }
}

/// The key of a number.
pub fn number_key(number: &str) -> Key {
    digest(b"tollgate-state-number-1", number.as_bytes())
}

/// Which partition of call-events relays this number's states.
pub fn shard(number_key: &Key, partitions: i32) -> i32 {
    let head = u32::from_be_bytes([number_key[0], number_key[1], number_key[2], number_key[3]]);
    // Below `partitions`, which is positive, so it fits.
    (head % partitions.max(1) as u32) as i32
}

fn digest(kind: &[u8], text: &[u8]) -> Key {
    let digest = Sha256::new().chain_update(kind).chain_update(text).finalize();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

/// What the compacted topic shows instead of numbers and session ids, where a deployment asks
/// for it: a keyed hash, equal for equal texts. Session ids too, since some contain numbers.
#[derive(Clone)]
pub struct Pseudonyms {
    mac: Hmac<Sha256>,
}

impl Pseudonyms {
    /// With this key.
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    pub fn new(key: &[u8]) -> Self {
        Self { mac: Hmac::new_from_slice(key).expect("HMAC takes keys of any length") }
    }

    /// With the key in this file, blanks around it removed.
    pub fn from_file(path: &Path) -> Result<Self, UserStateError> {
        let text = std::fs::read(path).map_err(|error| {
            let path = path.display();
            UserStateError::Settings(format!(
                "pseudonym_key_file names {path}, which cannot be read: {error}"
            ))
        })?;
        let key = text.trim_ascii();
        if key.len() < 16 {
            return Err(UserStateError::PseudonymKeyTooShort);
        }
        Ok(Self::new(key))
    }

    /// The pseudonym of a text, 32 hex digits.
    pub fn of(&self, text: &str) -> String {
        let mac = self.mac.clone().chain_update(text.as_bytes());
        hex::encode(&mac.finalize().into_bytes()[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_keys_never_meet_and_records_without_session_stay_apart() {
        assert_ne!(session_key("x", b"1"), number_key("x"));
        assert_eq!(session_key("x", b"1"), session_key("x", b"2"));
        assert_ne!(session_key("", b"1"), session_key("", b"2"));
    }

    #[test]
    fn every_number_has_a_shard_among_the_partitions() {
        for partitions in [1, 3, 12] {
            let shards: std::collections::BTreeSet<i32> = (0..200)
                .map(|number| shard(&number_key(&number.to_string()), partitions))
                .collect();
            assert_eq!(shards.into_iter().collect::<Vec<_>>(), (0..partitions).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_pseudonym_depends_on_the_key_and_shows_nothing() {
        let (one, other) = (Pseudonyms::new(b"one"), Pseudonyms::new(b"other"));
        assert_eq!(one.of("+8613800000021"), one.of("+8613800000021"));
        assert_ne!(one.of("+8613800000021"), other.of("+8613800000021"));
        assert!(!one.of("+8613800000021").contains("138000"));
    }
}
