//! From the spool to the stream: prepare, produce, confirm.
//!
//! ```text
//!  spool ──read──▶ Preparing ──records──▶ Publisher ──▶ producer
//!    ▲                                        │ ▲          │
//!    └──────────────── confirm ───────────────┘ └── fates ─┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tollgate_spool::{Confirmer, DeadLetter, DeadLetters, Position, SpoolError};
use tollgate_stream::{EnqueueError, Outgoing, Producer};

use crate::delivered::Delivery;
use crate::flight::{Done, Flight, Landed, Sent};
use crate::metrics::{IN_FLIGHT, PUBLISH_SECONDS, RETRIED};
use crate::prepare::{Prepared, Preparing};
use crate::receive::now_ms;

/// How long to wait before a send is tried again that the producer did not take.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a confirmation may wait for company while there is nothing else to do.
const SETTLE: Duration = Duration::from_millis(5);

/// Requests sent before confirmations are looked at.
const BURST: usize = 64;

/// Pause after the disk refused a dead letter.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// Publishes what the spool holds, until told to stop.
pub struct Publisher {
    pub(crate) preparing: Preparing,
    pub(crate) confirmer: Confirmer,
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
        let reader = self.preparing.stop().await;
        let _ = tokio::task::spawn_blocking(move || reader.close()).await;
    }

    async fn publish_all(&mut self) {
        loop {
            self.settle().await;
            if self.flight.must_repeat() {
                self.repeat().await;
            } else if self.flight.is_full(self.max_in_flight, self.max_in_flight_bytes) {
                self.flight.news().await;
            } else if self.preparing.has_next() {
                self.publish_some().await;
            } else if !self.preparing.is_over() {
                self.fetch().await;
            } else if !self.flight.is_empty() {
                self.flight.news().await;
            } else {
                return;
            }
        }
    }

    async fn fetch(&mut self) {
        let flight = &self.flight;
        let some_landed = async {
            flight.news().await;
            // More will have by then.
            tokio::time::sleep(SETTLE).await;
        };
        tokio::select! {
            () = self.preparing.fetch() => {}
            () = some_landed => {}
        }
    }

    /// A burst, after which what has landed is looked at again.
    async fn publish_some(&mut self) {
        for _ in 0..BURST {
            if self.flight.is_full(self.max_in_flight, self.max_in_flight_bytes) {
                break;
            }
            let Some(prepared) = self.preparing.next() else { break };
            self.publish(prepared).await;
        }
        metrics::gauge!(IN_FLIGHT.name).set(self.flight.in_flight() as f64);
    }

    async fn publish(&mut self, prepared: Prepared) {
        let Prepared { request, received_at_ms, records } = prepared;
        let announced = self.flight.announce(request, received_at_ms, records.len());
        for record in records {
            send(&mut self.flight, self.producer.as_ref(), Sent::new(announced, record)).await;
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
            send(&mut self.flight, self.producer.as_ref(), sent).await;
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
        self.confirmer.confirm(&positions);
    }

    async fn put_away(&mut self, sent: &Sent, reason: &str) {
        loop {
            let (letters, record, reason) =
                (Arc::clone(&self.dead_letters), sent.record.clone(), reason.to_owned());
            let request = sent.of.request;
            let kept =
                tokio::task::spawn_blocking(move || keep(&letters, record, request, reason)).await;
            match kept {
                Ok(Ok(())) => return self.flight.put_away(sent.of),
                Ok(Err(error)) => tracing::error!(%error, "dead letter not kept; trying again"),
                Err(error) => tracing::error!(%error, "dead letter task failed; trying again"),
            }
            tokio::time::sleep(DISK_PAUSE).await;
        }
    }
}

/// Hands one record over; a full queue is back-pressure.
pub async fn send(flight: &mut Flight, producer: &dyn Producer, mut sent: Sent) {
    loop {
        let refusal = flight.take_off(sent, |record, token| producer.send(record, token));
        let Err((refused, reason)) = refusal else { return };
        let reason = match reason {
            EnqueueError::Permanent(reason) => return flight.refuse(refused, reason),
            EnqueueError::QueueFull => "queue_full",
            EnqueueError::Unavailable(_) => "unavailable",
        };
        sent = refused;
        metrics::counter!(RETRIED.name, "reason" => reason).increment(1);
        tokio::time::sleep(PAUSE).await;
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
