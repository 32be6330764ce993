//! Records on their way from the spool to the stream: what is sent, what came back, what must go
//! again. Pure bookkeeping behind one lock; the producer's thread reports into it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tollgate_spool::Position as SpoolPosition;
use tollgate_stream::{Deliveries, DeliveryError, Outgoing, Position, Token};

use crate::meters::Published;
use crate::metrics::RETRIED;

/// All records of the publisher that are not confirmed.
#[derive(Default)]
pub struct Flight {
    state: Mutex<State>,
    /// Signalled whenever something has landed.
    pub landed: Notify,
    published: AtomicU64,
    meters: Published,
}

#[derive(Default)]
struct State {
    next_token: Token,
    /// Of what is flying or must go again.
    bytes: usize,
    /// Sent, not reported.
    flying: HashMap<Token, Sent>,
    /// Reported as not confirmed; in the order they were first sent.
    again: BTreeMap<Token, Sent>,
    /// Refused for good.
    refused: Vec<(Sent, String)>,
    /// Records left for each request of the spool.
    left: HashMap<SpoolPosition, Left>,
    done: Vec<Done>,
}

struct Left {
    records: usize,
    received_at_ms: i64,
    announced: Instant,
}

/// A request all of whose records are confirmed or kept as dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Its position in the spool.
    pub request: SpoolPosition,
    /// When it was received, milliseconds since 1970.
    pub received_at_ms: i64,
    /// How long its records took from being announced.
    pub took: Duration,
}

/// A record and the request it came from.
#[derive(Clone)]
pub struct Sent {
    /// Position of the request in the spool.
    pub request: SpoolPosition,
    /// The record.
    pub record: Arc<Outgoing>,
}

/// What has landed since the last look.
pub struct Landed {
    /// Requests that are done.
    pub done: Vec<Done>,
    /// Records that no topic will ever take; each must be kept and then reported by
    /// [`Flight::put_away`].
    pub refused: Vec<(Sent, String)>,
}

impl Flight {
    /// Announces a request and how many records it has. One without records is done at once.
    pub fn announce(&self, request: SpoolPosition, received_at_ms: i64, records: usize) {
        let mut state = self.lock();
        if records == 0 {
            state.done.push(Done { request, received_at_ms, took: Duration::ZERO });
        } else {
            let announced = Instant::now();
            state.left.insert(request, Left { records, received_at_ms, announced });
        }
    }

    /// Notes a record as sent, before it is, since the report may come at once.
    pub fn take_off(&self, sent: Sent) -> Token {
        let mut state = self.lock();
        let token = state.next_token;
        state.next_token += 1;
        state.bytes += sent.record.size();
        state.flying.insert(token, sent);
        token
    }

    /// Takes a record back that the producer did not take.
    pub fn cancel(&self, token: Token) {
        self.lock().land(token);
    }

    /// A record that the producer refuses at once and for good.
    pub fn refuse(&self, token: Token, reason: String) {
        let mut state = self.lock();
        if let Some(sent) = state.land(token) {
            state.refused.push((sent, reason));
        }
    }

    /// A refused record is kept elsewhere; its request waits for it no longer.
    pub fn put_away(&self, request: SpoolPosition) {
        self.lock().landed(request);
    }

    /// Records confirmed since the start.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Records sent and not reported.
    pub fn in_flight(&self) -> usize {
        self.lock().flying.len()
    }

    /// Whether there are as many records or bytes as may be at once.
    pub fn is_full(&self, max_records: usize, max_bytes: usize) -> bool {
        let state = self.lock();
        state.flying.len() + state.again.len() >= max_records || state.bytes >= max_bytes
    }

    /// Whether nothing is announced that is not done.
    pub fn is_empty(&self) -> bool {
        let state = self.lock();
        state.left.is_empty() && state.done.is_empty()
    }

    /// What must be sent again, in order, once nothing is in flight any more: sending earlier
    /// would let a record overtake its neighbours of the same session.
    pub fn take_again(&self) -> Vec<Sent> {
        let mut state = self.lock();
        if !state.flying.is_empty() {
            return Vec::new();
        }
        let again: Vec<Sent> = std::mem::take(&mut state.again).into_values().collect();
        state.bytes -= again.iter().map(|sent| sent.record.size()).sum::<usize>();
        again
    }

    /// Whether something waits to be sent again.
    pub fn must_repeat(&self) -> bool {
        !self.lock().again.is_empty()
    }

    /// What has landed since the last call.
    pub fn landed(&self) -> Landed {
        let mut state = self.lock();
        Landed {
            done: std::mem::take(&mut state.done),
            refused: std::mem::take(&mut state.refused),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves whole entries behind: each call changes one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a record out of the air.
    fn land(&mut self, token: Token) -> Option<Sent> {
        let sent = self.flying.remove(&token)?;
        self.bytes -= sent.record.size();
        Some(sent)
    }

    fn landed(&mut self, request: SpoolPosition) {
        let Some(left) = self.left.get_mut(&request) else { return };
        left.records -= 1;
        if left.records == 0 {
            let (received_at_ms, took) = (left.received_at_ms, left.announced.elapsed());
            self.left.remove(&request);
            self.done.push(Done { request, received_at_ms, took });
        }
    }
}

impl Deliveries for Flight {
    fn delivered(&self, token: Token, outcome: Result<Position, DeliveryError>) {
        let mut state = self.lock();
        let Some(sent) = state.land(token) else { return };
        // What is confirmed is given back to memory when the lock is free again.
        let mut confirmed = None;
        match outcome {
            Ok(_) => {
                state.landed(sent.request);
                confirmed = Some(sent);
            }
            Err(DeliveryError::Retry(_)) => {
                metrics::counter!(RETRIED.name, "reason" => "not_confirmed").increment(1);
                state.bytes += sent.record.size();
                state.again.insert(token, sent);
            }
            Err(DeliveryError::Permanent(reason)) => state.refused.push((sent, reason)),
        }
        drop(state);
        if let Some(sent) = confirmed {
            self.meters.count(&sent.record.topic);
            self.published.fetch_add(1, Ordering::Relaxed);
        }
        self.landed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(sequence: u64, name: &str) -> Sent {
        Sent {
            request: SpoolPosition { epoch: 1, sequence },
            record: Arc::new(Outgoing {
                topic: "cdrs".into(),
                key: name.to_owned().into(),
                value: None,
                headers: Vec::new(),
            }),
        }
    }

    fn done(flight: &Flight) -> Vec<SpoolPosition> {
        flight.landed().done.into_iter().map(|done| done.request).collect()
    }

    const STORED: Position = Position { partition: 0, offset: 0 };

    #[test]
    fn a_request_is_done_when_its_last_record_is_confirmed() {
        let flight = Flight::default();
        flight.announce(SpoolPosition { epoch: 1, sequence: 7 }, 0, 2);
        let first = flight.take_off(sent(7, "a"));
        let second = flight.take_off(sent(7, "b"));
        flight.delivered(second, Ok(STORED));
        assert!(done(&flight).is_empty());
        assert!(!flight.is_empty());
        flight.delivered(first, Ok(STORED));
        flight.delivered(first, Ok(STORED));
        assert_eq!(done(&flight), vec![SpoolPosition { epoch: 1, sequence: 7 }]);
        assert!(flight.is_empty());
    }

    #[test]
    fn what_failed_goes_again_in_the_old_order_and_only_when_all_has_landed() {
        let flight = Flight::default();
        let tokens: Vec<Token> = ["a", "b", "c"]
            .into_iter()
            .enumerate()
            .map(|(index, name)| {
                flight.announce(SpoolPosition { epoch: 1, sequence: index as u64 }, 0, 1);
                flight.take_off(sent(index as u64, name))
            })
            .collect();
        let failed = || Err(DeliveryError::Retry("broker gone".into()));
        flight.delivered(tokens[2], failed());
        flight.delivered(tokens[0], failed());
        assert!(flight.must_repeat());
        assert!(flight.take_again().is_empty(), "one is still in flight");
        flight.delivered(tokens[1], Ok(STORED));
        let names: Vec<_> =
            flight.take_again().into_iter().map(|sent| sent.record.key.clone()).collect();
        assert_eq!(names, vec!["a", "c"]);
    }

    #[test]
    fn a_refused_record_holds_its_request_until_it_is_put_away() {
        let flight = Flight::default();
        let request = SpoolPosition { epoch: 1, sequence: 1 };
        flight.announce(request, 0, 1);
        let token = flight.take_off(sent(1, "a"));
        flight.delivered(token, Err(DeliveryError::Permanent("too large".into())));
        let landed = flight.landed();
        assert!(landed.done.is_empty());
        assert_eq!(landed.refused.len(), 1);
        flight.put_away(request);
        assert_eq!(done(&flight), vec![request]);
    }

    #[test]
    fn what_flies_and_what_must_go_again_is_bounded_by_number_and_bytes() {
        let flight = Flight::default();
        flight.announce(SpoolPosition { epoch: 1, sequence: 1 }, 0, 1);
        let size = sent(1, "a").record.size();
        assert!(!flight.is_full(1, 1));
        let token = flight.take_off(sent(1, "a"));
        assert!(flight.is_full(1, size + 1) && flight.is_full(2, size));
        flight.delivered(token, Err(DeliveryError::Retry("broker gone".into())));
        assert!(flight.is_full(1, size + 1) && flight.is_full(2, size));
        let again = flight.take_again();
        assert!(!flight.is_full(1, 1));
        let token = flight.take_off(again[0].clone());
        flight.cancel(token);
        assert!(!flight.is_full(1, 1));
    }
}
