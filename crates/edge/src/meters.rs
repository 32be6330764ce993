//! Handles of the metrics that every request touches: to look a metric up by name and labels
//! takes longer than to count.

use std::collections::HashMap;
use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tollgate_schema::topics::{CALL_EVENTS, CDRS, QUARANTINE};
use tollgate_schema::v1::Authenticity;

use crate::applications::Applications;
use crate::metrics::{
    ACK_SECONDS, ACKNOWLEDGED, AUTHENTICITY, AWAITING_INSTRUCTIONS, LAST_NOTIFICATION, PUBLISHED,
    RECEIVED_BYTES, RECORDS, REQUESTS,
};

/// What holds an acknowledged notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The spool, synced.
    Spooled,
    /// Kafka, confirmed.
    Delivered,
    /// The spool, because Kafka did not confirm in time.
    Fallback,
}

impl Held {
    fn label(self) -> &'static str {
        match self {
            Self::Spooled => "spooled",
            Self::Delivered => "delivered",
            Self::Fallback => "fallback",
        }
    }
}

/// Of requests answered 200.
pub struct Acknowledged {
    answered: Counter,
    held: [Counter; 3],
    seconds: Histogram,
    bytes: Counter,
}

impl Acknowledged {
    pub fn new() -> Self {
        let held = [Held::Spooled, Held::Delivered, Held::Fallback];
        Self {
            answered: counter!(REQUESTS.name, "status" => "200"),
            held: held.map(|held| counter!(ACKNOWLEDGED.name, "contract" => held.label())),
            seconds: histogram!(ACK_SECONDS.name),
            bytes: counter!(RECEIVED_BYTES.name),
        }
    }

    pub fn count(&self, held: Held, bytes: u64, seconds: f64) {
        self.answered.increment(1);
        self.held[held as usize].increment(1);
        self.seconds.record(seconds);
        self.bytes.increment(bytes);
    }
}

/// Kinds of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Status,
    Cdr,
    Quarantined,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Cdr => "cdr",
            Self::Quarantined => "quarantined",
        }
    }
}

/// Label of every application that is not configured, so that senders cannot add labels.
const OTHER: &str = "other";

/// Of records by application, and of what headers prove.
pub struct Records {
    by_application: HashMap<String, OfApplication>,
    other: OfApplication,
    authenticity: Vec<(Authenticity, Counter)>,
    /// Of statuses whose platform waits for more than an answer.
    pub awaiting_instructions: Counter,
}

struct OfApplication {
    records: [Counter; 3],
    /// Not there before there is something to tell: 0 would say 1970.
    last: [OnceLock<Gauge>; 2],
    label: String,
}

impl OfApplication {
    fn new(label: &str) -> Self {
        let records = |kind: &'static str| counter!(RECORDS.name, "application" => label.to_owned(), "kind" => kind);
        Self {
            records: [Kind::Status, Kind::Cdr, Kind::Quarantined].map(|kind| records(kind.label())),
            last: Default::default(),
            label: label.to_owned(),
        }
    }

    fn count(&self, kind: Kind, records: u64, received_at_ms: i64) {
        self.records[kind as usize].increment(records);
        let Some(last) = self.last.get(kind as usize) else { return };
        let application = || self.label.clone();
        last.get_or_init(|| {
            gauge!(LAST_NOTIFICATION.name, "application" => application(), "kind" => kind.label())
        })
        .set(received_at_ms as f64 / 1000.0);
    }
}

impl Records {
    pub fn new(applications: &Applications) -> Self {
        let known = applications.all().iter().map(|known| &known.settings);
        let results = [
            (Authenticity::VerifiedP1, "p1"),
            (Authenticity::VerifiedP2, "p2"),
            (Authenticity::VerifiedP3, "p3"),
            (Authenticity::VerifiedP4, "p4"),
            (Authenticity::VerifiedP5, "p5"),
            (Authenticity::Failed, "failed"),
            (Authenticity::Absent, "absent"),
        ];
        Self {
            by_application: known
                .map(|known| (known.app_key.clone(), OfApplication::new(&known.name)))
                .collect(),
            other: OfApplication::new(OTHER),
            authenticity: results
                .map(|(what, result)| (what, counter!(AUTHENTICITY.name, "result" => result)))
                .into(),
            awaiting_instructions: counter!(AWAITING_INSTRUCTIONS.name),
        }
    }

    /// A request, by what its headers prove.
    pub fn request(&self, authenticity: Authenticity) {
        if let Some((_, counter)) = self.authenticity.iter().find(|(what, _)| *what == authenticity)
        {
            counter.increment(1);
        }
    }

    /// Some of its records.
    pub fn records(&self, app_key: &str, kind: Kind, records: u64, received_at_ms: i64) {
        let application = self.by_application.get(app_key).unwrap_or(&self.other);
        application.count(kind, records, received_at_ms);
    }
}

/// Of records that the stream has confirmed.
pub struct Published([(&'static str, Counter); 3]);

impl Default for Published {
    fn default() -> Self {
        let topics = [CALL_EVENTS.name, CDRS.name, QUARANTINE.name];
        Self(topics.map(|topic| (topic, counter!(PUBLISHED.name, "topic" => topic))))
    }
}

impl Published {
    pub fn count(&self, topic: &str) {
        if let Some((_, counter)) = self.0.iter().find(|(name, _)| *name == topic) {
            counter.increment(1);
        }
    }
}
