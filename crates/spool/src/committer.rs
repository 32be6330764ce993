//! The group commit: one thread takes everything that is queued, writes it at once, syncs once,
//! and answers all who wait.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::answers::{self, Reply};
use crate::error::AppendError;
use crate::metrics as m;
use crate::record::Position;
use crate::shared::{Queued, Shared, State};
use crate::writer::Writer;

/// What the thread does next.
enum Work {
    Commit(Vec<Queued>),
    /// Nothing is queued: say in the log what is synced.
    Mark,
    /// There is no segment to write to, or the disk has failed: look whether it works.
    Probe,
    Close,
}

pub(crate) struct Committer {
    shared: Arc<Shared>,
    writer: Writer,
    pace: Pace,
    /// Not before this moment is the disk tried for its own sake.
    next_probe: Instant,
}

/// How long to wait for company before a sync.
///
/// A lone request is synced at once. While there is company, syncs begin `interval` apart: each
/// costs processor time too, here and in those who are woken. On a disk that takes longer than
/// that, the next sync follows the last without a pause.
struct Pace {
    interval: Duration,
    last_began: Instant,
    last_group: usize,
}

impl Pace {
    fn ready_at(&self) -> Instant {
        if self.last_group < 2 { self.last_began } else { self.last_began + self.interval }
    }
}

/// Whatever ends the thread, nobody waits for it in vain.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if !state.closing {
            // Nobody told it to: nothing will be written any more.
            state.failures_in_a_row = u32::MAX;
        }
        state.closing = true;
        state.closed = true;
        let left = std::mem::take(&mut state.queue);
        state.queue_bytes = 0;
        state.report();
        drop(state);
        refuse_all(left.into_iter().map(Queued::into_reply), AppendError::Failed);
        self.0.arrived.notify_waiters();
        self.0.progress.notify_all();
    }
}

impl Committer {
    pub fn new(shared: Arc<Shared>, writer: Writer) -> Self {
        let interval = Duration::from_millis(shared.settings.commit_interval_ms);
        let now = Instant::now();
        let pace = Pace { interval, last_began: now, last_group: 0 };
        Self { shared, writer, pace, next_probe: now }
    }

    /// Runs until the spool is closed and the queue is empty.
    pub fn run(mut self) {
        let _ending = Ending(self.shared.clone());
        let shared = self.shared.clone();
        loop {
            let work = self.wait();
            let _at_disk = shared.at_disk();
            match work {
                Work::Commit(group) => self.commit(group),
                Work::Mark => {
                    self.mark(false);
                }
                Work::Probe => self.probe(),
                Work::Close => {
                    self.mark(true);
                    return;
                }
            }
        }
    }

    /// Makes the first segment. A disk that fails now is tried again later: what is stored
    /// already can be published meanwhile.
    pub fn start(&mut self) {
        let _ = self.new_segment();
    }

    fn wait(&mut self) -> Work {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        loop {
            let now = Instant::now();
            let ready_at = self.pace.ready_at();
            let mut wake_at = None;
            if state.queue.is_empty() {
                if state.closing {
                    return Work::Close;
                }
                if self.writer.wants_mark() && now >= ready_at {
                    return Work::Mark;
                }
                if self.writer.wants_mark() {
                    wake_at = Some(ready_at);
                }
                if !self.writer.is_open() || !state.is_writable() {
                    if now >= self.next_probe {
                        return Work::Probe;
                    }
                    wake_at = Some(self.next_probe);
                }
            } else if state.closing
                || now >= ready_at
                || state.queue_bytes >= shared.settings.group_bytes
            {
                return Work::Commit(take_group(&mut state, shared.settings.group_bytes));
            } else {
                wake_at = Some(ready_at);
            }
            state = if let Some(at) = wake_at {
                let pause = at.saturating_duration_since(now);
                let waited = shared.work.wait_timeout(state, pause);
                waited.unwrap_or_else(PoisonError::into_inner).0
            } else {
                shared.work.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// Stores a group, in as many segments as it takes.
    fn commit(&mut self, group: Vec<Queued>) {
        let mut rest = group.into_iter().peekable();
        while let Some(first) = rest.peek() {
            if first.frame_len > self.writer.room()
                && let Err(reason) = self.new_segment()
            {
                return refuse_all(rest.map(Queued::into_reply), reason);
            }
            let mut room = self.writer.room();
            let mut batch = Vec::new();
            while let Some(next) = rest.next_if(|next| next.frame_len <= room) {
                room -= next.frame_len;
                batch.push(next);
            }
            if batch.is_empty() {
                // Larger than an empty segment; refused when it was queued, so it cannot be.
                return refuse_all(rest.map(Queued::into_reply), AppendError::TooLarge);
            }
            if !self.write(batch) && self.new_segment().is_err() {
                return refuse_all(rest.map(Queued::into_reply), AppendError::Failed);
            }
        }
    }

    fn write(&mut self, batch: Vec<Queued>) -> bool {
        let (requests, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|queued| (queued.request, queued.reply)).unzip();
        let began = Instant::now();
        match self.writer.write(&requests) {
            Ok(written) => {
                let took = began.elapsed();
                let count = requests.len();
                (self.pace.last_began, self.pace.last_group) = (began, count);
                let mut state = self.shared.lock();
                state.committed(requests, written, self.shared.settings.tail_bytes);
                state.report();
                drop(state);
                metrics::histogram!(m::SYNC_SECONDS.name).record(took.as_secs_f64());
                metrics::histogram!(m::GROUP_RECORDS.name).record(count as f64);
                metrics::counter!(m::APPENDED.name).increment(count as u64);
                metrics::counter!(m::APPENDED_BYTES.name).increment(written.bytes);
                let sequences = written.first.sequence..;
                answers::answer_all(
                    sequences.zip(replies).map(|(sequence, reply)| {
                        (reply, Ok(Position { sequence, ..written.first }))
                    }),
                );
                self.shared.arrived.notify_one();
                true
            }
            Err(error) => {
                self.failed("write", &error);
                refuse_all(replies, AppendError::Failed);
                false
            }
        }
    }

    /// Creates the next segment, if the bound allows one.
    fn new_segment(&mut self) -> Result<(), AppendError> {
        let len = self.shared.settings.segment_bytes;
        let bound = self.shared.settings.bound_bytes();
        let state = self.shared.lock();
        if state.held.reserved_bytes() + len > bound && !state.is_drained() {
            return Err(AppendError::Full);
        }
        drop(state);
        let next = self.writer.next_sequence();
        match self.writer.open_segment(self.shared.clock.now_ms()) {
            Ok(opened) => {
                let mut state = self.shared.lock();
                state.held.seal(next);
                state.held.open(opened, len);
                drop(state);
                // A sealed segment may be due for removal.
                self.shared.progress.notify_all();
                Ok(())
            }
            Err(error) => {
                self.failed("create", &error);
                Err(AppendError::Failed)
            }
        }
    }

    /// The active segment is given up. Its records end before the sequence that failed.
    fn failed(&mut self, operation: &'static str, error: &std::io::Error) {
        m::disk_failed(operation, "segment", error);
        let probe_interval = Duration::from_millis(self.shared.settings.probe_interval_ms);
        self.next_probe = Instant::now() + probe_interval;
        let next = self.writer.next_sequence();
        let mut state = self.shared.lock();
        state.held.seal(next);
        state.failures_in_a_row = state.failures_in_a_row.saturating_add(1);
        if state.failures_in_a_row == 2 {
            tracing::error!(
                "spool: two disk failures in a row, not writable until a probe succeeds"
            );
        }
        state.report();
    }

    fn mark(&mut self, sync: bool) -> bool {
        let Err(error) = self.writer.mark(sync) else { return true };
        self.failed("write", &error);
        if !sync {
            let _ = self.new_segment();
        }
        false
    }

    fn probe(&mut self) {
        let probe_interval = Duration::from_millis(self.shared.settings.probe_interval_ms);
        self.next_probe = Instant::now() + probe_interval;
        // A segment is written and synced when it is made, and so is a mark in one that is there:
        // that is all that a group needs.
        let works =
            if self.writer.is_open() { self.mark(true) } else { self.new_segment().is_ok() };
        if works {
            let mut state = self.shared.lock();
            if !state.is_writable() {
                tracing::info!("spool: the disk takes writes again");
            }
            state.failures_in_a_row = 0;
            state.report();
        }
    }
}

fn take_group(state: &mut State, group_bytes: u64) -> Vec<Queued> {
    let mut group = Vec::new();
    let mut bytes = 0;
    while let Some(next) = state.queue.front() {
        bytes += next.frame_len;
        if bytes > group_bytes && !group.is_empty() {
            break;
        }
        state.queue_bytes -= next.frame_len;
        group.extend(state.queue.pop_front());
    }
    group
}

fn refuse_all(replies: impl IntoIterator<Item = Reply>, reason: AppendError) {
    answers::answer_all(replies.into_iter().map(|reply| {
        metrics::counter!(m::REFUSED.name, "reason" => reason.reason()).increment(1);
        (reply, Err(reason))
    }));
}

#[cfg(test)]
mod tests;
