//! Opening a spool, and the handle that appends to it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::answers::Waiting;
use crate::catalog::{Catalog, DAMAGED, missing_before};
use crate::committer::Committer;
use crate::cursor::{Cursor, Lost, PATIENCE};
use crate::damaged;
use crate::disk::{DirLock, Disk};
use crate::error::{AppendError, During as _, SpoolError};
use crate::held::Held;
use crate::keeper::Keeper;
use crate::metrics as m;
use crate::position::PositionFile;
use crate::reader::Reader;
use crate::record::{Encoded, Position};
use crate::recovery::{self, LastSegment};
use crate::settings::Settings;
use crate::shared::{Clock, Shared, State};
use crate::tail::Tail;
use crate::window::Window;
use crate::writer::{Ended, Writer};

/// How to open a spool.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its settings.
    pub settings: Settings,
    /// Now, in microseconds since 1970: the new epoch, unless a higher one was used before.
    pub started_at_us: u64,
}

/// Takes requests and makes them durable. Clones share one log; the last one dropped closes it.
#[derive(Debug, Clone)]
pub struct Spool {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

/// How full a spool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// Bytes that the segments hold.
    pub bytes: u64,
    /// Their bound.
    pub max_bytes: u64,
    /// Requests stored and not confirmed.
    pub records: u64,
    /// When the oldest of them was received, milliseconds since 1970; of those not read since the
    /// start, when their segment was begun.
    pub oldest_unconfirmed_ms: Option<i64>,
    /// Bytes of requests that wait for their sync.
    pub queued_bytes: u64,
    /// Acknowledged requests found damaged since the start.
    pub damaged: u64,
    /// Segment files.
    pub segments: u64,
}

impl Usage {
    /// Whether 80 % of the bound is reached, and what is left is reserved.
    pub fn is_in_reserve(&self) -> bool {
        is_in_reserve(self.bytes + self.queued_bytes, self.max_bytes)
    }
}

/// Whether 80 % of a bound are taken.
pub(crate) fn is_in_reserve(bytes: u64, max_bytes: u64) -> bool {
    bytes.saturating_mul(5) >= max_bytes.saturating_mul(4)
}

impl Spool {
    /// Opens or creates a spool and begins a new epoch. A disk that takes no writes does not stop
    /// it: what is stored can be read and confirmed, and appending is tried again.
    pub fn open(options: Options, disk: Arc<dyn Disk>) -> Result<(Self, Reader), SpoolError> {
        let Options { settings, started_at_us } = options;
        settings.validate().map_err(SpoolError::Settings)?;
        let dir = settings.dir.clone();
        disk.create_dir(&dir).during_at("create directory", &dir)?;
        let lock = Arc::new(recovery::lock(&*disk, &dir)?);
        let damaged_dir = dir.join(DAMAGED);
        disk.create_dir(&damaged_dir).during_at("create directory", &damaged_dir)?;
        let mut catalog = Catalog::load(&*disk, &dir)?;
        for leftover in &catalog.leftovers {
            // It is made anew under the same name when it is needed.
            let _ = disk.remove(&dir.join(leftover));
        }
        let mut damage_keeper =
            damaged::Keeper::new(disk.clone(), &dir, settings.damaged_max_bytes);
        let last = recovery::mend_last(&*disk, &mut catalog, &mut damage_keeper)?;
        let highest_epoch = catalog.highest_epoch();
        let position = PositionFile::open(disk.clone(), &dir, &catalog.position);
        let clock = Clock::new((started_at_us / 1000) as i64);
        let (state, missing) = first_state(catalog, last);
        let start = state.window.end();
        let previous = last.map_or(Ended::default(), |last| last.as_predecessor());
        let segment_bytes = settings.segment_bytes;
        let shared = Arc::new(Shared::new(disk.clone(), settings, clock, state));
        if let Some(missing) = missing {
            shared.account(&missing);
        }
        let lowest_epoch = started_at_us.max(highest_epoch + 1);
        let writer = Writer::new(disk.clone(), dir, segment_bytes, previous, lowest_epoch);
        let mut committer = Committer::new(shared.clone(), writer);
        committer.start();
        shared.lock().report();
        let committer = spawn("spool-commit", lock.clone(), move || committer.run())?;
        let spool = Self {
            handle: Arc::new(Handle {
                shared: shared.clone(),
                committer: Mutex::new(Some(committer)),
            }),
        };
        let keeper = Keeper::new(shared.clone(), position);
        let keeper = spawn("spool-keep", lock, move || keeper.run())?;
        let cursor = Cursor::new(disk, Some(damage_keeper), start, PATIENCE);
        Ok((spool, Reader::new(shared, cursor, keeper)))
    }

    /// Appends a request. It is in the spool's hands when this returns: dropping the answer does
    /// not take it back. Never blocks on the disk.
    pub fn append(&self, request: Encoded) -> Append {
        match self.handle.shared.enqueue(request) {
            Ok(answer) => Append(Pending::Waits(answer)),
            Err(reason) => {
                metrics::counter!(m::REFUSED.name, "reason" => reason.reason()).increment(1);
                Append(Pending::Refused(reason))
            }
        }
    }

    /// How full it is. Cheap.
    pub fn usage(&self) -> Usage {
        self.handle.shared.usage()
    }

    /// Whether 80 % of its bound are in use, or of what may wait for the disk (`queue_bytes`). What
    /// is left is for requests that do not come again. Takes no lock: for every request.
    pub fn is_reserved(&self) -> bool {
        self.handle.shared.is_in_reserve() || self.handle.shared.is_queue_in_reserve()
    }

    /// Whether the disk takes writes: false after two failures in a row, until a probe succeeds.
    pub fn is_writable(&self) -> bool {
        self.handle.shared.lock().is_writable()
    }

    /// How long the disk has not done what it was asked to write; zero while nothing is asked of it.
    /// What waits for it is neither stored nor refused.
    pub fn disk_silence(&self) -> Duration {
        self.handle.shared.disk_silence()
    }

    /// Whether segments whose records are all confirmed may be removed; at first they may not:
    /// somebody has to say first that what they were published to can be trusted to keep it.
    pub fn set_allow_removal(&self, allowed: bool) {
        let shared = &self.handle.shared;
        // Under the lock: the keeper must not miss it on its way to sleep.
        let state = shared.lock();
        shared.allow_removal.store(allowed, Ordering::Release);
        drop(state);
        shared.progress.notify_all();
    }

    /// Takes nothing more, stores what is queued, and returns when that is done. Reading and
    /// confirming go on. Blocks: from async code call it on a blocking thread.
    pub fn close(&self) {
        self.handle.close();
    }
}

impl Handle {
    fn close(&self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_all();
        let mut committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = committer.take() {
            // It can only have panicked; then its waiters were told.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

/// The answer to an append: the request's position once it is synced. Once polled, poll it on or
/// drop it: others on the same thread may be woken by it.
#[derive(Debug)]
#[must_use = "the request is stored either way, but only the answer says so"]
pub struct Append(Pending);

#[derive(Debug)]
enum Pending {
    Waits(Waiting),
    Refused(AppendError),
}

impl Append {
    /// Waits on the calling thread; not for async code.
    pub fn wait(self) -> Result<Position, AppendError> {
        futures_executor::block_on(self)
    }
}

impl Future for Append {
    type Output = Result<Position, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Pending::Refused(reason) => Poll::Ready(Err(*reason)),
            Pending::Waits(waiting) => waiting.poll(context),
        }
    }
}

/// What is known before anything is written, and what is missing before the first segment.
pub(crate) fn first_state(catalog: Catalog, last: Option<LastSegment>) -> (State, Option<Lost>) {
    let start = catalog.start();
    let missing = catalog.segments.first().and_then(|first| {
        let sequences = missing_before(first, start)?;
        let segment = "(removed)".into();
        Some(Lost::of_missing_file(start.epoch, sequences, segment))
    });
    let behind = catalog.segments.first().map(|_| start);
    let evicted_last = last.map_or(Position::default(), |last| Position {
        epoch: last.ended.epoch,
        // Where the disk cannot say how far the last segment goes, it may go to any length.
        sequence: if last.unreadable {
            u64::MAX - 1
        } else {
            last.ended.last.max(last.ended.synced)
        },
    });
    let unconfirmed = catalog.unconfirmed() + missing.as_ref().map_or(0, Lost::count);
    let state = State {
        queue: std::collections::VecDeque::new(),
        queue_bytes: 0,
        filled: Arc::default(),
        closing: false,
        closed: false,
        failures_in_a_row: 0,
        held: Held::new(catalog.segments),
        tail: Tail::new(behind, evicted_last),
        window: Window::new(start),
        unconfirmed,
        damaged: 0,
        // What was read may never have been synced: it is written again before anything is removed.
        persisted: Position::default(),
        keeper_stops: false,
    };
    (state, missing)
}

/// Starts a thread that holds the directory's lock as long as it runs.
fn spawn(
    name: &str,
    lock: Arc<Box<dyn DirLock>>,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, SpoolError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            run();
            drop(lock);
        })
        .during("start a thread")
}
