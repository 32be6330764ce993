//! A tariff in one fixed form: TOML with every key present, sorted, instants in UTC, decimals
//! without trailing zeros. It is what is hashed, and what is stored.

use std::fmt::Write as _;

use iso_currency::Currency;
use jiff::Timestamp;

use super::{Policy, Rate};
use crate::money::Rounding;
use crate::{Service, Side};

pub(super) fn write(
    name: &str,
    currency: Currency,
    policy: Policy,
    rounding: Rounding,
    rates: &[Rate],
) -> String {
    let mut out = String::from("# tollgate tariff, form 1\n");
    line(&mut out, "name", &quoted(name));
    line(&mut out, "currency", &quoted(currency.code()));
    line(&mut out, "policy", &quoted(policy.name()));
    line(&mut out, "rounding", &quoted(rounding.name()));
    for rate in rates {
        out.push_str("\n[[rates]]\n");
        line(&mut out, "name", &quoted(&rate.name));
        line(&mut out, "applications", &list(rate.applications.iter().map(String::as_str)));
        line(&mut out, "services", &list(rate.services.iter().copied().map(Service::name)));
        line(&mut out, "prefixes", &list(rate.prefixes.iter().map(String::as_str)));
        line(&mut out, "legs", &list(rate.legs.iter().copied().map(Side::name)));
        for (key, bound) in [("valid_from", rate.validity.from), ("valid_to", rate.validity.to)] {
            if let Some(bound) = bound {
                line(&mut out, key, &quoted(&instant(bound)));
            }
        }
        line(&mut out, "price_per_minute", &quoted(&rate.price.decimal().to_string()));
        let increment = format!("{}/{}", rate.increment.first, rate.increment.step);
        line(&mut out, "increment", &quoted(&increment));
        line(&mut out, "minimum_seconds", &rate.minimum_seconds.to_string());
        line(&mut out, "connection_fee", &quoted(&rate.fee.decimal().to_string()));
    }
    out
}

fn line(out: &mut String, key: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{key} = {value}");
}

/// A basic string of TOML. Written here rather than by the toml crate, which is free to choose
/// another notation in its next release: that would be another version of every tariff.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        // Control characters do not pass the checks.
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", items.map(quoted).collect::<Vec<_>>().join(", "))
}

/// Jiff prints UTC with as many decimals of the second as there are.
fn instant(at: Timestamp) -> String {
    at.to_string()
}
