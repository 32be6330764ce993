//! The code tables (P 7, P 8.6) and what a call came to (P 5.4).
//!
//! ```text
//!  tables/*.csv ──▶ table: number ──▶ meaning
//!                   group: number ──▶ group for reports ──▶ outcome of a CDR
//! ```
//!
//! A code that no table knows passes through as its number.

mod group;
mod outcome;
mod table;

pub use group::Group;
pub use outcome::{LegOutcome, Outcome, Reason, outcome};
pub use table::{q850, release_reason, sip_status, state_code};
