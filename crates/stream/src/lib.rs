//! Publishing and consuming: the traits, the consumer runtime and the embedded log.
//!
//! ```text
//!  publisher ──▶ Producer ──▶ topics ──▶ Consumer ──▶ consumer runtime ──▶ Store::apply
//!                                ▲                                              │
//!                                └──── Relay ◀──── outbox, in order ◀───────────┘
//! ```
//!
//! Two implementations pass one conformance suite: Kafka (crate `tollgate-kafka`) and the
//! embedded log in `embedded`. This crate never names Kafka's client, a database, or what the
//! records mean.

mod api;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod consumer;
pub mod embedded;
mod error;
mod event;
pub mod fuzz;
pub mod metrics;
pub mod partitioner;
mod quarantine;
mod record;
pub mod settings;
mod store;
pub mod topics;

pub use api::{
    Consumer, ConsumerOptions, Deliveries, Event, Position, Producer, ProducerKind, ReadFrom,
    Relay, Stream, Token, TopicDescription, TopicReader, TopicSpec,
};
pub use clock::now_ms;
pub use error::{DeliveryError, EnqueueError, RelayError, StreamError};
pub use event::name;
pub use record::{Headers, Incoming, Name, Outgoing, TopicPartition};
pub use settings::{ConsumerSettings, EmbeddedSettings};
pub use store::{
    Batch, Claim, Decode, Entry, Fence, Mark, Outcome, Pending, Rejection, Source, Store,
    StoreError,
};
