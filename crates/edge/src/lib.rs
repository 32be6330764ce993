//! The HTTP edge: takes a notification, makes it durable, answers, publishes.
//!
//! ```text
//!  POST ─▶ route ─▶ admission ─▶ body ─▶ ack ─┬─ spooled: spool, fsync ──────▶ 200
//!                                             └─ delivered: decode, Kafka ───▶ 200
//!                                                   └ past the deadline: as spooled
//!  spool ─▶ publisher: decode, normalise, produce ─▶ confirmed ─▶ spool position
//! ```
//!
//! The edge shares nothing with other edges and keeps nothing but its spool. It never waits for
//! Kafka under `spooled`, never looks into a body before the answer unless a rule needs it, and
//! never throws away what it answered 200. Where processor time is short, publishing gives way to
//! answers.
//!
//! HTTP itself is actix-http's: it answers malformed heads (400), a head of more than 128 KiB or
//! 95 lines (431), and a first head that is too slow (408) before anything here sees them. What
//! it does not time, `connections` does.

mod ack;
mod admission;
mod applications;
mod background;
mod body;
mod connections;
mod dead_letters;
mod decode;
mod delivered;
mod error;
mod flight;
mod idleness;
mod lanes;
mod meters;
pub mod metrics;
mod numbered;
mod publisher;
mod quota;
mod read_ahead;
mod receive;
mod refusal;
mod replay;
mod requalify;
mod sending;
mod server;
mod service;
mod settings;
mod socket;
mod tls;
mod topics_guard;

pub use applications::{Application, Applications, Service};
pub use decode::{Decoder, Normalised};
pub use error::EdgeError;
pub use receive::PATHS;
pub use replay::{Replayed, replay};
pub use requalify::requalify;
pub use service::{Counts, Edge, Running, Watch, check_room, check_tls};
pub use settings::{Ack, Settings};
