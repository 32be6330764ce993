//! Records that may be repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::Shared;
use super::queue::Pending;
use crate::{Deliveries, EnqueueError, Outgoing, Producer, ProducerKind, StreamError, Token};

/// What a record takes besides key, value and headers, as Kafka counts it, rounded up.
const OVERHEAD: usize = 512;

/// Why this record can never be written, if so. `Err` when its topic is missing.
pub(super) fn refusal(shared: &Shared, record: &Outgoing) -> Result<Option<String>, String> {
    let state = shared.state();
    let Some(topic) = state.topics.get(&*record.topic) else {
        return Err(format!("topic {} is missing; run `tollgate topics create`", record.topic));
    };
    let (size, most) = (record.size() + OVERHEAD, topic.max_message_bytes);
    Ok((size > most).then(|| format!("{size} bytes and topic {} takes {most}", record.topic)))
}

#[derive(Debug)]
pub(super) struct EmbeddedProducer {
    shared: Arc<Shared>,
    kind: ProducerKind,
    deliveries: Told,
    in_flight: Arc<AtomicUsize>,
}

struct Told(Arc<dyn Deliveries>);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deliveries")
    }
}

impl EmbeddedProducer {
    pub(super) fn new(
        shared: Arc<Shared>,
        kind: ProducerKind,
        deliveries: Arc<dyn Deliveries>,
    ) -> Self {
        Self { shared, kind, deliveries: Told(deliveries), in_flight: Arc::default() }
    }
}

#[async_trait]
impl Producer for EmbeddedProducer {
    fn send(&self, record: &Outgoing, token: Token) -> Result<(), EnqueueError> {
        match refusal(&self.shared, record) {
            Err(missing) => return Err(EnqueueError::Unavailable(missing)),
            Ok(Some(reason)) => return Err(EnqueueError::Permanent(reason)),
            Ok(None) => {}
        }
        let deadline = match self.kind {
            ProducerKind::Spooled => None,
            ProducerKind::Delivered { deadline } => Some(Instant::now() + deadline),
        };
        self.shared.queue.push_record(Pending {
            record: record.clone(),
            token,
            deliveries: Arc::clone(&self.deliveries.0),
            in_flight: Arc::clone(&self.in_flight),
            deadline,
        })
    }

    fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    async fn flush(&self, deadline: Duration) -> Result<(), StreamError> {
        let until = tokio::time::Instant::now() + deadline;
        while self.in_flight() > 0 {
            if tokio::time::Instant::now() >= until {
                return Err(StreamError::Transient("flush took too long".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}
