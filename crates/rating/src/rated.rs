//! What rating says.

use std::fmt;
use std::sync::Arc;

use crate::Side;

/// A rated call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rated {
    /// Whether it was rated.
    pub status: Status,
    /// The legs that answered, and those that are charged; A first.
    pub legs: Vec<RatedLeg>,
    /// ISO 4217, such as `CNY`; empty when not rated.
    pub currency: &'static str,
    /// Sum of the legs' amounts, in micro-units (10^-6) of the currency. Zero when not rated.
    pub amount_micros: i64,
    /// What is odd about it, each once, in the order of [`Flag`].
    pub flags: Vec<Flag>,
}

/// Whether a call was rated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The amount is what the call costs, possibly nothing.
    Rated,
    /// No rate covers a leg that is to be charged: rate it again once one does.
    Unrated,
    /// Its times cannot be true, or could not be read: not charged.
    Implausible,
}

/// One leg of a rated call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RatedLeg {
    /// Which leg.
    pub side: Side,
    /// From answer to end, in whole seconds, whatever is charged; negative in a record that ends
    /// before it was answered, 0 without an end or an answer.
    pub seconds: i64,
    /// Charged, after minimum and increments.
    pub billed_seconds: i64,
    /// Started minutes of the duration charged, at least 1; 0 for a leg that is not charged.
    pub billed_minutes: i64,
    /// Micro-units (10^-6) of the currency.
    pub amount_micros: i64,
    /// Name of the rate applied; empty for a leg that is not charged.
    pub rate: Arc<str>,
}

/// Something odd about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flag {
    /// A leg ended before it was answered: charged nothing.
    Negative,
    /// A leg was answered, but there is no end: charged nothing.
    NoEnd,
    /// A leg is longer than the limit.
    TooLong,
    /// The call ends further after its receipt than the limit.
    EndsInFuture,
    /// A time that decides the amount could not be read.
    UnreadableTimes,
    /// A leg answered that a call of this service does not have: not charged.
    UnexpectedLeg,
    /// The amount does not fit 64 bits.
    Overflow,
}

impl Flag {
    /// Its name in messages, answers and the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Negative => "negative",
            Self::NoEnd => "no_end",
            Self::TooLong => "too_long",
            Self::EndsInFuture => "ends_in_future",
            Self::UnreadableTimes => "unreadable_times",
            Self::UnexpectedLeg => "unexpected_leg",
            Self::Overflow => "overflow",
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
