//! The pure step: a record of topic `cdrs` becomes a [`CdrItem`], or is refused with a reason.

use std::fmt;
use std::sync::Arc;

use prost::Message;
use tollgate_schema::ids::{EventId, RecordId};
use tollgate_schema::time;
use tollgate_schema::v1;
use tollgate_stream::{Decode, Incoming, Rejection};

use crate::digest::Authenticity;
use crate::texts;

/// One sighting of a CDR: what was said, and how this delivery of it arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct CdrItem {
    /// Which record.
    pub record_id: RecordId,
    /// Which content of it.
    pub event_id: EventId,
    /// When the edge had read the whole request, milliseconds since 1970 UTC.
    pub received_at_ms: i64,
    /// What was found out about the sender.
    pub authenticity: Authenticity,
    /// The application the edge gave it; empty when unknown. The sender's own text where no
    /// application is configured; a long one is shortened, as the content's texts are.
    pub application: String,
    /// Offset in the source partition.
    pub offset: i64,
    /// What billing needs of the content.
    pub content: Arc<Content>,
}

/// The part of a CDR that billing reads and keeps: enough to rate it again years later, and
/// nothing else. Its texts are of bounded length, whatever was sent. Holds phone numbers; never
/// logged.
#[derive(Clone, PartialEq)]
pub struct Content(v1::CallDetailRecord);

impl fmt::Debug for Content {
    /// Shows nothing: numbers and session ids are all there is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content(..)")
    }
}

impl Content {
    /// Drops what billing does not need, the original text first of all, and shortens the rest.
    pub fn trim(record: v1::CallDetailRecord) -> Self {
        let short = |text: Option<String>| text.map(texts::short);
        let leg = |leg: v1::Leg| v1::Leg {
            number: short(leg.number),
            number_shown: short(leg.number_shown),
            ..leg
        };
        Self(v1::CallDetailRecord {
            session_id: texts::session(record.session_id),
            app_key: texts::short(record.app_key),
            service_type: record.service_type,
            service_type_text: short(record.service_type_text),
            a_leg: record.a_leg.map(leg),
            b_leg: record.b_leg.map(leg),
            ended_at: record.ended_at,
            failed_at: record.failed_at,
            release_reason: record.release_reason,
            business_number: short(record.business_number),
            dialled_number: short(record.dialled_number),
            direction: record.direction,
            unreadable_fields: record.unreadable_fields,
            ..v1::CallDetailRecord::default()
        })
    }

    /// The record, without ids, provenance and original.
    pub fn record(&self) -> &v1::CallDetailRecord {
        &self.0
    }

    /// As kept in the database.
    pub fn encode(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }

    /// From the database, where earlier versions kept texts whole. The error names no value.
    pub fn decode(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        v1::CallDetailRecord::decode(bytes).map(Self::trim)
    }

    /// End of the call: when it ended, else when it failed. Milliseconds since 1970 UTC.
    pub fn end_ms(&self) -> Option<i64> {
        millis(self.0.ended_at.as_ref()).or_else(|| millis(self.0.failed_at.as_ref()))
    }
}

/// Milliseconds of an optional instant; `None` also for one that does not fit.
pub(crate) fn millis(instant: Option<&prost_types::Timestamp>) -> Option<i64> {
    instant.and_then(time::proto_to_millis)
}

/// Decodes topic `cdrs`.
#[derive(Debug, Clone, Copy, Default)]
pub struct CdrDecoder;

impl Decode for CdrDecoder {
    type Item = CdrItem;

    fn decode(&self, record: &Incoming) -> Result<CdrItem, Rejection> {
        let value = record.value.as_ref().ok_or_else(|| refuse("value is absent"))?;
        let record_message = v1::CallDetailRecord::decode(value.clone())
            .map_err(|_| refuse("value is not a tollgate.v1.CallDetailRecord"))?;
        let record_id = RecordId::from_hex(&record_message.record_id)
            .map_err(|_| refuse("record_id is not 32 lower-case hex digits"))?;
        let event_id = EventId::from_hex(&record_message.event_id)
            .map_err(|_| refuse("event_id is not 32 lower-case hex digits"))?;
        let provenance =
            record_message.provenance.as_ref().ok_or_else(|| refuse("provenance is absent"))?;
        let received_at = provenance
            .received_at
            .as_ref()
            .ok_or_else(|| refuse("provenance.received_at is absent"))?;
        let received_at_ms =
            valid(received_at).ok_or_else(|| refuse("provenance.received_at is out of range"))?;
        check_instants(&record_message)?;
        Ok(CdrItem {
            record_id,
            event_id,
            received_at_ms,
            authenticity: Authenticity::from_proto(provenance.authenticity),
            application: texts::short(provenance.application.clone()),
            offset: record.offset,
            content: Arc::new(Content::trim(record_message)),
        })
    }
}

fn refuse(reason: &str) -> Rejection {
    Rejection(reason.to_owned())
}

fn valid(instant: &prost_types::Timestamp) -> Option<i64> {
    time::from_proto(instant).ok().map(time::to_millis)
}

/// Every instant that billing reads must be one by protobuf's definition; an edge writes no other.
fn check_instants(record: &v1::CallDetailRecord) -> Result<(), Rejection> {
    let check = |name: &str, instant: Option<&prost_types::Timestamp>| match instant {
        Some(instant) if valid(instant).is_none() => {
            Err(Rejection(format!("{name} is not a valid Timestamp")))
        }
        _ => Ok(()),
    };
    check("ended_at", record.ended_at.as_ref())?;
    check("failed_at", record.failed_at.as_ref())?;
    if let Some(leg) = &record.a_leg {
        check("a_leg.started_at", leg.started_at.as_ref())?;
        check("a_leg.alerting_at", leg.alerting_at.as_ref())?;
        check("a_leg.answered_at", leg.answered_at.as_ref())?;
    }
    if let Some(leg) = &record.b_leg {
        check("b_leg.started_at", leg.started_at.as_ref())?;
        check("b_leg.alerting_at", leg.alerting_at.as_ref())?;
        check("b_leg.answered_at", leg.answered_at.as_ref())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tollgate_stream::TopicPartition;

    use super::*;

    fn incoming(value: Option<Bytes>) -> Incoming {
        Incoming {
            partition: TopicPartition::new("cdrs", 3),
            offset: 42,
            timestamp_ms: 0,
            key: Bytes::new(),
            value,
            headers: Vec::new(),
        }
    }

    fn message() -> v1::CallDetailRecord {
        v1::CallDetailRecord {
            record_id: "0".repeat(32),
            event_id: "1".repeat(32),
            session_id: "session\0with a nul".to_owned(),
            original_json: "{}".to_owned(),
            user_data: Some("private".to_owned()),
            provenance: Some(v1::Provenance {
                received_at: Some(time::proto_from_millis(1_700_000_000_123)),
                application: "shop".to_owned(),
                authenticity: v1::Authenticity::VerifiedP3.into(),
                ..v1::Provenance::default()
            }),
            ..v1::CallDetailRecord::default()
        }
    }

    fn decode(message: &v1::CallDetailRecord) -> Result<CdrItem, Rejection> {
        CdrDecoder.decode(&incoming(Some(message.encode_to_vec().into())))
    }

    #[test]
    fn a_record_becomes_an_item_that_keeps_only_what_billing_needs() {
        let item = decode(&message()).expect("valid");
        assert_eq!(item.record_id.to_string(), "0".repeat(32));
        assert_eq!(item.received_at_ms, 1_700_000_000_123);
        assert_eq!(item.authenticity, Authenticity::Verified);
        assert_eq!((item.application.as_str(), item.offset), ("shop", 42));
        assert_eq!(item.content.record().session_id, "session\0with a nul");
        assert!(item.content.record().original_json.is_empty());
        assert!(item.content.record().user_data.is_none());
        assert_eq!(Content::decode(&item.content.encode()).as_ref(), Ok(&*item.content));
    }

    #[test]
    fn what_is_not_a_valid_record_is_refused_by_field_and_never_by_value() {
        let refused = |change: &dyn Fn(&mut v1::CallDetailRecord)| {
            let mut changed = message();
            change(&mut changed);
            decode(&changed).expect_err("refused").0
        };
        assert!(refused(&|m| m.record_id = "SECRET".to_owned()).starts_with("record_id"));
        assert!(refused(&|m| m.event_id = "A".repeat(32)).starts_with("event_id"));
        assert!(refused(&|m| m.provenance = None).starts_with("provenance"));
        let bad = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
        assert!(refused(&|m| m.ended_at = Some(bad)).starts_with("ended_at"));
        let leg = v1::Leg { answered_at: Some(bad), ..v1::Leg::default() };
        assert!(refused(&|m| m.b_leg = Some(leg.clone())).starts_with("b_leg.answered_at"));
        assert!(CdrDecoder.decode(&incoming(None)).is_err());
        assert!(CdrDecoder.decode(&incoming(Some(Bytes::from_static(b"\xff")))).is_err());
    }
}
