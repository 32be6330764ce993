//! The idempotent producer, which survives its own client.
//!
//! ```text
//!  send ──▶ client ──▶ brokers
//!             │ fate of each record
//!  driver ◀───┘ polls, unless the sender does; after a fatal error purges, reports the rest as
//!     │         Retry, makes a new client
//!     └──▶ Deliveries, once per record
//! ```

mod driver;
mod fate;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics::counter;
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer as _};
use tollgate_stream::{
    Deliveries, EnqueueError, Outgoing, Producer, ProducerKind, StreamError, Token,
};

use crate::context::{Common, Context, Role};
use crate::settings::Settings;
use crate::trouble::{Trouble, code_of};
use crate::{config, convert, metrics as names};
use driver::Driver;
pub(crate) use fate::is_implied;
use fate::{Lane, Ledger};

type Client = BaseProducer<Context<Lane>>;

/// How often a drop looks whether the driver has ended.
const LOOK: Duration = Duration::from_millis(2);

/// Makes clients of one kind, again and again.
struct Factory {
    config: ClientConfig,
    lone: ClientConfig,
    statistics_interval: Duration,
    role: Role,
    common: Arc<Common>,
    ledger: Arc<Ledger>,
}

impl Factory {
    fn client(&self, lane: Lane) -> Result<Client, StreamError> {
        let config = if lane.alone { &self.lone } else { &self.config };
        config
            .create_with_context(Context::new(self.role, &self.common, lane))
            .map_err(|error| StreamError::Fatal(error.to_string()))
    }

    fn main_client(&self) -> Result<Client, StreamError> {
        self.client(Lane::main(&self.ledger))
    }

    fn lone_client(&self) -> Result<Client, StreamError> {
        self.client(Lane::alone(&self.ledger))
    }
}

/// What the producer and its driver share.
struct Shared {
    /// `None` while a new client is being made.
    client: RwLock<Option<Arc<Client>>>,
    ledger: Arc<Ledger>,
    /// Number of flushes in progress: nothing lingers meanwhile.
    flushes: AtomicUsize,
    /// Whether the sender has polled since the driver looked.
    polled: AtomicBool,
    stop: AtomicBool,
}

/// See the module's description.
pub struct KafkaProducer {
    role: Role,
    shared: Arc<Shared>,
    driver: Option<JoinHandle<()>>,
    close_timeout: Duration,
}

impl KafkaProducer {
    /// Starts a producer; brokers need not be reachable.
    pub fn start(
        base: &ClientConfig,
        settings: &Settings,
        common: &Arc<Common>,
        kind: ProducerKind,
        deliveries: Arc<dyn Deliveries>,
    ) -> Result<Self, StreamError> {
        let (role, timeout) = match kind {
            ProducerKind::Spooled => (Role::Spooled, None),
            ProducerKind::Delivered { deadline } => (Role::Delivered, Some(deadline)),
        };
        let ledger = Arc::new(Ledger::new(role, deliveries));
        let factory = Factory {
            config: config::producer(base, settings, timeout),
            lone: config::lone_producer(base, settings, timeout),
            statistics_interval: Duration::from_millis(settings.statistics_interval_ms.into()),
            role,
            common: Arc::clone(common),
            ledger: Arc::clone(&ledger),
        };
        let client = Arc::new(factory.main_client()?);
        let shared = Arc::new(Shared {
            client: RwLock::new(Some(client)),
            ledger,
            flushes: AtomicUsize::new(0),
            polled: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let driver = Driver::new(factory, Arc::clone(&shared));
        let driver = thread::Builder::new()
            .name(format!("kafka-{}", role.label()))
            .spawn(move || driver.run())
            .map_err(|error| StreamError::Transient(format!("cannot start a thread: {error}")))?;
        let close_timeout = Duration::from_millis(settings.close_timeout_ms.into());
        Ok(Self { role, shared, driver: Some(driver), close_timeout })
    }

    fn refused(&self, reason: &'static str, error: EnqueueError) -> EnqueueError {
        counter!(names::REFUSALS.name, "client" => self.role.label(), "reason" => reason)
            .increment(1);
        error
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    fn send(&self, record: &Outgoing, token: Token) -> Result<(), EnqueueError> {
        // Held while sending, so that no record slips into a client that is being purged.
        let client = self.shared.client.read().unwrap_or_else(PoisonError::into_inner);
        let Some(client) = client.as_ref() else {
            let reason = "the client is made anew after a fatal error".to_owned();
            return Err(self.refused("unavailable", EnqueueError::Unavailable(reason)));
        };
        self.shared.ledger.opened();
        // On 64-bit machines, the only ones Kafka's clients are built for here, nothing is cut.
        let Err((error, _)) = client.send(convert::outgoing(record, token as usize)) else {
            return Ok(());
        };
        self.shared.ledger.withdrawn();
        match code_of(&error) {
            RDKafkaErrorCode::QueueFull => Err(self.refused("queue_full", EnqueueError::QueueFull)),
            RDKafkaErrorCode::MessageSizeTooLarge => Err(self.refused(
                "permanent",
                EnqueueError::Permanent("larger than any topic's max.message.bytes".into()),
            )),
            RDKafkaErrorCode::InvalidArgument => {
                Err(self.refused("permanent", EnqueueError::Permanent(error.to_string())))
            }
            code => {
                let trouble = Trouble::new(code, "");
                client.client().context().tell_of_record(&trouble);
                Err(self.refused("unavailable", EnqueueError::Unavailable(trouble.message)))
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.shared.ledger.in_flight()
    }

    fn poll(&self) {
        self.shared.polled.store(true, Ordering::Relaxed);
        let client = self.shared.client.read().unwrap_or_else(PoisonError::into_inner);
        let Some(client) = client.as_ref() else { return };
        // One event at a time, each of which reports a batch.
        let mut open = self.in_flight();
        while open > 0 {
            client.poll(Duration::ZERO);
            let left = self.in_flight();
            if left == open {
                return;
            }
            open = left;
        }
    }

    async fn flush(&self, deadline: Duration) -> Result<(), StreamError> {
        let _flushing = Flushing::begin(&self.shared);
        tokio::time::timeout(deadline, self.shared.ledger.settled()).await.map_err(|_| {
            StreamError::Transient(format!(
                "{} records are not confirmed after {deadline:?}",
                self.in_flight()
            ))
        })
    }
}

/// Tells the driver that somebody waits for everything; also when the waiting is given up.
struct Flushing<'a>(&'a Shared);

impl<'a> Flushing<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.flushes.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.flushes.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for KafkaProducer {
    /// Reports what is left as `Retry` before it returns, unless the client hangs.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let Some(driver) = self.driver.take() else { return };
        // The last handle may be held by a delivery callback, that is by the driver itself.
        if driver.thread().id() == thread::current().id() {
            return;
        }
        let end = Instant::now() + self.close_timeout;
        while !driver.is_finished() {
            if Instant::now() > end {
                tracing::warn!(
                    client = self.role.label(),
                    "a Kafka client does not come to an end within {:?} and is left behind",
                    self.close_timeout
                );
                return;
            }
            thread::park_timeout(LOOK);
        }
        if driver.join().is_err() {
            tracing::error!("a producer's thread has panicked");
        }
    }
}
