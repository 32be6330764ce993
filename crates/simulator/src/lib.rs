//! A stand-in platform: scripted calls, honest repeats, faults on demand, and a verifier.
//!
//! It plays the cloud voice platform towards one or more edges, and afterwards compares what was
//! acknowledged with what the topics, the ledger and the number states contain.
//!
//! ```text
//!  seed ──▶ script (pure) ──▶ platform ──POST──▶ edges ──▶ … ──▶ topics, ledger, states
//!              │                 │                                        │
//!              │              journal: what became of each notification   │ evidence
//!              ▼                 ▼                                        ▼
//!           expect (pure) ──▶ verify: lost, duplicated, wrong, unknown ──▶ report
//! ```
//!
//! What is expected comes from the script alone. This crate never uses the code that reads,
//! rates or folds notifications in the system under test: it states ids, fields, charges and
//! states by itself, so that an error there cannot hide here.
//!
//! A call is a pure function of the seed, its number and the start of the run. So the journal
//! holds outcomes only, and a run can be verified by another process, later.

mod error;
pub mod evidence;
mod expect;
mod journal;
mod options;
mod platform;
mod progress;
mod report;
mod run;
mod script;
mod verify;

pub use error::SimulatorError;
pub use evidence::{Evidence, EvidenceError, Sources};
pub use options::{App, Fault, Faults, Options, Price, Scheme, Service, Spacing};
pub use platform::{Counters, Counts};
pub use progress::Progress;
pub use report::{Charges, Finding, Latency, Report, Tally};
pub use run::{Endless, endless, run};
