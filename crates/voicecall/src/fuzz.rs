//! What must hold for any bytes at all, as plain functions for the fuzzers under `fuzz/` and for
//! this crate's own tests. They panic where an invariant is broken.

use jiff::Timestamp;
use jiff::tz::Offset;
use serde_json::value::RawValue;
use tollgate_schema::ids;
use tollgate_schema::v1::{Authenticity, Provenance, QuarantineReason};

use crate::aksk::{Formula, Headers, Spelling, created_is_fresh, sign, username, verify};
use crate::read::text_of;
use crate::{MAX_RECORDS, Peek, Record, Source, is_well_formed, peek, read};

/// Reads the bytes as a body: every byte is accounted for in at least one record, ids and content
/// do not depend on provenance, a record read alone is the same record, and the look before the
/// answer agrees with the reading.
pub fn body(data: &[u8]) {
    let records = read(data, &source("edge-1", 1, Offset::UTC));
    assert!(!records.is_empty(), "a body without a record");

    let mut again = read(data, &source("edge-2", 2, Offset::UTC));
    assert_eq!(again.len(), records.len());
    for (record, again) in records.iter().zip(&mut again) {
        let found = provenance_mut(again).replace(provenance(record).clone());
        assert_ne!(found.as_ref(), Some(provenance(record)), "provenance is that of the source");
        assert_eq!(record, again, "content depends on provenance");
    }
    for (index, record) in records.iter().enumerate() {
        assert_eq!(provenance(record).index as usize, index, "records are not in their order");
        check(record, data);
    }
    let cdr = records.iter().any(|record| matches!(record, Record::Cdr(_)));
    let status = records.iter().any(|record| matches!(record, Record::Status(_)));
    assert!(!status || records.len() == 1, "a status is one record");
    assert!(!cdr || peek(data) == Peek::Cdr, "a CDR was taken for something else");
    assert!(!status || peek(data) == Peek::Other, "a status was taken for a CDR");
    let malformed = matches!(&records[..], [Record::Quarantined(only)]
        if only.reason() == QuarantineReason::MalformedBody);
    assert_eq!(malformed, !is_well_formed(data), "the syntax check disagrees with the reading");
    let proved = text_of(data).is_some_and(|text| serde_json::from_str::<&RawValue>(text).is_ok());
    assert_eq!(malformed, !proved, "serde_json disagrees with the reading");
    count_items(data, &records);

    // Another zone may change every instant, but nothing may break.
    let beijing = Offset::from_seconds(8 * 3600).unwrap_or(Offset::UTC);
    assert_eq!(read(data, &source("edge-1", 1, beijing)).len(), records.len());
}

/// Reads the bytes as authentication headers, one a line, then as a signature to make and verify.
pub fn headers(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut line = || lines.next().filter(|line| !line.is_empty());
    let headers = Headers { authorization: line(), x_aksk: line(), x_wsse: line() };
    let found = verify(&headers, &[b"secret"], &["https://example.com/status"]);
    assert_ne!(found, Authenticity::Unspecified);
    if headers == Headers::default() {
        assert_eq!(found, Authenticity::Absent);
    }
    let _ = username(&headers);

    let Ok(text) = std::str::from_utf8(data) else { return };
    created_is_fresh(text, Timestamp::UNIX_EPOCH, jiff::SignedDuration::from_secs(1));
    let parts: Vec<&str> = text.split('\n').collect();
    if let [user, secret, url, nonce, created, ..] = parts[..]
        && !secret.is_empty()
        && ![user, nonce, created].iter().any(|part| part.contains('"'))
    {
        for formula in [Formula::P1, Formula::P2, Formula::P3, Formula::P4, Formula::P5] {
            let signed =
                sign(formula, Spelling::Wsse, (user, secret.as_bytes()), url, nonce, created);
            let found = verify(&signed.as_headers(), &[secret], &[url]);
            assert!(found >= Authenticity::VerifiedP1, "a signature of our own does not verify");
            assert_eq!(username(&signed.as_headers()).unwrap_or_default(), user);
        }
    }
}

fn source(edge_id: &str, number: u64, zone: Offset) -> Source<'_> {
    Source {
        received_at: Timestamp::UNIX_EPOCH,
        edge_id,
        spool_epoch: number,
        spool_sequence: number,
        application: "",
        authenticity: Authenticity::Absent,
        zone,
    }
}

#[expect(
    clippy::expect_used,
    reason = "the fuzzer is to stop at a record without one: it would be a defect of the decoder"
)]
fn provenance(record: &Record) -> &Provenance {
    let provenance = match record {
        Record::Status(event) => &event.provenance,
        Record::Cdr(record) => &record.provenance,
        Record::Quarantined(quarantined) => &quarantined.provenance,
    };
    provenance.as_ref().expect("a record without provenance")
}

fn provenance_mut(record: &mut Record) -> &mut Option<Provenance> {
    match record {
        Record::Status(event) => &mut event.provenance,
        Record::Cdr(record) => &mut record.provenance,
        Record::Quarantined(quarantined) => &mut quarantined.provenance,
    }
}

/// What holds for one record by itself.
fn check(record: &Record, data: &[u8]) {
    match record {
        Record::Status(event) => {
            assert_eq!(Some(event.original_json.as_str()), text_of(data));
            let alone = read(event.original_json.as_bytes(), &source("edge-1", 1, Offset::UTC));
            assert_eq!(&alone[..], std::slice::from_ref(record), "another status when read alone");
            check_ids(&event.record_id, &event.event_id);
        }
        Record::Cdr(cdr) => {
            assert!(text_of(data).is_some_and(|text| text.contains(&cdr.original_json)));
            let message = format!("{{\"eventType\":\"fee\",\"feeLst\":[{}]}}", cdr.original_json);
            let alone = read(message.as_bytes(), &source("edge-1", 1, Offset::UTC));
            let [Record::Cdr(alone)] = &alone[..] else { panic!("no CDR when read alone") };
            let mut alone = alone.clone();
            alone.provenance.clone_from(&cdr.provenance);
            alone.envelope_json.clone_from(&cdr.envelope_json);
            assert_eq!(&alone, cdr, "another CDR when read alone");
            check_ids(&cdr.record_id, &cdr.event_id);
        }
        Record::Quarantined(quarantined) => {
            let content = &quarantined.content;
            assert_eq!(quarantined.quarantine_id, ids::quarantine_id(content).to_string());
            assert_ne!(quarantined.reason(), QuarantineReason::Unspecified);
            let inside = || {
                let item = std::str::from_utf8(content).ok().filter(|item| !item.is_empty());
                item.is_some_and(|item| text_of(data).is_some_and(|text| text.contains(item)))
            };
            assert!(content == data || inside(), "quarantined bytes that were not received");
            let whole = quarantined.reason() != QuarantineReason::UnreadableRecord;
            assert!(!whole || content == data, "a body in quarantine is not whole");
        }
    }
}

fn check_ids(record_id: &str, event_id: &str) {
    assert!(ids::RecordId::from_hex(record_id).is_ok());
    assert!(ids::EventId::from_hex(event_id).is_ok());
}

/// Counts the items by other means, where a tree of the body can be built at all.
fn count_items(data: &[u8], records: &[Record]) {
    let tree = text_of(data).and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let Some(serde_json::Value::Object(tree)) = tree else { return };
    let Some(serde_json::Value::Array(items)) = tree.get("feeLst") else { return };
    if peek(data) != Peek::Cdr || items.is_empty() || items.len() > MAX_RECORDS {
        assert_eq!(records.len(), 1);
        return;
    }
    // One more where nothing readable could carry the rest of the message.
    let readable = records.iter().any(|record| matches!(record, Record::Cdr(_)));
    let rest = usize::from(!readable && records.len() > items.len());
    assert_eq!(records.len(), items.len() + rest, "an item without a record");
}
