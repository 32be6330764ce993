//! Errors, sorted by what the caller has to do.

use crate::TopicPartition;

/// A call to a stream failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StreamError {
    /// Passes by itself: brokers away, no leader, a time-out. Try again with back-off.
    #[error("stream is not reachable ({0})")]
    Transient(String),
    /// Configuration or permission: does not pass by itself, but may be mended at the other
    /// side. Said loudly, tried again with back-off.
    #[error("stream refuses: {0}")]
    Refused(String),
    /// The offset asked for is not retained.
    #[error(
        "offset {offset} of {partition} is not there any more; see docs/operations.md, offsets"
    )]
    OffsetOutOfRange {
        /// Where.
        partition: TopicPartition,
        /// Which, or -1 when the client does not say.
        offset: i64,
    },
    /// Cannot go on at all: damaged log, invalid settings.
    #[error("stream cannot be used: {0}")]
    Fatal(String),
}

impl StreamError {
    /// Whether trying again can help.
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Transient(_) | Self::Refused(_))
    }
}

/// A record was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// The producer's queue is full: wait for deliveries, then send again.
    #[error("producer queue is full")]
    QueueFull,
    /// This record can never be sent.
    #[error("record can not be sent: {0}")]
    Permanent(String),
    /// The producer is not usable for the moment: send again later.
    #[error("producer is not available: {0}")]
    Unavailable(String),
}

/// A record that was handed over did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// May or may not have been stored: send it again.
    #[error("delivery is not confirmed: {0}")]
    Retry(String),
    /// Refused for good (too large, invalid): sending it again cannot help.
    #[error("record is refused for good: {0}")]
    Permanent(String),
}

/// A transaction failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// Somebody else has taken the id: stop relaying this partition.
    #[error("another relay has taken over")]
    Fenced,
    /// Abort, then send the same records again.
    #[error("transaction must be aborted: {0}")]
    Abort(String),
    /// This relay is of no more use: make a new one, then send the same records again.
    #[error("relay must be recreated: {0}")]
    Recreate(String),
    /// The record at this index of the last `send` can never be sent.
    #[error("record {index} is refused for good: {reason}")]
    Permanent {
        /// Index into the records of the last `send`.
        index: usize,
        /// Why.
        reason: String,
    },
}
