//! The durable log behind the 200.
//!
//! ```text
//!  append ──▶ queue ──▶ committer: one write, one sync ──▶ 200
//!                           │ segments (epoch, sequence)
//!                           ▼
//!                  tail in memory / cursor on disk ──▶ Reader ──▶ publisher
//!                                                                   │ confirm, in any order
//!                  position file, removal of segments ◀── keeper ◀──┘
//! ```
//!
//! A request belongs to the spool from the call of [`Spool::append`] on, and is safe when the
//! answer arrives. Everything acknowledged is handed to the one [`Reader`], in order, until it is
//! confirmed, whatever is killed in between; what the disk loses is named by sequence and time,
//! counted, and its bytes are kept.
//!
//! The spool never looks into a body, never talks to Kafka, and never repeats a sync that failed.

pub mod disk;
pub mod frame;
pub mod metrics;

mod adopt;
mod answers;
mod catalog;
mod committer;
mod cursor;
mod damaged;
pub mod dead_letters;
mod error;
mod examine;
pub mod fuzz;
mod held;
mod keeper;
mod packed;
mod position;
mod reader;
mod record;
mod recovery;
mod salvage;
mod segment;
mod settings;
mod shared;
mod spool;
mod sync;
mod tail;
mod window;
mod writer;

pub use adopt::{Adopted, Adoption};
pub use damaged::read_damaged;
pub use dead_letters::{DeadLetter, DeadLetters};
pub use error::{AppendError, SpoolError};
pub use examine::{EpochSummary, Finding, FindingKind, Inspection, Verification, inspect, verify};
pub use reader::{Confirmer, Reader};
pub use record::{Encoded, Position, Request, Stored, Undecodable};
pub use salvage::Salvage;
pub use segment::FORMAT;
pub use settings::Settings;
pub use spool::{Append, Options, Spool, Usage};
