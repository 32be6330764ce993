//! The reading end: one reader, in order, from memory or from disk.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cursor::{Cursor, Found};
use crate::error::{During as _, SpoolError};
use crate::metrics as m;
use crate::record::{Position, Stored};
use crate::shared::Shared;

/// Hands out what is stored, in order, each record once in its life; after a restart from the
/// lowest unconfirmed one on.
///
/// The memory of what was handed out and not confirmed is the caller's to bound. Dropping the
/// reader writes the position a last time and waits for that.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    core: Arc<Mutex<Core>>,
    keeper: Option<JoinHandle<()>>,
}

/// Confirms records, from any thread; clones are cheap.
#[derive(Debug, Clone)]
pub struct Confirmer {
    shared: Arc<Shared>,
}

/// What is needed to read from disk.
#[derive(Debug)]
pub(crate) struct Core {
    cursor: Cursor,
    /// Read from disk, and also still in memory: kept back in case memory lets it go.
    peeked: Option<Stored>,
    ready: VecDeque<Stored>,
    /// Where the window ends once `ready` is handed out: everything on disk was read.
    read_up_to: Option<Position>,
}

impl Core {
    pub fn new(cursor: Cursor) -> Self {
        Self { cursor, peeked: None, ready: VecDeque::new(), read_up_to: None }
    }

    /// Reads from disk until enough is ready or memory takes over.
    fn fill(
        &mut self,
        shared: &Shared,
        max_records: usize,
        max_bytes: u64,
    ) -> Result<(), SpoolError> {
        let mut bytes = 0;
        while self.ready.len() < max_records && bytes < max_bytes {
            let (behind, evicted_last) = {
                let state = shared.lock();
                (state.tail.behind(), state.tail.evicted_last())
            };
            let Some(behind) = behind else { return Ok(()) };
            self.cursor.skip_to(behind);
            let stored = match self.peeked.take().filter(|stored| stored.position >= behind) {
                Some(stored) => Some(stored),
                None => self.read(shared)?,
            };
            let mut state = shared.lock();
            match stored {
                Some(stored) if stored.position <= state.tail.evicted_last() => {
                    bytes += stored.encoded.weight();
                    self.ready.push_back(stored);
                }
                Some(stored) => {
                    // What memory has not let go comes from there.
                    self.peeked = Some(stored);
                    self.read_up_to = Some(state.tail.evicted_last().next());
                    state.caught_up();
                }
                // Everything that was on disk when this began is read.
                None if state.tail.evicted_last() == evicted_last => {
                    self.read_up_to = Some(evicted_last.next());
                    state.caught_up();
                }
                None => {}
            }
        }
        Ok(())
    }

    /// The next record on disk; what is lost on the way is accounted for.
    fn read(&mut self, shared: &Shared) -> Result<Option<Stored>, SpoolError> {
        loop {
            match self.cursor.next(shared) {
                Ok(Some(Found::Record { stored, counted })) => {
                    if !counted {
                        shared.lock().found(stored.position);
                    }
                    return Ok(Some(stored));
                }
                Ok(Some(Found::Lost(lost))) => shared.account(&lost),
                Ok(None) => return Ok(None),
                Err(error) => {
                    if let SpoolError::Io { source, .. } = &error {
                        m::disk_failed("read", "segment", source);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Hands out what was read from disk.
    fn take_ready(&mut self, shared: &Shared, max_records: usize, max_bytes: u64) -> Vec<Stored> {
        if self.ready.is_empty() && self.read_up_to.is_none() {
            return Vec::new();
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        let mut state = shared.lock();
        while taken.len() < max_records {
            let Some(next) = self.ready.front() else { break };
            bytes += next.encoded.weight();
            if bytes > max_bytes && !taken.is_empty() {
                break;
            }
            state.window.serve(next.position, next.encoded.received_at_ms());
            taken.extend(self.ready.pop_front());
        }
        if self.ready.is_empty()
            && let Some(position) = self.read_up_to.take()
        {
            state.window.skip_to(position);
            shared.progress.notify_all();
        }
        drop(state);
        metrics::counter!(m::SERVED.name, "from" => "disk").increment(taken.len() as u64);
        taken
    }
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, cursor: Cursor, keeper: JoinHandle<()>) -> Self {
        Self { shared, core: Arc::new(Mutex::new(Core::new(cursor))), keeper: Some(keeper) }
    }

    /// The next records in order: at least one if there is one within `wait`, at most
    /// `max_records`, and no more than fit into `max_bytes`, except that one always does. Empty
    /// when `wait` is over, or when the spool is closed and everything was handed out.
    ///
    /// Dropping the future loses nothing. An error leaves the reader where it is: call again
    /// after a pause.
    pub async fn next(
        &mut self,
        max_records: usize,
        max_bytes: u64,
        wait: Duration,
    ) -> Result<Vec<Stored>, SpoolError> {
        let max_records = max_records.max(1);
        let shared = self.shared.clone();
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let mut arrived = std::pin::pin!(shared.arrived.notified());
            // From here on no arrival is missed.
            arrived.as_mut().enable();
            if let Some(taken) = self.take_now(max_records, max_bytes) {
                if !taken.is_empty() {
                    return Ok(taken);
                }
                if shared.lock().closed || tokio::time::timeout_at(deadline, arrived).await.is_err()
                {
                    return Ok(Vec::new());
                }
                continue;
            }
            let (core, shared) = (self.core.clone(), self.shared.clone());
            let filled = tokio::task::spawn_blocking(move || {
                let mut core = core.lock().unwrap_or_else(PoisonError::into_inner);
                core.fill(&shared, max_records, max_bytes)
            });
            filled.await.map_err(std::io::Error::other).during("read a segment")??;
        }
    }

    /// As [`Reader::next`], without waiting for new records; reads from disk on the calling
    /// thread.
    pub fn next_blocking(
        &mut self,
        max_records: usize,
        max_bytes: u64,
    ) -> Result<Vec<Stored>, SpoolError> {
        let max_records = max_records.max(1);
        loop {
            if let Some(taken) = self.take_now(max_records, max_bytes) {
                return Ok(taken);
            }
            let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
            core.fill(&self.shared, max_records, max_bytes)?;
        }
    }

    /// What can be had without the disk; `None` when the disk has to be read first.
    fn take_now(&self, max_records: usize, max_bytes: u64) -> Option<Vec<Stored>> {
        // Held only by a read whose caller has gone: its result has to be waited for.
        let mut core = self.core.try_lock().ok()?;
        let taken = core.take_ready(&self.shared, max_records, max_bytes);
        drop(core);
        if !taken.is_empty() {
            return Some(taken);
        }
        let mut state = self.shared.lock();
        if state.tail.behind().is_some() {
            return None;
        }
        let taken = state.take_tail(max_records, max_bytes);
        drop(state);
        metrics::counter!(m::SERVED.name, "from" => "memory").increment(taken.len() as u64);
        Some(taken)
    }

    /// Confirms records, in any order; see [`Confirmer::confirm`].
    pub fn confirm(&self, positions: &[Position]) {
        confirm(&self.shared, positions);
    }

    /// A handle that confirms from other threads.
    pub fn confirmer(&self) -> Confirmer {
        Confirmer { shared: self.shared.clone() }
    }

    /// As [`Usage::is_in_reserve`](crate::Usage::is_in_reserve). Cheap.
    pub fn is_in_reserve(&self) -> bool {
        self.shared.is_in_reserve()
    }

    /// Whether the spool is closed and everything in it was handed out.
    pub fn is_exhausted(&self) -> bool {
        let Ok(core) = self.core.try_lock() else { return false };
        let state = self.shared.lock();
        state.closed && state.tail.is_empty() && core.ready.is_empty()
    }

    /// Writes the position a last time and ends. Blocks for one sync.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.lock().keeper_stops = true;
        self.shared.progress.notify_all();
        if let Some(keeper) = self.keeper.take() {
            // It can only have panicked, and then has nothing to say.
            let _ = keeper.join();
        }
    }
}

impl Confirmer {
    /// These records are published, or dealt with in another way: the spool need not keep them.
    /// In any order; a position that was not handed out, or is confirmed already, is ignored.
    /// Never blocks on the disk.
    pub fn confirm(&self, positions: &[Position]) {
        confirm(&self.shared, positions);
    }
}

fn confirm(shared: &Shared, positions: &[Position]) {
    let mut state = shared.lock();
    let mut confirmed = 0;
    for position in positions {
        confirmed += u64::from(state.window.confirm(*position));
    }
    if confirmed == 0 {
        return;
    }
    state.unconfirmed = state.unconfirmed.saturating_sub(confirmed);
    state.report();
    drop(state);
    metrics::counter!(m::CONFIRMED.name).increment(confirmed);
    shared.progress.notify_all();
}
