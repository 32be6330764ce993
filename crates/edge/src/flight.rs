//! Records on their way from the spool to the stream: what is sent, what came back, what must go
//! again. Pure bookkeeping of one publisher; the producer's thread only leaves its reports.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tollgate_spool::{Position as SpoolPosition, Stored};
use tollgate_stream::{Deliveries, DeliveryError, Name, Outgoing, Position, Token};

use crate::meters::Published;
use crate::metrics::RETRIED;
use crate::numbered::Numbered;

type Outcome = Result<Position, DeliveryError>;

/// So many times `edge.max_in_flight` records, or requests, may have landed behind one that has not.
const OVERTAKING: usize = 10;

/// Where the producer's thread leaves its reports until the publisher looks. One short lock for
/// each, so that the two do not wait for each other.
#[derive(Default)]
pub struct Reports {
    inbox: Mutex<Vec<(Token, Outcome)>>,
    /// Signalled by the first report after a look.
    came: Notify,
    published: AtomicU64,
}

impl Reports {
    /// Records confirmed since the start, as far as the publisher has looked.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    fn take(&self) -> Vec<(Token, Outcome)> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Token, Outcome)>> {
        // A push is there or is not.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deliveries for Reports {
    fn delivered(&self, token: Token, outcome: Outcome) {
        let mut inbox = self.lock();
        inbox.push((token, outcome));
        let is_first = inbox.len() == 1;
        drop(inbox);
        if is_first {
            self.came.notify_one();
        }
    }
}

/// All records of a publisher that are not confirmed.
pub struct Flight {
    reports: Arc<Reports>,
    /// Of what is flying or must go again.
    bytes: usize,
    /// Of the requests that wait, which may be much more than their records.
    held: u64,
    /// Sent, not reported.
    flying: Numbered<Sent>,
    /// Reported as not confirmed; in the order they were first sent.
    again: BTreeMap<Token, Sent>,
    /// Refused for good.
    refused: Vec<(Part, String)>,
    /// Requests that wait for records.
    waiting: Numbered<Waiting>,
    done: Vec<Done>,
    /// When it was last looked; a clock for each record would take longer than its books.
    looked: Instant,
    meters: Published,
}

/// A request and what it waits for.
struct Waiting {
    stored: Stored,
    records: usize,
    announced: Instant,
}

/// A record, by its request and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Of the request, as [`Flight::announce`] gave it.
    pub number: u64,
    /// Among the request's records.
    pub index: usize,
}

/// A record that was handed over.
struct Sent {
    part: Part,
    topic: Name,
    /// What it takes of the bound on bytes.
    size: usize,
}

/// A request all of whose records are confirmed or kept as dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Its position in the spool.
    pub request: SpoolPosition,
    /// When it was received, milliseconds since 1970.
    pub received_at_ms: i64,
    /// How long its records took from being announced, from look to look.
    pub took: Duration,
}

/// What has landed since the last look.
pub struct Landed {
    /// Requests that are done.
    pub done: Vec<Done>,
    /// Records that no topic will ever take; each must be kept and then reported by
    /// [`Flight::put_away`].
    pub refused: Vec<(Part, String)>,
}

impl Flight {
    /// Nothing on its way yet.
    pub fn new(reports: Arc<Reports>) -> Self {
        Self {
            reports,
            bytes: 0,
            held: 0,
            flying: Numbered::new(),
            again: BTreeMap::new(),
            refused: Vec::new(),
            waiting: Numbered::new(),
            done: Vec::new(),
            looked: Instant::now(),
            meters: Published::default(),
        }
    }

    /// Announces a request and how many records it has; gives its number. One without records is
    /// done at once.
    pub fn announce(&mut self, stored: Stored, records: usize) -> u64 {
        let waiting = Waiting { stored, records, announced: self.looked };
        if records > 0 {
            self.held += waiting.stored.encoded.weight();
            return self.waiting.push(waiting);
        }
        self.done.push(waiting.done(self.looked));
        self.waiting.next()
    }

    /// A request that is not done.
    pub fn stored(&self, number: u64) -> Option<&Stored> {
        self.waiting.get(number).map(|waiting| &waiting.stored)
    }

    /// Notes a record as sent once `send` has handed it over; its report is not looked at before.
    pub fn take_off<E>(
        &mut self,
        part: Part,
        record: &Outgoing,
        send: impl FnOnce(&Outgoing, Token) -> Result<(), E>,
    ) -> Result<(), E> {
        send(record, self.flying.next())?;
        let sent = Sent { part, topic: record.topic.clone(), size: record.size() };
        self.bytes += sent.size;
        self.flying.push(sent);
        Ok(())
    }

    /// A record that the producer refuses at once and for good.
    pub fn refuse(&mut self, part: Part, reason: String) {
        self.refused.push((part, reason));
    }

    /// A refused record is kept elsewhere; its request waits for it no longer.
    pub fn put_away(&mut self, part: Part) {
        let Some(waiting) = self.waiting.get_mut(part.number) else { return };
        waiting.records -= 1;
        if waiting.records == 0 {
            let Some(waiting) = self.waiting.remove(part.number) else { return };
            self.held -= waiting.stored.encoded.weight();
            self.done.push(waiting.done(self.looked));
        }
    }

    /// Records sent and not reported.
    pub fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// Whether there are as many records or bytes as may be at once, or too many behind one that
    /// does not land: its partition may be away for hours, and what has overtaken it takes memory
    /// until it does.
    pub fn is_full(&self, max_records: usize, max_bytes: usize) -> bool {
        let overtaking = self.flying.span().max(self.waiting.span());
        self.flying.len() + self.again.len() >= max_records
            || self.bytes >= max_bytes
            || self.held >= max_bytes as u64
            || overtaking >= max_records.saturating_mul(OVERTAKING)
    }

    /// Whether nothing is announced that is not done.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.done.is_empty()
    }

    /// What must be sent again, in order, once nothing is in flight any more: sending earlier
    /// would let a record overtake its neighbours of the same session.
    pub fn take_again(&mut self) -> Vec<Part> {
        if !self.flying.is_empty() {
            return Vec::new();
        }
        let again = std::mem::take(&mut self.again);
        self.bytes -= again.values().map(|sent| sent.size).sum::<usize>();
        again.into_values().map(|sent| sent.part).collect()
    }

    /// Whether something waits to be sent again.
    pub fn must_repeat(&self) -> bool {
        !self.again.is_empty()
    }

    /// Takes the reports in; gives what has landed since the last call.
    pub fn landed(&mut self) -> Landed {
        let reports = Arc::clone(&self.reports);
        self.looked = Instant::now();
        for (token, outcome) in reports.take() {
            let Some(sent) = self.land(token) else { continue };
            match outcome {
                Ok(_) => {
                    self.meters.count(&sent.topic);
                    reports.published.fetch_add(1, Ordering::Relaxed);
                    self.put_away(sent.part);
                }
                Err(DeliveryError::Retry(_)) => {
                    metrics::counter!(RETRIED.name, "reason" => "not_confirmed").increment(1);
                    self.bytes += sent.size;
                    self.again.insert(token, sent);
                }
                Err(DeliveryError::Permanent(reason)) => self.refused.push((sent.part, reason)),
            }
        }
        Landed { done: std::mem::take(&mut self.done), refused: std::mem::take(&mut self.refused) }
    }

    /// Waits until there may be something to take in.
    pub async fn news(&self) {
        self.reports.came.notified().await;
    }

    /// Takes a record out of the air.
    fn land(&mut self, token: Token) -> Option<Sent> {
        let sent = self.flying.remove(token)?;
        self.bytes -= sent.size;
        Some(sent)
    }
}

impl Waiting {
    /// What is told of it in the end.
    fn done(&self, now: Instant) -> Done {
        Done {
            request: self.stored.position,
            received_at_ms: self.stored.encoded.received_at_ms(),
            took: now - self.announced,
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_spool::Request;

    use super::*;

    fn record(name: &str) -> Outgoing {
        Outgoing {
            topic: "cdrs".into(),
            key: name.to_owned().into(),
            value: None,
            headers: Vec::new(),
        }
    }

    fn stored(sequence: u64) -> Stored {
        let position = SpoolPosition { epoch: 1, sequence };
        Stored { position, encoded: Request::default().encode() }
    }

    /// Hands it to a producer that takes it.
    fn take_off(flight: &mut Flight, number: u64, index: usize) -> Token {
        let mut given = None;
        let taken = flight.take_off(Part { number, index }, &record("a"), |_, token| {
            given = Some(token);
            Ok::<_, ()>(())
        });
        assert!(taken.is_ok());
        given.unwrap()
    }

    fn done(flight: &mut Flight) -> Vec<SpoolPosition> {
        flight.landed().done.into_iter().map(|done| done.request).collect()
    }

    fn flight() -> (Arc<Reports>, Flight) {
        let reports = Arc::new(Reports::default());
        (Arc::clone(&reports), Flight::new(reports))
    }

    const STORED: Position = Position { partition: 0, offset: 0 };

    #[test]
    fn a_request_is_done_when_its_last_record_is_confirmed() {
        let (reports, mut flight) = flight();
        let number = flight.announce(stored(7), 2);
        let first = take_off(&mut flight, number, 0);
        let second = take_off(&mut flight, number, 1);
        reports.delivered(second, Ok(STORED));
        assert!(done(&mut flight).is_empty());
        assert!(!flight.is_empty());
        reports.delivered(first, Ok(STORED));
        reports.delivered(first, Ok(STORED));
        assert_eq!(done(&mut flight), vec![stored(7).position]);
        assert!(flight.is_empty());
    }

    #[test]
    fn what_failed_goes_again_in_the_old_order_and_only_when_all_has_landed() {
        let (reports, mut flight) = flight();
        let tokens = [0, 1, 2].map(|sequence| {
            let number = flight.announce(stored(sequence), 1);
            take_off(&mut flight, number, 0)
        });
        let failed = || Err(DeliveryError::Retry("broker gone".into()));
        reports.delivered(tokens[2], failed());
        reports.delivered(tokens[0], failed());
        assert!(done(&mut flight).is_empty());
        assert!(flight.must_repeat());
        assert!(flight.take_again().is_empty(), "one is still in flight");
        reports.delivered(tokens[1], Ok(STORED));
        assert_eq!(done(&mut flight).len(), 1);
        let again = flight.take_again();
        let sequences = again.iter().map(|part| flight.stored(part.number));
        let sequences: Vec<_> = sequences.map(|stored| stored.unwrap().position.sequence).collect();
        assert_eq!(sequences, vec![0, 2]);
    }

    #[test]
    fn a_refused_record_holds_its_request_until_it_is_put_away() {
        let (reports, mut flight) = flight();
        let number = flight.announce(stored(1), 1);
        let token = take_off(&mut flight, number, 0);
        reports.delivered(token, Err(DeliveryError::Permanent("too large".into())));
        let landed = flight.landed();
        assert!(landed.done.is_empty());
        assert_eq!(landed.refused.len(), 1);
        flight.put_away(landed.refused[0].0);
        assert_eq!(done(&mut flight), vec![stored(1).position]);
    }

    #[test]
    fn requests_are_bounded_by_what_they_hold_however_small_their_records_are() {
        let (reports, mut flight) = flight();
        let body = vec![b' '; 100_000];
        let position = SpoolPosition { epoch: 1, sequence: 0 };
        let encoded = Request { body: &body, ..Request::default() }.encode();
        let number = flight.announce(Stored { position, encoded }, 1);
        let token = take_off(&mut flight, number, 0);
        assert!(flight.is_full(2, 100_000) && !flight.is_full(2, 200_000));
        reports.delivered(token, Ok(STORED));
        assert_eq!(done(&mut flight).len(), 1);
        assert!(!flight.is_full(1, 1));
    }

    #[test]
    fn what_overtakes_a_record_that_does_not_land_is_bounded() {
        let (reports, mut flight) = flight();
        let number = flight.announce(stored(0), 1);
        let stuck = take_off(&mut flight, number, 0);
        for sequence in 1..OVERTAKING as u64 {
            assert!(!flight.is_full(1 + 1, usize::MAX), "{sequence} requests");
            let number = flight.announce(stored(sequence), 2);
            for index in 0..2 {
                let token = take_off(&mut flight, number, index);
                reports.delivered(token, Ok(STORED));
            }
            assert_eq!(done(&mut flight).len(), 1);
        }
        let number = flight.announce(stored(OVERTAKING as u64), 1);
        let token = take_off(&mut flight, number, 0);
        reports.delivered(token, Ok(STORED));
        assert_eq!(done(&mut flight).len(), 1);
        assert!(flight.is_full(2, usize::MAX));
        reports.delivered(stuck, Ok(STORED));
        assert_eq!(done(&mut flight).len(), 1);
        assert!(!flight.is_full(1, 1));
    }

    #[test]
    fn what_flies_and_what_must_go_again_is_bounded_by_number_and_bytes() {
        let (reports, mut flight) = flight();
        let number = flight.announce(stored(1), 1);
        let size = record("a").size();
        assert!(!flight.is_full(1, 1_000));
        let token = take_off(&mut flight, number, 0);
        assert!(flight.is_full(1, size + 1) && flight.is_full(2, size));
        reports.delivered(token, Err(DeliveryError::Retry("broker gone".into())));
        assert!(done(&mut flight).is_empty());
        assert!(flight.is_full(1, size + 1) && flight.is_full(2, size));
        let again = flight.take_again().remove(0);
        assert!(!flight.is_full(1, 1_000));
        assert!(flight.take_off(again, &record("a"), |_, _| Err("full")).is_err());
        assert!(!flight.is_full(1, 1_000), "what is not taken does not fly");
        take_off(&mut flight, again.number, again.index);
        assert!(flight.is_full(1, 1_000));
    }
}
