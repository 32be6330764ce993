//! A second look at what was quarantined: a newer reader may make events of it.

use jiff::tz::Offset;
use prost::Message;
use tollgate_schema::topics::{CALL_EVENTS, CDRS};
use tollgate_schema::v1::{CallDetailRecord, CallEvent, Provenance, QuarantineReason, Quarantined};

use tollgate_stream::Outgoing;
use tollgate_voicecall::{Record, Source, read};

use crate::applications::Applications;
use crate::decode::encode;

/// The events that come out now; `None` while any part of it still cannot be read.
pub fn requalify(quarantined: &Quarantined, applications: &Applications) -> Option<Vec<Outgoing>> {
    // Cut content is only a beginning.
    if quarantined.content_length > 0 {
        return None;
    }
    if let Some(source) = &quarantined.source {
        return again(&source.topic, &quarantined.content).map(|event| vec![event]);
    }
    let body = if is_item(quarantined) {
        let item = std::str::from_utf8(&quarantined.content).ok()?;
        format!(r#"{{"eventType":"fee","feeLst":[{item}]}}"#).into_bytes()
    } else {
        quarantined.content.clone()
    };
    let provenance = quarantined.provenance.clone().unwrap_or_default();
    let mut source = source(&provenance, applications);
    // Older ones do not say it.
    if let Some(minutes) = quarantined.utc_offset_minutes {
        source.zone = Offset::from_seconds(minutes.saturating_mul(60)).ok()?;
    }
    let mut records = read(&body, &source);
    for record in &mut records {
        match record {
            Record::Quarantined(_) => return None,
            Record::Cdr(cdr) if is_item(quarantined) => {
                if let Some(it) = &mut cdr.provenance {
                    it.index = provenance.index;
                }
            }
            Record::Cdr(_) | Record::Status(_) => {}
        }
    }
    Some(records.into_iter().map(encode).collect())
}

/// Whether the content is one record of a feeLst, and not a whole body.
fn is_item(quarantined: &Quarantined) -> bool {
    quarantined.reason() == QuarantineReason::UnreadableRecord
        && quarantined.location.starts_with("feeLst")
}

/// What a consumer could not apply goes to its topic again, as it was.
fn again(topic: &str, content: &[u8]) -> Option<Outgoing> {
    if topic == CALL_EVENTS.name {
        return CallEvent::decode(content).ok().map(|event| encode(Record::Status(event)));
    }
    if topic == CDRS.name {
        return CallDetailRecord::decode(content).ok().map(|cdr| encode(Record::Cdr(cdr)));
    }
    None
}

fn source<'a>(provenance: &'a Provenance, applications: &Applications) -> Source<'a> {
    let received_at =
        provenance.received_at.and_then(|at| tollgate_schema::time::from_proto(&at).ok());
    Source {
        received_at: received_at.unwrap_or_default(),
        edge_id: &provenance.edge_id,
        spool_epoch: provenance.spool_epoch,
        spool_sequence: provenance.spool_sequence,
        application: &provenance.application,
        authenticity: provenance.authenticity(),
        zone: applications.zone(&provenance.application),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::applications::Application;

    /// Quarantined by a reader that could not read what this one can.
    fn quarantined(content: &str, location: &str) -> Quarantined {
        Quarantined {
            content: content.into(),
            reason: QuarantineReason::UnreadableRecord.into(),
            location: location.to_owned(),
            provenance: Some(Provenance { index: 17, ..Provenance::default() }),
            utc_offset_minutes: Some(0),
            ..Quarantined::default()
        }
    }

    fn cdr(quarantined: &Quarantined, applications: &Applications) -> CallDetailRecord {
        let events = requalify(quarantined, applications).unwrap();
        let [event] = &events[..] else { panic!("one event") };
        CallDetailRecord::decode(event.value.clone().unwrap()).unwrap()
    }

    #[test]
    fn an_item_is_read_as_one_and_keeps_its_place_wherever_it_stood() {
        let item = r#"{"appKey":"a","icid":"i"}"#;
        for location in ["feeLst[17].callEndTime", "feeLst[17]", "feeLst.callEndTime", "feeLst"] {
            let read = cdr(&quarantined(item, location), &Applications::default());
            assert_eq!(read.original_json, item, "{location}");
            assert_eq!(read.provenance.unwrap().index, 17, "{location}");
        }
        // What cannot carry its envelope is a whole body.
        let whole = quarantined(r#"{"feeLst":[{"appKey":"a","icid":"i"}]}"#, "");
        assert_eq!(cdr(&whole, &Applications::default()).provenance.unwrap().index, 0);
    }

    #[test]
    fn times_are_read_by_the_zone_of_the_first_reading() {
        let relay = r#"{"name":"relay","app_key":"k","path_secret":"a-long-enough-secret","utc_offset_minutes":480}"#;
        let relay: Application = serde_json::from_str(relay).unwrap();
        let applications = Applications::new(&[relay], None).unwrap();
        let ended_at = |utc_offset_minutes| {
            let item = r#"{"appKey":"k","icid":"i","callEndTime":"1970-01-01 08:00:00"}"#;
            let mut quarantined = quarantined(item, "feeLst[0]");
            quarantined.utc_offset_minutes = utc_offset_minutes;
            quarantined.provenance.as_mut().unwrap().application = "k".into();
            cdr(&quarantined, &applications).ended_at.unwrap().seconds
        };
        assert_eq!([ended_at(Some(0)), ended_at(Some(480)), ended_at(None)], [8 * 3600, 0, 0]);
    }
}
