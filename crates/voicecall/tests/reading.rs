//! What is decided about bodies that no golden file can hold or that have to agree with others.

mod common;

use common::{cdr, cdrs, edge, edges, ids, quarantined, records, sample, samples, source, status};
use jiff::tz::Offset;
use tollgate_schema::v1::QuarantineReason;
use tollgate_voicecall::{MAX_RECORDS, Peek, Record, peek, read};

const SESSION: &str = r#""sessionId":"s","callEndTime":"2024-05-20 03:06:13""#;

fn fee(items: &[String]) -> String {
    format!(r#"{{"eventType":"fee","feeLst":[{}]}}"#, items.join(","))
}

fn items(count: usize) -> Vec<String> {
    (0..count).map(|n| format!(r#"{{"appKey":"k","icid":"i{n}",{SESSION}}}"#)).collect()
}

#[test]
fn the_samples_hold_no_record_that_is_not_understood() {
    for (name, body) in samples() {
        for record in records(&body) {
            let unreadable = match record {
                Record::Status(event) => event.unreadable_fields,
                Record::Cdr(cdr) => cdr.unreadable_fields,
                Record::Quarantined(quarantined) => panic!("{name}: {}", quarantined.detail),
            };
            assert!(unreadable.is_empty(), "{name}: {unreadable:?}");
        }
    }
}

#[test]
fn the_look_before_the_answer_agrees_with_the_reading() {
    for (name, body) in samples().into_iter().chain(edges()) {
        let records = records(&body);
        let is_cdr = records.iter().any(|record| match record {
            Record::Cdr(_) => true,
            Record::Quarantined(it) => it.reason() == QuarantineReason::NoRecords,
            Record::Status(_) => false,
        });
        // A notification of which nothing was readable is one all the same.
        let unreadable = |record: &Record| matches!(record, Record::Quarantined(it) if it.location.starts_with("feeLst"));
        let expected = is_cdr || records.iter().any(unreadable);
        assert_eq!(peek(&body) == Peek::Cdr, expected, "{name}");
    }
}

#[test]
fn a_thousand_items_are_records_and_one_more_quarantines_the_body() {
    assert_eq!(cdrs(fee(&items(MAX_RECORDS))).len(), MAX_RECORDS);
    let body = fee(&items(MAX_RECORDS + 1));
    let found = quarantined(&body);
    assert_eq!(found.reason(), QuarantineReason::TooManyRecords);
    assert_eq!(found.content, body.as_bytes());
}

#[test]
fn one_bad_record_of_fifty_costs_itself_alone() {
    let body = String::from_utf8(sample("43-")).unwrap();
    let good = cdrs(&body);
    assert_eq!(good.len(), 50);
    let icid = good[17].icid.as_deref().unwrap();
    let bad = body.replace(&format!("\"icid\":\"{icid}\""), "\"icid\":[1]");
    let records = records(&bad);
    assert_eq!(records.len(), 50);
    for (index, record) in records.iter().enumerate() {
        match record {
            Record::Cdr(cdr) => assert_eq!(cdr, &good[index]),
            Record::Quarantined(it) => {
                assert_eq!(index, 17);
                assert_eq!(it.location, "feeLst[17].icid");
                assert_eq!(it.detail, "icid: expected text, found an array");
                let expected = good[17].original_json.replace(&format!("\"{icid}\""), "[1]");
                assert_eq!(it.content, expected.as_bytes());
            }
            Record::Status(_) => panic!("a status in a CDR notification"),
        }
    }
}

#[test]
fn a_record_delivered_again_in_other_company_has_the_same_ids() {
    let first = cdr(sample("08-"));
    let again = &cdrs(sample("45-"))[0];
    assert_eq!((&first.record_id, &first.event_id), (&again.record_id, &again.event_id));
}

#[test]
fn another_content_under_the_same_key_is_a_revision() {
    let first = cdr(sample("08-"));
    let body = String::from_utf8(sample("08-")).unwrap().replace("03:06:13", "03:06:14");
    let revision = cdr(body);
    assert_eq!(first.record_id, revision.record_id);
    assert_ne!(first.event_id, revision.event_id);
}

#[test]
fn the_legs_of_a_callback_have_different_status_ids() {
    let [a, b] = ["03-", "06-"].map(|number| status(sample(number)));
    assert_ne!(a.record_id, b.record_id);
}

#[test]
fn every_digit_collected_is_an_event_of_its_own() {
    let body = |digits: &str| {
        format!(
            r#"{{"eventType":"collectInfo","statusInfo":{{"sessionId":"s","timestamp":"2024-06-01 01:15:33","digitInfo":"{digits}"}}}}"#
        )
    };
    assert_ne!(status(body("1")).record_id, status(body("2")).record_id);
    // Outside of collectInfo digits are content, not identity.
    let answer = |digits| status(body(digits).replace("collectInfo", "answer"));
    assert_eq!(answer("1").record_id, answer("2").record_id);
}

#[test]
fn a_byte_order_mark_changes_nothing() {
    for number in ["01-", "08-", "43-"] {
        let plain = sample(number);
        let marked = [b"\xef\xbb\xbf", &plain[..]].concat();
        assert_eq!(records(&plain), records(&marked));
        assert_eq!(peek(&plain), peek(&marked));
    }
}

#[test]
fn deep_nesting_is_kept_up_to_the_limit_and_quarantined_beyond() {
    let nested = |depth: usize| {
        let value = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        fee(&[format!(r#"{{{SESSION},"extInfo":{value}}}"#), items(1).remove(0)])
    };
    assert_eq!(cdrs(nested(100)).len(), 2);
    for depth in [129, 100_000] {
        let records = records(nested(depth));
        assert!(matches!(&records[0], Record::Quarantined(it)
            if it.reason() == QuarantineReason::UnreadableRecord && it.location == "feeLst[0]"));
        assert!(matches!(&records[1], Record::Cdr(_)));
    }
}

#[test]
fn deep_nesting_anywhere_else_is_no_crash() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(quarantined(&deep).reason(), QuarantineReason::UnknownObject);
    assert_eq!(quarantined(&deep[..200_000]).reason(), QuarantineReason::MalformedBody);
    let in_envelope = format!(r#"{{"eventType":"fee","feeLst":{{{SESSION}}},"x":{deep}}}"#);
    assert_eq!(cdr(in_envelope).envelope_json.unwrap(), format!("{{\"x\":{deep}}}"));
    let in_status = format!(r#"{{"eventType":"answer","statusInfo":{{"x":{deep}}}}}"#);
    assert_eq!(quarantined(in_status).reason(), QuarantineReason::UnreadableRecord);
    let in_list = format!(r#"{{"eventType":"fee","feeLst":{deep}}}"#);
    assert_eq!(quarantined(in_list).location, "feeLst[0]");
}

#[test]
fn long_values_are_stored_and_never_cut() {
    let session = "s".repeat(9 * 1024);
    let body = format!(
        r#"{{"eventType":"answer","statusInfo":{{"sessionId":"{session}","timestamp":"2024-06-01 01:15:33"}}}}"#
    );
    assert_eq!(status(&body).session_id, session);
}

#[test]
fn a_long_envelope_is_not_multiplied() {
    let pad = "x".repeat(100_000);
    let body =
        format!(r#"{{"pad":"{pad}","eventType":"fee","feeLst":[5,{}]}}"#, items(900).join(","));
    let carriers: Vec<usize> = records(&body)
        .iter()
        .enumerate()
        .filter(|(_, record)| matches!(record, Record::Cdr(it) if it.envelope_json.is_some()))
        .map(|(index, _)| index)
        .collect();
    assert_eq!(carriers, [1]);
}

#[test]
fn the_zone_of_a_source_moves_its_times_and_nothing_else() {
    let mut beijing = source();
    beijing.zone = Offset::from_seconds(8 * 3600).unwrap();
    let body = r#"{"eventType":"answer","statusInfo":{"sessionId":"s","timestamp":"2024-05-20 11:04:24"}}"#;
    let records = read(body.as_bytes(), &beijing);
    let [Record::Status(event)] = &records[..] else { panic!("no status") };
    let same = status(body.replace("11:04:24", "03:04:24"));
    assert_eq!(event.occurred_at, same.occurred_at);
    assert_eq!(event.record_id, same.record_id);
}

#[test]
fn the_application_of_a_cdr_is_its_app_key_unless_the_path_says_otherwise() {
    let body = sample("08-");
    let application = |given: &str| {
        let source = tollgate_voicecall::Source { application: given, ..source() };
        let records = read(&body, &source);
        let [Record::Cdr(cdr)] = &records[..] else { panic!("no CDR") };
        cdr.provenance.clone().unwrap().application
    };
    assert_eq!(application(""), "ka4kESI5demoCallbackYnEm2aaa");
    assert_eq!(application("of-the-path"), "of-the-path");
    let event = status(sample("01-"));
    assert_eq!(event.provenance.unwrap().application, "", "a status carries no appKey: no guess");
}

#[test]
fn an_error_names_field_and_types_and_never_a_value() {
    for (name, body) in edges() {
        for record in records(&body) {
            let Record::Quarantined(it) = record else { continue };
            for secret in ["8613800", "1201_1", "CAE-", "ka4k", "userdata", "2024-05"] {
                assert!(!it.detail.contains(secret), "{name}: {}", it.detail);
                assert!(!it.location.contains(secret), "{name}: {}", it.location);
            }
        }
    }
}

#[test]
fn what_a_relay_may_change_changes_no_id() {
    let plain = status(sample("01-"));
    for (from, to) in [
        ("{\"eventType\":\"callout\",", "{ \"eventType\" :\t\"callout\",\r\n"),
        ("\"eventType\":\"callout\"", "\"\\u0065ventType\":\"c\\u0061llout\""),
        ("2024-05-20 03:04:24", "2024-05-20\\u002003:04:24"),
    ] {
        let body = String::from_utf8(sample("01-")).unwrap();
        assert!(body.contains(from), "{from}");
        let changed = status(body.replace(from, to));
        assert_eq!((&changed.record_id, &changed.event_id), (&plain.record_id, &plain.event_id));
    }
}

#[test]
fn one_record_in_many_wrappings_is_one_record_with_one_content() {
    let expected = ids(&records(edge("list-single-object")));
    for name in [
        "list-without-event-type",
        "list-beside-status-type",
        "case-fee-upper",
        "bytes-bom-fee",
        "surrogate-in-envelope",
    ] {
        assert_eq!(ids(&records(edge(name))), expected, "{name}");
    }
}
