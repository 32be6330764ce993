//! The embedded log behind a producer that can stall and refuse.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::getpriority_process;
use tollgate_stream::embedded::EmbeddedStream;
use tollgate_stream::{
    Consumer, ConsumerOptions, Deliveries, DeliveryError, EnqueueError, Outgoing, Producer,
    ProducerKind, ReadFrom, Relay, Stream, StreamError, Token, TopicDescription, TopicPartition,
    TopicReader, TopicSpec,
};

/// What becomes of a record that is sent.
pub enum Mode {
    /// It goes to the log.
    Pass,
    /// It is taken and nothing is ever said about it, as by brokers that do not answer.
    Stall,
    /// It is taken and soon reported as not confirmed, though it was stored.
    StoreAndFail,
    /// It is not taken for the moment.
    Unavailable,
    /// Records of this topic are not taken for the moment.
    Without(&'static str),
    /// The queue is full.
    Full,
    /// Records that hold this text are refused for good.
    Refuse(&'static str),
}

/// What is said about a record that was taken.
#[derive(Debug, Clone, Copy)]
pub enum Report {
    Confirmed,
    Lost,
    Refused,
}

/// A stream whose producers do as they are told.
pub struct Double {
    log: Arc<EmbeddedStream>,
    mode: Arc<Mutex<Mode>>,
    sender_niceness: Arc<AtomicI32>,
    producers: Mutex<Vec<Weak<DoubleProducer>>>,
}

impl Double {
    pub fn over(log: Arc<EmbeddedStream>) -> Arc<Self> {
        let mode = Arc::new(Mutex::new(Mode::Pass));
        let sender_niceness = Arc::default();
        Arc::new(Self { log, mode, sender_niceness, producers: Mutex::default() })
    }

    /// Of the thread that sent last.
    pub fn sender_niceness(&self) -> i32 {
        self.sender_niceness.load(Ordering::Relaxed)
    }

    pub fn log(&self) -> Arc<EmbeddedStream> {
        Arc::clone(&self.log)
    }

    pub fn set(&self, mode: Mode) {
        let stalls = matches!(mode, Mode::Stall);
        // Held until all are answered: none is laid among them afterwards, to stay for ever.
        let mut now = self.mode.lock().unwrap();
        *now = mode;
        if stalls {
            return;
        }
        // Brokers that answer again answer all.
        for producer in self.producers.lock().unwrap().iter().filter_map(Weak::upgrade) {
            let stalled = std::mem::take(&mut *producer.stalled());
            for (record, token) in stalled {
                producer.inner.send(&record, token).unwrap();
            }
        }
    }

    /// Says this about one of the records that were taken under [`Mode::Stall`], in whatever order
    /// the caller chooses them; returns the record.
    pub fn report(&self, choose: impl FnOnce(usize) -> usize, report: Report) -> Option<Outgoing> {
        let producers: Vec<_> =
            self.producers.lock().unwrap().iter().filter_map(Weak::upgrade).collect();
        let producer = producers.iter().find(|producer| !producer.stalled().is_empty())?;
        let (record, token) = {
            let mut stalled = producer.stalled();
            let chosen = choose(stalled.len());
            stalled.swap_remove(chosen)
        };
        let outcome = match report {
            Report::Confirmed => Ok(tollgate_stream::Position { partition: 0, offset: 0 }),
            Report::Lost => Err(DeliveryError::Retry("broker gone".into())),
            Report::Refused => Err(DeliveryError::Permanent("too large".into())),
        };
        producer.deliveries.delivered(token, outcome.clone());
        // librdkafka reports once; a repetition must do no harm all the same.
        producer.deliveries.delivered(token, outcome);
        Some(record)
    }

    /// Records that were taken and are not answered for.
    pub fn stalled(&self) -> usize {
        let producers = self.producers.lock().unwrap();
        producers.iter().filter_map(Weak::upgrade).map(|producer| producer.stalled().len()).sum()
    }
}

struct DoubleProducer {
    inner: Arc<dyn Producer>,
    silent: Arc<dyn Producer>,
    deliveries: Arc<dyn Deliveries>,
    mode: Arc<Mutex<Mode>>,
    sender_niceness: Arc<AtomicI32>,
    stalled: Mutex<Vec<(Outgoing, Token)>>,
}

struct Silence;

impl Deliveries for Silence {
    fn delivered(&self, _: Token, _: Result<tollgate_stream::Position, DeliveryError>) {}
}

impl DoubleProducer {
    fn stalled(&self) -> MutexGuard<'_, Vec<(Outgoing, Token)>> {
        self.stalled.lock().unwrap()
    }
}

#[async_trait]
impl Producer for DoubleProducer {
    fn send(&self, record: &Outgoing, token: Token) -> Result<(), EnqueueError> {
        self.sender_niceness.store(getpriority_process(None).unwrap(), Ordering::Relaxed);
        let mode = self.mode.lock().unwrap();
        match *mode {
            Mode::Stall => {
                // Locked still, see `Double::set`.
                self.stalled().push((record.clone(), token));
                Ok(())
            }
            Mode::StoreAndFail => {
                self.silent.send(record, token)?;
                let lost = Err(DeliveryError::Retry("broker gone".into()));
                self.deliveries.delivered(token, lost);
                Ok(())
            }
            Mode::Unavailable => Err(EnqueueError::Unavailable("no broker".into())),
            Mode::Without(topic) if record.topic == topic => {
                Err(EnqueueError::Unavailable("no such topic".into()))
            }
            Mode::Pass | Mode::Without(_) => self.inner.send(record, token),
            Mode::Full => Err(EnqueueError::QueueFull),
            Mode::Refuse(text) => {
                let value = record.value.clone().unwrap_or_default();
                if value.windows(text.len()).any(|window| window == text.as_bytes()) {
                    let refused = Err(DeliveryError::Permanent("too large".into()));
                    self.deliveries.delivered(token, refused);
                    return Ok(());
                }
                self.inner.send(record, token)
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.stalled().len()
    }

    async fn flush(&self, deadline: Duration) -> Result<(), StreamError> {
        self.inner.flush(deadline).await
    }
}

#[async_trait]
impl Stream for Double {
    async fn cluster_id(&self) -> Result<String, StreamError> {
        self.log.cluster_id().await
    }

    fn producer(
        &self,
        kind: ProducerKind,
        deliveries: Arc<dyn Deliveries>,
    ) -> Result<Arc<dyn Producer>, StreamError> {
        let producer = Arc::new(DoubleProducer {
            inner: self.log.producer(kind, Arc::clone(&deliveries))?,
            silent: self.log.producer(kind, Arc::new(Silence))?,
            deliveries,
            mode: Arc::clone(&self.mode),
            sender_niceness: Arc::clone(&self.sender_niceness),
            stalled: Mutex::default(),
        });
        self.producers.lock().unwrap().push(Arc::downgrade(&producer));
        Ok(producer)
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Box<dyn Consumer>, StreamError> {
        self.log.consumer(options).await
    }

    async fn relay(&self, id: &str) -> Result<Box<dyn Relay>, StreamError> {
        self.log.relay(id).await
    }

    async fn reader(
        &self,
        topics: &[&str],
        from: ReadFrom,
    ) -> Result<Box<dyn TopicReader>, StreamError> {
        self.log.reader(topics, from).await
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), StreamError> {
        self.log.watermarks(partition).await
    }

    async fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<String>, StreamError> {
        self.log.create_topics(topics).await
    }

    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>, StreamError> {
        self.log.describe_topics(names).await
    }
}
