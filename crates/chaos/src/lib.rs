//! The whole system as processes under a seeded schedule of faults.
//!
//! ```text
//!  seed ──▶ schedule (pure) ──▶ runner ──▶ faults: processes, brokers, database, links, disks, clocks
//!                                  │
//!  simulator ──proxy──▶ edge 1, 2 ──proxies──▶ 3 brokers ──proxies──▶ billing 1, 2, user-state 1, 2
//!                                  │                                        │ proxies
//!  attackers ──▶ edges             │ ledger beside its sums and topic ◀─── PostgreSQL
//!                                  ▼
//!              healed, quiet ──▶ checks ──▶ figures, or the evidence of a failure
//! ```
//!
//! The same seed gives the same schedule; how the processes interleave under it is up to the
//! machine. What is checked comes from the simulator's own script, from SQL of its own, and from
//! the topics as a reader sees them, never from what the system says about itself.

mod attack;
mod check;
mod clock;
mod damage;
mod faults;
mod figures;
mod links;
mod outcome;
mod process;
mod proxy;
mod published;
mod quiet;
mod run;
pub mod schedule;
mod sequences;
mod server;
mod snapshot;
mod states;
mod system;
mod tmpfs;
mod traffic;

pub use figures::{Figures, Journal};
pub use outcome::Outcome;
pub use run::Runner;
