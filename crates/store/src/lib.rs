//! What every consumer's database work shares: pools, migrations, fences and offsets, the
//! outbox, and what an error of the database means.
//!
//! ```text
//!  Settings ──▶ connect ──▶ Database ──▶ Schema::ensure (own tables, then the domain's)
//!                              │
//!      fence(source) ──────────┤  epoch + 1: whoever held the partition writes no more
//!                              │
//!      transaction(Step::Advance | Step::Hold)               needs the epochs to be in force
//!          ├─ the domain's own statements
//!          ├─ append_outbox                                   position from the fence row
//!          └─ commit
//!                              │
//!      read_outbox ──▶ relay publishes ──▶ delete_outbox      fenced as well
//! ```
//!
//! The modules [`postgres`] and [`sqlite`] have the same functions, and both pass one conformance
//! suite. A domain writes once, through [`sql`], what reads the same in both dialects, and once per
//! dialect what it does in bulk.
//!
//! This crate never knows what a record means, never holds a transaction open for anything but
//! the database, and never lets a value from a row into an error text: SQLSTATE and constraint
//! names only.
//!
//! # A store of a domain, in short
//!
//! ```text
//! let mut tx = database.transaction(&Step::advance(batches)).await?;
//! tx.sql().execute("INSERT INTO … VALUES ($1)", vec![id.into()]).await?;
//! tx.sql().append_outbox(&[(claim, outgoing)]).await?;
//! tx.commit().await?;
//! ```

mod connect;
mod error;
mod headers;
pub mod metrics;
mod migrate;
pub mod new_rows;
pub mod postgres;
mod rows;
mod settings;
mod source;
pub mod sql;
pub mod sqlite;
mod transaction;

pub use connect::{Database, SqlitePools, connect, connect_existing};
pub use error::classify;
pub use migrate::{Found, Migration, Schema};
pub use settings::Settings;
pub use source::{Advance, Step, source_id};
pub use transaction::Transaction;
