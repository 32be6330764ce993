//! The published test vectors, which `proto/tollgate/v1/ids.py` reproduces without this crate.

use serde::Deserialize;
use tollgate_schema::canonical::canonical_json;
use tollgate_schema::ids::{
    EntryId, EventId, QuarantineId, RecordId, RecordKind, Rule, entry_id, event_id, quarantine_id,
    record_id, state_id,
};

const VECTORS: &str = include_str!("../../../proto/tollgate/v1/ids.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    records: Vec<RecordVector>,
    events: Vec<EventVector>,
    not_canonical: Vec<String>,
    entries: Vec<EntryVector>,
    states: Vec<StateVector>,
    quarantined: Vec<QuarantinedVector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordVector {
    kind: String,
    rule: String,
    fields: Vec<String>,
    record_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventVector {
    record_id: String,
    text: String,
    canonical: String,
    event_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryVector {
    record_id: String,
    kind: String,
    revision: u32,
    entry_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateVector {
    number: String,
    version: u64,
    state_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuarantinedVector {
    bytes_hex: String,
    quarantine_id: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(VECTORS).unwrap()
}

fn id(text: &str) -> RecordId {
    RecordId::from_hex(text).unwrap()
}

const RULES: [Rule; 4] = [Rule::CdrByIcid, Rule::CdrBySession, Rule::StatusByEvent, Rule::ByBytes];

#[test]
fn record_ids_are_the_published_ones_for_every_kind_and_rule() {
    let vectors = vectors();
    for vector in &vectors.records {
        let kind = [RecordKind::Status, RecordKind::Cdr]
            .into_iter()
            .find(|kind| kind.name() == vector.kind)
            .unwrap();
        let rule = RULES.into_iter().find(|rule| rule.name() == vector.rule).unwrap();
        let fields: Vec<_> = vector.fields.iter().map(String::as_bytes).collect();
        assert_eq!(record_id(kind, rule, &fields), id(&vector.record_id), "{}", vector.rule);
    }
    for rule in RULES {
        let covered = vectors.records.iter().any(|vector| vector.rule == rule.name());
        assert!(covered, "no vector for rule {}", rule.name());
    }
}

#[test]
fn event_ids_are_the_published_ones() {
    for vector in vectors().events {
        let canonical = canonical_json(&vector.text).unwrap();
        assert_eq!(canonical, vector.canonical);
        let expected = EventId::from_hex(&vector.event_id).unwrap();
        assert_eq!(event_id(&id(&vector.record_id), &canonical), expected, "{canonical}");
    }
}

#[test]
fn what_the_vectors_call_not_canonical_has_no_canonical_form() {
    for text in vectors().not_canonical {
        assert!(canonical_json(&text).is_err(), "{text}");
    }
}

#[test]
fn entry_state_and_quarantine_ids_are_the_published_ones() {
    let vectors = vectors();
    for vector in vectors.entries {
        let expected = EntryId::from_hex(&vector.entry_id).unwrap();
        assert_eq!(entry_id(&id(&vector.record_id), &vector.kind, vector.revision), expected);
    }
    for vector in vectors.states {
        let expected = EventId::from_hex(&vector.state_id).unwrap();
        assert_eq!(state_id(&vector.number, vector.version), expected);
    }
    for vector in vectors.quarantined {
        let expected = QuarantineId::from_hex(&vector.quarantine_id).unwrap();
        assert_eq!(quarantine_id(&hex::decode(&vector.bytes_hex).unwrap()), expected);
    }
}
