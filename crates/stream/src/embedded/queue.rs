//! What waits to be written, bounded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::format::{StoredGroup, StoredTopic};
use crate::{
    Deliveries, DeliveryError, EnqueueError, Outgoing, Position, RelayError, StreamError, Token,
};

/// Most bytes that wait, before producers are told that the queue is full.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// Most requests that wait.
const MOST_REQUESTS: usize = 100_000;
/// Bytes of records that make a group full; fewer where segments are smaller.
pub(super) const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// Something to be written.
pub(super) enum Request {
    Record(Pending),
    Transaction(Transaction),
    /// A topic or a registration.
    Control(Control),
    /// Answered when everything before it has been written or refused.
    Barrier(oneshot::Sender<()>),
}

/// A record and whom to tell.
pub(super) struct Pending {
    pub(super) record: Outgoing,
    pub(super) token: Token,
    pub(super) deliveries: Arc<dyn Deliveries>,
    pub(super) in_flight: Arc<AtomicUsize>,
    /// After this instant it is not written any more.
    pub(super) deadline: Option<Instant>,
}

impl Pending {
    pub(super) fn tell(self, outcome: Result<Position, DeliveryError>) {
        self.deliveries.delivered(self.token, outcome);
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Records that become visible together.
pub(super) struct Transaction {
    pub(super) records: Vec<Outgoing>,
    pub(super) id: String,
    pub(super) epoch: u64,
    pub(super) reply: oneshot::Sender<Result<(), RelayError>>,
    pub(super) deadline: Instant,
}

pub(super) struct Control {
    pub(super) topics: Vec<StoredTopic>,
    pub(super) groups: Vec<StoredGroup>,
    pub(super) forgotten: Vec<String>,
    pub(super) reply: oneshot::Sender<Result<(), StreamError>>,
}

impl Request {
    fn size(&self) -> usize {
        match self {
            Self::Record(pending) => pending.record.size() + 64,
            Self::Transaction(transaction) => {
                transaction.records.iter().map(|record| record.size() + 64).sum()
            }
            Self::Control(_) | Self::Barrier(_) => 64,
        }
    }

    /// Says that it was not written.
    pub(super) fn refuse(self, why: &str) {
        match self {
            Self::Record(pending) => pending.tell(Err(DeliveryError::Retry(why.to_owned()))),
            Self::Transaction(transaction) => {
                // Nobody waits when the relay was dropped meanwhile.
                let _ = transaction.reply.send(Err(RelayError::Abort(why.to_owned())));
            }
            Self::Control(control) => {
                let _ = control.reply.send(Err(StreamError::Transient(why.to_owned())));
            }
            Self::Barrier(reply) => {
                let _ = reply.send(());
            }
        }
    }

    /// Whether it must not wait for room: without it a new consumer could not register, and
    /// nobody would ever make room.
    pub(super) fn is_urgent(&self) -> bool {
        matches!(self, Self::Control(_) | Self::Barrier(_))
    }

    fn is_late(&self, now: Instant) -> bool {
        match self {
            Self::Record(pending) => pending.deadline.is_some_and(|deadline| deadline <= now),
            Self::Transaction(transaction) => transaction.deadline <= now,
            Self::Control(_) | Self::Barrier(_) => false,
        }
    }
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    bytes: usize,
    /// Progress was reported: a full log may have room again.
    nudged: bool,
    closed: bool,
}

/// The writer's inbox.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// What the writer gets.
pub(super) enum Work {
    Requests(Vec<Request>),
    /// Nothing came within the time.
    Idle,
    /// Somebody made progress.
    Nudged,
    Closed,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record that may wait its turn.
    pub(super) fn push_record(&self, pending: Pending) -> Result<(), EnqueueError> {
        let request = Request::Record(pending);
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(EnqueueError::Unavailable("embedded log is closed".to_owned()));
        }
        if waiting.requests.len() >= MOST_REQUESTS || waiting.bytes >= MOST_BYTES {
            return Err(EnqueueError::QueueFull);
        }
        // Counted before the writer can see it, so that the count never goes below zero.
        if let Request::Record(pending) = &request {
            pending.in_flight.fetch_add(1, Ordering::AcqRel);
        }
        Self::put(&mut waiting, request);
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes anything else; hands it back refused when the log is closed.
    pub(super) fn push(&self, request: Request) {
        let mut waiting = self.lock();
        if waiting.closed {
            drop(waiting);
            request.refuse("embedded log is closed");
            return;
        }
        Self::put(&mut waiting, request);
        drop(waiting);
        self.changed.notify_one();
    }

    fn put(waiting: &mut Waiting, request: Request) {
        waiting.bytes += request.size();
        waiting.requests.push_back(request);
    }

    pub(super) fn nudge(&self) {
        self.lock().nudged = true;
        self.changed.notify_one();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The next group's requests: at least one, and no more than `group_bytes` if there are
    /// several.
    pub(super) fn take(&self, patience: Duration, group_bytes: usize) -> Work {
        let mut waiting = self.lock();
        if waiting.requests.is_empty() && !waiting.closed {
            let idle = |waiting: &mut Waiting| {
                waiting.requests.is_empty() && !waiting.closed && !waiting.nudged
            };
            let result = self.changed.wait_timeout_while(waiting, patience, idle);
            waiting = result.unwrap_or_else(PoisonError::into_inner).0;
        }
        let nudged = std::mem::take(&mut waiting.nudged);
        if waiting.requests.is_empty() {
            return match (waiting.closed, nudged) {
                (true, _) => Work::Closed,
                (false, true) => Work::Nudged,
                (false, false) => Work::Idle,
            };
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(request) = waiting.requests.front() {
            let size = request.size();
            if bytes > 0 && bytes + size > group_bytes {
                break;
            }
            bytes += size;
            taken.extend(waiting.requests.pop_front());
        }
        waiting.bytes -= bytes;
        Work::Requests(taken)
    }

    /// Puts requests back to the front, in order.
    pub(super) fn put_back(&self, requests: Vec<Request>) {
        let mut waiting = self.lock();
        for request in requests.into_iter().rev() {
            waiting.bytes += request.size();
            waiting.requests.push_front(request);
        }
    }

    /// Waits while the log is full, until something changes or the time is over; refuses what
    /// has waited too long, and gives out what must not wait.
    pub(super) fn park(&self, patience: Duration, why: &str) -> Vec<Request> {
        let waiting = self.lock();
        let calm = |waiting: &mut Waiting| !waiting.closed && !waiting.nudged;
        let result = self.changed.wait_timeout_while(waiting, patience, calm);
        let mut waiting = result.unwrap_or_else(PoisonError::into_inner).0;
        waiting.nudged = false;
        let now = Instant::now();
        let closed = waiting.closed;
        let (mut late, mut urgent) = (Vec::new(), Vec::new());
        for request in std::mem::take(&mut waiting.requests) {
            if closed || request.is_late(now) {
                late.push(request);
            } else if request.is_urgent() {
                urgent.push(request);
            } else {
                waiting.requests.push_back(request);
            }
        }
        waiting.bytes = waiting.requests.iter().map(Request::size).sum();
        drop(waiting);
        for request in late {
            request.refuse(why);
        }
        urgent
    }
}
