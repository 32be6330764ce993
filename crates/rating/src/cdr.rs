//! What rating needs to know of a call.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A call as its detail record tells it, in the caller's own terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cdr<'a> {
    /// The leg to A; `None` when the record has none.
    pub a_leg: Option<LegTimes<'a>>,
    /// The leg to B; `None` when the record has none.
    pub b_leg: Option<LegTimes<'a>>,
    /// End of the call.
    pub ended_at: Option<Timestamp>,
    /// Time of failure; counts as the end when there is no other.
    pub failed_at: Option<Timestamp>,
    /// Whose call it is; empty when unknown.
    pub application: &'a str,
    /// What kind of call it is; `None` when the record does not say.
    pub service: Option<Service>,
    /// A called the platform, which costs nothing (PrivateNumber); told by the record itself, whether
    /// or not the service is known.
    pub inbound: bool,
    /// When the record was first received.
    pub received_at: Timestamp,
    /// An answer or end time is there but could not be read.
    pub unreadable_times: bool,
}

/// One leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LegTimes<'a> {
    /// The number called, as the record has it; for prefixes.
    pub number: Option<&'a str>,
    /// When it answered; `None` when it did not.
    pub answered_at: Option<Timestamp>,
}

/// Kinds of call, as tariffs name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Two calls joined: A, then B.
    Callback,
    /// Voice notification.
    Notification,
    /// Voice verification code.
    Verification,
    /// A notification or a verification code; the record does not tell which, and nobody
    /// configured it.
    Playback,
    /// PrivateNumber AX.
    PrivateAx,
    /// PrivateNumber AXB.
    PrivateAxb,
}

impl Service {
    /// Its name in a tariff.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Callback => "callback",
            Self::Notification => "notification",
            Self::Verification => "verification",
            Self::Playback => "playback",
            Self::PrivateAx => "private_ax",
            Self::PrivateAxb => "private_axb",
        }
    }
}

/// Which leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The party called first.
    A,
    /// The party called second, or forwarded to.
    B,
}

impl Side {
    /// Its name in a tariff.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// What is still believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A longer leg is implausible, in seconds. 24 hours by default.
    pub max_leg_seconds: i64,
    /// A call that ends further after its receipt is implausible, in seconds. One hour by
    /// default.
    pub max_ahead_seconds: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_leg_seconds: 24 * 3600, max_ahead_seconds: 3600 }
    }
}
