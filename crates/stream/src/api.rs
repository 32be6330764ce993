//! The traits that Kafka and the embedded log implement, and one suite tests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    DeliveryError, EnqueueError, Incoming, Outgoing, RelayError, StreamError, TopicPartition,
};

/// A cluster of topics: Apache Kafka, or the embedded log.
#[async_trait]
pub trait Stream: Send + Sync + 'static {
    /// Identity of the cluster; offsets mean nothing without it.
    async fn cluster_id(&self) -> Result<String, StreamError>;

    /// A producer for records that may be repeated. `deliveries` is told the fate of each.
    fn producer(
        &self,
        kind: ProducerKind,
        deliveries: Arc<dyn Deliveries>,
    ) -> Result<Arc<dyn Producer>, StreamError>;

    /// Joins a consumer group.
    async fn consumer(&self, options: ConsumerOptions) -> Result<Box<dyn Consumer>, StreamError>;

    /// A transactional producer under `id`. Fences whoever held that id before and aborts what
    /// they left open.
    async fn relay(&self, id: &str) -> Result<Box<dyn Relay>, StreamError>;

    /// Reads every partition of the topics without a group: only what is committed, from the
    /// given position on. For `tail`, verification and live feeds.
    async fn reader(
        &self,
        topics: &[&str],
        from: ReadFrom,
    ) -> Result<Box<dyn TopicReader>, StreamError>;

    /// First offset retained and the offset after the last. Comes to an end within a bounded time,
    /// also where the partition has no leader.
    async fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), StreamError>;

    /// Creates the topics that are missing; existing ones are left as they are.
    /// Returns the names that were created.
    async fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<String>, StreamError>;

    /// What the cluster says about these topics; a missing topic is absent from the answer.
    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>, StreamError>;
}

/// Which promise a producer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerKind {
    /// Records that are safe in a spool: tries for ever.
    Spooled,
    /// Records whose sender waits for the answer: gives up at this deadline.
    Delivered {
        /// How long a record may wait for its confirmation.
        deadline: Duration,
    },
}

/// The caller's own number for a record it sent; comes back with the outcome.
pub type Token = u64;

/// Hears of each record's fate exactly once. Called on a producer's own thread, or on one that is in
/// [`Producer::poll`]: must not block.
pub trait Deliveries: Send + Sync + 'static {
    /// `Ok` means confirmed by all in-sync replicas (Kafka) or synced to disk (embedded).
    fn delivered(&self, token: Token, outcome: Result<Position, DeliveryError>);
}

/// Where a record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Partition number.
    pub partition: i32,
    /// Offset in it.
    pub offset: i64,
}

/// An idempotent producer. Heals itself: after a fatal error everything queued is reported as
/// [`DeliveryError::Retry`], and the next send goes through a new client.
#[async_trait]
pub trait Producer: Send + Sync + 'static {
    /// Hands a record over; never blocks. After `Ok` the outcome is reported exactly once;
    /// after `Err` never.
    fn send(&self, record: &Outgoing, token: Token) -> Result<(), EnqueueError>;

    /// Records handed over and not yet reported.
    fn in_flight(&self) -> usize;

    /// Reports what is known by now of records' fates, on this thread; never blocks. Nobody has to
    /// call it: what nobody asks for, the producer's own thread reports milliseconds later. A thread
    /// that sends much and often spares the two the passing of memory to and fro.
    fn poll(&self) {}

    /// Waits until everything is reported or the deadline has passed; what is left then is
    /// reported as [`DeliveryError::Retry`] when the producer is dropped.
    async fn flush(&self, deadline: Duration) -> Result<(), StreamError>;
}

/// How to join a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// Name of the consumer group.
    pub group: String,
    /// Topics to consume.
    pub topics: Vec<String>,
    /// Static membership: stays the same over a restart. `None` joins as a new member.
    pub instance_id: Option<String>,
}

/// What a consumer's poll brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// These partitions are this consumer's now. Nothing is delivered from them until
    /// [`Consumer::start`].
    Assigned(Vec<TopicPartition>),
    /// These are not any more; nothing further is delivered from them.
    Revoked(Vec<TopicPartition>),
    /// Records, in order within each partition, at most the number asked for.
    Records(Vec<Incoming>),
    /// Nothing happened within the time given.
    Idle,
}

/// A member of a consumer group that keeps its offsets elsewhere.
#[async_trait]
pub trait Consumer: Send {
    /// Polls. Must be called often, also while everything is paused, or the group gives the
    /// partitions away. An offset that is not there any more is
    /// [`StreamError::OffsetOutOfRange`], never a silent skip.
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Event, StreamError>;

    /// Starts delivery from an assigned partition at this offset, also again after a change of
    /// mind: what was fetched before is dropped.
    async fn start(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), StreamError>;

    /// Stops delivery for a while; polling goes on.
    async fn pause(&mut self, partition: &TopicPartition) -> Result<(), StreamError>;

    /// Goes on after a pause.
    async fn resume(&mut self, partition: &TopicPartition) -> Result<(), StreamError>;

    /// Gives an assigned partition up locally: nothing further is delivered from it, the group
    /// is not told.
    async fn stop(&mut self, partition: &TopicPartition) -> Result<(), StreamError>;

    /// Writes offsets to the group, for lag tools only; failure is harmless.
    async fn report_progress(&mut self, offsets: &[(TopicPartition, i64)]);

    /// Leaves the group within a bounded time.
    async fn close(self: Box<Self>);
}

/// A transactional producer: what it commits appears whole or not at all to readers of committed
/// records, and only while nobody else has taken its id.
#[async_trait]
pub trait Relay: Send {
    /// Begins a transaction and hands the records over. Nothing is visible yet.
    async fn send(&mut self, records: Vec<Outgoing>) -> Result<(), RelayError>;

    /// Commits what was sent; the records are confirmed when this returns.
    async fn commit(&mut self) -> Result<(), RelayError>;

    /// Throws away what was sent since the last commit.
    async fn abort(&mut self) -> Result<(), RelayError>;
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the first record retained.
    Earliest,
    /// After the last record there is now.
    Latest,
}

/// Reads topics without a group.
#[async_trait]
pub trait TopicReader: Send {
    /// Up to `max` records; an empty answer when nothing came within the time given.
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Incoming>, StreamError>;

    /// Whether every record has been returned by `next` that was there when this was asked first,
    /// or first since it said yes. So it comes true however much is written meanwhile.
    async fn caught_up(&mut self) -> Result<bool, StreamError>;
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Copies of each partition; the embedded log has one whatever is asked.
    pub replication: i32,
    /// Kafka topic settings such as `retention.ms`; the embedded log keeps to `cleanup.policy`
    /// and bounds everything by its total size.
    pub config: Vec<(String, String)>,
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Smallest number of copies among the partitions.
    pub replication: i32,
    /// Topic settings in force, defaults included.
    pub config: Vec<(String, String)>,
}
