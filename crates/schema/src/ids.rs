//! Identities: a record's, its content's, a ledger entry's.
//!
//! Every id is the first 128 bits of a SHA-256. What goes into the hash is written down, with
//! test vectors and a Python version, in `proto/tollgate/v1/ids.md`: downstream teams recompute
//! these ids, so nothing here may ever change. A new rule gets a new name.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Text that is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected 32 lower-case hex digits")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Takes 16 bytes as they come, for example from a database.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The id as 16 bytes: the form for keys and indexes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The form in messages and headers: 32 lower-case hex digits.
            pub fn to_hex(&self) -> String {
                let mut digits = vec![0; 32];
                // Of 16 bytes there are 32 digits, and digits are UTF-8.
                let _ = hex::encode_to_slice(self.0, &mut digits);
                String::from_utf8(digits).unwrap_or_default()
            }

            /// Reads 32 lower-case hex digits, the form in messages and headers. Other spellings
            /// are refused: two texts of one id would compare as different.
            pub fn from_hex(text: &str) -> Result<Self, InvalidId> {
                parse_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::from_hex(text)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = InvalidId;

            fn try_from(bytes: &[u8]) -> Result<Self, InvalidId> {
                bytes.try_into().map(Self).map_err(|_| InvalidId)
            }
        }
    };
}

id! {
    /// Identity of a record: equal for every delivery and every revision of it.
    RecordId
}
id! {
    /// Identity of a record's content: equal for every delivery of the same content, another one
    /// for a revision. Travels as `ce_id`.
    EventId
}
id! {
    /// Identity of quarantined bytes; the key of topic `quarantine`.
    QuarantineId
}
id! {
    /// Identity of a ledger entry.
    EntryId
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// A status notification.
    Status,
    /// One item of a CDR notification.
    Cdr,
}

impl RecordKind {
    /// Its name inside the hash.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Cdr => "cdr",
        }
    }
}

/// Which of a record's fields identify it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A CDR with an appKey and an icid.
    CdrByIcid,
    /// A CDR without one of them, whose sessionId and at least one instant are readable.
    CdrBySession,
    /// A status whose sessionId, eventType and timestamp are readable.
    StatusByEvent,
    /// Anything else: the record's own bytes.
    ByBytes,
}

impl Rule {
    /// Its name inside the hash.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CdrByIcid => "cdr-by-icid",
            Self::CdrBySession => "cdr-by-session",
            Self::StatusByEvent => "status-by-event",
            Self::ByBytes => "by-bytes",
        }
    }

    /// The fields it takes, in the order in which [`record_id`] wants them.
    pub const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::CdrByIcid => &["appKey", "icid"],
            Self::CdrBySession => &[
                "appKey",
                "sessionId",
                "direction",
                "calleeNum",
                "fwdDstNum",
                "callOutStartTime, else callInTime",
                "callEndTime, else failTime",
            ],
            Self::StatusByEvent => {
                &["sessionId", "eventType", "called", "timestamp", "digitInfo of a collectInfo"]
            }
            Self::ByBytes => &["the record as received"],
        }
    }
}

/// The identity of a record.
///
/// `fields` are those that [`Rule::fields`] names, in that order, normalised by the caller: text
/// as unescaped UTF-8, eventType in its documented spelling, instants as decimal milliseconds since 1970 in UTC, integers as decimal
/// text; absent, null and "" are empty.
pub fn record_id(kind: RecordKind, rule: Rule, fields: &[&[u8]]) -> RecordId {
    debug_assert_eq!(fields.len(), rule.fields().len(), "fields of rule {}", rule.name());
    let head = ["tollgate.v1.record".as_bytes(), kind.name().as_bytes(), rule.name().as_bytes()];
    RecordId(hash(head.into_iter().chain(fields.iter().copied())))
}

/// The identity of a record's content. `canonical_json` comes from
/// [`canonical::canonical_json`](crate::canonical::canonical_json).
pub fn event_id(record: &RecordId, canonical_json: &str) -> EventId {
    let content = Sha256::digest(canonical_json.as_bytes());
    EventId(hash(["tollgate.v1.event".as_bytes(), record.as_bytes(), content.as_ref()]))
}

/// The identity of quarantined bytes: their plain SHA-256, cut to 128 bits, so that any tool can
/// compute it.
pub fn quarantine_id(bytes: &[u8]) -> QuarantineId {
    QuarantineId(first_16(&Sha256::digest(bytes).into()))
}

/// The identity of a ledger entry. `kind` is `charge` or `reversal`; `revision` counts a record's
/// charges from 1, and a reversal has that of the charge it takes back.
pub fn entry_id(record: &RecordId, kind: &str, revision: u32) -> EntryId {
    let revision = revision.to_string();
    EntryId(hash([
        "tollgate.v1.entry".as_bytes(),
        record.as_bytes(),
        kind.as_bytes(),
        revision.as_bytes(),
    ]))
}

/// The `ce_id` of a published user state: the same state published again has the same id.
/// `number` is the topic's key, that is, the number or its pseudonym.
pub fn state_id(number: &str, version: u64) -> EventId {
    let version = version.to_string();
    EventId(hash(["tollgate.v1.user-state".as_bytes(), number.as_bytes(), version.as_bytes()]))
}

/// First 128 bits of SHA-256 over the parts, each after its length as eight bytes, big endian.
/// The lengths make it injective: no two lists of parts feed the hash the same bytes.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    first_16(&hasher.finalize().into())
}

fn first_16(digest: &[u8; 32]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    first
}

fn parse_hex(text: &str) -> Result<[u8; 16], InvalidId> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(InvalidId);
    }
    let mut bytes = [0; 16];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash_all(parts: &[Vec<u8>]) -> [u8; 16] {
        hash(parts.iter().map(Vec::as_slice))
    }

    proptest! {
        /// Two lists are cut out of one run of bytes, so that only the cuts can tell them apart.
        #[test]
        fn moving_the_border_between_two_fields_changes_the_id(
            bytes in prop::collection::vec(0u8..3, 1..24),
            first in any::<prop::sample::Index>(),
            second in any::<prop::sample::Index>(),
        ) {
            let (first, second) = (first.index(bytes.len() + 1), second.index(bytes.len() + 1));
            let cut = |at: usize| vec![bytes[..at].to_vec(), bytes[at..].to_vec()];
            prop_assert_eq!(hash_all(&cut(first)) == hash_all(&cut(second)), first == second);
        }

        #[test]
        fn different_lists_of_fields_have_different_ids(
            left in prop::collection::vec(prop::collection::vec(0u8..2, 0..3), 0..4),
            right in prop::collection::vec(prop::collection::vec(0u8..2, 0..3), 0..4),
        ) {
            prop_assert_eq!(hash_all(&left) == hash_all(&right), left == right);
        }

        #[test]
        fn an_id_survives_its_text(bytes in any::<[u8; 16]>()) {
            let id = RecordId::from_bytes(bytes);
            let text = id.to_string();
            prop_assert_eq!(text.len(), 32);
            prop_assert_eq!(RecordId::from_hex(&text), Ok(id));
            prop_assert_eq!(RecordId::try_from(&bytes[..]), Ok(id));
        }

        #[test]
        fn ids_order_as_their_texts_do(left in any::<[u8; 16]>(), right in any::<[u8; 16]>()) {
            let (left, right) = (EventId::from_bytes(left), EventId::from_bytes(right));
            prop_assert_eq!(left.cmp(&right), left.to_string().cmp(&right.to_string()));
        }

        #[test]
        fn entries_of_different_kind_or_revision_have_different_ids(
            left in ("(charge|reversal|unrated|)[0-9]{0,2}", 0u32..130),
            right in ("(charge|reversal|unrated|)[0-9]{0,2}", 0u32..130),
        ) {
            let record = RecordId::from_bytes([7; 16]);
            let id = |(kind, revision): &(String, u32)| entry_id(&record, kind, *revision);
            prop_assert_eq!(id(&left) == id(&right), left == right);
        }
    }

    #[test]
    fn kind_and_rule_are_part_of_the_identity() {
        let fields: &[&[u8]] = &[b"{}"];
        let status = record_id(RecordKind::Status, Rule::ByBytes, fields);
        let cdr = record_id(RecordKind::Cdr, Rule::ByBytes, fields);
        assert_ne!(status, cdr);
        let by_icid = record_id(RecordKind::Cdr, Rule::CdrByIcid, &[b"a", b"b"]);
        assert_ne!(by_icid, RecordId(hash([b"a".as_slice(), b"b"])));
    }

    #[test]
    fn text_that_is_not_32_lower_case_hex_digits_is_refused() {
        for text in ["", "00", &"0".repeat(31), &"0".repeat(33), &"A".repeat(32), &"g".repeat(32)] {
            assert_eq!(RecordId::from_hex(text), Err(InvalidId), "{text}");
        }
        assert!(RecordId::try_from(&[0u8; 15][..]).is_err());
    }
}
