//! What travels through a stream.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// Headers in the order they were added. Values are text in every header Tollgate writes.
pub type Headers = Vec<(Name, Bytes)>;

/// Name of a header, or of a topic to send to: nearly always one of the few of `tollgate-schema`,
/// which are neither copied nor counted.
pub type Name = Cow<'static, str>;

/// A record on its way into a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Name of the topic, from the catalogue in `tollgate-schema`.
    pub topic: Name,
    /// Key; decides the partition by murmur2, as the Java client does. An empty key is
    /// hashed like any other.
    pub key: Bytes,
    /// The protobuf message; `None` is a tombstone, for compacted topics only.
    pub value: Option<Bytes>,
    /// CloudEvents attributes, among them `ce_id`.
    pub headers: Headers,
}

/// A record read from a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Where it stands.
    pub partition: TopicPartition,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since 1970, set by the producer or the broker.
    pub timestamp_ms: i64,
    /// As sent.
    pub key: Bytes,
    /// As sent; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// As sent.
    pub headers: Headers,
}

impl Incoming {
    /// The value of a header, if it is there and UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| &**key == name)
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}
