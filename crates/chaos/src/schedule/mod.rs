//! What goes wrong when: a pure function of the seed.

mod draw;
mod fault;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub use fault::{Damage, Database, Fault, How, Node, Path};

/// Numbers of the brokers.
pub const BROKERS: u8 = 3;

/// How long calls begin, milliseconds. Every fault begins and ends meanwhile.
pub const TRAFFIC_MS: u64 = 26_000;

/// Seeds that `make test` runs: together they hold every kind of fault and of damage, and a disk
/// that stays full for longer than a segment lasts.
pub const TESTED: [u64; 4] = [39, 42, 146, 266];

/// A run of the system and what happens to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// What it was made of.
    pub seed: u64,
    /// Whether edge 2 answers by the contract `delivered`; edge 1 always by `spooled`.
    pub delivered: bool,
    /// Whether consumers form their groups by the newer protocol (KIP-848).
    pub new_protocol: bool,
    /// Whether consumers are static members of their groups.
    pub static_members: bool,
    /// In the order of their beginning.
    pub events: Vec<Event>,
}

/// A fault and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When it begins, milliseconds after the first call.
    pub at_ms: u64,
    /// How long it lasts, milliseconds.
    pub lasts_ms: u64,
    /// What it is.
    pub fault: Fault,
}

impl Event {
    /// When it is over, milliseconds after the first call.
    pub fn ends_ms(&self) -> u64 {
        self.at_ms + self.lasts_ms
    }
}

impl Schedule {
    /// The schedule of a seed.
    pub fn of(seed: u64) -> Self {
        draw::schedule(seed)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contract = if self.delivered { "delivered" } else { "spooled" };
        let protocol = if self.new_protocol { "consumer" } else { "classic" };
        let members = if self.static_members { "static" } else { "dynamic" };
        write!(
            f,
            "seed {}: edge-2 {contract}, group protocol {protocol}, {members} members",
            self.seed
        )?;
        for event in &self.events {
            let (at, lasts) = (event.at_ms as f64 / 1000.0, event.lasts_ms as f64 / 1000.0);
            write!(f, "\n  {at:>5.1} s  {} for {lasts:.1} s", event.fault)?;
        }
        Ok(())
    }
}
