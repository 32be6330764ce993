//! The contract `delivered`: the answer waits for the stream, up to a deadline.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tollgate_stream::{
    Deliveries, DeliveryError, EnqueueError, Outgoing, Position, Producer, ProducerKind, Stream,
    StreamError, Token,
};

use crate::metrics::{FALLEN_BACK, PUBLISHED};

/// Sends records and waits for their confirmation.
pub struct Delivery {
    producer: Arc<dyn Producer>,
    waiting: Arc<Waiting>,
    deadline: Duration,
    /// Whether what it misses goes to the spool.
    falls_back: bool,
    next_token: AtomicU64,
    in_trouble: AtomicBool,
    published: AtomicU64,
}

/// What became of a request's records.
pub enum Delivered {
    /// All confirmed.
    All,
    /// All confirmed but these, which no topic will ever take.
    Except(Vec<(Outgoing, String)>),
    /// Not all within the deadline; some may have been stored.
    Missed,
}

#[derive(Default)]
struct Waiting(Mutex<HashMap<Token, Arc<Request>>>);

struct Request {
    left: AtomicUsize,
    failed: AtomicBool,
    refused: Mutex<Vec<(usize, String)>>,
    first_token: Token,
    done: Notify,
}

impl Delivery {
    /// Opens a producer of its own, whose records give up at the deadline.
    pub fn new(
        stream: &dyn Stream,
        deadline: Duration,
        falls_back: bool,
    ) -> Result<Self, StreamError> {
        let waiting = Arc::new(Waiting::default());
        let producer =
            stream.producer(ProducerKind::Delivered { deadline }, Arc::clone(&waiting) as _)?;
        Ok(Self {
            producer,
            waiting,
            deadline,
            falls_back,
            next_token: AtomicU64::new(0),
            in_trouble: AtomicBool::new(false),
            published: AtomicU64::new(0),
        })
    }

    /// Whether a deadline was missed and no probe has been confirmed since.
    pub fn is_in_trouble(&self) -> bool {
        self.in_trouble.load(Ordering::Relaxed)
    }

    /// Records confirmed since the start.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// A request of the spool was confirmed, so long after it was sent: soon enough, and the
    /// stream is back.
    pub fn probe_confirmed(&self, after: Duration) {
        if after <= self.deadline {
            self.leave_trouble();
        }
    }

    /// Sends all and waits for all, under one deadline.
    pub async fn deliver(&self, records: &[Outgoing]) -> Delivered {
        if records.is_empty() {
            return Delivered::All;
        }
        let first_token = self.next_token.fetch_add(records.len() as u64, Ordering::Relaxed);
        let request = Arc::new(Request {
            left: AtomicUsize::new(records.len()),
            failed: AtomicBool::new(false),
            refused: Mutex::default(),
            first_token,
            done: Notify::new(),
        });
        for (token, record) in (first_token..).zip(records) {
            self.waiting.insert(token, &request);
            if let Err(error) = self.producer.send(record, token) {
                self.waiting.land(token, Err(refusal(error)));
            }
        }
        let landed = tokio::time::timeout(self.deadline, request.done.notified()).await.is_ok();
        if !landed || request.failed.load(Ordering::Acquire) {
            self.waiting.forget(first_token..first_token + records.len() as u64);
            self.enter_trouble();
            return Delivered::Missed;
        }
        self.leave_trouble();
        let refused =
            std::mem::take(&mut *request.refused.lock().unwrap_or_else(PoisonError::into_inner));
        self.published.fetch_add((records.len() - refused.len()) as u64, Ordering::Relaxed);
        for (index, record) in records.iter().enumerate() {
            if !refused.iter().any(|(refused, _)| *refused == index) {
                let topic = record.topic.to_string();
                metrics::counter!(PUBLISHED.name, "topic" => topic).increment(1);
            }
        }
        if refused.is_empty() {
            return Delivered::All;
        }
        let refused = refused.into_iter().map(|(index, why)| (records[index].clone(), why));
        Delivered::Except(refused.collect())
    }

    fn leave_trouble(&self) {
        if self.in_trouble.swap(false, Ordering::Relaxed) {
            metrics::gauge!(FALLEN_BACK.name).set(0.0);
            tracing::info!("stream confirms again; delivered answers after confirmation");
        }
    }

    fn enter_trouble(&self) {
        if self.in_trouble.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.falls_back {
            metrics::gauge!(FALLEN_BACK.name).set(1.0);
            tracing::warn!(
                "stream missed the delivery deadline; answers come from the spool until it confirms again"
            );
        } else {
            tracing::warn!("stream missed the delivery deadline; what it misses is answered 503");
        }
    }
}

fn refusal(error: EnqueueError) -> DeliveryError {
    match error {
        EnqueueError::Permanent(reason) => DeliveryError::Permanent(reason),
        EnqueueError::QueueFull | EnqueueError::Unavailable(_) => {
            DeliveryError::Retry(error.to_string())
        }
    }
}

impl Waiting {
    fn insert(&self, token: Token, request: &Arc<Request>) {
        self.lock().insert(token, Arc::clone(request));
    }

    fn forget(&self, tokens: std::ops::Range<Token>) {
        let mut waiting = self.lock();
        for token in tokens {
            waiting.remove(&token);
        }
    }

    fn land(&self, token: Token, outcome: Result<Position, DeliveryError>) {
        let Some(request) = self.lock().remove(&token) else { return };
        match outcome {
            Ok(_) => {}
            Err(DeliveryError::Retry(_)) => {
                // Decided; the others need not be waited for.
                request.failed.store(true, Ordering::Release);
                request.done.notify_one();
            }
            Err(DeliveryError::Permanent(reason)) => {
                let index = (token - request.first_token) as usize;
                let mut refused = request.refused.lock().unwrap_or_else(PoisonError::into_inner);
                refused.push((index, reason));
            }
        }
        if request.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            request.done.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Token, Arc<Request>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deliveries for Waiting {
    fn delivered(&self, token: Token, outcome: Result<Position, DeliveryError>) {
        self.land(token, outcome);
    }
}
