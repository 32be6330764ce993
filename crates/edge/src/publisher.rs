//! From the spool to the stream: decode, normalise, produce, confirm.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tollgate_spool::{DeadLetter, DeadLetters, Position, Reader, SpoolError, Stored};
use tollgate_stream::{EnqueueError, Outgoing, Producer};

use crate::decode::Decoder;
use crate::delivered::Delivery;
use crate::flight::{Flight, Landed, Sent};
use crate::metrics::{IN_FLIGHT, PUBLISH_SECONDS, RETRIED};
use crate::receive::now_ms;

/// How long to wait before a send is tried again that the producer did not take, and before a
/// dead letter is tried again that the disk did not take.
const PAUSE: Duration = Duration::from_millis(20);

/// Requests read from the spool at a time.
const READ_REQUESTS: usize = 512;

/// Bytes read from the spool at a time.
const READ_BYTES: u64 = 4 * 1024 * 1024;

/// Longest wait for new requests; what lands meanwhile interrupts it.
const READ_WAIT: Duration = Duration::from_secs(5);

/// Pause after the spool's disk refused a read.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// Publishes what the spool holds, until told to stop.
pub struct Publisher {
    pub(crate) reader: Reader,
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) producer: Arc<dyn Producer>,
    pub(crate) flight: Arc<Flight>,
    pub(crate) dead_letters: Arc<DeadLetters>,
    pub(crate) delivery: Option<Arc<Delivery>>,
    pub(crate) max_in_flight: usize,
    pub(crate) flush_deadline: Duration,
}

impl Publisher {
    /// Runs until `stop` is cancelled, then publishes what it can within the flush deadline. What
    /// is left stays in the spool.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.settle().await;
            if self.flight.must_repeat() {
                self.repeat(&stop).await;
            } else if self.flight.in_flight() >= self.max_in_flight {
                self.wait_for_landing().await;
            } else {
                self.publish_next(&stop).await;
            }
        }
        self.drain().await;
    }

    async fn publish_next(&mut self, stop: &CancellationToken) {
        let flight = Arc::clone(&self.flight);
        let batch = tokio::select! {
            batch = self.reader.next(READ_REQUESTS, READ_BYTES, READ_WAIT) => batch,
            () = flight.landed.notified() => return,
            () = stop.cancelled() => return,
        };
        match batch {
            Ok(batch) => {
                for stored in batch {
                    self.publish(&stored, stop).await;
                }
            }
            Err(error) => {
                tracing::error!(%error, "spool cannot be read; trying again");
                tokio::time::sleep(READ_AGAIN).await;
            }
        }
    }

    async fn publish(&self, stored: &Stored, stop: &CancellationToken) {
        let normalised = self.decoder.normalise(&stored.request, Some(stored.position));
        normalised.count(stored.request.received_at_ms);
        self.flight.announce(
            stored.position,
            stored.request.received_at_ms,
            normalised.records.len(),
        );
        for record in normalised.records {
            self.send(Sent { request: stored.position, record }, stop).await;
        }
    }

    /// Hands one record over; a full queue is back-pressure.
    async fn send(&self, sent: Sent, stop: &CancellationToken) {
        loop {
            let token = self.flight.take_off(sent.clone());
            let reason = match self.producer.send(&sent.record, token) {
                Ok(()) => return,
                Err(EnqueueError::Permanent(reason)) => return self.flight.refuse(token, reason),
                Err(EnqueueError::QueueFull) => "queue_full",
                Err(EnqueueError::Unavailable(_)) => "unavailable",
            };
            self.flight.cancel(token);
            metrics::counter!(RETRIED.name, "reason" => reason).increment(1);
            if stop.is_cancelled() {
                // It stays in the spool: its request is not done.
                return;
            }
            let _ = tokio::time::timeout(PAUSE, self.flight.landed.notified()).await;
        }
    }

    async fn repeat(&self, stop: &CancellationToken) {
        let again = self.flight.take_again();
        if again.is_empty() {
            return self.wait_for_landing().await;
        }
        for sent in again {
            self.send(sent, stop).await;
        }
    }

    /// Confirms to the spool what has landed, and keeps what no topic takes.
    async fn settle(&mut self) {
        let Landed { done, refused } = self.flight.landed();
        for (sent, reason) in refused {
            self.put_away(&sent, &reason).await;
        }
        if done.is_empty() {
            return;
        }
        let now = now_ms();
        for landed in &done {
            let seconds = (now - landed.received_at_ms).max(0) as f64 / 1000.0;
            metrics::histogram!(PUBLISH_SECONDS.name).record(seconds);
        }
        metrics::gauge!(IN_FLIGHT.name).set(self.flight.in_flight() as f64);
        if let Some(delivery) = &self.delivery {
            delivery.probe_confirmed();
        }
        let positions: Vec<_> = done.iter().map(|landed| landed.request).collect();
        self.reader.confirm(&positions);
    }

    async fn put_away(&self, sent: &Sent, reason: &str) {
        loop {
            let (letters, sent, reason) =
                (Arc::clone(&self.dead_letters), sent.clone(), reason.to_owned());
            let request = sent.request;
            let kept =
                tokio::task::spawn_blocking(move || keep(&letters, sent.record, request, reason))
                    .await;
            match kept {
                Ok(Ok(())) => return self.flight.put_away(request),
                Ok(Err(error)) => tracing::error!(%error, "dead letter not kept; trying again"),
                Err(error) => tracing::error!(%error, "dead letter task failed; trying again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn wait_for_landing(&self) {
        let _ = tokio::time::timeout(PAUSE, self.flight.landed.notified()).await;
    }

    async fn drain(mut self) {
        if let Some(delivery) = &self.delivery {
            delivery.flush(self.flush_deadline).await;
        }
        if let Err(error) = self.producer.flush(self.flush_deadline).await {
            tracing::warn!(%error, left = self.flight.in_flight(), "not everything was published; the spool keeps it");
        }
        self.settle().await;
        // Writes the position once more, on a blocking thread.
        let reader = self.reader;
        let _ = tokio::task::spawn_blocking(move || reader.close()).await;
    }
}

/// Keeps a record that no topic will ever take. Blocks on the disk.
pub fn keep(
    letters: &DeadLetters,
    record: Outgoing,
    position: Position,
    reason: String,
) -> Result<(), SpoolError> {
    letters.append(&DeadLetter {
        topic: record.topic.to_string(),
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|(name, value)| (name.to_string(), value))
            .collect(),
        reason,
        position,
        refused_at_ms: now_ms(),
    })
}
