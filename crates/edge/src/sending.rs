//! Makes the records of requests and sends them, once or as often as it takes.
//!
//! A record lives only while it is handed to the producer, which copies it. What has to be sent
//! again, or is refused for good, is made again from its request: the same bytes make the same
//! records (I4), it happens rarely, and what waits for a confirmation is a request, not its records
//! beside it.

use std::sync::Arc;
use std::time::Duration;

use tollgate_spool::{Position, Stored};
use tollgate_stream::{EnqueueError, Outgoing, Producer};

use crate::decode::Decoder;
use crate::flight::{Flight, Landed, Part};
use crate::metrics::RETRIED;

/// How long to wait before a send is tried again that the producer did not take.
const PAUSE: Duration = Duration::from_millis(20);

/// How long to wait for news before the producer is asked for them.
const LOOK: Duration = Duration::from_millis(1);

/// A decoder, a producer, and what is on its way between the two.
pub struct Sending {
    decoder: Arc<Decoder>,
    producer: Arc<dyn Producer>,
    /// The books.
    pub flight: Flight,
}

/// A record that no topic takes, and the request it came from.
pub struct Refused {
    pub part: Part,
    pub record: Outgoing,
    pub request: Position,
    pub reason: String,
}

impl Sending {
    /// Nothing on its way yet.
    pub fn new(decoder: Arc<Decoder>, producer: Arc<dyn Producer>, flight: Flight) -> Self {
        Self { decoder, producer, flight }
    }

    /// What has landed since the last call.
    pub fn landed(&mut self) -> Landed {
        self.producer.poll();
        self.flight.landed()
    }

    /// Waits until something may have landed.
    pub async fn news(&self) {
        tokio::select! {
            () = self.flight.news() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }

    /// Sends all records of a request.
    pub async fn publish(&mut self, stored: Stored) {
        let request = stored.request();
        let normalised = self.decoder.normalise(&request, Some(stored.position));
        self.decoder.count(&normalised, &request);
        let number = self.flight.announce(stored, normalised.records.len());
        for (index, record) in normalised.records.into_iter().enumerate() {
            self.send(Part { number, index }, &record).await;
        }
    }

    /// Sends again what was not confirmed, in the old order, once nothing is in flight any more.
    pub async fn repeat(&mut self) {
        let again = self.flight.take_again();
        for parts in again.chunk_by(|left, right| left.number == right.number) {
            let Some(stored) = self.flight.stored(parts[0].number).cloned() else { continue };
            let records = self.records(&stored);
            for part in parts {
                self.send(*part, &records[part.index]).await;
            }
        }
    }

    /// What was refused for good since the last call, in full.
    pub fn refused(&self, refused: Vec<(Part, String)>) -> Vec<Refused> {
        let in_full = |(part, reason): (Part, String)| {
            let stored = self.flight.stored(part.number)?;
            let record = self.records(stored).swap_remove(part.index);
            Some(Refused { part, record, request: stored.position, reason })
        };
        refused.into_iter().filter_map(in_full).collect()
    }

    fn records(&self, stored: &Stored) -> Vec<Outgoing> {
        self.decoder.normalise(&stored.request(), Some(stored.position)).records
    }

    /// Hands one record over; a full queue is back-pressure.
    async fn send(&mut self, part: Part, record: &Outgoing) {
        loop {
            let send = |record: &Outgoing, token| self.producer.send(record, token);
            let taken = self.flight.take_off(part, record, send);
            let reason = match taken {
                Ok(()) => return,
                Err(EnqueueError::Permanent(reason)) => return self.flight.refuse(part, reason),
                Err(EnqueueError::QueueFull) => "queue_full",
                Err(EnqueueError::Unavailable(_)) => "unavailable",
            };
            metrics::counter!(RETRIED.name, "reason" => reason).increment(1);
            tokio::time::sleep(PAUSE).await;
        }
    }
}
