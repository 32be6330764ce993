//! What the handle, the committer, the reader and the keeper share.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::answers::{Reply, Waiting, pair};
use crate::catalog::Segment;
use crate::cursor::{Lost, Segments};
use crate::disk::Disk;
use crate::error::AppendError;
use crate::held::Held;
use crate::metrics as m;
use crate::record::{Encoded, Position, Stored};
use crate::segment::Key;
use crate::settings::Settings;
use crate::spool::{Usage, is_in_reserve};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::tail::Tail;
use crate::window::Window;
use crate::writer::Written;

#[derive(Debug)]
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub settings: Settings,
    pub clock: Clock,
    state: Mutex<State>,
    /// Wakes the committer.
    pub work: Condvar,
    /// Wakes the keeper.
    pub progress: Condvar,
    /// Wakes the reader.
    pub arrived: Notify,
    pub allow_removal: AtomicBool,
    /// See [`State::filled`].
    filled: Arc<Filled>,
    /// When the committer asked the disk for what it has not done yet; 0 for nothing.
    disk_asked_ms: AtomicI64,
}

/// While this lives the committer waits for the disk.
pub(crate) struct AtDisk<'a>(&'a Shared);

impl Drop for AtDisk<'_> {
    fn drop(&mut self) {
        self.0.disk_asked_ms.store(0, Ordering::Relaxed);
        metrics::gauge!(m::DISK_ASKED.name).set(0.0);
    }
}

/// Milliseconds since 1970, counted on from the start by the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started_ms: i64,
    started: Instant,
}

impl Clock {
    pub fn new(started_ms: i64) -> Self {
        Self { started_ms, started: Instant::now() }
    }

    pub fn now_ms(&self) -> i64 {
        self.started_ms.saturating_add(self.started.elapsed().as_millis() as i64)
    }
}

/// A request that waits for its sync.
#[derive(Debug)]
pub(crate) struct Queued {
    pub request: Encoded,
    pub frame_len: u64,
    pub reply: Reply,
}

impl Queued {
    pub fn into_reply(self) -> Reply {
        self.reply
    }
}

/// How full it was at the last change. Every request asks for it, and must not wait for the lock only
/// to look.
#[derive(Debug, Default)]
pub(crate) struct Filled {
    /// Bytes that are stored or queued.
    bytes: AtomicU64,
    queue_bytes: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub queue: VecDeque<Queued>,
    pub queue_bytes: u64,
    pub filled: Arc<Filled>,
    pub closing: bool,
    /// The committer has ended; nothing will be written any more.
    pub closed: bool,
    pub failures_in_a_row: u32,
    pub held: Held,
    pub tail: Tail,
    pub window: Window,
    pub unconfirmed: u64,
    pub damaged: u64,
    /// Position as it stands on disk.
    pub persisted: Position,
    pub keeper_stops: bool,
}

impl Shared {
    pub fn new(disk: Arc<dyn Disk>, settings: Settings, clock: Clock, state: State) -> Self {
        metrics::gauge!(m::MAX_BYTES.name).set(settings.bound_bytes() as f64);
        let filled = Arc::clone(&state.filled);
        Self {
            disk,
            dir: settings.dir.clone(),
            settings,
            clock,
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: Condvar::new(),
            arrived: Notify::new(),
            allow_removal: AtomicBool::new(false),
            filled,
            disk_asked_ms: AtomicI64::new(0),
        }
    }

    pub fn at_disk(&self) -> AtDisk<'_> {
        self.disk_asked_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        // For those who compare it with their own clock, which is not this process' count.
        let asked = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics::gauge!(m::DISK_ASKED.name).set(asked.as_secs_f64());
        AtDisk(self)
    }

    pub fn disk_silence(&self) -> Duration {
        match self.disk_asked_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            asked => Duration::from_millis((self.clock.now_ms() - asked).max(0) as u64),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state as consistent as any other moment does: every
        // change under the lock is a few plain assignments.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts and names what is not there any more.
    pub fn account(&self, lost: &Lost) {
        let count = lost.count();
        let mut state = self.lock();
        state.unconfirmed = state.unconfirmed.saturating_sub(lost.counted);
        if lost.acknowledged {
            state.damaged += count;
        }
        if lost.len > 0 && lost.kept_as.is_none() {
            state.held.pin(&lost.segment, lost.acknowledged);
        }
        drop(state);
        let (first, last) = (lost.sequences.start(), lost.sequences.end());
        let kept_as = lost.kept_as.as_deref().unwrap_or("");
        let (epoch, segment) = (lost.epoch, &lost.segment);
        let received_at_ms = lost.time_ms.unwrap_or(0);
        if lost.acknowledged {
            metrics::counter!(m::DAMAGED.name).increment(count);
            tracing::error!(
                epoch,
                first,
                last,
                received_at_ms,
                segment,
                offset = lost.offset,
                kept_as,
                "spool: acknowledged requests are damaged on disk"
            );
        } else {
            metrics::counter!(m::UNACKNOWLEDGED.name).increment(count);
            tracing::warn!(
                epoch,
                first,
                last,
                received_at_ms,
                segment,
                offset = lost.offset,
                kept_as,
                "spool: unreadable bytes where no request was acknowledged"
            );
        }
    }

    /// Takes a request into the queue, or says why not.
    pub fn enqueue(&self, request: Encoded) -> Result<Waiting, AppendError> {
        let frame_len = crate::writer::Writer::frame_len(&request);
        let settings = &self.settings;
        if frame_len > settings.max_record_bytes() {
            return Err(AppendError::TooLarge);
        }
        let mut state = self.lock();
        if state.closing || state.closed {
            return Err(AppendError::Closing);
        }
        if !state.is_writable() {
            return Err(AppendError::Failed);
        }
        if state.queue_bytes + frame_len > settings.queue_bytes {
            return Err(AppendError::Overloaded);
        }
        if state.held.used_bytes() + state.queue_bytes + frame_len > settings.bound_bytes() {
            return Err(AppendError::Full);
        }
        let (reply, waiting) = pair();
        let first = state.queue.is_empty();
        state.queue_bytes += frame_len;
        state.queue.push_back(Queued { request, frame_len, reply });
        state.note_filled();
        drop(state);
        if first {
            self.work.notify_one();
        }
        Ok(waiting)
    }

    pub fn usage(&self) -> Usage {
        let state = self.lock();
        Usage {
            bytes: state.held.used_bytes(),
            max_bytes: self.settings.bound_bytes(),
            records: state.unconfirmed,
            oldest_unconfirmed_ms: state.oldest_ms(),
            queued_bytes: state.queue_bytes,
            damaged: state.damaged,
            segments: state.held.len() as u64,
        }
    }

    pub fn is_in_reserve(&self) -> bool {
        is_in_reserve(self.filled.bytes.load(Ordering::Relaxed), self.settings.bound_bytes())
    }

    pub fn is_queue_in_reserve(&self) -> bool {
        is_in_reserve(self.filled.queue_bytes.load(Ordering::Relaxed), self.settings.queue_bytes)
    }

    pub fn removal_allowed(&self) -> bool {
        self.allow_removal.load(Ordering::Acquire)
    }
}

impl Segments for Shared {
    fn after(&self, key: Option<Key>) -> Option<Segment> {
        self.lock().held.after(key).cloned()
    }

    fn get(&self, key: Key) -> Option<Segment> {
        self.lock().held.get(key).cloned()
    }
}

impl State {
    pub fn is_writable(&self) -> bool {
        self.failures_in_a_row < 2
    }

    /// Whether the one segment that is left holds nothing that is waited for. It goes when it has a
    /// successor.
    pub fn is_drained(&self) -> bool {
        self.held.is_single() && self.unconfirmed == 0 && self.tail.behind().is_none()
    }

    fn note_filled(&self) {
        self.filled.bytes.store(self.held.used_bytes() + self.queue_bytes, Ordering::Relaxed);
        self.filled.queue_bytes.store(self.queue_bytes, Ordering::Relaxed);
    }

    /// Shows the state in the metrics.
    pub fn report(&self) {
        self.note_filled();
        metrics::gauge!(m::DEPTH.name).set(self.unconfirmed as f64);
        metrics::gauge!(m::BYTES.name).set(self.held.used_bytes() as f64);
        metrics::gauge!(m::WRITABLE.name).set(f64::from(u8::from(self.is_writable())));
        let oldest = self.oldest_ms().map_or(0.0, |ms| ms as f64 / 1000.0);
        metrics::gauge!(m::AGE.name).set(oldest);
    }

    pub fn oldest_ms(&self) -> Option<i64> {
        if self.unconfirmed == 0 {
            return None;
        }
        let unread = || self.held.created_ms(self.tail.behind()?);
        self.window.oldest_ms().or_else(unread).or_else(|| self.tail.oldest_ms())
    }

    /// A record was read that nothing had told of.
    pub fn found(&mut self, position: Position) {
        self.unconfirmed += 1;
        self.held.found(position);
    }

    /// All that was on disk has been read.
    pub fn caught_up(&mut self) {
        self.tail.caught_up();
        self.held.ends_are_known();
    }

    /// A group is synced: readers may have it.
    pub fn committed(&mut self, group: Vec<Encoded>, written: Written, tail_bytes: u64) {
        self.held.grow(written.end);
        self.unconfirmed += group.len() as u64;
        for (sequence, encoded) in (written.first.sequence..).zip(group) {
            let position = Position { epoch: written.first.epoch, sequence };
            self.tail.push(Stored { position, encoded }, tail_bytes);
        }
        self.failures_in_a_row = 0;
    }

    /// Hands out records from memory, unless some before them are only on disk.
    pub fn take_tail(&mut self, max_records: usize, max_bytes: u64) -> Vec<Stored> {
        let taken = self.tail.take(max_records, max_bytes);
        for stored in &taken {
            self.window.serve(stored.position, stored.encoded.received_at_ms());
        }
        taken
    }
}
