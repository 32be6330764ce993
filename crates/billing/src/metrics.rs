//! What billing measures. Amounts are counted in whole micro-units, so that they stay exact.

use std::collections::BTreeMap;

use tollgate_schema::v1::RatingStatus;
use tollgate_telemetry::Metric;

use crate::entry::{Entry, Kind, status_name};
use crate::plan::Writes;

/// Ledger entries written.
pub const ENTRIES: Metric = Metric::counter(
    "tollgate_billing_entries_total",
    &["kind", "status"],
    "Ledger entries written, by kind (charge, reversal) and status",
);
/// Charges with something odd about them.
pub const FLAGGED: Metric = Metric::counter(
    "tollgate_billing_flagged_charges_total",
    &["flag"],
    "Charges written whose record is odd, by flag (docs/api.md, flags); one with two flags counts \
     under each",
);
/// Money charged.
pub const CHARGED: Metric = Metric::counter(
    "tollgate_billing_charged_micros_total",
    &["currency"],
    "Sum of charges written, in millionths of the currency's unit",
);
/// Money taken back.
pub const REVERSED: Metric = Metric::counter(
    "tollgate_billing_reversed_micros_total",
    &["currency"],
    "Sum of reversals written, in millionths of the currency's unit, counted positive",
);
/// Minutes billed.
pub const MINUTES: Metric = Metric::counter(
    "tollgate_billing_billed_minutes_total",
    &["currency"],
    "Minutes of charges written, not reduced by reversals",
);
/// Records seen again.
pub const REPEATED: Metric = Metric::counter(
    "tollgate_billing_repeated_records_total",
    &[],
    "Records of batches that were known before: repeats and revisions",
);
/// Revisions.
pub const REVISIONS: Metric = Metric::counter(
    "tollgate_billing_revisions_total",
    &[],
    "Charges that took another charge's place: revised contents, and rating again",
);
/// Records without a tariff.
pub const UNRATED: Metric = Metric::gauge(
    "tollgate_billing_unrated_records",
    &[],
    "Records that no tariff covers and that wait for one, counted up to 100001",
);

/// Everything above.
pub const ALL: &[Metric] =
    &[ENTRIES, FLAGGED, CHARGED, REVERSED, MINUTES, REPEATED, REVISIONS, UNRATED];

/// Counts what a transaction wrote, once it is committed.
pub(crate) fn committed(writes: &Writes) {
    // Summed first: looking a counter up costs more than writing an entry's share of the batch.
    let mut sums: BTreeMap<(Kind, i64, &str), [u64; 3]> = BTreeMap::new();
    let mut flagged: BTreeMap<&str, u64> = BTreeMap::new();
    for Entry { kind, bucket, measures, message, .. } in &writes.entries {
        let [entries, minutes, micros] =
            sums.entry((*kind, bucket.status, &bucket.currency)).or_default();
        *entries += 1;
        *minutes += measures.billed_minutes.unsigned_abs();
        *micros += measures.amount_micros.unsigned_abs();
        for flag in message.flags.iter().filter(|_| *kind == Kind::Charge) {
            *flagged.entry(flag).or_default() += 1;
        }
    }
    for (flag, charges) in flagged {
        metrics::counter!(FLAGGED.name, "flag" => flag.to_owned()).increment(charges);
    }
    for ((kind, status, currency), [entries, minutes, micros]) in sums {
        let status = i32::try_from(status).ok().and_then(|it| RatingStatus::try_from(it).ok());
        let status = status_name(status.unwrap_or_default());
        metrics::counter!(ENTRIES.name, "kind" => kind.name(), "status" => status)
            .increment(entries);
        if currency.is_empty() {
            continue;
        }
        let currency = || currency.to_owned();
        match kind {
            Kind::Charge => {
                metrics::counter!(MINUTES.name, "currency" => currency()).increment(minutes);
                metrics::counter!(CHARGED.name, "currency" => currency()).increment(micros);
            }
            Kind::Reversal => {
                metrics::counter!(REVERSED.name, "currency" => currency()).increment(micros);
            }
        }
    }
    metrics::counter!(REVISIONS.name).increment(writes.replaced.len() as u64);
}

/// Counts records that were known before.
pub(crate) fn repeated(records: usize) {
    metrics::counter!(REPEATED.name).increment(records as u64);
}

/// Sets how many records wait for a tariff.
pub(crate) fn unrated(records: i64) {
    metrics::gauge!(UNRATED.name).set(records as f64);
}
