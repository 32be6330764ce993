//! From the spool to the stream: read, send, confirm.
//!
//! ```text
//!  spool ──requests──▶ Publisher ──records──▶ producer
//!    ▲                    │  ▲                   │
//!    └───── confirm ──────┘  └────── fates ──────┘
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tollgate_spool::{Confirmer, DeadLetters, Reader, Stored};
use tollgate_stream::now_ms;

use crate::background::Haste;
use crate::dead_letters::keep;
use crate::delivered::Delivery;
use crate::flight::{Done, Landed};
use crate::metrics::{IN_FLIGHT, PUBLISH_SECONDS};
use crate::sending::{Refused, Sending};
use crate::settings::Settings;

/// How often it is looked what has landed while there is nothing else to do. The producer reports
/// to who looks, on this thread, which gives back there what was taken there.
const SETTLE: Duration = Duration::from_millis(5);

/// Requests sent before confirmations are looked at.
const BURST: usize = 64;

/// Requests read from the spool at a time.
const READ_REQUESTS: usize = 1024;

/// Bytes read from the spool at a time.
const READ_BYTES: u64 = 1024 * 1024;

/// Longest wait for new requests.
const READ_WAIT: Duration = Duration::from_secs(5);

/// Pause after the disk refused a read or a dead letter.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// Publishes what the spool holds, until told to stop.
pub struct Publisher {
    reader: Reader,
    /// Read and not sent: at most one reading.
    at_hand: VecDeque<Stored>,
    confirmer: Confirmer,
    sending: Sending,
    haste: Haste,
    dead_letters: Arc<DeadLetters>,
    delivery: Option<Arc<Delivery>>,
    max_in_flight: usize,
    max_in_flight_bytes: usize,
    flush_deadline: Duration,
}

impl Publisher {
    /// Nothing published yet.
    pub fn new(
        settings: &Settings,
        reader: Reader,
        sending: Sending,
        dead_letters: Arc<DeadLetters>,
        delivery: Option<Arc<Delivery>>,
    ) -> Self {
        Self {
            confirmer: reader.confirmer(),
            reader,
            at_hand: VecDeque::new(),
            sending,
            haste: Haste::default(),
            dead_letters,
            delivery,
            max_in_flight: settings.max_in_flight,
            max_in_flight_bytes: settings.max_in_flight_bytes,
            flush_deadline: Duration::from_millis(settings.flush_deadline_ms),
        }
    }

    /// What it says of itself to the threads it runs in.
    pub fn haste(&self) -> Haste {
        self.haste.clone()
    }

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
        let done = self.sending.landed().done;
        self.confirm(&done);
        // Writes the position once more, on a blocking thread.
        let reader = self.reader;
        let _ = tokio::task::spawn_blocking(move || reader.close()).await;
    }

    async fn publish_all(&mut self) {
        loop {
            // While there is room, answers come first; there is none for them without.
            self.haste.set(self.reader.is_in_reserve()).await;
            self.settle().await;
            self.sending.repeat().await;
            if self.is_full() {
                self.sending.news().await;
            } else if !self.at_hand.is_empty() {
                self.publish_some().await;
            } else if !self.reader.is_exhausted() {
                self.fetch().await;
            } else if !self.sending.flight.is_empty() {
                self.sending.news().await;
            } else {
                return;
            }
        }
    }

    fn is_full(&self) -> bool {
        self.sending.flight.is_full(self.max_in_flight, self.max_in_flight_bytes)
    }

    async fn fetch(&mut self) {
        let (reader, flight) = (&mut self.reader, &self.sending.flight);
        let read = async {
            match reader.next(READ_REQUESTS, READ_BYTES, READ_WAIT).await {
                Ok(stored) => stored,
                Err(error) => {
                    tracing::error!(%error, "spool cannot be read; trying again");
                    tokio::time::sleep(DISK_PAUSE).await;
                    Vec::new()
                }
            }
        };
        let time_to_look = async {
            if flight.in_flight() == 0 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(SETTLE).await;
        };
        tokio::select! {
            stored = read => self.at_hand.extend(stored),
            () = time_to_look => {}
            () = flight.due() => {}
        }
    }

    /// A burst, after which what has landed is looked at again.
    async fn publish_some(&mut self) {
        for _ in 0..BURST {
            if self.is_full() {
                break;
            }
            let Some(stored) = self.at_hand.pop_front() else { break };
            self.sending.publish(stored).await;
        }
        metrics::gauge!(IN_FLIGHT.name).set(self.sending.flight.in_flight() as f64);
    }

    /// Confirms to the spool what has landed, and keeps what no topic takes; more may be refused
    /// while that is written.
    async fn settle(&mut self) {
        loop {
            let Landed { done, refused } = self.sending.landed();
            self.confirm(&done);
            if refused.is_empty() {
                return;
            }
            for refused in self.sending.refused(refused) {
                self.put_away(&refused).await;
            }
        }
    }

    fn confirm(&self, done: &[Done]) {
        if done.is_empty() {
            return;
        }
        let now = now_ms();
        let publish_seconds = metrics::histogram!(PUBLISH_SECONDS.name);
        for same in done.chunk_by(|one, next| one.received_at_ms == next.received_at_ms) {
            let seconds = (now - same[0].received_at_ms).max(0) as f64 / 1000.0;
            publish_seconds.record_many(seconds, same.len());
        }
        metrics::gauge!(IN_FLIGHT.name).set(self.sending.flight.in_flight() as f64);
        if let (Some(delivery), Some(fastest)) =
            (&self.delivery, done.iter().map(|landed| landed.took).min())
        {
            delivery.probe_confirmed(fastest);
        }
        let positions: Vec<_> = done.iter().map(|landed| landed.request).collect();
        self.confirmer.confirm(&positions);
    }

    async fn put_away(&mut self, refused: &Refused) {
        loop {
            let Refused { part, record, request, reason } = refused;
            let (letters, record, reason) =
                (Arc::clone(&self.dead_letters), record.clone(), reason.clone());
            let request = *request;
            let kept =
                tokio::task::spawn_blocking(move || keep(&letters, record, request, reason)).await;
            match kept {
                Ok(Ok(())) => return self.sending.flight.put_away(*part),
                Ok(Err(error)) => tracing::error!(%error, "dead letter not kept; trying again"),
                Err(error) => tracing::error!(%error, "dead letter task failed; trying again"),
            }
            tokio::time::sleep(DISK_PAUSE).await;
        }
    }
}
