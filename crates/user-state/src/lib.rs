//! Knows what every number's phone is doing now, and what became of every call.
//!
//! ```text
//!  call-events ─┐                       ┌─▶ state_call    a call's events
//!               ├─▶ item ─▶ store::apply ├─▶ state_leg     who is in which call: the truth
//!  cdrs ────────┘   (pure)    fold (pure)├─▶ state_number  version, next expiry
//!                                        └─▶ state_changed ─▶ relay ─▶ user-states (compacted)
//!                                                                          │
//!  GET /v1/numbers, /v1/calls ◀── database          GET /v1/changes (SSE) ◀┘ any instance
//! ```
//!
//! A call is a pure function of the set of its events, a number's state of its legs and of the
//! instant asked for: order, repetition and batching change nothing, and which partition or
//! instance a call or number lives in does not matter. Consumers share nothing but the database.
//!
//! This crate never bills, never talks to Kafka itself, and never shows a number or a session id
//! in logs, metrics or errors.

pub mod api;
mod error;
pub mod fold;
pub mod fuzz;
pub mod item;
pub mod keys;
mod message;
pub mod metrics;
mod reason;
mod service;
pub mod settings;
pub mod store;

pub use api::{Api, routes};
pub use error::UserStateError;
pub use service::{Handle, Options, UserState};
pub use settings::Settings;
