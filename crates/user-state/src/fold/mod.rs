//! A call, and then a number, as pure functions of the events seen and the instant asked for.
//!
//! ```text
//!  events of one call ─▶ EventSet (one digest in force per record, at most 256 records)
//!                            │ sorted by (event time, rank, event id)
//!                            ▼
//!                        fold: legs placed, facts collected, ended or not ─▶ Call
//!                                                                             │ one Leg per party
//!  legs of one number, over all its calls ───────────────────────────────────┴─▶ derive(as_of)
//! ```
//!
//! No clock, no IO: time is an argument, in milliseconds since 1970. Whatever the order, the
//! repetition and the batching of the events, the same set gives the same result.

mod call;
mod event;
mod number;
mod place;
mod set;

pub use call::{Call, Expiry, Leg, Placed, fold};
pub use event::{Cdr, CdrLeg, Event, FUTURE_TOLERANCE_MS, Kind, Trust};
pub use number::{ActiveCall, LastCall, MAX_CALLS, NumberLeg, NumberState, derive, rewind};
pub use place::MAX_LEGS;
pub use set::{EventSet, Inserted, MAX_DIGESTS, MAX_RECORDS};

pub use tollgate_schema::v1::{LegSide, Presence};

#[cfg(test)]
mod fold_tests;
#[cfg(test)]
mod properties;
