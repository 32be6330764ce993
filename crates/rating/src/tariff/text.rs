//! From TOML to a tariff, naming everything that is wrong with it at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use iso_currency::Currency;
use jiff::Timestamp;
use serde::Deserialize;
use toml::Value;

use super::{Increment, Policy, Rate, Tariff, TariffError, Validity};
use crate::money::{Price, Rounding};
use crate::{Service, Side};

const MAX_RATES: usize = 10_000;
const MAX_NAME: usize = 64;
const MAX_APPLICATION: usize = 128;
const MAX_PREFIX: usize = 32;
const MAX_SECONDS: i64 = 86_400;

/// A tariff as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TariffText {
    name: String,
    currency: String,
    #[serde(default)]
    policy: Policy,
    /// No default: whoever sets prices says how they are rounded.
    rounding: Rounding,
    #[serde(default)]
    rates: Vec<RateText>,
}

/// A rate as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateText {
    name: String,
    #[serde(default)]
    applications: Vec<String>,
    #[serde(default)]
    services: Vec<Service>,
    #[serde(default)]
    prefixes: Vec<String>,
    #[serde(default)]
    legs: Vec<Side>,
    valid_from: Option<Value>,
    valid_to: Option<Value>,
    price_per_minute: Value,
    increment: String,
    #[serde(default)]
    minimum_seconds: i64,
    connection_fee: Option<Value>,
}

pub(super) fn parse(text: &str) -> Result<Tariff, TariffError> {
    let read: TariffText =
        toml::from_str(text).map_err(|error| TariffError::Syntax(error.to_string()))?;
    let mut wrong = Wrong(Vec::new());
    if !is_name(&read.name) {
        wrong.say("name", NAME_RULE);
    }
    let currency = Currency::from_code(&read.currency);
    if currency.is_none() {
        wrong.say("currency", "must be a code of ISO 4217 in capitals, such as \"CNY\"");
    }
    if read.rates.is_empty() {
        wrong.say("rates", "must have at least one entry, or nothing is ever charged");
    }
    if read.rates.len() > MAX_RATES {
        wrong.say("rates", "must not have more than 10000 entries");
        return Err(TariffError::Inconsistent(wrong.0));
    }
    let mut names = BTreeSet::new();
    let mut rates = Vec::with_capacity(read.rates.len());
    for (number, rate) in read.rates.into_iter().enumerate() {
        let place = if is_name(&rate.name) {
            format!("rate {}", rate.name)
        } else {
            format!("rate number {}", number + 1)
        };
        if !names.insert(rate.name.clone()) {
            wrong.say(&place, "has the name of another rate");
        }
        rates.extend(rate.check(&place, &mut wrong));
    }
    match currency {
        Some(currency) if wrong.0.is_empty() => {
            Tariff::new(read.name, currency, read.policy, read.rounding, rates)
                .map_err(TariffError::Inconsistent)
        }
        _ => Err(TariffError::Inconsistent(wrong.0)),
    }
}

const NAME_RULE: &str = "must be 1 to 64 letters, digits, dots, dashes and underscores";

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=MAX_NAME).contains(&name.len()) && name.chars().all(plain)
}

/// What was found so far.
struct Wrong(Vec<String>);

impl Wrong {
    fn say(&mut self, place: &str, what: &str) {
        self.0.push(format!("{place} {what}"));
    }

    /// The value, or a note of what is wrong with it.
    fn note<T>(&mut self, place: &str, key: &str, value: Result<T, &str>) -> Option<T> {
        value.map_err(|what| self.say(place, &format!("{key} {what}"))).ok()
    }
}

impl RateText {
    fn check(self, place: &str, wrong: &mut Wrong) -> Option<Rate> {
        let before = wrong.0.len();
        if !is_name(&self.name) {
            wrong.note::<()>(place, "name", Err(NAME_RULE));
        }
        let applications = self.applications.iter().all(|name| {
            (1..=MAX_APPLICATION).contains(&name.len()) && !name.contains(char::is_control)
        });
        if !applications {
            wrong.say(place, "applications must be names of 1 to 128 bytes");
        }
        if !self.prefixes.iter().all(|prefix| is_prefix(prefix)) {
            wrong.say(place, "prefixes must be digits, such as \"+86138\" or \"1069\", at most 32");
        }
        let applications = distinct(self.applications, "applications", place, wrong);
        let services = distinct(self.services, "services", place, wrong);
        let prefixes = distinct(self.prefixes, "prefixes", place, wrong);
        let legs = distinct(self.legs, "legs", place, wrong);

        let from = wrong.note(place, "valid_from", read_instant(self.valid_from.as_ref()));
        let to = wrong.note(place, "valid_to", read_instant(self.valid_to.as_ref()));
        let validity = Validity { from: from.flatten(), to: to.flatten() };
        if validity.is_empty() {
            wrong.say(place, "is never valid: valid_to is not after valid_from");
        }
        let price = wrong.note(place, "price_per_minute", read_price(Some(&self.price_per_minute)));
        let fee = wrong.note(place, "connection_fee", read_price(self.connection_fee.as_ref()));
        let increment = wrong.note(place, "increment", read_increment(&self.increment));
        if !(0..=MAX_SECONDS).contains(&self.minimum_seconds) {
            wrong.say(place, "minimum_seconds must be between 0 and 86400");
        }
        if wrong.0.len() > before {
            return None;
        }
        Some(Rate {
            name: Arc::from(self.name),
            applications,
            services,
            prefixes,
            legs,
            validity,
            price: price?,
            fee: fee?,
            increment: increment?,
            minimum_seconds: self.minimum_seconds,
        })
    }
}

fn distinct<T: Ord>(list: Vec<T>, key: &str, place: &str, wrong: &mut Wrong) -> BTreeSet<T> {
    let count = list.len();
    let set: BTreeSet<T> = list.into_iter().collect();
    if set.len() < count {
        wrong.say(place, &format!("{key} names one twice"));
    }
    set
}

fn is_prefix(prefix: &str) -> bool {
    let digits = prefix.strip_prefix('+').unwrap_or(prefix);
    prefix.len() <= MAX_PREFIX && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn read_price(value: Option<&Value>) -> Result<Price, &'static str> {
    match value {
        None => Ok(Price::ZERO),
        Some(Value::String(text)) => Price::parse(text),
        Some(_) => Err("must be in quotes, such as \"0.18\": TOML has no exact decimals"),
    }
}

fn read_instant(value: Option<&Value>) -> Result<Option<Timestamp>, &'static str> {
    const RULE: &str = "must be an instant with its offset, such as \"2026-01-01T00:00:00+08:00\"";
    let text = match value {
        None => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Datetime(datetime)) => datetime.to_string(),
        Some(_) => return Err(RULE),
    };
    text.parse().map(Some).map_err(|_| RULE)
}

fn read_increment(text: &str) -> Result<Increment, &'static str> {
    const RULE: &str = "must be two numbers of seconds from 1 to 86400, such as \"60/60\"";
    let number = |text: &str| {
        let plain = text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
        let value: i64 = text.parse().ok()?;
        (plain && (1..=MAX_SECONDS).contains(&value)).then_some(value)
    };
    let (first, step) = text.split_once('/').ok_or(RULE)?;
    Ok(Increment { first: number(first).ok_or(RULE)?, step: number(step).ok_or(RULE)? })
}
