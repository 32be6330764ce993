//! From a stored request to the records of the topics. Runs after the answer, except where a rule
//! needs it before.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use jiff::Timestamp;
use prost::Message;
use tollgate_schema::ids;
use tollgate_schema::time::{proto_to_millis, to_proto};
use tollgate_schema::topics::{CALL_EVENTS, CDRS, QUARANTINE};
use tollgate_schema::v1::{
    Authenticity, CallEvent, EventType, Provenance, QuarantineReason, Quarantined,
};
use tollgate_spool::{Position, Request};
use tollgate_stream::Outgoing;
use tollgate_voicecall::aksk;
use tollgate_voicecall::{Record, Source, read};

use crate::applications::{Applications, zone};
use crate::meters::{Kind, Records};
use crate::metrics::QUARANTINED;
use crate::quota::Quota;

/// Makes records of requests.
pub struct Decoder {
    applications: Arc<Applications>,
    quota: Arc<Quota>,
    meters: Records,
}

/// Whose a request is, as far as its path and headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// APP_Key; empty when neither path nor headers name one.
    pub application: &'a str,
    /// What the headers prove.
    pub authenticity: Authenticity,
}

/// A request's records, ready to be sent, and what they are.
pub struct Normalised {
    /// One for each status, CDR and quarantined record, in order.
    pub records: Vec<Outgoing>,
    seen: Vec<Seen>,
    quarantined: Vec<QuarantineReason>,
    awaiting_instructions: u64,
    authenticity: Authenticity,
}

/// Records of one kind and application, one behind the other.
struct Seen {
    application: String,
    kind: Kind,
    records: u64,
}

impl Decoder {
    /// `quota` is charged with what is not well-formed.
    pub(crate) fn new(applications: Arc<Applications>, quota: Arc<Quota>) -> Self {
        let meters = Records::new(&applications);
        Self { applications, quota, meters }
    }

    /// A decoder for looking at bodies outside of an edge; no quota is charged.
    pub fn for_looking(applications: Arc<Applications>) -> Self {
        Self::new(applications, Arc::new(Quota::new(u64::MAX)))
    }

    /// Reads, normalises and encodes one request. Always at least one record.
    pub fn normalise(&self, request: &Request<'_>, position: Option<Position>) -> Normalised {
        let identity = self.identify(request);
        let authenticity = identity.authenticity;
        let records = guarded(read, request.body, &self.source(request, position, identity));
        let mut normalised = Normalised {
            records: Vec::with_capacity(records.len()),
            seen: Vec::new(),
            quarantined: Vec::new(),
            awaiting_instructions: 0,
            authenticity,
        };
        for record in records {
            normalised.see(&record);
            normalised.records.push(encode(record));
        }
        normalised
    }

    /// Counts a request that is held: its records, when the newest of each kind came, and what
    /// its path has spent of its quota. Once for each request.
    pub(crate) fn count(&self, normalised: &Normalised, request: &Request<'_>) {
        if normalised.quarantined.contains(&QuarantineReason::MalformedBody) {
            self.quota.spend(request.application, request.body.len(), request.received_at_ms);
        }
        self.count_signature(normalised.authenticity);
        self.meters.awaiting_instructions.increment(normalised.awaiting_instructions);
        for Seen { application, kind, records } in &normalised.seen {
            self.meters.records(application, *kind, *records, request.received_at_ms);
        }
        for reason in &normalised.quarantined {
            metrics::counter!(QUARANTINED.name, "reason" => reason_label(*reason)).increment(1);
        }
    }

    /// Counts what a request's headers prove; one that is refused for it is counted by nothing else.
    pub(crate) fn count_signature(&self, authenticity: Authenticity) {
        self.meters.request(authenticity);
    }

    /// Application and authenticity by path and headers.
    pub fn identify<'a>(&self, request: &Request<'a>) -> Identity<'a> {
        // Which of the two names the token header had makes no difference to the formulas.
        let headers = aksk::Headers {
            authorization: request.authorization.map(str::as_bytes),
            x_aksk: request.signature.map(str::as_bytes),
            x_wsse: None,
        };
        let username = aksk::username(&headers).unwrap_or_default();
        let application =
            if request.application.is_empty() { username } else { request.application };
        let known = self.applications.by_key(application);
        let secret = known.and_then(|known| known.app_secret.as_deref());
        let urls = known.map_or(&[][..], |known| &known.urls);
        let authenticity = aksk::verify(&headers, secret.as_slice(), urls);
        Identity { application, authenticity }
    }

    /// The appKeys that the CDRs of a request name.
    pub fn app_keys(&self, request: &Request<'_>) -> impl Iterator<Item = String> + use<> {
        let identity = Identity { application: "", authenticity: Authenticity::Absent };
        let records = guarded(read, request.body, &self.source(request, None, identity));
        records.into_iter().filter_map(|record| match record {
            Record::Cdr(cdr) => Some(cdr.app_key),
            Record::Status(_) | Record::Quarantined(_) => None,
        })
    }

    fn source<'a>(
        &self,
        request: &Request<'a>,
        position: Option<Position>,
        identity: Identity<'a>,
    ) -> Source<'a> {
        Source {
            received_at: Timestamp::from_millisecond(request.received_at_ms).unwrap_or_default(),
            edge_id: request.edge_id,
            spool_epoch: position.map_or(0, |position| position.epoch),
            spool_sequence: position.map_or(0, |position| position.sequence),
            // Not by the headers: whoever sends them does not come by way of the relay. As it was
            // at the receipt, so that the same ids come out whenever it is published.
            zone: match request.utc_offset_minutes {
                Some(minutes) => zone(minutes),
                None => self.applications.zone(request.application),
            },
            application: identity.application,
            authenticity: identity.authenticity,
        }
    }
}

impl Normalised {
    fn see(&mut self, record: &Record) {
        let (provenance, kind) = match record {
            Record::Status(event) => (&event.provenance, Kind::Status),
            Record::Cdr(cdr) => (&cdr.provenance, Kind::Cdr),
            Record::Quarantined(it) => (&it.provenance, Kind::Quarantined),
        };
        let application = provenance.as_ref().map_or("", |it| &it.application);
        match self.seen.last_mut().filter(|it| it.kind == kind && it.application == application) {
            Some(same) => same.records += 1,
            None => self.seen.push(Seen { application: application.to_owned(), kind, records: 1 }),
        }
        match record {
            Record::Quarantined(it) => self.quarantined.push(it.reason()),
            Record::Status(event) if awaits_instructions(event) => self.awaiting_instructions += 1,
            Record::Status(_) | Record::Cdr(_) => {}
        }
    }
}

/// Whether the platform waits for an answer that steers the call (P 6.3, X mode), which is none
/// that Tollgate gives.
fn awaits_instructions(event: &CallEvent) -> bool {
    event.r#type() == EventType::Callin
        && event
            .notify_mode
            .as_deref()
            .is_some_and(|mode| mode.trim().eq_ignore_ascii_case("block"))
}

/// Reads a body by `reader`. A defect of the reader costs a body its place among the events, and
/// not the edge its life again and again: the body goes to quarantine.
fn guarded(
    reader: impl Fn(&[u8], &Source<'_>) -> Vec<Record>,
    body: &[u8],
    source: &Source<'_>,
) -> Vec<Record> {
    let read = catch_unwind(AssertUnwindSafe(|| reader(body, source)));
    read.unwrap_or_else(|_| {
        tracing::error!("the reader failed at a body, which goes to quarantine; report this");
        vec![Record::Quarantined(Quarantined {
            quarantine_id: ids::quarantine_id(body).to_string(),
            content: body.to_vec(),
            detail: "the reader failed: a defect of tollgate, replay it with a later version"
                .to_owned(),
            provenance: Some(Provenance {
                received_at: Some(to_proto(source.received_at)),
                edge_id: source.edge_id.to_owned(),
                spool_epoch: source.spool_epoch,
                spool_sequence: source.spool_sequence,
                index: 0,
                application: source.application.to_owned(),
                authenticity: source.authenticity.into(),
            }),
            utc_offset_minutes: Some(source.zone.seconds() / 60),
            ..Quarantined::default()
        })]
    })
}

fn reason_label(reason: QuarantineReason) -> &'static str {
    match reason {
        QuarantineReason::MalformedBody => "malformed_body",
        QuarantineReason::UnknownObject => "unknown_object",
        QuarantineReason::NoRecords => "no_records",
        QuarantineReason::TooManyRecords => "too_many_records",
        QuarantineReason::UnreadableRecord => "unreadable_record",
        _ => "other",
    }
}

pub(crate) fn encode(record: Record) -> Outgoing {
    match record {
        Record::Status(event) => {
            let at = event.occurred_at.as_ref().and_then(proto_to_millis);
            let value = event.encode_to_vec();
            Outgoing::event(&CALL_EVENTS, event.session_id, event.event_id, at, value)
        }
        Record::Cdr(cdr) => {
            let at = cdr.ended_at.as_ref().or(cdr.failed_at.as_ref()).and_then(proto_to_millis);
            let value = cdr.encode_to_vec();
            Outgoing::event(&CDRS, cdr.session_id, cdr.event_id, at, value)
        }
        Record::Quarantined(quarantined) => {
            let received_at = quarantined.provenance.as_ref().and_then(|it| it.received_at);
            let at = received_at.as_ref().and_then(proto_to_millis);
            let value = quarantined.encode_to_vec();
            let id = quarantined.quarantine_id;
            Outgoing::event(&QUARANTINE, id.clone(), id, at, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &[u8]) -> Request<'_> {
        Request { received_at_ms: 7, body, ..Request::default() }
    }

    #[test]
    fn a_body_that_the_reader_fails_at_goes_to_quarantine_with_its_bytes() {
        let decoder = Decoder::for_looking(Arc::default());
        let request = request(b"whatever");
        let identity = decoder.identify(&request);
        let source = decoder.source(&request, None, identity);
        let records = guarded(|_, _| panic!("a defect"), request.body, &source);
        let [Record::Quarantined(quarantined)] = &records[..] else { panic!("one record") };
        assert_eq!(quarantined.content, b"whatever");
        let as_ever = ids::quarantine_id(b"whatever").to_string();
        assert_eq!(quarantined.quarantine_id, as_ever);
    }

    #[test]
    fn only_a_blocking_callin_awaits_instructions() {
        let awaiting = |kind: &str, mode: &str| {
            let body = format!(
                r#"{{"eventType":"{kind}","statusInfo":{{"sessionId":"s","timestamp":"2024-07-03 02:30:03","notifyMode":"{mode}"}}}}"#
            );
            let decoder = Decoder::for_looking(Arc::default());
            decoder.normalise(&request(body.as_bytes()), None).awaiting_instructions
        };
        assert_eq!((awaiting("callin", "Block"), awaiting("callin", " block ")), (1, 1));
        assert_eq!((awaiting("callin", "Notify"), awaiting("callout", "Block")), (0, 0));
    }

    #[test]
    fn every_record_is_seen_once_under_its_application_and_kind() {
        let request = request(
            br#"{"feeLst":[{"appKey":"a"},{"appKey":"a"},{"appKey":"b"},7,[],{"appKey":"a"}]}"#,
        );
        let normalised = Decoder::for_looking(Arc::default()).normalise(&request, None);
        let seen = normalised.seen.iter().map(|it| (&*it.application, it.kind, it.records));
        let expected = [
            ("a", Kind::Cdr, 2),
            ("b", Kind::Cdr, 1),
            ("", Kind::Quarantined, 2),
            ("a", Kind::Cdr, 1),
        ];
        assert_eq!(seen.collect::<Vec<_>>(), expected);
        assert_eq!(normalised.quarantined, [QuarantineReason::UnreadableRecord; 2]);
        assert_eq!(normalised.records.len(), 6);
    }

    #[test]
    fn a_quota_is_charged_for_malformed_bodies_once_and_for_nothing_else() {
        let quota = Arc::new(Quota::new(1));
        let decoder = Decoder::new(Arc::default(), Arc::clone(&quota));
        for body in [&b"[]"[..], b"{}", br#"{"eventType":"callout"}"#] {
            let request = request(body);
            decoder.count(&decoder.normalise(&request, None), &request);
        }
        let malformed = request(b"{");
        let normalised = decoder.normalise(&malformed, None);
        assert!(!quota.is_spent("", 7), "looking costs nothing");
        decoder.count(&normalised, &malformed);
        assert!(quota.is_spent("", 7));
    }
}
