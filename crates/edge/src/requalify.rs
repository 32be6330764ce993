//! A second look at what was quarantined: a newer reader may make events of it.

use prost::Message;
use tollgate_schema::topics::{CALL_EVENTS, CDRS};
use tollgate_schema::v1::{CallDetailRecord, CallEvent, Provenance, Quarantined};

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
    let body = if quarantined.location.starts_with("feeLst[") {
        let item = std::str::from_utf8(&quarantined.content).ok()?;
        format!(r#"{{"eventType":"fee","feeLst":[{item}]}}"#).into_bytes()
    } else {
        quarantined.content.clone()
    };
    let provenance = quarantined.provenance.clone().unwrap_or_default();
    let records = read(&body, &source(&provenance, applications));
    let all_readable = records.iter().all(|record| !matches!(record, Record::Quarantined(_)));
    all_readable.then(|| records.into_iter().map(encode).collect())
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
