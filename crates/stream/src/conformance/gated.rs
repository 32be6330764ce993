//! A stream some of whose calls come to an end only when a test allows it.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    Consumer, ConsumerOptions, Deliveries, Producer, ProducerKind, ReadFrom, Relay, Stream,
    StreamError, TopicDescription, TopicPartition, TopicReader, TopicSpec,
};

/// Passes everything on; its gates are open at first.
pub struct Gated {
    stream: Arc<dyn Stream>,
    /// Relays are opened behind it.
    pub relays: Gate,
    /// Where partitions numbered 0 begin and end is told behind it.
    pub ends_of_the_first: Gate,
}

/// Lets calls through, or not.
pub struct Gate {
    asked: watch::Sender<bool>,
    open: watch::Sender<bool>,
}

impl Gate {
    fn new() -> Self {
        Self { asked: watch::Sender::new(false), open: watch::Sender::new(true) }
    }

    /// Whether somebody has come to it.
    pub fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Who comes waits.
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    /// Lets all through who wait.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    async fn pass(&self) {
        self.asked.send_replace(true);
        let opened = self.open.subscribe().wait_for(|open| *open).await.is_ok();
        assert!(opened, "the gate lives as long as its calls");
    }
}

impl Gated {
    /// In front of another.
    pub fn new(stream: Arc<dyn Stream>) -> Self {
        Self { stream, relays: Gate::new(), ends_of_the_first: Gate::new() }
    }
}

#[async_trait]
impl Stream for Gated {
    async fn cluster_id(&self) -> Result<String, StreamError> {
        self.stream.cluster_id().await
    }

    fn producer(
        &self,
        kind: ProducerKind,
        deliveries: Arc<dyn Deliveries>,
    ) -> Result<Arc<dyn Producer>, StreamError> {
        self.stream.producer(kind, deliveries)
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Box<dyn Consumer>, StreamError> {
        self.stream.consumer(options).await
    }

    async fn relay(&self, id: &str) -> Result<Box<dyn Relay>, StreamError> {
        self.relays.pass().await;
        self.stream.relay(id).await
    }

    async fn reader(
        &self,
        topics: &[&str],
        from: ReadFrom,
    ) -> Result<Box<dyn TopicReader>, StreamError> {
        self.stream.reader(topics, from).await
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), StreamError> {
        if partition.partition == 0 {
            self.ends_of_the_first.pass().await;
        }
        self.stream.watermarks(partition).await
    }

    async fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<String>, StreamError> {
        self.stream.create_topics(topics).await
    }

    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>, StreamError> {
        self.stream.describe_topics(names).await
    }
}
