//! Items of a CDR notification (P 5).

use jiff::tz::Offset;
use tollgate_schema::ids::{self, RecordId, RecordKind, Rule};
use tollgate_schema::json_text::{JsonText, Kind};
use tollgate_schema::time::proto_from_millis;
use tollgate_schema::v1::{CallDetailRecord, Leg, Recording, ServiceType};

use crate::field::{Damage, Fields, Name, name};
use crate::names::Names;

/// Known members of FeeInfo. Members without a field of their own in
/// [`CallDetailRecord`] (voiceCheckType and the legacy ones) count as unknown: whatever they
/// contain, they stay in the original text and damage nothing.
pub(crate) static NAMES: Names = Names::of(&[
    "appKey",
    "bindNum",
    "callEndTime",
    "callInTime",
    "callOutAlertingTime",
    "callOutAnswerTime",
    "callOutStartTime",
    "callOutUnaswRsn",
    "calleeNum",
    "callerNum",
    "direction",
    "dynIVRPath",
    "dynIVRStartTime",
    "extendNum",
    "failTime",
    "fwdAlertingTime",
    "fwdAnswerTime",
    "fwdDisplayNum",
    "fwdDstNum",
    "fwdStartTime",
    "fwdUnaswRsn",
    "hostName",
    "icid",
    "mptyId",
    "notifyMode",
    "recordBucketName",
    "recordDomain",
    "recordFileDownloadUrl",
    "recordFlag",
    "recordObjectName",
    "recordStartTime",
    "serviceType",
    "sessionId",
    "sipStatusCode",
    "spId",
    "subscriptionId",
    "ttsPlayTimes",
    "ttsTransDuration",
    "ulFailReason",
    "userData",
]);

/// Any of these makes an A leg, readable or not.
const MAKES_A_LEG: [Name; 6] = [
    name!("calleeNum"),
    name!("callerNum"),
    name!("callOutStartTime"),
    name!("callOutAlertingTime"),
    name!("callOutAnswerTime"),
    name!("callOutUnaswRsn"),
];

/// The same for PrivateNumber.
const MAKES_INBOUND_LEG: [Name; 3] =
    [name!("callerNum"), name!("callInTime"), name!("callOutUnaswRsn")];

/// Any of these makes a B leg; a cause alone does not (P 5.2).
const MAKES_B_LEG: [Name; 5] = [
    name!("fwdDisplayNum"),
    name!("fwdDstNum"),
    name!("fwdStartTime"),
    name!("fwdAlertingTime"),
    name!("fwdAnswerTime"),
];

/// Reads one item of feeLst. The record has its record id; event id, envelope and provenance are
/// the caller's.
pub(crate) fn read(
    item: JsonText<'_>,
    zone: Offset,
) -> Result<(RecordId, CallDetailRecord), Damage> {
    if item.kind() != Kind::Object {
        return Err(Damage { field: "", expected: "an object", found: item.kind().name() });
    }
    let mut fields = Fields::of(item, &NAMES, zone);
    let service_type_text = fields.text(name!("serviceType"))?;
    let service_type = service_type(service_type_text.as_deref());
    let times = Times::read(&mut fields)?;
    let is_private = match service_type {
        ServiceType::PrivateAx | ServiceType::PrivateAxb => true,
        ServiceType::Playback | ServiceType::Callback => false,
        // PrivateNumber calls nobody out but the callee (P 6.2).
        ServiceType::Unspecified => {
            fields.says_something(name!("callInTime"))
                && times.out_started.is_none()
                && times.out_answered.is_none()
        }
    };
    let numbers = Numbers::read(&mut fields)?;
    let makes_a_leg: &[Name] = if is_private { &MAKES_INBOUND_LEG } else { &MAKES_A_LEG };
    let has_a_leg = makes_a_leg.iter().any(|name| fields.says_something(*name));
    let has_b_leg = MAKES_B_LEG.iter().any(|name| fields.says_something(*name));
    let b_leg = Leg {
        number: numbers.forwarded_to.clone(),
        number_shown: numbers.forward_shown.clone(),
        started_at: times.forward_started.map(proto_from_millis),
        alerting_at: times.forward_alerting.map(proto_from_millis),
        answered_at: times.forward_answered.map(proto_from_millis),
        cause: fields.integer(name!("fwdUnaswRsn"))?,
    };
    let first_cause = fields.integer(name!("callOutUnaswRsn"))?;
    let direction = fields.integer(name!("direction"))?;

    let mut record = CallDetailRecord {
        session_id: fields.text(name!("sessionId"))?.unwrap_or_default(),
        app_key: fields.text(name!("appKey"))?.unwrap_or_default(),
        icid: fields.text(name!("icid"))?,
        account_id: fields.text(name!("spId"))?,
        service_type: service_type.into(),
        service_type_text,
        a_leg: has_a_leg.then(|| times.a_leg(&numbers, first_cause, is_private)),
        b_leg: has_b_leg.then_some(b_leg),
        ended_at: times.ended.map(proto_from_millis),
        failed_at: times.failed.map(proto_from_millis),
        release_reason: fields.integer(name!("ulFailReason"))?,
        sip_status: fields.integer(name!("sipStatusCode"))?,
        business_number: fields.text(name!("bindNum"))?,
        dialled_number: numbers.callee.clone().filter(|_| is_private),
        direction,
        ivr_path: fields.text(name!("dynIVRPath"))?,
        ivr_started_at: fields.time(name!("dynIVRStartTime"))?.map(proto_from_millis),
        recording: recording(&mut fields)?,
        tts_play_count: fields.integer(name!("ttsPlayTimes"))?,
        tts_seconds: fields.integer(name!("ttsTransDuration"))?,
        host_name: fields.text(name!("hostName"))?,
        user_data: fields.text(name!("userData"))?,
        subscription_id: fields.text(name!("subscriptionId"))?,
        notify_mode: fields.text(name!("notifyMode"))?,
        extension: fields.text(name!("extendNum"))?,
        multi_party_id: fields.text(name!("mptyId"))?,
        original_json: item.as_str().to_owned(),
        ..CallDetailRecord::default()
    };
    record.unreadable_fields = fields.into_unreadable();
    Ok((identity(&record, &numbers, &times), record))
}

/// The record's identity: the rules of P 2.5 in their order.
fn identity(record: &CallDetailRecord, numbers: &Numbers, times: &Times) -> RecordId {
    if let Some(icid) = record.icid.as_deref().filter(|_| !record.app_key.is_empty()) {
        return ids::record_id(
            RecordKind::Cdr,
            Rule::CdrByIcid,
            &[record.app_key.as_bytes(), icid.as_bytes()],
        );
    }
    let begin = times.out_started.or(times.in_started);
    let end = times.ended.or(times.failed);
    if record.session_id.is_empty() || (begin.is_none() && end.is_none()) {
        let bytes = record.original_json.as_bytes();
        return ids::record_id(RecordKind::Cdr, Rule::ByBytes, &[bytes]);
    }
    let instant = |millis: Option<i64>| millis.map(|ms| ms.to_string()).unwrap_or_default();
    ids::record_id(
        RecordKind::Cdr,
        Rule::CdrBySession,
        &[
            record.app_key.as_bytes(),
            record.session_id.as_bytes(),
            record.direction.map(|value| value.to_string()).unwrap_or_default().as_bytes(),
            numbers.callee.as_deref().unwrap_or_default().as_bytes(),
            numbers.forwarded_to.as_deref().unwrap_or_default().as_bytes(),
            instant(begin).as_bytes(),
            instant(end).as_bytes(),
        ],
    )
}

/// The vendor's numbers under what they are from the platform's view.
struct Numbers {
    caller: Option<String>,
    callee: Option<String>,
    forward_shown: Option<String>,
    forwarded_to: Option<String>,
}

impl Numbers {
    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self {
            caller: fields.text(name!("callerNum"))?,
            callee: fields.text(name!("calleeNum"))?,
            forward_shown: fields.text(name!("fwdDisplayNum"))?,
            forwarded_to: fields.text(name!("fwdDstNum"))?,
        })
    }
}

/// The vendor's instants, in milliseconds since 1970 UTC.
struct Times {
    in_started: Option<i64>,
    out_started: Option<i64>,
    out_alerting: Option<i64>,
    out_answered: Option<i64>,
    forward_started: Option<i64>,
    forward_alerting: Option<i64>,
    forward_answered: Option<i64>,
    ended: Option<i64>,
    failed: Option<i64>,
}

impl Times {
    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self {
            in_started: fields.time(name!("callInTime"))?,
            out_started: fields.time(name!("callOutStartTime"))?,
            out_alerting: fields.time(name!("callOutAlertingTime"))?,
            out_answered: fields.time(name!("callOutAnswerTime"))?,
            forward_started: fields.time(name!("fwdStartTime"))?,
            forward_alerting: fields.time(name!("fwdAlertingTime"))?,
            forward_answered: fields.time(name!("fwdAnswerTime"))?,
            ended: fields.time(name!("callEndTime"))?,
            failed: fields.time(name!("failTime"))?,
        })
    }

    /// P 5.3: the party called first is the vendor's calleeNum. PrivateNumber (P 6.2): the first
    /// leg is inbound, from callerNum, and is never answered.
    fn a_leg(&self, numbers: &Numbers, cause: Option<i32>, is_private: bool) -> Leg {
        if is_private {
            return Leg {
                number: numbers.caller.clone(),
                started_at: self.in_started.map(proto_from_millis),
                cause,
                ..Leg::default()
            };
        }
        Leg {
            number: numbers.callee.clone(),
            number_shown: numbers.caller.clone(),
            started_at: self.out_started.map(proto_from_millis),
            alerting_at: self.out_alerting.map(proto_from_millis),
            answered_at: self.out_answered.map(proto_from_millis),
            cause,
        }
    }
}

fn service_type(text: Option<&str>) -> ServiceType {
    match text.map(str::trim) {
        Some("001") => ServiceType::Playback,
        Some("002") => ServiceType::Callback,
        Some("003") => ServiceType::PrivateAx,
        Some("004") => ServiceType::PrivateAxb,
        _ => ServiceType::Unspecified,
    }
}

fn recording(fields: &mut Fields<'_>) -> Result<Option<Recording>, Damage> {
    let recording = Recording {
        recorded: fields.flag(name!("recordFlag"))?,
        started_at: fields.time(name!("recordStartTime"))?.map(proto_from_millis),
        object_name: fields.text(name!("recordObjectName"))?,
        bucket_name: fields.text(name!("recordBucketName"))?,
        domain: fields.text(name!("recordDomain"))?,
        download_url: fields.text(name!("recordFileDownloadUrl"))?,
    };
    Ok(Some(recording).filter(|recording| *recording != Recording::default()))
}

#[cfg(test)]
mod tests {
    use tollgate_schema::json_text::Json;

    use super::*;

    fn record(item: &str) -> CallDetailRecord {
        read(Json::parse(item).unwrap().value(), Offset::UTC).unwrap().1
    }

    #[test]
    fn a_cause_alone_makes_no_b_leg_and_any_number_or_time_does() {
        assert_eq!(record(r#"{"fwdUnaswRsn":0}"#).b_leg, None);
        assert_eq!(record(r#"{"fwdUnaswRsn":0,"fwdDstNum":"","fwdStartTime":null}"#).b_leg, None);
        for Name { text: name, .. } in MAKES_B_LEG {
            let value = if name.ends_with("Time") { "2024-05-20 03:04:24" } else { "+8613" };
            let item = format!(r#"{{"fwdUnaswRsn":17,"{name}":"{value}"}}"#);
            assert_eq!(record(&item).b_leg.unwrap().cause, Some(17), "{name}");
        }
    }

    #[test]
    fn an_unreadable_answer_time_still_makes_a_b_leg() {
        let record = record(r#"{"fwdAnswerTime":"soon"}"#);
        assert_eq!(record.b_leg.unwrap().answered_at, None);
        assert_eq!(record.unreadable_fields, ["fwdAnswerTime"]);
    }

    #[test]
    fn the_inbound_leg_of_private_number_is_never_answered() {
        let numbers = r#""callerNum":"+861","calleeNum":"+86X""#;
        let answer = r#","callOutAnswerTime":"2024-07-03 02:30:03""#;
        for (mark, answer) in [
            (r#""callInTime":"2024-07-03 02:30:03""#, ""),
            (r#""callInTime":"never""#, r#","callOutAnswerTime":"never""#),
            (r#""serviceType":"003""#, answer),
            (r#""serviceType":"004""#, answer),
        ] {
            let record = record(&format!("{{{numbers},{mark}{answer}}}"));
            let a_leg = record.a_leg.unwrap();
            assert_eq!(a_leg.number.as_deref(), Some("+861"), "{mark}");
            assert_eq!(a_leg.answered_at, None, "{mark}");
            assert_eq!(record.dialled_number.as_deref(), Some("+86X"), "{mark}");
        }
        // A relay may fill in what the platform leaves out, and the type is a word about itself.
        for others in ["", "0000-00-00 00:00:00", "2024-07-03 02:30:03"] {
            for service in ["002", ""] {
                let called = record(&format!(
                    r#"{{{numbers},"serviceType":"{service}","callInTime":"{others}"{answer}}}"#
                ));
                let a_leg = called.a_leg.unwrap();
                assert_eq!(a_leg.number.as_deref(), Some("+86X"), "{others}");
                assert!(a_leg.answered_at.is_some(), "{others}");
                assert_eq!(called.dialled_number, None, "{others}");
            }
        }
    }

    #[test]
    fn text_codes_stay_text() {
        let record = record(r#"{"serviceType":"005"}"#);
        assert_eq!(record.service_type(), ServiceType::Unspecified);
        assert_eq!(record.service_type_text.as_deref(), Some("005"));
    }

    #[test]
    fn a_record_flag_other_than_0_or_1_is_unreadable() {
        let record = record(r#"{"recordFlag":2}"#);
        assert_eq!(record.recording, None);
        assert_eq!(record.unreadable_fields, ["recordFlag"]);
    }

    #[test]
    fn the_identity_follows_the_rules_in_their_order() {
        let id = |item: &str| read(Json::parse(item).unwrap().value(), Offset::UTC).unwrap().0;
        let by_icid = r#""appKey":"k","icid":"i""#;
        assert_eq!(
            id(&format!(r#"{{{by_icid},"sessionId":"s","callEndTime":"2024-05-20 03:04:24"}}"#)),
            id(&format!("{{{by_icid}}}"))
        );
        let by_session = |end: &str, fail: &str| {
            id(&format!(
                r#"{{"icid":"i","sessionId":"s","callEndTime":"{end}","failTime":"{fail}"}}"#
            ))
        };
        assert_eq!(
            by_session("2024-05-20 03:04:24", "2024-05-20 03:04:25"),
            by_session("", "2024-05-20T03:04:24Z")
        );
        assert_ne!(by_session("2024-05-20 03:04:24", ""), by_session("2024-05-20 03:04:25", ""));
        // Without an instant two calls could not be told apart: then the bytes are the identity.
        assert_ne!(id(r#"{"sessionId":"s"}"#), id(r#"{ "sessionId":"s"}"#));
        assert_ne!(id(r#"{"appKey":"k"}"#), id(r#"{"icid":"i"}"#));
    }
}
