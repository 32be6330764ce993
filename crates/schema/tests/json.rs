//! Messages as JSON: what `tail`, `explain` and the query APIs show.

use prost::Message;
use serde_json::json;
use tollgate_schema::json::{JsonError, descriptors, message_to_json, to_json};
use tollgate_schema::time::proto_from_millis;
use tollgate_schema::{topics, v1};

#[test]
fn names_are_the_protos_own_and_absent_fields_are_left_out() {
    let cdr = v1::CallDetailRecord {
        record_id: "00".repeat(16),
        session_id: "s".to_owned(),
        service_type: v1::ServiceType::Callback.into(),
        a_leg: Some(v1::Leg {
            number_shown: Some(String::new()),
            answered_at: Some(proto_from_millis(1_548_299_064_120)),
            cause: Some(0),
            ..Default::default()
        }),
        unreadable_fields: vec!["direction".to_owned()],
        provenance: Some(v1::Provenance {
            spool_sequence: u64::MAX,
            index: 3,
            ..Default::default()
        }),
        ..Default::default()
    };
    let expected = json!({
        "record_id": "00000000000000000000000000000000",
        "session_id": "s",
        "service_type": "SERVICE_TYPE_CALLBACK",
        "a_leg": { "number_shown": "", "answered_at": "2019-01-24T03:04:24.120Z", "cause": 0 },
        "unreadable_fields": ["direction"],
        "provenance": { "spool_sequence": "18446744073709551615", "index": 3 },
    });
    assert_eq!(message_to_json(&cdr).unwrap(), expected);
    assert_eq!(to_json("tollgate.v1.CallDetailRecord", &cdr.encode_to_vec()).unwrap(), expected);
}

#[test]
fn quarantined_bytes_are_base64_and_unknown_enum_values_are_numbers() {
    let quarantined = v1::Quarantined { content: vec![0, 0xff], reason: 77, ..Default::default() };
    let expected = json!({ "content": "AP8=", "reason": 77 });
    assert_eq!(message_to_json(&quarantined).unwrap(), expected);
}

#[test]
fn an_empty_value_of_every_topic_can_be_shown() {
    for topic in topics::ALL {
        assert_eq!(to_json(topic.message, &[]).unwrap(), json!({}), "{}", topic.name);
    }
}

#[test]
fn a_newer_writers_fields_do_no_harm() {
    let mut bytes =
        v1::CallEvent { session_id: "s".to_owned(), ..Default::default() }.encode_to_vec();
    // Field 1000, a varint.
    bytes.extend([0xc0, 0x3e, 0x01]);
    assert_eq!(to_json("tollgate.v1.CallEvent", &bytes).unwrap(), json!({ "session_id": "s" }));
}

#[test]
fn errors_say_which_message_and_show_no_content() {
    let unknown = to_json("tollgate.v1.Nothing", &[]).unwrap_err();
    assert_eq!(unknown, JsonError::UnknownMessage("tollgate.v1.Nothing".to_owned()));

    let truncated = to_json("tollgate.v1.CallEvent", b"\x0a\x20+8613800000021").unwrap_err();
    assert!(matches!(truncated, JsonError::NotThisMessage { .. }));
    assert!(truncated.to_string().contains("tollgate.v1.CallEvent"));
    assert!(!truncated.to_string().contains("8613800000021"));
}

#[test]
fn the_descriptor_set_is_complete() {
    let pool = descriptors();
    assert!(pool.get_message_by_name("google.protobuf.Timestamp").is_some());
    assert!(pool.all_messages().any(|message| message.full_name() == "tollgate.v1.UserState"));
}
