//! Answers as they are given.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use tollgate_schema::time;
use tollgate_schema::v1::{self, RatingStatus};

use super::params::UsageQuery;
use crate::applications::service_name;
use crate::entry::{Measures, status_name};
use crate::rules::Rules;
use crate::store::{ActivationRow, LedgerEntry, Page, Period, TariffRow, UsageRow};

/// Answer to `GET /v1/usage`.
#[derive(Debug, Serialize)]
pub struct Usage {
    rows: Vec<Row>,
    total: Vec<Row>,
    /// The range, widened to whole hours.
    from: Option<String>,
    to: Option<String>,
    /// When the snapshot was taken.
    as_of: Option<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<String>,
    /// What people call it, where it is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    application_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    currency: String,
    attempts: i64,
    answered: i64,
    seconds: i64,
    talk_seconds: i64,
    billed_minutes: i64,
    amount: String,
    amount_micros: i64,
    /// Answer-seizure ratio, 0 to 1.
    asr: Option<f64>,
    /// Average call duration.
    acd_seconds: Option<f64>,
    /// Average post-dial delay.
    pdd_seconds: Option<f64>,
}

/// What a row is told apart by; `None` where the question does not ask.
type Key = (Option<Period>, Option<String>, Option<&'static str>, Option<&'static str>, String);

impl Usage {
    /// Shows the sums, in order, and what they come to together.
    pub fn of(found: Vec<UsageRow>, query: &UsageQuery, rules: &Rules, now_ms: i64) -> Self {
        let mut rows: BTreeMap<Key, Measures> = BTreeMap::new();
        let mut total: BTreeMap<Key, Measures> = BTreeMap::new();
        let groups = query.groups;
        for row in found {
            *total.entry((None, None, None, None, row.currency.clone())).or_default() +=
                row.measures;
            let key = (
                Some(row.period),
                groups.by_application.then_some(row.application),
                groups.by_service.then_some(service_name(row.service)),
                groups.by_status.then_some(status_text(row.status)),
                row.currency,
            );
            *rows.entry(key).or_default() += row.measures;
        }
        let shown = |sums: BTreeMap<Key, Measures>| -> Vec<Row> {
            // What was booked and taken back again leaves a sum of nothing.
            let sums = sums.into_iter().filter(|(_, sum)| *sum != Measures::default());
            sums.map(|(key, sum)| Row::of(key, sum, rules)).collect()
        };
        Self {
            rows: shown(rows),
            total: shown(total),
            from: time::rfc3339(query.from_ms),
            to: time::rfc3339(query.to_ms),
            as_of: time::rfc3339(now_ms),
        }
    }
}

impl Row {
    fn of(key: Key, sums: Measures, rules: &Rules) -> Self {
        let (period, application, service, status, currency) = key;
        let ratio = |part: i64, whole: i64| (whole > 0).then(|| part as f64 / whole as f64);
        Self {
            period: period.map(|period| match period {
                Period::Hour(hour_ms) => rules.calendar.hour_text(hour_ms),
                Period::Name(name) => name,
            }),
            application_name: application
                .as_ref()
                .and_then(|app_key| rules.applications.name(app_key))
                .map(str::to_owned),
            application,
            service,
            status,
            currency,
            attempts: sums.attempts,
            answered: sums.answered,
            seconds: sums.seconds,
            talk_seconds: sums.talk_seconds,
            billed_minutes: sums.billed_minutes,
            amount: amount_text(sums.amount_micros),
            amount_micros: sums.amount_micros,
            asr: ratio(sums.answered, sums.attempts),
            acd_seconds: ratio(sums.talk_seconds, sums.answered),
            pdd_seconds: ratio(sums.pdd_ms, sums.pdd_samples).map(|ms| ms / 1000.0),
        }
    }
}

/// Micro-units as decimal text with six digits: exact, unlike a JSON number.
pub fn amount_text(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let abs = micros.unsigned_abs();
    format!("{sign}{}.{:06}", abs / 1_000_000, abs % 1_000_000)
}

fn status_text(stored: i64) -> &'static str {
    let status = i32::try_from(stored).ok().and_then(|s| RatingStatus::try_from(s).ok());
    status_name(status.unwrap_or_default())
}

/// Answer to `GET /v1/charges`.
#[derive(Debug, Serialize)]
pub struct Entries {
    entries: Vec<Value>,
    /// There are more than one answer holds.
    truncated: bool,
}

impl Entries {
    /// Shows the entries.
    pub fn of(page: &Page, rules: &Rules) -> Self {
        Self {
            entries: page.entries.iter().map(|found| show(found, rules)).collect(),
            truncated: page.more,
        }
    }
}

/// Answer to `GET /v1/ledger`.
#[derive(Debug, Serialize)]
pub struct Ledger {
    entries: Vec<Value>,
    next: Option<String>,
}

impl Ledger {
    /// Shows a page.
    pub fn of(page: &Page, rules: &Rules) -> Self {
        Self {
            entries: page.entries.iter().map(|found| show(found, rules)).collect(),
            next: page.next().map(|cursor| cursor.to_string()),
        }
    }
}

fn show(found: &LedgerEntry, rules: &Rules) -> Value {
    let entry = &found.entry;
    let message = &entry.message;
    let source = message.source.clone().unwrap_or_default();
    json!({
        "entry_id": message.entry_id,
        "record_id": message.record_id,
        "event_id": message.event_id,
        "kind": entry.kind.name(),
        "revision": entry.revision,
        "status": status_name(message.status()),
        "legs": message.legs.iter().map(show_leg).collect::<Vec<_>>(),
        "currency": message.currency,
        "amount": amount_text(message.amount_micros),
        "amount_micros": message.amount_micros,
        "tariff_version": message.tariff_version,
        "policy": message.policy,
        "flags": message.flags,
        "application": message.application,
        "application_name": rules.applications.name(&message.application),
        "service": service_name(entry.bucket.service),
        "app_key": message.app_key,
        "session_id": message.session_id,
        "billed_at": time::rfc3339(entry.billed_at_ms()),
        "billing_day": message.billing_day,
        "source": {
            "cluster_id": source.cluster_id,
            "topic": source.topic,
            "partition": source.partition,
            "offset": source.offset,
        },
        "cursor": found.cursor.to_string(),
    })
}

fn show_leg(leg: &v1::RatedLeg) -> Value {
    json!({
        "side": if leg.side() == v1::LegSide::B { "B" } else { "A" },
        "seconds": leg.seconds,
        "billed_seconds": leg.billed_seconds,
        "billed_minutes": leg.billed_minutes,
        "amount_micros": leg.amount_micros,
        "rate": leg.rate,
    })
}

/// Answer to `GET /v1/tariffs`.
#[derive(Debug, Serialize)]
pub struct Tariffs {
    tariffs: Vec<Value>,
    activations: Vec<Value>,
}

impl Tariffs {
    /// Shows what is registered and what is active.
    pub fn of(tariffs: Vec<TariffRow>, activations: Vec<ActivationRow>) -> Self {
        let latest = activations.last().map(|activation| activation.number);
        let show_activation = |activation: ActivationRow| {
            json!({
                "number": activation.number,
                "version": activation.version,
                // An activation from the beginning of time has no instant to show.
                "from": time::rfc3339(activation.from_ms),
                "activated_at": time::rfc3339(activation.activated_ms),
                "latest": Some(activation.number) == latest,
            })
        };
        let show_tariff = |tariff: TariffRow| {
            json!({
                "version": tariff.version,
                "registered_at": time::rfc3339(tariff.registered_ms),
                "content": tariff.content,
            })
        };
        Self {
            tariffs: tariffs.into_iter().map(show_tariff).collect(),
            activations: activations.into_iter().map(show_activation).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_to_the_micro_unit_also_below_zero() {
        for (micros, text) in [
            (0, "0.000000"),
            (12_340_000, "12.340000"),
            (-1, "-0.000001"),
            (-180_000, "-0.180000"),
            (i64::MIN, "-9223372036854.775808"),
        ] {
            assert_eq!(amount_text(micros), text);
        }
    }
}
