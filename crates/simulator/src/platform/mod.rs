//! Plays the platform: sends a plan's notifications at their time, repeats what must be repeated.
//!
//! ```text
//!  plan ──▶ engine: statuses at their time ──────────────┐
//!             │ CDRs ──▶ collector: merged, at most 50 ──┴─▶ workers, a connection each ──▶ edges
//!             └◀── outcomes: journal, repeats, counters ◀────┘
//! ```
//!
//! Open loop: what is due is due, however slow the edges are. A status is sent once; a CDR
//! message that was not answered 200 comes again, six times at most.

mod collector;
mod counters;
mod engine;
mod hostile;
mod job;
mod link;
mod sign;
mod worker;

pub use counters::{Counters, Counts};
pub(crate) use engine::{Engine, Setup};
pub(crate) use job::Target;
pub(crate) use sign::Signer;

#[cfg(test)]
mod tests;
