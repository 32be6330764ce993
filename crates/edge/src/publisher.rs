//! From the spool to the stream: decode, normalise, produce, confirm.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tollgate_spool::{DeadLetter, DeadLetters, Position, Reader, SpoolError, Stored};
use tollgate_stream::{EnqueueError, Outgoing, Producer};

use crate::decode::Decoder;
use crate::delivered::Delivery;
use crate::flight::{Done, Flight, Landed, Sent};
use crate::metrics::{IN_FLIGHT, PUBLISH_SECONDS, RETRIED};
use crate::receive::now_ms;

/// How long to wait before a send is tried again that the producer did not take.
const PAUSE: Duration = Duration::from_millis(20);

/// Requests read from the spool at a time.
const READ_REQUESTS: usize = 512;

/// Bytes read from the spool at a time.
const READ_BYTES: u64 = 4 * 1024 * 1024;

/// Longest wait for new requests; what lands meanwhile interrupts it.
const READ_WAIT: Duration = Duration::from_secs(5);

/// How long a confirmation may wait for company while there is nothing else to do.
const SETTLE: Duration = Duration::from_millis(5);

/// Requests sent before confirmations are looked at.
const BURST: usize = 64;

/// Pause after the spool's disk refused a read, or a dead letter.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// Publishes what the spool holds, until told to stop.
pub struct Publisher {
    pub(crate) reader: Reader,
    /// Read and not yet sent.
    pub(crate) pending: VecDeque<Stored>,
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) producer: Arc<dyn Producer>,
    pub(crate) flight: Flight,
    pub(crate) dead_letters: Arc<DeadLetters>,
    pub(crate) delivery: Option<Arc<Delivery>>,
    pub(crate) max_in_flight: usize,
    pub(crate) max_in_flight_bytes: usize,
    pub(crate) flush_deadline: Duration,
}

impl Publisher {
    /// Runs until the spool is closed and all of it is published, or until the flush deadline
    /// after `stop`. What is left then stays in the spool.
    pub async fn run(mut self, stop: CancellationToken) {
        let flush_deadline = self.flush_deadline;
        let too_late = async {
            stop.cancelled().await;
            tokio::time::sleep(flush_deadline).await;
        };
        tokio::select! {
            () = too_late => tracing::warn!("not everything was published; the spool keeps it"),
            () = self.publish_all() => {}
        }
        // What has landed meanwhile need not be published again.
        let done = self.flight.landed().done;
        self.confirm(&done);
        // Writes the position once more, on a blocking thread.
        let reader = self.reader;
        let _ = tokio::task::spawn_blocking(move || reader.close()).await;
    }

    async fn publish_all(&mut self) {
        loop {
            self.settle().await;
            if self.flight.must_repeat() {
                self.repeat().await;
            } else if self.flight.is_full(self.max_in_flight, self.max_in_flight_bytes) {
                self.flight.news().await;
            } else if !self.pending.is_empty() {
                self.publish_some().await;
            } else if !self.reader.is_exhausted() {
                self.read().await;
            } else if !self.flight.is_empty() {
                self.flight.news().await;
            } else {
                return;
            }
        }
    }

    async fn read(&mut self) {
        let flight = &self.flight;
        let some_landed = async {
            flight.news().await;
            // More will have by then.
            tokio::time::sleep(SETTLE).await;
        };
        let read = tokio::select! {
            read = self.reader.next(READ_REQUESTS, READ_BYTES, READ_WAIT) => read,
            () = some_landed => return,
        };
        match read {
            Ok(stored) => self.pending.extend(stored),
            Err(error) => {
                tracing::error!(%error, "spool cannot be read; trying again");
                tokio::time::sleep(DISK_PAUSE).await;
            }
        }
    }

    /// A burst, after which what has landed is looked at again.
    async fn publish_some(&mut self) {
        for _ in 0..BURST {
            if self.flight.is_full(self.max_in_flight, self.max_in_flight_bytes) {
                break;
            }
            let Some(stored) = self.pending.pop_front() else { break };
            self.publish(&stored).await;
        }
        metrics::gauge!(IN_FLIGHT.name).set(self.flight.in_flight() as f64);
    }

    async fn publish(&mut self, stored: &Stored) {
        let normalised = self.decoder.normalise(&stored.request, Some(stored.position));
        self.decoder.count(&normalised, &stored.request);
        self.flight.announce(
            stored.position,
            stored.request.received_at_ms,
            normalised.records.len(),
        );
        for record in normalised.records {
            self.send(Sent { request: stored.position, record: Arc::new(record) }).await;
        }
    }

    /// Hands one record over; a full queue is back-pressure.
    async fn send(&mut self, sent: Sent) {
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
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn repeat(&mut self) {
        let again = self.flight.take_again();
        if again.is_empty() {
            return self.flight.news().await;
        }
        // What was refused once in this moment is likely refused again in it.
        tokio::time::sleep(PAUSE).await;
        for sent in again {
            self.send(sent).await;
        }
    }

    /// Confirms to the spool what has landed, and keeps what no topic takes; more may be refused
    /// while that is written.
    async fn settle(&mut self) {
        loop {
            let Landed { done, refused } = self.flight.landed();
            self.confirm(&done);
            if refused.is_empty() {
                return;
            }
            for (sent, reason) in refused {
                self.put_away(&sent, &reason).await;
            }
        }
    }

    fn confirm(&self, done: &[Done]) {
        if done.is_empty() {
            return;
        }
        let now = now_ms();
        let publish_seconds = metrics::histogram!(PUBLISH_SECONDS.name);
        for landed in done {
            let seconds = (now - landed.received_at_ms).max(0) as f64 / 1000.0;
            publish_seconds.record(seconds);
        }
        metrics::gauge!(IN_FLIGHT.name).set(self.flight.in_flight() as f64);
        if let (Some(delivery), Some(fastest)) =
            (&self.delivery, done.iter().map(|landed| landed.took).min())
        {
            delivery.probe_confirmed(fastest);
        }
        let positions: Vec<_> = done.iter().map(|landed| landed.request).collect();
        self.reader.confirm(&positions);
    }

    async fn put_away(&mut self, sent: &Sent, reason: &str) {
        loop {
            let (letters, sent, reason) =
                (Arc::clone(&self.dead_letters), sent.clone(), reason.to_owned());
            let request = sent.request;
            let kept = tokio::task::spawn_blocking(move || {
                keep(&letters, Arc::unwrap_or_clone(sent.record), request, reason)
            })
            .await;
            match kept {
                Ok(Ok(())) => return self.flight.put_away(request),
                Ok(Err(error)) => tracing::error!(%error, "dead letter not kept; trying again"),
                Err(error) => tracing::error!(%error, "dead letter task failed; trying again"),
            }
            tokio::time::sleep(DISK_PAUSE).await;
        }
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
