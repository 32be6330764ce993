//! The one thread that writes: a group of requests, one write, one sync, then the answers.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use tollgate_spool::disk::{DirLock, Disk};

use super::Shared;
use super::format::{BlockHead, GROUP, Group, GroupHead, put_group, put_record, read_group};
use super::queue::{Control, GROUP_BYTES, Pending, Request, Transaction, Work};
use super::segment::{Active, Frame};
use super::state::{Segment, State};
use crate::metrics as m;
use crate::partitioner::partition_of;
use crate::{DeliveryError, Outgoing, Position, RelayError, now_ms};

/// How soon after the last group a mark is written that it was synced, with what the consumers
/// have reported since.
const SETTLE: Duration = Duration::from_millis(200);
/// How long nothing is tried after the disk has failed.
const AFTER_FAILURE: Duration = Duration::from_millis(200);
/// How often a full log looks whether it still is.
const WHILE_FULL: Duration = Duration::from_millis(50);
/// Bytes of a segment that is begun for something else than records.
const SMALL_SEGMENT: u64 = 64 * 1024;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<dyn Disk>,
    /// `None` after a failure, until a new segment could be made.
    pub(super) active: Option<Active>,
    pub(super) next_number: u64,
    /// Records were written since the last mark.
    pub(super) unsettled: bool,
    /// Releases the directory when this thread ends.
    pub(super) _lock: Box<dyn DirLock>,
}

/// A group on its way, and who waits for it.
#[derive(Default)]
struct Draft {
    head: GroupHead,
    blocks: BTreeMap<(Arc<str>, i32), Block>,
    answers: Vec<Answer>,
    records: u64,
}

struct Block {
    base: i64,
    count: u32,
    bytes: Vec<u8>,
}

enum Answer {
    Record(Pending, Position),
    Request(Request),
}

enum Outcome {
    Done,
    /// There is no room, for this reason.
    Full(String),
    Failed(String),
}

impl Writer {
    pub(super) fn run(mut self) {
        let segment = self.shared.options.settings.segment_bytes as usize;
        let group_bytes = GROUP_BYTES.min(segment / 2);
        loop {
            match self.shared.queue.take(SETTLE, group_bytes) {
                Work::Requests(requests) => self.write(requests),
                Work::Idle | Work::Nudged => self.settle(),
                Work::Closed => break,
            }
        }
        self.settle();
        self.seal();
    }

    fn write(&mut self, requests: Vec<Request>) {
        let draft = self.draft(requests);
        if draft.is_empty() {
            return draft.succeed();
        }
        let (frame, group) = draft.frame(&self.shared.state());
        let begun = Instant::now();
        match self.store(&frame, &group, draft.records > 0) {
            Outcome::Done => {
                histogram!(m::EMBEDDED_SYNC_SECONDS.name).record(begun.elapsed());
                counter!(m::EMBEDDED_RECORDS.name).increment(draft.records);
                self.unsettled = true;
                self.shared.announce();
                draft.succeed();
            }
            Outcome::Full(why) => {
                let (mut urgent, waiting): (Vec<_>, Vec<_>) =
                    draft.into_requests().into_iter().partition(Request::is_urgent);
                self.shared.queue.put_back(waiting);
                urgent.extend(self.shared.queue.park(WHILE_FULL, &why));
                if !urgent.is_empty() {
                    // Without records it always fits.
                    self.write(urgent);
                }
            }
            Outcome::Failed(why) => {
                draft.fail(&why);
                for request in self.shared.queue.park(AFTER_FAILURE, &why) {
                    request.refuse(&why);
                }
            }
        }
    }

    /// Sorts requests into blocks, and answers those that cannot be written.
    fn draft(&self, requests: Vec<Request>) -> Draft {
        let state = self.shared.state();
        let mut draft = Draft::default();
        let now = Instant::now();
        let now_ms = now_ms();
        for request in requests {
            match request {
                Request::Record(pending) => {
                    if pending.deadline.is_some_and(|deadline| deadline <= now) {
                        pending.tell(Err(DeliveryError::Retry("deadline has passed".to_owned())));
                        continue;
                    }
                    match draft.add(&state, &pending.record, now_ms) {
                        Some(position) => draft.answers.push(Answer::Record(pending, position)),
                        None => pending.tell(Err(DeliveryError::Retry("no such topic".to_owned()))),
                    }
                }
                Request::Transaction(transaction) => draft.add_all(&state, transaction, now_ms),
                Request::Control(control) => {
                    draft.head.topics.extend(control.topics.iter().cloned());
                    draft.head.groups.extend(control.groups.iter().cloned());
                    draft.head.forgotten.extend(control.forgotten.iter().cloned());
                    draft.answers.push(Answer::Request(Request::Control(control)));
                }
                Request::Barrier(reply) => {
                    draft.answers.push(Answer::Request(Request::Barrier(reply)));
                }
            }
        }
        draft
    }

    /// Writes and syncs a frame, then takes the group in.
    fn store(&mut self, frame: &Frame, group: &Group, has_records: bool) -> Outcome {
        if self.active.as_ref().is_none_or(|active| active.room() < frame.len()) {
            match self.roll(frame.len(), has_records) {
                Outcome::Done => {}
                other => return other,
            }
        }
        let Some(active) = &mut self.active else {
            return Outcome::Failed("no segment can be made".to_owned());
        };
        match active.append(frame) {
            Ok(payload_at) => {
                let mut state = self.shared.state();
                for stored in &group.head.groups {
                    // What was reported after the frame was made is written with the next one.
                    if state.stored_group(&stored.name).as_ref() == Some(stored) {
                        state.dirty.remove(&stored.name);
                    }
                }
                state.apply(frame.sequence, group, &active.file, payload_at);
                state.trouble = None;
                Outcome::Done
            }
            Err(error) => {
                // Nothing is known about what stands behind the last group that was confirmed.
                self.seal();
                self.failed("write", &error)
            }
        }
    }

    /// Ends the segment and begins another one.
    fn roll(&mut self, needed: u64, has_records: bool) -> Outcome {
        // What is no record may exceed the bound, by little.
        let least =
            if has_records { self.shared.options.settings.segment_bytes } else { SMALL_SEGMENT };
        let size = needed.max(least);
        if has_records && let Err(why) = self.make_room(size) {
            return self.full(why);
        }
        self.seal();
        let dir = &self.shared.options.settings.dir;
        let head = self.shared.state().snapshot();
        let number = self.next_number;
        self.next_number += 1;
        match Active::create(&*self.disk, dir, number, &head, size, now_ms()) {
            Ok(active) => {
                let mut state = self.shared.state();
                state.segments.push_back(Segment {
                    file: Arc::clone(&active.file),
                    bytes: active.size,
                    ends: HashMap::new(),
                });
                gauge!(m::EMBEDDED_BYTES.name).set(state.bytes() as f64);
                drop(state);
                self.active = Some(active);
                Outcome::Done
            }
            Err(error) => self.failed("segment", &error),
        }
    }

    fn failed(&self, operation: &'static str, error: &io::Error) -> Outcome {
        counter!(m::EMBEDDED_FAILURES.name, "operation" => operation).increment(1);
        tracing::error!(operation, %error, "embedded log cannot be written; a new segment is tried");
        let why = format!("embedded log cannot be written: {error}");
        self.shared.state().trouble = Some(why.clone());
        Outcome::Failed(why)
    }

    fn full(&self, why: String) -> Outcome {
        let mut state = self.shared.state();
        if state.trouble.as_ref() != Some(&why) {
            counter!(m::EMBEDDED_FULL.name).increment(1);
            tracing::error!("{why}; publishing waits");
            state.trouble = Some(why.clone());
        }
        Outcome::Full(why)
    }

    /// Removes the oldest segments that every consumer has read, until `size` more bytes fit.
    /// Says why they do not.
    fn make_room(&self, size: u64) -> Result<(), String> {
        loop {
            let mut state = self.shared.state();
            if state.bytes() + size <= self.shared.options.settings.max_bytes {
                state.trouble = None;
                return Ok(());
            }
            let active = self.active.as_ref().map(|active| active.file.number);
            let oldest = state.segments.front().filter(|it| Some(it.file.number) != active);
            let Some(oldest) = oldest else { return Ok(()) };
            if let Some((group, partition)) = state.needed_by(oldest) {
                return Err(format!(
                    "embedded log is full; group {group} has not read {partition}, whose records \
                     are its oldest"
                ));
            }
            let path = oldest.file.path.clone();
            drop(state);
            tracing::info!(file = %path.display(), "embedded log drops its oldest segment");
            self.remove(&path).map_err(|error| {
                format!("embedded log is full; {} can not be removed: {error}", path.display())
            })?;
            self.shared.state().drop_oldest();
        }
    }

    fn remove(&self, segment: &Path) -> io::Result<()> {
        // What went before it is gone for good by then, so that the log never has a hole.
        self.disk.sync_dir(&self.shared.options.settings.dir)?;
        match self.disk.remove(segment) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Ends the segment, and gives back what stands behind its last group.
    fn seal(&mut self) {
        let Some(active) = self.active.take() else { return };
        if let Err(error) = active.file.file.set_len(active.position) {
            tracing::warn!(%error, "reserve of a segment can not be given back");
            return;
        }
        let mut state = self.shared.state();
        let mut segments = state.segments.iter_mut().rev();
        if let Some(segment) = segments.find(|it| it.file.number == active.file.number) {
            segment.bytes = active.position;
        }
    }

    /// Once it is quiet: a group without records says that all before it were synced and where
    /// the partitions end, so that damage to them is told from a torn end; with it goes the
    /// consumers' progress.
    fn settle(&mut self) {
        let mut draft = Draft::default();
        let state = self.shared.state();
        if !self.unsettled && state.dirty.is_empty() {
            return;
        }
        draft.head.topics = state.stored_topics();
        let (frame, group) = draft.frame(&state);
        drop(state);
        if self.active.as_ref().is_some_and(|active| active.room() >= frame.len()) {
            if let Outcome::Done = self.store(&frame, &group, false) {
                self.unsettled = false;
            }
        } else {
            // Not worth a segment of its own: the next group carries it.
            self.unsettled = false;
        }
    }
}

impl Drop for Writer {
    /// After a panic, too, everybody who waits is told, and nobody waits any more.
    fn drop(&mut self) {
        self.shared.queue.close();
        while let Work::Requests(requests) = self.shared.queue.take(Duration::ZERO, GROUP_BYTES) {
            for request in requests {
                request.refuse("embedded log is closed");
            }
        }
        self.shared.announce();
    }
}

impl Draft {
    fn is_empty(&self) -> bool {
        self.blocks.is_empty()
            && self.head.topics.is_empty()
            && self.head.groups.is_empty()
            && self.head.forgotten.is_empty()
    }

    fn add(&mut self, state: &State, record: &Outgoing, now_ms: i64) -> Option<Position> {
        let (name, topic) = state.topics.get_key_value(&*record.topic)?;
        let partition = partition_of(&record.key, topic.partitions.len() as i32);
        let log = topic.partitions.get(partition as usize)?;
        let key = (Arc::clone(name), partition);
        let block = self.blocks.entry(key).or_insert_with(|| Block {
            base: log.next,
            count: 0,
            bytes: Vec::new(),
        });
        let offset = block.base + i64::from(block.count);
        put_record(&mut block.bytes, record, now_ms);
        block.count += 1;
        self.records += 1;
        Some(Position { partition, offset })
    }

    fn add_all(&mut self, state: &State, transaction: Transaction, now_ms: i64) {
        // Only the present holder of the id may commit; decided here, in the order of writing.
        if state.relays.get(&transaction.id) != Some(&transaction.epoch) {
            let _ = transaction.reply.send(Err(RelayError::Fenced));
            return;
        }
        if transaction.records.iter().any(|record| !state.topics.contains_key(&*record.topic)) {
            return Request::Transaction(transaction).refuse("no such topic");
        }
        for record in &transaction.records {
            // Cannot be missing: all topics were looked up just now.
            let _ = self.add(state, record, now_ms);
        }
        self.answers.push(Answer::Request(Request::Transaction(transaction)));
    }

    /// The frame of this group, with the progress that was reported meanwhile.
    fn frame(&self, state: &State) -> (Frame, Group) {
        let mut head = self.head.clone();
        head.groups.extend(state.dirty.iter().filter_map(|name| state.stored_group(name)));
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for ((topic, partition), block) in &self.blocks {
            head.blocks.push(BlockHead {
                topic: topic.to_string(),
                partition: *partition,
                base_offset: block.base,
                count: block.count,
                len: block.bytes.len() as u32,
                crc: crc32c::crc32c(&block.bytes),
            });
            blocks.push(block.bytes.as_slice());
        }
        let mut payload = Vec::new();
        let blocks_at = put_group(&mut payload, &head, &blocks);
        debug_assert!(read_group(&payload).is_some());
        let frame = Frame {
            kind: GROUP,
            sequence: state.sequence + 1,
            // Every group is synced before the next is written.
            synced: state.sequence,
            time_ms: now_ms(),
            payload,
        };
        (frame, Group { head, blocks_at })
    }

    fn succeed(self) {
        for answer in self.answers {
            match answer {
                Answer::Record(pending, position) => pending.tell(Ok(position)),
                Answer::Request(Request::Transaction(Transaction { reply, .. })) => {
                    let _ = reply.send(Ok(()));
                }
                Answer::Request(Request::Control(Control { reply, .. })) => {
                    let _ = reply.send(Ok(()));
                }
                Answer::Request(request) => request.refuse(""),
            }
        }
    }

    fn fail(self, why: &str) {
        for request in self.into_requests() {
            request.refuse(why);
        }
    }

    fn into_requests(self) -> Vec<Request> {
        self.answers
            .into_iter()
            .map(|answer| match answer {
                Answer::Record(pending, _) => Request::Record(pending),
                Answer::Request(request) => request,
            })
            .collect()
    }
}
