//! A stop while the cluster's client does not come back from a call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tollgate_stream::consumer::{ConsumerError, ConsumerService, ConsumerServiceOptions};
use tollgate_stream::{
    Batch, Claim, Consumer, ConsumerOptions, ConsumerSettings, Decode, Deliveries, Event, Fence,
    Incoming, Pending, Producer, ProducerKind, ReadFrom, Rejection, Relay, Source, Store,
    StoreError, Stream, StreamError, TopicDescription, TopicPartition, TopicReader, TopicSpec,
};

/// A cluster whose consumers hang in their first poll, and in everything after.
struct Hanging(Arc<Notify>);

struct HangingConsumer(Arc<Notify>);

fn away<T>() -> Result<T, StreamError> {
    Err(StreamError::Transient("not of this cluster".to_owned()))
}

#[async_trait]
impl Stream for Hanging {
    async fn cluster_id(&self) -> Result<String, StreamError> {
        Ok("hanging".to_owned())
    }

    fn producer(
        &self,
        _: ProducerKind,
        _: Arc<dyn Deliveries>,
    ) -> Result<Arc<dyn Producer>, StreamError> {
        away()
    }

    async fn consumer(&self, _: ConsumerOptions) -> Result<Box<dyn Consumer>, StreamError> {
        Ok(Box::new(HangingConsumer(Arc::clone(&self.0))))
    }

    async fn relay(&self, _: &str) -> Result<Box<dyn Relay>, StreamError> {
        away()
    }

    async fn reader(&self, _: &[&str], _: ReadFrom) -> Result<Box<dyn TopicReader>, StreamError> {
        away()
    }

    async fn watermarks(&self, _: &TopicPartition) -> Result<(i64, i64), StreamError> {
        away()
    }

    async fn create_topics(&self, _: &[TopicSpec]) -> Result<Vec<String>, StreamError> {
        away()
    }

    async fn describe_topics(&self, _: &[&str]) -> Result<Vec<TopicDescription>, StreamError> {
        away()
    }
}

#[async_trait]
impl Consumer for HangingConsumer {
    async fn next(&mut self, _: usize, _: Duration) -> Result<Event, StreamError> {
        self.0.notify_one();
        std::future::pending().await
    }

    async fn start(&mut self, _: &TopicPartition, _: i64) -> Result<(), StreamError> {
        std::future::pending().await
    }

    async fn pause(&mut self, _: &TopicPartition) -> Result<(), StreamError> {
        std::future::pending().await
    }

    async fn resume(&mut self, _: &TopicPartition) -> Result<(), StreamError> {
        std::future::pending().await
    }

    async fn stop(&mut self, _: &TopicPartition) -> Result<(), StreamError> {
        std::future::pending().await
    }

    async fn report_progress(&mut self, _: &[(TopicPartition, i64)]) {
        std::future::pending::<()>().await;
    }

    async fn close(self: Box<Self>) {
        std::future::pending::<()>().await;
    }
}

/// Is never asked anything: no partition is ever assigned.
struct Nothing;

#[async_trait]
impl Store for Nothing {
    type Item = ();

    async fn fence(&self, _: &Source) -> Result<Fence, StoreError> {
        Err(StoreError::Fenced)
    }

    async fn apply(&self, _: &[Batch<'_, ()>]) -> Result<(), StoreError> {
        Err(StoreError::Fenced)
    }

    async fn pending(&self, _: &Claim, _: usize, _: usize) -> Result<Vec<Pending>, StoreError> {
        Err(StoreError::Fenced)
    }

    async fn published(&self, _: &Claim, _: &[Pending]) -> Result<(), StoreError> {
        Err(StoreError::Fenced)
    }
}

impl Decode for Nothing {
    type Item = ();

    fn decode(&self, _: &Incoming) -> Result<(), Rejection> {
        Ok(())
    }
}

/// A member of a group whose client never comes back from its first poll, which it tells of.
fn hanging(stop: &CancellationToken) -> (Arc<Notify>, JoinHandle<Result<(), ConsumerError>>) {
    let polled = Arc::new(Notify::new());
    let consumer = ConsumerOptions {
        group: "hanging".to_owned(),
        topics: vec!["cdrs".to_owned()],
        instance_id: None,
    };
    let options = ConsumerServiceOptions { consumer, settings: ConsumerSettings::default() };
    let stream = Arc::new(Hanging(Arc::clone(&polled)));
    let service = ConsumerService::new(stream, Arc::new(Nothing), Arc::new(Nothing), options);
    (polled, tokio::spawn(service.run(stop.clone())))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_does_not_hold_the_stop() {
    let stop = CancellationToken::new();
    let (polled, running) = hanging(&stop);
    polled.notified().await;
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_mins(1), running).await;
    ended.expect("it ends").expect("no panic").expect("a good end");
}

/// Whoever runs it starts it again; it would stand still for ever.
#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_ends_the_consumer() {
    let stop = CancellationToken::new();
    let (_polled, running) = hanging(&stop);
    let ended = tokio::time::timeout(Duration::from_mins(5), running).await;
    let error = ended.expect("it ends").expect("no panic").expect_err("not a good end");
    assert!(error.to_string().contains("start this process again"), "{error}");
}
