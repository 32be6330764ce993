//! From the spool to the stream: decode, normalise, produce, confirm.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tollgate_spool::{DeadLetters, Reader, SpoolError, Stored};
use tollgate_stream::{EnqueueError, Outgoing, Producer};

use crate::decode::Decoder;
use crate::delivered::Delivery;
use crate::flight::{Flight, Landed, Sent};
use crate::metrics::{DEAD_LETTERS, IN_FLIGHT, PUBLISH_SECONDS, RETRIED};
use crate::receive::now_ms;

/// How long to wait before a send is tried again that the producer did not take, and before a
/// dead letter is tried again that the disk did not take.
const PAUSE: Duration = Duration::from_millis(20);

/// Requests read from the spool at a time.
const READ_REQUESTS: usize = 512;

/// Bytes read from the spool at a time.
const READ_BYTES: usize = 4 * 1024 * 1024;

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
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), SpoolError> {
        while !stop.is_cancelled() {
            self.settle().await?;
            if self.flight.must_repeat() {
                self.repeat(&stop).await;
            } else if self.flight.in_flight() >= self.max_in_flight {
                self.wait_for_landing().await;
            } else {
                self.publish_next(&stop).await?;
            }
        }
        self.drain().await
    }

    async fn publish_next(&mut self, stop: &CancellationToken) -> Result<(), SpoolError> {
        let flight = Arc::clone(&self.flight);
        let batch = tokio::select! {
            batch = self.reader.next(READ_REQUESTS, READ_BYTES) => batch?,
            () = flight.landed.notified() => return Ok(()),
            () = stop.cancelled() => return Ok(()),
        };
        for stored in batch {
            self.publish(&stored, stop).await;
        }
        Ok(())
    }

    async fn publish(&self, stored: &Stored, stop: &CancellationToken) {
        let normalised = self.decoder.normalise(&stored.request, Some(stored.position));
        normalised.count(stored.request.received_at_ms);
        self.flight.announce(stored.position, stored.request.received_at_ms, normalised.records.len());
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
    async fn settle(&mut self) -> Result<(), SpoolError> {
        let Landed { done, refused } = self.flight.landed();
        for (sent, reason) in refused {
            self.put_away(&sent, &reason).await;
        }
        if done.is_empty() {
            return Ok(());
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
        self.reader.confirm(&positions)
    }

    async fn put_away(&self, sent: &Sent, reason: &str) {
        loop {
            let (letters, sent, reason) =
                (Arc::clone(&self.dead_letters), sent.clone(), reason.to_owned());
            let request = sent.request;
            let kept =
                tokio::task::spawn_blocking(move || keep(&letters, &sent.record, &reason)).await;
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

    async fn drain(mut self) -> Result<(), SpoolError> {
        if let Err(error) = self.producer.flush(self.flush_deadline).await {
            tracing::warn!(%error, left = self.flight.in_flight(), "not everything was published; the spool keeps it");
        }
        self.settle().await
    }
}

/// Keeps a record that no topic will ever take, and says so.
pub fn keep(letters: &DeadLetters, record: &Outgoing, reason: &str) -> Result<(), SpoolError> {
    letters.append(&record.topic, &record.key, record.value.as_deref(), &headers(record), reason)?;
    metrics::counter!(DEAD_LETTERS.name, "topic" => record.topic.to_string()).increment(1);
    tracing::error!(topic = %record.topic, reason, bytes = record.size(), "record is refused for good; kept as a dead letter, see `tollgate spool inspect`");
    Ok(())
}

fn headers(record: &Outgoing) -> Vec<(String, Vec<u8>)> {
    record.headers.iter().map(|(name, value)| (name.to_string(), value.to_vec())).collect()
}
