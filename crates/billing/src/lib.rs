//! Billing: topic `cdrs` becomes a ledger, its sums, and topic `rated-cdrs`.
//!
//! ```text
//!  cdrs ──▶ item (decode) ──▶ store: one fenced transaction per batch
//!                                │  once per record ──▶ digest: which content is in force?
//!                                │                      rules:  may it be charged, to whom, when?
//!                                │                      pricing: what does the tariff say?
//!                                │                      ledger: nothing / charge / reversal + charge
//!                                ▼
//!          records, digests, ledger, aggregates, offsets, outbox ──▶ rated-cdrs
//!                                │
//!                 http: usage, charges, ledger, checks, tariffs (each from one snapshot)
//! ```
//!
//! Everything that decides is pure: what is stored and what was seen go in, entries come out; the
//! result depends on the set of sightings, never on their order, repetition or batching. A record
//! is billed once, whatever arrives again; a change of mind is a reversal and a new charge.
//!
//! This crate never talks to Kafka (that is `tollgate-stream` and its implementations), never
//! opens a listener, and never lets a number or a session id into a log, a metric or an error.

pub mod applications;
pub mod calendar;
pub mod digest;
pub mod entry;
mod error;
pub mod fuzz;
pub mod http;
pub mod item;
mod keys;
pub mod ledger;
pub mod metrics;
mod plan;
pub mod pricing;
pub mod rules;
mod service;
mod settings;
pub mod store;
mod texts;

pub use applications::Application;
pub use error::BillingError;
pub use http::{Api, routes};
pub use item::{CdrDecoder, CdrItem};
pub use service::{Billing, Handle, Options};
pub use settings::Settings;
pub use store::BillingStore;
