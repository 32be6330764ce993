//! Settings, telemetry, lifecycle, and the listeners for health, metrics and queries.
//!
//! ```text
//!  file < environment < flags ──▶ settings::load ──▶ plain structs
//!  SIGTERM, SIGINT ──▶ shutdown::signal ──▶ CancellationToken ──▶ every service
//!  metrics recorder, Health ──▶ listener: /livez /readyz /metrics   (no personal data)
//!  query routes             ──▶ listener: loopback, or a token
//!  query string             ──▶ query: typed parameters, or a refusal with a hint
//! ```
//!
//! What every service needs and none is about. This crate never knows what a notification, a
//! charge or a state is.

pub mod health;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod query;
pub mod settings;
pub mod shutdown;
pub mod telemetry;

pub use health::Health;
pub use settings::SettingsError;
