//! Whether a record may be charged, to whom, and into which hour: everything about it that does
//! not depend on a tariff.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_rating::{Flag, Limits, Status};
use tollgate_schema::v1;

use crate::applications::{Applications, Owner};
use crate::calendar::{Calendar, Period};
use crate::digest::Digest;
use crate::item::{Content, millis};
use crate::pricing::{at_receipt, cdr_of};

/// Which instant assigns a call to its hour, day and month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BillBy {
    /// The end of the call, as the platform's own invoice is believed to do.
    #[default]
    End,
    /// The answer of the party called last; the end where nobody answered.
    Answer,
}

/// The operator's rules, fixed while the process runs.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Configured applications.
    pub applications: Applications,
    /// Billing time zone.
    pub calendar: Calendar,
    /// Which instant assigns the hour.
    pub bill_by: BillBy,
    /// What is still believed.
    pub limits: Limits,
}

/// Whether a record may be charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A tariff decides.
    Chargeable,
    /// Its times cannot be true, or could not be read.
    Implausible,
    /// Its application is unknown, or not the path's.
    ApplicationMismatch,
}

/// What the rules make of a digest. Equal assessments of one content give equal charges under
/// one tariff: nothing else about a sighting reaches the money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// To whom it belongs.
    pub owner: Owner,
    /// The instant that assigns the period, milliseconds since 1970 UTC. The receipt where the
    /// record's own times are missing or not to be believed.
    pub billed_at_ms: i64,
    /// Hour, day and month of it.
    pub period: Period,
    /// Whether it may be charged.
    pub verdict: Verdict,
    /// What is odd about it.
    pub flags: Vec<Flag>,
}

impl Rules {
    /// Assesses a digest.
    pub fn assess(&self, digest: &Digest) -> Assessment {
        let content = &*digest.content;
        let received_ms = digest.first_received_ms;
        let owner = self.applications.owner(content.record(), &digest.application);
        let cdr = at_receipt(cdr_of(content, &owner.application, owner.service), received_ms);
        let rated = tollgate_rating::rate(&cdr, None, &self.limits);
        let believed = rated.status != Status::Implausible;
        let verdict = match (owner.mismatch, believed) {
            (true, _) => Verdict::ApplicationMismatch,
            (false, false) => Verdict::Implausible,
            (false, true) => Verdict::Chargeable,
        };
        let own_instant = if believed { self.billed_at(content) } else { None };
        let (billed_at_ms, period) = own_instant
            .and_then(|instant| Some((instant, self.calendar.period(instant)?)))
            .unwrap_or_else(|| self.received(received_ms));
        Assessment { owner, billed_at_ms, period, verdict, flags: rated.flags }
    }

    /// The receipt as the instant of billing. An edge's clock beyond the calendar's years (the
    /// year 9999 with a zone east of Greenwich) counts as 1970.
    fn received(&self, received_ms: i64) -> (i64, Period) {
        let epoch = || Period { hour_ms: 0, day: "1970-01-01".into(), month: "1970-01".into() };
        match self.calendar.period(received_ms) {
            Some(period) => (received_ms, period),
            None => (0, self.calendar.period(0).unwrap_or_else(epoch)),
        }
    }

    fn billed_at(&self, content: &Content) -> Option<i64> {
        let record = content.record();
        let end = content.end_ms();
        let answer = legs(record).rev().find_map(|leg| millis(leg.answered_at.as_ref()));
        let chosen = match self.bill_by {
            BillBy::End => end.or(answer),
            BillBy::Answer => answer.or(end),
        };
        chosen.or_else(|| {
            legs(record)
                .flat_map(|leg| [leg.alerting_at.as_ref(), leg.started_at.as_ref()])
                .filter_map(millis)
                .max()
        })
    }
}

/// The legs a record has, A first.
fn legs(record: &v1::CallDetailRecord) -> impl DoubleEndedIterator<Item = &v1::Leg> {
    [record.a_leg.as_ref(), record.b_leg.as_ref()].into_iter().flatten()
}
