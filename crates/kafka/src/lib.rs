//! The stream traits over Kafka; the only crate that names rdkafka, but for `bench`, which compares
//! with it.
//!
//! ```text
//!  Producer ──▶ idempotent client, polled by a driver thread ──▶ topics
//!  Relay    ──▶ transactional client, blocking threads ────────▶ topics
//!  Consumer ◀── group member on its own thread ◀──────────────── topics
//!  Reader   ◀── no group, its own thread ◀────────────────────── topics
//!                 │ errors, statistics, log lines
//!                 ▼
//!        advice (`trouble`) · metrics · tracing, rate limited
//! ```
//!
//! Connecting is lazy: everything is made with all brokers down and goes on when they come. No
//! error text, log line or metric carries anything of a record but its topic, partition and
//! offset. Never decides what a record means, where a consumer begins, or when to give up.

mod admin;
mod config;
mod consumer;
mod context;
mod convert;
mod ends;
mod logs;
pub mod metrics;
mod producer;
mod pulse;
mod reader;
mod relay;
mod settings;
mod stats;
mod stream;
mod trouble;

pub use settings::{Compression, GroupProtocol, SaslMechanism, SecurityProtocol, Settings};
pub use stream::{KafkaStream, producer_config};
