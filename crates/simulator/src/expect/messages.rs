//! The messages that the topics must hold, without their provenance.

use prost_types::Timestamp;
use tollgate_schema::v1;

use super::ids::{hex_id, record_ids};
use crate::script::{BUCKET, Call, Kind, Party, STORAGE, Status, words};

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// What topic call-events must hold of a status.
pub(crate) fn call_event(call: &Call, status: &Status) -> v1::CallEvent {
    let body = status.body(call);
    let ids = record_ids(call, Some(status), &body);
    let (kind, type_text) = match &status.kind {
        Kind::Callout => (v1::EventType::Callout, None),
        Kind::Alerting => (v1::EventType::Alerting, None),
        Kind::Answer => (v1::EventType::Answer, None),
        Kind::CollectInfo(_) => (v1::EventType::CollectInfo, None),
        Kind::Disconnect => (v1::EventType::Disconnect, None),
        Kind::Unknown(name) => (v1::EventType::Unspecified, Some((*name).to_owned())),
    };
    let digits = match &status.kind {
        Kind::CollectInfo(keys) => Some(keys.clone()),
        _ => None,
    };
    let hung_up_by = match status.party {
        None => v1::Party::Unspecified,
        Some(Party::Caller) => v1::Party::Caller,
        Some(Party::Callee) => v1::Party::Callee,
        Some(Party::Platform) => v1::Party::Platform,
    };
    v1::CallEvent {
        record_id: hex_id(&ids.record),
        event_id: hex_id(&ids.event),
        session_id: call.session_id.clone(),
        r#type: kind.into(),
        type_text,
        occurred_at: Some(at(status.at)),
        caller: status.caller.map(str::to_owned),
        called: status.called.clone(),
        digits,
        state_code: status.state_code,
        state_description: status.description.map(str::to_owned),
        hung_up_by: hung_up_by.into(),
        user_data: call.user_data.clone(),
        original_json: body,
        ..v1::CallEvent::default()
    }
}

/// What topic cdrs must hold of a call's record.
pub(crate) fn cdr(call: &Call) -> v1::CallDetailRecord {
    let item = call.item();
    let ids = record_ids(call, None, &item);
    let course = &call.course;
    let codes = course.ending.codes();
    let instant = |offset: i64| Some(at(call.begins_at + offset));
    let is_callback = call.service_type() == "002";
    let a_leg = v1::Leg {
        number: Some(call.number_a.clone()),
        number_shown: Some(words::SHOWN_TO_A.to_owned()),
        started_at: course.a.and_then(|leg| instant(leg.started)),
        alerting_at: course.a.and_then(|leg| leg.alerting).and_then(instant),
        answered_at: course.a.and_then(|leg| leg.answered).and_then(instant),
        cause: Some(codes.cause_a),
    };
    // A cause alone makes no leg: 0 is there in every record.
    let b_leg = course.b.map(|leg| v1::Leg {
        number: call.number_b.clone(),
        number_shown: Some(words::SHOWN_TO_B.to_owned()),
        started_at: instant(leg.started),
        alerting_at: leg.alerting.and_then(instant),
        answered_at: leg.answered.and_then(instant),
        cause: Some(codes.cause_b),
    });
    let when_recorded = |text: &str| call.is_recorded.then(|| text.to_owned());
    let recording = v1::Recording {
        recorded: Some(call.is_recorded),
        started_at: call.recording_starts_at().filter(|_| call.is_recorded).map(at),
        object_name: when_recorded(&call.recording_name()),
        bucket_name: when_recorded(BUCKET),
        domain: when_recorded(STORAGE),
        download_url: None,
    };
    let has_dialogue = !course.keys.is_empty();
    v1::CallDetailRecord {
        record_id: hex_id(&ids.record),
        event_id: hex_id(&ids.event),
        session_id: call.session_id.clone(),
        app_key: call.app_key.clone(),
        icid: call.icid.clone(),
        account_id: Some(words::ACCOUNT.to_owned()),
        service_type: if is_callback {
            v1::ServiceType::Callback
        } else {
            v1::ServiceType::Playback
        }
        .into(),
        service_type_text: Some(call.service_type().to_owned()),
        a_leg: Some(a_leg),
        b_leg,
        ended_at: course.a.and_then(|_| instant(course.ends)),
        failed_at: instant(course.ends).filter(|_| course.ending.is_failure()),
        release_reason: Some(codes.release),
        sip_status: Some(codes.sip),
        business_number: Some(words::BUSINESS.to_owned()),
        direction: Some(0),
        ivr_path: Some(call.key_path()).filter(|path| !path.is_empty()),
        ivr_started_at: call.dialogue_starts_at().filter(|_| has_dialogue).map(at),
        recording: Some(recording),
        tts_play_count: Some(call.tts.0),
        tts_seconds: Some(call.tts.1),
        host_name: Some(words::HOST.to_owned()),
        user_data: call.user_data.clone(),
        original_json: item,
        ..v1::CallDetailRecord::default()
    }
}
