//! A ledger entry: the message that is published, and the figures that are summed.

use std::ops::{AddAssign, Neg};

use prost::Message;
use tollgate_rating::Service;
use tollgate_schema::ids::{self, EntryId, EventId, RecordId};
use tollgate_schema::v1::{self, RatingStatus};
use tollgate_schema::{time, topics};
use tollgate_stream::Outgoing;

use crate::texts;

/// Whether an entry books or takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Books what a record comes to.
    Charge = 1,
    /// Takes the charge of the same revision back.
    Reversal = 2,
}

impl Kind {
    /// Its name in the entry's id, in answers and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Charge => "charge",
            Self::Reversal => "reversal",
        }
    }

    /// From the database.
    pub fn from_stored(value: i64) -> Self {
        if value == 2 { Self::Reversal } else { Self::Charge }
    }
}

/// The name of a status in answers, metrics and queries.
pub const fn status_name(status: RatingStatus) -> &'static str {
    match status {
        RatingStatus::Unspecified => "unspecified",
        RatingStatus::Rated => "rated",
        RatingStatus::Unrated => "unrated",
        RatingStatus::Implausible => "implausible",
        RatingStatus::ApplicationMismatch => "application_mismatch",
    }
}

/// What is summed. Every figure of a reversal is the negative of its charge's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measures {
    /// Calls attempted.
    pub attempts: i64,
    /// Calls whose called party answered.
    pub answered: i64,
    /// Answer to end, over all legs, whole seconds.
    pub seconds: i64,
    /// Answer of the called party to end, whole seconds.
    pub talk_seconds: i64,
    /// Billed minutes over all legs.
    pub billed_minutes: i64,
    /// Micro-units (10^-6) of the currency.
    pub amount_micros: i64,
    /// Sum of post-dial delays (start of dialling to alerting of the called party), milliseconds.
    pub pdd_ms: i64,
    /// How many delays are in that sum.
    pub pdd_samples: i64,
}

impl Measures {
    /// In the order of the database's columns.
    pub fn columns(&self) -> [i64; 8] {
        [
            self.attempts,
            self.answered,
            self.seconds,
            self.talk_seconds,
            self.billed_minutes,
            self.amount_micros,
            self.pdd_ms,
            self.pdd_samples,
        ]
    }

    /// The inverse of [`Measures::columns`].
    pub fn from_columns(columns: [i64; 8]) -> Self {
        let [
            attempts,
            answered,
            seconds,
            talk_seconds,
            billed_minutes,
            amount_micros,
            pdd_ms,
            pdd_samples,
        ] = columns;
        Self {
            attempts,
            answered,
            seconds,
            talk_seconds,
            billed_minutes,
            amount_micros,
            pdd_ms,
            pdd_samples,
        }
    }
}

impl AddAssign for Measures {
    fn add_assign(&mut self, other: Self) {
        let mut columns = self.columns();
        for (column, more) in columns.iter_mut().zip(other.columns()) {
            // Sums of micro-units stay far below 2^63; what a hostile record could add is bounded
            // by the 24 hours a leg may last. Saturating keeps a defect visible in the checks.
            *column = column.saturating_add(more);
        }
        *self = Self::from_columns(columns);
    }
}

impl Neg for Measures {
    type Output = Self;

    fn neg(self) -> Self {
        Self::from_columns(self.columns().map(i64::saturating_neg))
    }
}

/// Where an entry is summed: the aggregate row's key, less the source partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket {
    /// Start of the hour in the billing time zone, milliseconds since 1970 UTC.
    pub hour_ms: i64,
    /// `2026-11-23`
    pub day: String,
    /// `2026-11`
    pub month: String,
    /// ISO 4217; empty when not rated.
    pub currency: String,
    /// APP_Key; the sender's own text where none is configured.
    pub application: String,
    /// Service for reports.
    pub service: Option<Service>,
    /// Rated, or why not.
    pub status: i64,
}

/// A ledger entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Which record.
    pub record_id: RecordId,
    /// Which content was rated.
    pub event_id: EventId,
    /// Charge or reversal.
    pub kind: Kind,
    /// 1 for a record's first charge. A reversal has the revision of the charge it takes back.
    pub revision: u32,
    /// Where it is summed.
    pub bucket: Bucket,
    /// What is summed.
    pub measures: Measures,
    /// What is published and kept.
    pub message: v1::RatedCdr,
}

impl Entry {
    /// Derived from record, kind and revision: the same entry has the same id wherever and
    /// whenever it is computed.
    pub fn entry_id(&self) -> EntryId {
        ids::entry_id(&self.record_id, self.kind.name(), self.revision)
    }

    /// The instant that assigned its period, milliseconds since 1970 UTC.
    pub fn billed_at_ms(&self) -> i64 {
        self.message.billed_at.as_ref().and_then(time::proto_to_millis).unwrap_or_default()
    }

    /// The entry that takes this charge back: the same figures negated, in the same bucket.
    #[must_use]
    pub fn reversal(&self) -> Self {
        debug_assert_eq!(self.kind, Kind::Charge, "only a charge is taken back");
        let entry_id = ids::entry_id(&self.record_id, Kind::Reversal.name(), self.revision);
        let mut message = self.message.clone();
        message.entry_id = entry_id.to_string();
        message.set_kind(v1::EntryKind::Reversal);
        message.amount_micros = message.amount_micros.saturating_neg();
        for leg in &mut message.legs {
            leg.seconds = leg.seconds.saturating_neg();
            leg.billed_seconds = leg.billed_seconds.saturating_neg();
            leg.billed_minutes = leg.billed_minutes.saturating_neg();
            leg.amount_micros = leg.amount_micros.saturating_neg();
        }
        Self { kind: Kind::Reversal, measures: -self.measures, message, ..self.clone() }
    }

    /// Whether two charges of one record come to the same, whatever tariff said so. Earlier
    /// versions kept the application whole.
    pub fn comes_to_the_same(&self, other: &Self) -> bool {
        let facts = |entry: &Self| {
            let mut bucket = entry.bucket.clone();
            bucket.application = texts::short(bucket.application);
            (entry.event_id, bucket, entry.measures, entry.message.legs.clone())
        };
        facts(self) == facts(other)
    }

    /// The record for topic `rated-cdrs`.
    pub fn outgoing(&self) -> Outgoing {
        Outgoing::event(
            &topics::RATED_CDRS,
            self.message.record_id.clone(),
            &self.message.entry_id,
            Some(self.billed_at_ms()),
            self.message.encode_to_vec(),
        )
    }
}
