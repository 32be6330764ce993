//! Tariffs and rated legs: what a call costs.
//!
//! ```text
//!  TOML ──▶ Tariff::parse ──▶ Tariff ──(content hash)──▶ TariffVersion
//!                                │
//!  Cdr + Limits ──▶ rate ◀───────┘
//!                     │
//!                     ▼
//!                   Rated: status, legs, amount in 10^-6 of the currency, flags
//! ```
//!
//! Everything here is a function of its arguments: no clock, no IO, no floating point, and no
//! input that makes it panic. It knows nothing of wire formats, of ledgers, or of who pays.
//!
//! # How a call is charged
//!
//! A leg runs from its answer to the end of the call, both cut to whole seconds (protocol
//! page, section 9). Which legs count is the service's doing, how they count the policy's:
//!
//! | service | legs that count |
//! |--|--|
//! | callback | A and B |
//! | notification, verification code | A |
//! | PrivateNumber | B |
//! | unknown | A and B if the record has a B-leg, else A |
//!
//! | policy | calls with two legs | calls with one |
//! |--|--|--|
//! | `per_leg` | each answered leg by itself | that leg |
//! | `b_leg_only` | the B-leg, the vendor's FAQ formula as written | that leg |
//! | `b_leg_twice` | the B-leg's duration for both legs | that leg |
//!
//! The FAQ formula, taken literally, would charge nothing for a notification, which has no
//! B-leg: an amount of zero for a call on the price list. The two policies therefore only say
//! how the legs of a two-legged call count.
//!
//! A leg's seconds, raised to the rate's minimum, are billed in increments; the price is per
//! minute; the connection fee comes on top; and the sum is rounded once.

mod cdr;
mod money;
mod rate;
mod rated;
mod tariff;

pub use cdr::{Cdr, LegTimes, Limits, Service, Side};
pub use money::Rounding;
pub use rate::rate;
pub use rated::{Flag, Rated, RatedLeg, Status};
pub use tariff::{
    Increment, Policy, Rate, SAMPLE_TARIFF, Tariff, TariffError, TariffVersion, Validity,
};
