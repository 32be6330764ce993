//! Records on their way from the spool to the stream: what is sent, what came back, what must go
//! again. Pure bookkeeping of one publisher; the producer's thread only leaves its reports.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tollgate_spool::{Position as SpoolPosition, Stored};
use tollgate_stream::{Deliveries, DeliveryError, Outgoing, Position, Token};

use crate::lanes::{Entry, Lanes, Part};
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
    flying: Numbered<Entry>,
    /// What must go again.
    lanes: Lanes,
    /// Refused for good.
    refused: Vec<(Part, String)>,
    /// Requests that wait for records.
    waiting: Numbered<Waiting>,
    /// Those that wait for one that was held back: whatever overtakes them takes no memory.
    aside: BTreeMap<u64, Waiting>,
    done: Vec<Done>,
    /// When it was last looked; a clock for each record would take longer than its books.
    looked: Instant,
}

/// A request and what it waits for.
struct Waiting {
    stored: Stored,
    records: usize,
    announced: Instant,
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
            lanes: Lanes::default(),
            refused: Vec::new(),
            waiting: Numbered::new(),
            aside: BTreeMap::new(),
            done: Vec::new(),
            looked: Instant::now(),
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
        let waiting = self.waiting.get(number).or_else(|| self.aside.get(&number));
        waiting.map(|waiting| &waiting.stored)
    }

    /// Enters one of a request's records.
    pub fn entry(&mut self, part: Part, record: &Outgoing) -> Entry {
        self.lanes.entry(part, record)
    }

    /// Notes a record as sent once `send` has handed it over; its report is not looked at before.
    pub fn take_off<E>(
        &mut self,
        entry: Entry,
        send: impl FnOnce(Token) -> Result<(), E>,
    ) -> Result<(), E> {
        send(self.flying.next())?;
        self.bytes += entry.size;
        self.lanes.taken_off(entry);
        self.flying.push(entry);
        Ok(())
    }

    /// Whether records of its topic wait to go again, so that it has to wait behind them.
    pub fn holds_back(&self, entry: Entry) -> bool {
        self.lanes.holds_back(entry)
    }

    /// A record that can not be handed over for the moment.
    pub fn hold_back(&mut self, entry: Entry) {
        self.bytes += entry.size;
        self.lanes.hold_back(entry, self.looked);
        if let Some(waiting) = self.waiting.remove(entry.part.number) {
            self.aside.insert(entry.part.number, waiting);
        }
    }

    /// A record that the producer refuses at once and for good.
    pub fn refuse(&mut self, part: Part, reason: String) {
        self.refused.push((part, reason));
    }

    /// A refused record is kept elsewhere; its request waits for it no longer.
    pub fn put_away(&mut self, part: Part) {
        let number = part.number;
        let waiting = self.waiting.get_mut(number).or_else(|| self.aside.get_mut(&number));
        let Some(waiting) = waiting else { return };
        waiting.records -= 1;
        if waiting.records == 0 {
            let done = self.waiting.remove(number).or_else(|| self.aside.remove(&number));
            let Some(waiting) = done else { return };
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
        self.flying.len() + self.lanes.held_back() >= max_records
            || self.bytes >= max_bytes
            || self.held >= max_bytes as u64
            || overtaking >= max_records.saturating_mul(OVERTAKING)
    }

    /// Whether nothing is announced that is not done.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.aside.is_empty() && self.done.is_empty()
    }

    /// What must go again and may by now: of each topic all of it, in the order it was first sent.
    /// Each has to be sent or held back again.
    pub fn take_due(&mut self) -> Vec<Vec<Entry>> {
        let due = self.lanes.take_due(self.looked);
        self.bytes -= due.iter().flatten().map(|entry| entry.size).sum::<usize>();
        due
    }

    /// Takes the reports in; gives what has landed since the last call.
    pub fn landed(&mut self) -> Landed {
        let reports = Arc::clone(&self.reports);
        self.looked = Instant::now();
        for (token, outcome) in reports.take() {
            let Some(entry) = self.land(token) else { continue };
            match outcome {
                Ok(_) => {
                    self.lanes.confirmed(entry);
                    reports.published.fetch_add(1, Ordering::Relaxed);
                    self.put_away(entry.part);
                }
                Err(DeliveryError::Retry(_)) => {
                    metrics::counter!(RETRIED.name, "reason" => "not_confirmed").increment(1);
                    self.hold_back(entry);
                }
                Err(DeliveryError::Permanent(reason)) => self.refused.push((entry.part, reason)),
            }
        }
        Landed { done: std::mem::take(&mut self.done), refused: std::mem::take(&mut self.refused) }
    }

    /// Waits until there may be something to take in.
    pub async fn news(&self) {
        self.reports.came.notified().await;
    }

    /// Waits until something may go again that rests.
    pub async fn due(&self) {
        match self.lanes.next_due() {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Takes a record out of the air.
    fn land(&mut self, token: Token) -> Option<Entry> {
        let entry = self.flying.remove(token)?;
        self.bytes -= entry.size;
        self.lanes.landed(entry);
        Some(entry)
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
        let entry = flight.entry(Part { number, index }, &record("a"));
        taken_off(flight, entry)
    }

    fn taken_off(flight: &mut Flight, entry: Entry) -> Token {
        let mut given = None;
        let taken = flight.take_off(entry, |token| {
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

    fn failed() -> Outcome {
        Err(DeliveryError::Retry("broker gone".into()))
    }

    /// What is due once every topic has rested, by the requests' sequence numbers.
    fn due(flight: &mut Flight) -> Vec<u64> {
        flight.looked += Duration::from_mins(1);
        let due = flight.take_due();
        let sequence = |entry: &Entry| flight.stored(entry.part.number).unwrap().position.sequence;
        due.iter().flatten().map(sequence).collect()
    }

    #[test]
    fn what_failed_goes_again_in_the_old_order_and_only_when_all_of_its_topic_has_landed() {
        let (reports, mut flight) = flight();
        let tokens = [0, 1, 2].map(|sequence| {
            let number = flight.announce(stored(sequence), 1);
            take_off(&mut flight, number, 0)
        });
        reports.delivered(tokens[2], failed());
        reports.delivered(tokens[0], failed());
        assert!(done(&mut flight).is_empty());
        assert!(due(&mut flight).is_empty(), "one is still in flight");
        reports.delivered(tokens[1], Ok(STORED));
        assert_eq!(done(&mut flight).len(), 1);
        assert!(flight.take_due().is_empty(), "it has not rested");
        assert_eq!(due(&mut flight), vec![0, 2]);
    }

    #[test]
    fn a_topic_that_takes_nothing_holds_up_itself_alone() {
        let (reports, mut flight) = flight();
        let other = Outgoing { topic: "quarantine".into(), ..record("a") };
        for sequence in 0..3 {
            let number = flight.announce(stored(sequence), 2);
            let refused = flight.entry(Part { number, index: 0 }, &other);
            // The first is refused when it is handed over, the others wait behind it.
            assert_eq!(flight.holds_back(refused), sequence > 0);
            flight.hold_back(refused);
            let taken = flight.entry(Part { number, index: 1 }, &record("a"));
            assert!(!flight.holds_back(taken));
            reports.delivered(taken_off(&mut flight, taken), Ok(STORED));
        }
        assert!(done(&mut flight).is_empty(), "each waits for its other record");
        assert_eq!(due(&mut flight), vec![0, 1, 2]);
    }

    #[test]
    fn however_many_overtake_a_record_that_is_held_back_they_go_on() {
        let (reports, mut flight) = flight();
        let other = Outgoing { topic: "quarantine".into(), ..record("a") };
        let number = flight.announce(stored(0), 1);
        let refused = flight.entry(Part { number, index: 0 }, &other);
        flight.hold_back(refused);
        for sequence in 1..=3 * OVERTAKING as u64 {
            assert!(!flight.is_full(2, usize::MAX), "behind {sequence} requests");
            let number = flight.announce(stored(sequence), 1);
            let token = take_off(&mut flight, number, 0);
            reports.delivered(token, Ok(STORED));
            assert_eq!(done(&mut flight).len(), 1);
        }
        assert_eq!(due(&mut flight), vec![0]);
        let token = taken_off(&mut flight, refused);
        assert!(!flight.is_empty());
        reports.delivered(token, Ok(STORED));
        assert_eq!(done(&mut flight), vec![stored(0).position]);
        assert!(flight.is_empty());
    }

    #[test]
    fn a_topic_rests_longer_each_time_until_something_is_confirmed() {
        let (reports, mut flight) = flight();
        let number = flight.announce(stored(0), 1);
        let entry = flight.entry(Part { number, index: 0 }, &record("a"));
        let rest = |flight: &mut Flight| {
            flight.hold_back(entry);
            let rest = flight.lanes.next_due().unwrap() - flight.looked;
            assert_eq!(due(flight), vec![0]);
            rest
        };
        let rests: Vec<_> = (0..8).map(|_| rest(&mut flight).as_millis()).collect();
        assert_eq!(rests, vec![20, 40, 80, 160, 320, 640, 1000, 1000]);
        let number = flight.announce(stored(1), 1);
        reports.delivered(take_off(&mut flight, number, 0), Ok(STORED));
        assert_eq!(done(&mut flight).len(), 1);
        assert_eq!(rest(&mut flight).as_millis(), 20);
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
        reports.delivered(token, failed());
        assert!(done(&mut flight).is_empty());
        assert!(flight.is_full(1, size + 1) && flight.is_full(2, size));
        flight.looked += Duration::from_mins(1);
        let again = flight.take_due()[0][0];
        assert!(!flight.is_full(1, 1_000));
        assert!(flight.take_off(again, |_| Err("full")).is_err());
        assert!(!flight.is_full(1, 1_000), "what is not taken does not fly");
        flight.hold_back(again);
        assert!(flight.is_full(1, 1_000), "what is held back is held");
    }
}
