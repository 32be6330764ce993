//! Tariffs and calls for the tests.

#![allow(dead_code, reason = "each test binary uses a part")]

use jiff::Timestamp;
use tollgate_rating::{Cdr, LegTimes, Limits, Rated, Service, Tariff, rate};

/// A tariff of one rate.
pub fn tariff(policy: &str, rounding: &str, price: &str, increment: &str, more: &str) -> Tariff {
    let text = format!(
        "name = \"t\"\ncurrency = \"CNY\"\npolicy = \"{policy}\"\nrounding = \"{rounding}\"\n\
         [[rates]]\nname = \"r\"\nprice_per_minute = \"{price}\"\nincrement = \"{increment}\"\n{more}\n"
    );
    Tariff::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// An instant of a sample: `2024-05-20 03:04:31`, UTC.
pub fn at(text: &str) -> Timestamp {
    format!("{}Z", text.replace(' ', "T")).parse().expect("test instant")
}

pub fn leg(number: &'static str, answered_at: Option<Timestamp>) -> LegTimes<'static> {
    LegTimes { number: Some(number), answered_at }
}

/// A callback whose legs answered at these instants.
pub fn callback(
    a: Option<Timestamp>,
    b: Option<Timestamp>,
    end: Option<Timestamp>,
) -> Cdr<'static> {
    Cdr {
        a_leg: Some(leg("+8613800000021", a)),
        b_leg: Some(leg("+8613800007021", b)),
        ended_at: end,
        failed_at: None,
        application: "shop",
        service: Some(Service::Callback),
        inbound: false,
        received_at: end.unwrap_or(Timestamp::UNIX_EPOCH),
        unreadable_times: false,
    }
}

/// A notification of this many seconds.
pub fn notification(seconds: i64) -> Cdr<'static> {
    let answered = at("2024-06-01 02:00:11");
    let end = Timestamp::from_second(answered.as_second() + seconds).expect("in range");
    Cdr {
        a_leg: Some(leg("+8613800000021", Some(answered))),
        b_leg: None,
        service: Some(Service::Notification),
        ..callback(None, None, Some(end))
    }
}

pub fn rated(cdr: &Cdr<'_>, tariff: &Tariff) -> Rated {
    rate(cdr, Some(tariff), &Limits::default())
}

/// Side, seconds, billed seconds, billed minutes and amount of each leg.
pub fn legs(rated: &Rated) -> Vec<(&'static str, i64, i64, i64, i64)> {
    let leg = |leg: &tollgate_rating::RatedLeg| {
        (leg.side.name(), leg.seconds, leg.billed_seconds, leg.billed_minutes, leg.amount_micros)
    };
    rated.legs.iter().map(leg).collect()
}
