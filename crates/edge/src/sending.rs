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
use crate::flight::{Flight, Landed};
use crate::lanes::{Entry, Part};
use crate::metrics::RETRIED;

/// How long to wait for room in the producer's queue.
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
            let entry = self.flight.entry(Part { number, index }, &record);
            self.send(entry, &record).await;
        }
    }

    /// Sends again what was not confirmed, once its topic has rested, in the old order.
    pub async fn repeat(&mut self) {
        for due in self.flight.take_due() {
            for entries in due.chunk_by(|left, right| left.part.number == right.part.number) {
                self.send_again(entries).await;
            }
        }
    }

    /// Some records of one request and one topic.
    async fn send_again(&mut self, entries: &[Entry]) {
        let first = entries[0];
        if self.flight.holds_back(first) {
            return entries.iter().for_each(|entry| self.flight.hold_back(*entry));
        }
        let Some(stored) = self.flight.stored(first.part.number).cloned() else { return };
        let records = self.records(&stored);
        for entry in entries {
            self.send(*entry, &records[entry.part.index]).await;
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

    /// Hands one record over; a full queue is back-pressure, and what a topic does not take for the
    /// moment waits without holding up the others.
    async fn send(&mut self, entry: Entry, record: &Outgoing) {
        while !self.flight.holds_back(entry) {
            match self.flight.take_off(entry, |token| self.producer.send(record, token)) {
                Ok(()) => return,
                Err(EnqueueError::Permanent(reason)) => {
                    return self.flight.refuse(entry.part, reason);
                }
                Err(EnqueueError::Unavailable(_)) => {
                    metrics::counter!(RETRIED.name, "reason" => "unavailable").increment(1);
                    break;
                }
                Err(EnqueueError::QueueFull) => {
                    metrics::counter!(RETRIED.name, "reason" => "queue_full").increment(1);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        self.flight.hold_back(entry);
    }
}
