//! From an assessed digest to a charge: the tariffs in force, and what rating says.

use std::sync::Arc;

use jiff::Timestamp;
use tollgate_rating::{Cdr, LegTimes, Rated, Service, Side, Status, Tariff};
use tollgate_schema::ids::{self, RecordId};
use tollgate_schema::time;
use tollgate_schema::v1::{self, RatingStatus};

use crate::digest::Digest;
use crate::entry::{Bucket, Entry, Kind, Measures};
use crate::item::{Content, millis};
use crate::rules::{Assessment, Rules, Verdict};

/// A post-dial delay beyond this is a wrong time, not a delay: 10 minutes.
const MAX_PDD_MS: i64 = 600_000;

/// The tariffs in force, in the order of their activation.
#[derive(Debug, Clone, Default)]
pub struct Book {
    activations: Vec<(i64, Arc<Tariff>)>,
}

impl Book {
    /// From now on `tariff` applies to what is billed from `from_ms` on (milliseconds since 1970
    /// UTC), whatever applied before.
    pub fn activate(&mut self, from_ms: i64, tariff: Arc<Tariff>) {
        self.activations.push((from_ms, tariff));
    }

    /// The tariff for an instant of billing: of those that cover it, the one activated last.
    pub fn at(&self, billed_at_ms: i64) -> Option<&Tariff> {
        let covers = |(from_ms, _): &&(i64, Arc<Tariff>)| *from_ms <= billed_at_ms;
        self.activations.iter().rev().find(covers).map(|(_, tariff)| &**tariff)
    }
}

/// Everything a charge is made by, beside the record.
#[derive(Debug, Clone, Copy)]
pub struct Desk<'a> {
    /// The operator's rules.
    pub rules: &'a Rules,
    /// The tariffs in force.
    pub book: &'a Book,
}

impl Desk<'_> {
    /// Assesses a digest by the rules.
    pub fn assess(&self, digest: &Digest) -> Assessment {
        self.rules.assess(digest)
    }

    /// The charge of a digest. What must not be charged, or is covered by no tariff, makes a
    /// charge of nothing that says so.
    pub fn charge(
        &self,
        record_id: RecordId,
        revision: u32,
        digest: &Digest,
        assessment: &Assessment,
    ) -> Entry {
        let content = &*digest.content;
        let tariff = match assessment.verdict {
            Verdict::Chargeable => self.book.at(assessment.billed_at_ms),
            Verdict::Implausible | Verdict::ApplicationMismatch => None,
        };
        let received_ms = digest.first_received_ms;
        let cdr = cdr_of(content, &assessment.owner.application, assessment.owner.service);
        let rated =
            tollgate_rating::rate(&at_receipt(cdr, received_ms), tariff, &self.rules.limits);
        let status = match (assessment.verdict, rated.status) {
            (Verdict::ApplicationMismatch, _) => RatingStatus::ApplicationMismatch,
            (Verdict::Implausible, _) | (_, Status::Implausible) => RatingStatus::Implausible,
            (Verdict::Chargeable, Status::Rated) => RatingStatus::Rated,
            (Verdict::Chargeable, Status::Unrated) => RatingStatus::Unrated,
        };
        // What was looked at in vain is worth knowing; what was not looked at must not be named.
        let priced = tariff.filter(|_| status == RatingStatus::Rated);
        let entry_id = ids::entry_id(&record_id, Kind::Charge.name(), revision);
        let message = v1::RatedCdr {
            entry_id: entry_id.to_string(),
            record_id: record_id.to_string(),
            event_id: digest.event_id.to_string(),
            kind: v1::EntryKind::Charge.into(),
            revision,
            status: status.into(),
            legs: rated.legs.iter().map(rated_leg).collect(),
            currency: rated.currency.to_owned(),
            amount_micros: rated.amount_micros,
            tariff_version: priced.map(|t| t.version().to_string()).unwrap_or_default(),
            policy: priced.map(|t| t.policy().name().to_owned()).unwrap_or_default(),
            flags: rated.flags.iter().map(|flag| flag.name().to_owned()).collect(),
            application: assessment.owner.application.clone(),
            app_key: content.record().app_key.clone(),
            session_id: content.record().session_id.clone(),
            billed_at: Some(time::proto_from_millis(assessment.billed_at_ms)),
            billing_day: assessment.period.day.clone(),
            source: Some(digest.read_at.position()),
        };
        Entry {
            record_id,
            event_id: digest.event_id,
            kind: Kind::Charge,
            revision,
            measures: measures(content, assessment.owner.service, &rated),
            bucket: Bucket {
                hour_ms: assessment.period.hour_ms,
                day: assessment.period.day.clone(),
                month: assessment.period.month.clone(),
                currency: message.currency.clone(),
                application: message.application.clone(),
                service: assessment.owner.service,
                status: i32::from(status).into(),
            },
            message,
        }
    }
}

fn rated_leg(leg: &tollgate_rating::RatedLeg) -> v1::RatedLeg {
    v1::RatedLeg {
        side: match leg.side {
            Side::A => v1::LegSide::A,
            Side::B => v1::LegSide::B,
        }
        .into(),
        seconds: leg.seconds,
        billed_seconds: leg.billed_seconds,
        billed_minutes: leg.billed_minutes,
        amount_micros: leg.amount_micros,
        rate: leg.rate.to_string(),
    }
}

/// The leg whose answer makes a call answered: B where the service has a B-leg, else A.
fn called_party(content: &Content, service: Option<Service>) -> (v1::LegSide, Option<&v1::Leg>) {
    let record = content.record();
    let two_legs = match service {
        Some(Service::Callback | Service::PrivateAx | Service::PrivateAxb) => true,
        Some(Service::Notification | Service::Verification | Service::Playback) => false,
        None => record.b_leg.is_some(),
    };
    if two_legs {
        (v1::LegSide::B, record.b_leg.as_ref())
    } else {
        (v1::LegSide::A, record.a_leg.as_ref())
    }
}

/// What is summed. Times that are not believed count as an attempt and nothing else.
fn measures(content: &Content, service: Option<Service>, rated: &Rated) -> Measures {
    let mut sums = Measures { attempts: 1, ..Measures::default() };
    if rated.status == Status::Implausible {
        return sums;
    }
    let (side, leg) = called_party(content, service);
    for rated_leg in &rated.legs {
        let seconds = rated_leg.seconds.max(0);
        sums.seconds += seconds;
        sums.billed_minutes += rated_leg.billed_minutes;
        if (rated_leg.side == Side::B) == (side == v1::LegSide::B) {
            sums.talk_seconds += seconds;
        }
    }
    sums.amount_micros = rated.amount_micros;
    let Some(leg) = leg else { return sums };
    sums.answered = i64::from(leg.answered_at.is_some());
    let delay = millis(leg.alerting_at.as_ref())
        .zip(millis(leg.started_at.as_ref()))
        .and_then(|(alerting, started)| alerting.checked_sub(started))
        .filter(|delay| (0..=MAX_PDD_MS).contains(delay));
    if let Some(delay) = delay {
        sums.pdd_ms = delay;
        sums.pdd_samples = 1;
    }
    sums
}

/// A content in rating's own terms. An instant out of range was refused when it was decoded.
pub(crate) fn cdr_of<'a>(
    content: &'a Content,
    application: &'a str,
    service: Option<Service>,
) -> Cdr<'a> {
    let record = content.record();
    let instant = |instant: Option<&prost_types::Timestamp>| {
        instant.and_then(|instant| time::from_proto(instant).ok())
    };
    let leg = |leg: &'a v1::Leg| LegTimes {
        number: leg.number.as_deref(),
        answered_at: instant(leg.answered_at.as_ref()),
    };
    Cdr {
        a_leg: record.a_leg.as_ref().map(leg),
        b_leg: record.b_leg.as_ref().map(leg),
        ended_at: instant(record.ended_at.as_ref()),
        failed_at: instant(record.failed_at.as_ref()),
        application,
        service,
        inbound: record.dialled_number.is_some(),
        received_at: Timestamp::UNIX_EPOCH,
        unreadable_times: unreadable_times(record, service),
    }
}

/// The same, received at this instant.
pub(crate) fn at_receipt(cdr: Cdr<'_>, received_ms: i64) -> Cdr<'_> {
    let received_at = Timestamp::from_millisecond(received_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    Cdr { received_at, ..cdr }
}

/// Whether a time that decides the amount was there and could not be read: the answer of a leg that
/// the service has, or the end of a call in which such a leg answered.
fn unreadable_times(record: &v1::CallDetailRecord, service: Option<Service>) -> bool {
    use Service::{Notification, Playback, PrivateAx, PrivateAxb, Verification};
    let unreadable = |name: &str| record.unreadable_fields.iter().any(|field| field == name);
    let answered =
        |leg: &Option<v1::Leg>| leg.as_ref().is_some_and(|leg| leg.answered_at.is_some());
    let end = unreadable("callEndTime") || (record.ended_at.is_none() && unreadable("failTime"));
    let has_a = !matches!(service, Some(PrivateAx | PrivateAxb));
    let has_b = !matches!(service, Some(Playback | Notification | Verification));
    (has_a && (unreadable("callOutAnswerTime") || (end && answered(&record.a_leg))))
        || (has_b && (unreadable("fwdAnswerTime") || (end && answered(&record.b_leg))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_a_leg_that_the_service_has_not_decides_nothing() {
        let leg = || {
            Some(v1::Leg { answered_at: Some(time::proto_from_millis(1)), ..Default::default() })
        };
        let record = |field: &str| v1::CallDetailRecord {
            a_leg: leg(),
            unreadable_fields: vec![field.to_owned()],
            ..Default::default()
        };
        let is_decided = |field, service| !unreadable_times(&record(field), service);
        for service in [Service::Playback, Service::Notification, Service::Verification] {
            assert!(is_decided("fwdAnswerTime", Some(service)));
            assert!(!is_decided("callOutAnswerTime", Some(service)));
            assert!(!is_decided("callEndTime", Some(service)));
        }
        for service in [Service::PrivateAx, Service::PrivateAxb] {
            assert!(is_decided("callOutAnswerTime", Some(service)));
            assert!(is_decided("callEndTime", Some(service)), "only A has answered");
            assert!(!is_decided("fwdAnswerTime", Some(service)));
        }
        for service in [Some(Service::Callback), None] {
            assert!(!is_decided("callOutAnswerTime", service));
            assert!(!is_decided("fwdAnswerTime", service));
        }
    }
}
