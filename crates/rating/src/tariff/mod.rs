//! Tariffs: read from TOML, checked as a whole, known by their content.

mod canonical;
mod index;
mod text;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use iso_currency::Currency;
use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::money::{Price, Rounding};
use crate::{Service, Side};
use index::Index;

/// The tariff that `tollgate dev` activates: 0.18 CNY for each started minute of each leg.
pub const SAMPLE_TARIFF: &str = include_str!("../../tariffs/sample.toml");

/// How the legs of a two-legged call count. Calls with one leg are charged that leg under each.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Each answered leg by itself.
    #[default]
    PerLeg,
    /// The B-leg only: the vendor's FAQ formula as written.
    BLegOnly,
    /// The B-leg's duration for both legs.
    BLegTwice,
}

impl Policy {
    /// Its name in a tariff.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PerLeg => "per_leg",
            Self::BLegOnly => "b_leg_only",
            Self::BLegTwice => "b_leg_twice",
        }
    }
}

/// A tariff that was checked: no two of its rates ever claim the same leg.
#[derive(Debug, Clone)]
pub struct Tariff {
    name: String,
    currency: Currency,
    policy: Policy,
    rounding: Rounding,
    /// Sorted by name.
    rates: Vec<Rate>,
    index: Index,
    canonical: String,
    version: TariffVersion,
}

/// One rate: for which legs, when, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    name: Arc<str>,
    applications: BTreeSet<String>,
    services: BTreeSet<Service>,
    prefixes: BTreeSet<String>,
    legs: BTreeSet<Side>,
    validity: Validity,
    price: Price,
    fee: Price,
    increment: Increment,
    minimum_seconds: i64,
}

/// From when until before when a rate applies; open ends are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First instant.
    pub from: Option<Timestamp>,
    /// First instant after.
    pub to: Option<Timestamp>,
}

impl Validity {
    /// Whether an instant is within.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at < to)
    }

    fn is_empty(&self) -> bool {
        self.from.zip(self.to).is_some_and(|(from, to)| to <= from)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let begins_before_end =
            |a: &Self, b: &Self| a.from.zip(b.to).is_none_or(|(from, to)| from < to);
        begins_before_end(self, other) && begins_before_end(other, self)
    }
}

/// Billing increment such as `30/6`: the first 30 seconds count whole, then every 6 begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Increment {
    /// Seconds that count at least, 1 to 86400.
    pub first: i64,
    /// Seconds that count together after that, 1 to 86400.
    pub step: i64,
}

impl Increment {
    /// The seconds charged for a duration: at least `first`, for a duration of nothing too.
    /// Saturates.
    pub fn apply(self, seconds: i64) -> i64 {
        let beyond = seconds.saturating_sub(self.first).max(0);
        let steps = beyond / self.step + i64::from(beyond % self.step > 0);
        self.first.saturating_add(steps.saturating_mul(self.step))
    }
}

/// SHA-256 of a tariff's content: the same whatever its comments, layout and order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TariffVersion([u8; 32]);

impl TariffVersion {
    fn of(canonical: &str) -> Self {
        Self(Sha256::digest(canonical.as_bytes()).into())
    }

    /// The 32 bytes of it.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for TariffVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TariffVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TariffVersion({self})")
    }
}

impl FromStr for TariffVersion {
    type Err = TariffError;

    fn from_str(text: &str) -> Result<Self, TariffError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| TariffError::Version)
            .map(|()| Self(bytes))
    }
}

/// Why a tariff is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TariffError {
    /// Not TOML, a key that does not exist, a value of the wrong type; says where.
    #[error("tariff cannot be read: {0}")]
    Syntax(String),
    /// Readable, but it does not fit together. Every reason found, in the tariff's order.
    #[error("tariff is not consistent: {}", .0.join("; "))]
    Inconsistent(Vec<String>),
    /// Not the 64 hexadecimal digits of a version.
    #[error("tariff version must be 64 hexadecimal digits")]
    Version,
}

impl Tariff {
    /// Reads and checks a tariff.
    pub fn parse(text: &str) -> Result<Self, TariffError> {
        text::parse(text)
    }

    fn new(
        name: String,
        currency: Currency,
        policy: Policy,
        rounding: Rounding,
        mut rates: Vec<Rate>,
    ) -> Result<Self, Vec<String>> {
        rates.sort_by(|a, b| a.name.cmp(&b.name));
        let index = Index::new(&rates)?;
        let canonical = canonical::write(&name, currency, policy, rounding, &rates);
        let version = TariffVersion::of(&canonical);
        Ok(Self { name, currency, policy, rounding, rates, index, canonical, version })
    }

    /// Name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// ISO 4217 code.
    pub fn currency(&self) -> &'static str {
        self.currency.code()
    }

    /// How the legs of a two-legged call count.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// How a leg's amount is rounded to 10^-6.
    pub fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// The rates, by name.
    pub fn rates(&self) -> &[Rate] {
        &self.rates
    }

    /// The tariff as TOML in one fixed form; reading it gives the same tariff and version.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// Content hash: SHA-256 of [`Tariff::canonical`].
    pub fn version(&self) -> TariffVersion {
        self.version
    }

    /// The rate of a leg answered at this instant: of all that apply, the one that names its
    /// application before one that does not, then the service, then the leg, then the longest
    /// prefix of the number.
    pub fn find(
        &self,
        application: &str,
        service: Option<Service>,
        side: Side,
        number: Option<&str>,
        answered_at: Timestamp,
    ) -> Option<&Rate> {
        let found = self.index.find(application, service, side, number, answered_at)?;
        self.rates.get(found)
    }
}

impl PartialEq for Tariff {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}

impl Eq for Tariff {}

impl Rate {
    /// Name, unique in its tariff.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Price of a minute.
    pub fn price_per_minute(&self) -> Decimal {
        self.price.decimal()
    }

    /// Billing increment.
    pub fn increment(&self) -> Increment {
        self.increment
    }

    /// When it applies.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// What is charged for a duration that is not negative.
    pub(crate) fn billed_seconds(&self, seconds: i64) -> i64 {
        self.increment.apply(seconds.max(self.minimum_seconds))
    }

    pub(crate) fn amount(&self, billed_seconds: i64, rounding: Rounding) -> Option<i64> {
        self.price.charge(billed_seconds, self.fee, rounding)
    }
}
