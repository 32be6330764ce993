//! From a body to its records.

use jiff::Timestamp;
use jiff::tz::Offset;
use tollgate_schema::canonical::{CanonicalError, MAX_DEPTH, canonical_of};
use tollgate_schema::ids::{self, EventId, RecordId};
use tollgate_schema::json_text::{Json, JsonText, Kind};
use tollgate_schema::time::to_proto;
use tollgate_schema::v1::{
    Authenticity, CallDetailRecord, CallEvent, Provenance, QuarantineReason, Quarantined,
};

use crate::field::Damage;
use crate::message::Message;
use crate::{cdr, status};

/// Most items of one feeLst that are read; a longer list is quarantined as a whole.
pub const MAX_RECORDS: usize = 1000;

/// Longest envelope, in bytes, that every record of its message carries. A longer one goes with
/// the message's first readable record only: a thousand copies would turn a body of one mebibyte
/// into most of a gibibyte.
pub const MAX_REPEATED_ENVELOPE_BYTES: usize = 4096;

/// What is known about a request beside its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    /// When the edge had read the whole request.
    pub received_at: Timestamp,
    /// The edge that answered.
    pub edge_id: &'a str,
    /// Epoch of the spool record that holds the request; 0 without one.
    pub spool_epoch: u64,
    /// Its sequence within the epoch; 0 without one.
    pub spool_sequence: u64,
    /// The application of the path or of the authentication headers; empty when unknown, in
    /// which case a CDR's appKey takes its place.
    pub application: &'a str,
    /// What the authentication headers said.
    pub authenticity: Authenticity,
    /// Zone of the times that name none: UTC for the platform itself, another for a relay that
    /// converts (P 3).
    pub zone: Offset,
}

/// One record of a body.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "records live in short lists and are encoded at once; a box each would cost more"
)]
pub enum Record {
    /// A status notification.
    Status(CallEvent),
    /// One item of a CDR notification.
    Cdr(CallDetailRecord),
    /// What could not be read, with its bytes.
    Quarantined(Quarantined),
}

/// Reads a body as received: at least one record, in the order of their position.
///
/// Never fails: what cannot be read becomes a [`Record::Quarantined`]. Ids and content depend on
/// the bytes and on [`Source::zone`] only; the rest of `source` goes to the provenance.
pub fn read(body: &[u8], source: &Source<'_>) -> Vec<Record> {
    let whole = |reason, location: &str, detail: String| {
        vec![Record::Quarantined(quarantined(body, reason, location.to_owned(), detail, 0, source))]
    };
    let Some(text) = text_of(body) else {
        let detail = "expected UTF-8, found other bytes".to_owned();
        return whole(QuarantineReason::MalformedBody, "", detail);
    };
    let Ok(json) = Json::parse(text) else {
        let detail = "expected JSON, found a syntax error".to_owned();
        return whole(QuarantineReason::MalformedBody, "", detail);
    };
    match Message::of(&json) {
        Message::Unknown(damage) => {
            whole(QuarantineReason::UnknownObject, damage.field, detail(&damage))
        }
        Message::Status { body: value, event_type, info } => {
            match read_status(text, value, event_type, info, source) {
                Ok(event) => vec![Record::Status(event)],
                Err(trouble) => {
                    whole(QuarantineReason::UnreadableRecord, &trouble.location, trouble.detail)
                }
            }
        }
        Message::Fee { list, envelope } => match Items::of(list) {
            Items::Some(list) => read_items(body, &list, envelope.to_json(), source),
            Items::None => {
                let detail = "expected records in feeLst, found none".to_owned();
                whole(QuarantineReason::NoRecords, "feeLst", detail)
            }
            Items::TooMany => {
                let detail = format!("expected at most {MAX_RECORDS} records, found more");
                whole(QuarantineReason::TooManyRecords, "feeLst", detail)
            }
            Items::NoList(kind) => {
                let found = kind.name();
                let damage = Damage { field: "feeLst", expected: "an array or an object", found };
                whole(QuarantineReason::UnknownObject, "feeLst", detail(&damage))
            }
        },
    }
}

/// The body as text, less a byte order mark.
pub(crate) fn text_of(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    Some(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Where and why a record is not believed.
struct Trouble {
    location: String,
    detail: String,
}

impl Trouble {
    fn of(damage: &Damage) -> Self {
        Self { location: damage.field.to_owned(), detail: detail(damage) }
    }

    /// Seen from what holds the place.
    fn within(self, parent: &str) -> Self {
        let dot = if parent.is_empty() || self.location.is_empty() { "" } else { "." };
        Self { location: format!("{parent}{dot}{}", self.location), ..self }
    }
}

/// For a person; names field and types, never a value.
fn detail(damage: &Damage) -> String {
    let Damage { field, expected, found } = damage;
    let colon = if field.is_empty() { "" } else { ": " };
    format!("{field}{colon}expected {expected}, found {found}")
}

fn read_status(
    text: &str,
    body: JsonText<'_>,
    event_type: JsonText<'_>,
    info: Option<JsonText<'_>>,
    source: &Source<'_>,
) -> Result<CallEvent, Trouble> {
    let (record_id, mut event) =
        status::read(text, event_type, info, source.zone).map_err(|damage| {
            let of_envelope = matches!(damage.field, "eventType" | "statusInfo");
            Trouble::of(&damage).within(if of_envelope { "" } else { "statusInfo" })
        })?;
    event.event_id = event_id(&record_id, body)?.to_hex();
    event.record_id = record_id.to_hex();
    event.provenance = Some(provenance(source, 0));
    Ok(event)
}

/// The identity of a record's content; trouble if it has no canonical text.
fn event_id(record_id: &RecordId, value: JsonText<'_>) -> Result<EventId, Trouble> {
    canonical_of(value).map(|canonical| ids::event_id(record_id, &canonical)).map_err(|error| {
        let detail = match error {
            CanonicalError::LoneSurrogate { at } => {
                format!("expected Unicode text, found a lone surrogate in the string at byte {at}")
            }
            CanonicalError::TooDeep { at } => {
                format!(
                    "expected at most {MAX_DEPTH} levels of nesting, found one more at byte {at}"
                )
            }
            CanonicalError::Syntax { .. } => error.to_string(),
        };
        Trouble { location: String::new(), detail }
    })
}

/// What feeLst holds.
enum Items<'a> {
    Some(List<'a>),
    None,
    TooMany,
    NoList(Kind),
}

/// The records of a message.
struct List<'a> {
    items: Vec<JsonText<'a>>,
    /// feeLst is the one record itself.
    is_bare: bool,
}

impl<'a> Items<'a> {
    fn of(list: Option<JsonText<'a>>) -> Self {
        let Some(list) = list else { return Self::None };
        match list.kind() {
            Kind::Object => Self::Some(List { items: vec![list], is_bare: true }),
            Kind::Array => {
                let items: Vec<_> = list.items().take(MAX_RECORDS + 1).collect();
                match items.len() {
                    0 => Self::None,
                    1..=MAX_RECORDS => Self::Some(List { items, is_bare: false }),
                    _ => Self::TooMany,
                }
            }
            kind => Self::NoList(kind),
        }
    }
}

impl List<'_> {
    /// Where a record stands.
    fn location(&self, index: usize) -> String {
        if self.is_bare { "feeLst".to_owned() } else { format!("feeLst[{index}]") }
    }
}

fn read_items(
    body: &[u8],
    list: &List<'_>,
    envelope: Option<String>,
    source: &Source<'_>,
) -> Vec<Record> {
    let mut records: Vec<Record> = list
        .items
        .iter()
        .enumerate()
        .map(|(index, item)| match read_cdr(*item, index, source) {
            Ok(record) => Record::Cdr(record),
            Err(trouble) => {
                let Trouble { location, detail } = trouble.within(&list.location(index));
                let reason = QuarantineReason::UnreadableRecord;
                let content = item.as_str().as_bytes();
                Record::Quarantined(quarantined(content, reason, location, detail, index, source))
            }
        })
        .collect();
    if let Some(envelope) = envelope
        && !attach(&mut records, &envelope)
    {
        let reason = QuarantineReason::UnreadableRecord;
        let detail = "no record could be read that would carry the rest of the message".to_owned();
        let place = String::new();
        let whole = quarantined(body, reason, place, detail, list.items.len(), source);
        records.push(Record::Quarantined(whole));
    }
    records
}

fn read_cdr(
    item: JsonText<'_>,
    index: usize,
    source: &Source<'_>,
) -> Result<CallDetailRecord, Trouble> {
    let (record_id, mut record) =
        cdr::read(item, source.zone).map_err(|damage| Trouble::of(&damage))?;
    record.event_id = event_id(&record_id, item)?.to_hex();
    record.record_id = record_id.to_hex();
    let mut provenance = provenance(source, index);
    if provenance.application.is_empty() {
        provenance.application.clone_from(&record.app_key);
    }
    record.provenance = Some(provenance);
    Ok(record)
}

/// Gives the envelope to the records that carry it; false if there is none that could.
fn attach(records: &mut [Record], envelope: &str) -> bool {
    let copies = if envelope.len() <= MAX_REPEATED_ENVELOPE_BYTES { MAX_RECORDS } else { 1 };
    let mut attached = false;
    let readable = records.iter_mut().filter_map(|record| match record {
        Record::Cdr(record) => Some(record),
        _ => None,
    });
    for record in readable.take(copies) {
        record.envelope_json = Some(envelope.to_owned());
        attached = true;
    }
    attached
}

fn provenance(source: &Source<'_>, index: usize) -> Provenance {
    Provenance {
        received_at: Some(to_proto(source.received_at)),
        edge_id: source.edge_id.to_owned(),
        spool_epoch: source.spool_epoch,
        spool_sequence: source.spool_sequence,
        index: u32::try_from(index).unwrap_or(u32::MAX),
        application: source.application.to_owned(),
        authenticity: source.authenticity.into(),
    }
}

fn quarantined(
    content: &[u8],
    reason: QuarantineReason,
    location: String,
    detail: String,
    index: usize,
    source: &Source<'_>,
) -> Quarantined {
    Quarantined {
        quarantine_id: ids::quarantine_id(content).to_hex(),
        content: content.to_vec(),
        reason: reason.into(),
        detail,
        location,
        provenance: Some(provenance(source, index)),
        utc_offset_minutes: Some(source.zone.seconds() / 60),
        ..Quarantined::default()
    }
}
