//! The dialect of the voice platform: reads its pushes, makes and verifies its signatures, knows
//! its codes.
//!
//! ```text
//!  body ──┬─ peek ──▶ CDR or not, JSON or not            (before the answer)
//!         │
//!         └─ read ──▶ message: status or fee ──▶ fields ──▶ CallEvent
//!                          │    (top level only)      └───▶ CallDetailRecord
//!                          └──────────── what cannot be read ──▶ Quarantined
//!
//!  headers ── aksk ──▶ Authenticity          codes ── codes ──▶ meaning, group, outcome
//! ```
//!
//! Pure: no IO, no clock, no async, and no error either, since whatever was answered 200 has to
//! become a record. It never decides what to refuse, never logs, and names a value in nothing
//! that a person reads: only fields and types.
//!
//! "P n" in the comments is section n of the protocol page: what the vendor documents, what it
//! contradicts, and what its platform was seen to send.

pub mod aksk;
mod cdr;
pub mod codes;
mod field;
pub mod fuzz;
mod message;
mod names;
mod peek;
mod read;
mod status;
mod time;

pub use peek::{Peek, is_well_formed, peek};
pub use read::{MAX_RECORDS, MAX_REPEATED_ENVELOPE_BYTES, Record, Source, read};
