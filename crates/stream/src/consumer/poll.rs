//! The poll loop: owns the `Consumer`, hands records to partition tasks, and never waits long.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use metrics::counter;
use tokio::sync::{OnceCell, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::backoff::Backoff;
use super::partition::{FromPartition, Load, News, PartitionTask, ToPartition, size_of};
use super::status::PartitionState;
use super::watched::Watched;
use super::{ConsumerError, Context, StopReason};
use crate::metrics as m;
use crate::{Consumer, Decode, Event, Incoming, Source, Store, StreamError, TopicPartition};

/// Longest poll while all is calm: how late a stop or a task's news may be noticed.
const CALM: Duration = Duration::from_millis(100);
/// Longest poll while a partition waits for the loop.
const BUSY: Duration = Duration::from_millis(5);
/// How often gauges are set and ends are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long the end of the whole consumer may take, twice: tasks, then the group.
const CLOSING: Duration = Duration::from_secs(10);
/// A partition holds this many batches before its delivery is paused; half of it resumes it.
const BATCHES_AHEAD: usize = 4;

/// A partition that the group assigns to this process.
struct Slot {
    generation: u64,
    phase: Phase,
    inbox: mpsc::UnboundedSender<ToPartition>,
    cancel: CancellationToken,
    /// The task ends with its slot, also when the loop itself is dropped.
    _guard: DropGuard,
    load: Arc<Load>,
    paused: bool,
}

enum Phase {
    /// The task fences it and finds out where to go on.
    Fencing,
    /// To be started there, not before this instant.
    Starting { offset: i64, after: Instant },
    /// Records flow.
    Running,
    /// Lost; to be taken over again at this instant.
    Resting { until: Instant },
    /// Waits for a person.
    Stopped,
}

pub(super) struct PollLoop<S: Store + ?Sized, D> {
    context: Arc<Context<S, D>>,
    cluster_id: String,
    consumer: Box<Watched>,
    slots: HashMap<TopicPartition, Slot>,
    generations: u64,
    news: mpsc::UnboundedReceiver<FromPartition>,
    sender: mpsc::UnboundedSender<FromPartition>,
    tasks: TaskTracker,
    backoff: Backoff,
    /// Bytes of a record as seen lately: bounds how many one poll asks for.
    usual_bytes: usize,
    next_look: Instant,
    look_at: usize,
    /// Asks where some partitions end.
    looking: AbortOnDropHandle<()>,
    /// A reason that ends the whole consumer.
    fatal: Option<ConsumerError>,
}

impl<S, D> PollLoop<S, D>
where
    S: Store + ?Sized,
    D: Decode<Item = S::Item>,
{
    pub(super) fn new(
        context: Arc<Context<S, D>>,
        cluster_id: String,
        consumer: Box<dyn Consumer>,
    ) -> Self {
        let (sender, news) = mpsc::unbounded_channel();
        Self {
            backoff: context.backoff(),
            context,
            cluster_id,
            consumer: Box::new(Watched::new(consumer)),
            slots: HashMap::new(),
            generations: 0,
            news,
            sender,
            tasks: TaskTracker::new(),
            usual_bytes: 1024,
            next_look: Instant::now(),
            look_at: 0,
            looking: AbortOnDropHandle::new(tokio::spawn(async {})),
            fatal: None,
        }
    }

    pub(super) async fn run(mut self, shutdown: &CancellationToken) -> Result<(), ConsumerError> {
        while self.fatal.is_none() {
            tokio::select! {
                biased;
                // Also while the client of the cluster does not come back from a call.
                () = shutdown.cancelled() => break,
                () = self.step(shutdown) => {}
            }
        }
        self.close().await
    }

    async fn step(&mut self, shutdown: &CancellationToken) {
        self.hear().await;
        self.start().await;
        self.reclaim();
        self.balance().await;
        self.look().await;
        let (size, wait) = (self.poll_size(), self.poll_wait());
        match self.consumer.next(size, wait).await {
            Ok(event) => self.on_event(event),
            Err(error) => self.on_error(error, shutdown).await,
        }
    }

    /// How many records to ask for: about a batch's worth of bytes.
    fn poll_size(&self) -> usize {
        let settings = self.context.settings();
        (settings.batch_bytes / self.usual_bytes.max(1)).clamp(1, settings.batch_records)
    }

    fn poll_wait(&self) -> Duration {
        let waiting = self.slots.values().any(|slot| {
            slot.paused || matches!(slot.phase, Phase::Fencing | Phase::Starting { .. })
        });
        if waiting { BUSY } else { CALM }
    }

    fn on_event(&mut self, event: Event) {
        self.backoff.reset();
        self.context.board.stream_works();
        match event {
            Event::Idle => {}
            Event::Assigned(partitions) => {
                let mut counts: HashMap<Arc<str>, Arc<OnceCell<i32>>> = HashMap::new();
                for partition in partitions {
                    let count = counts.entry(Arc::clone(&partition.topic)).or_default();
                    let count = Arc::clone(count);
                    self.begin(partition, count);
                }
            }
            Event::Revoked(partitions) => {
                for partition in partitions {
                    self.end(&partition);
                }
            }
            Event::Records(records) => self.hand_out(records),
        }
    }

    async fn on_error(&mut self, error: StreamError, shutdown: &CancellationToken) {
        self.context.board.stream_error(&error);
        match error {
            StreamError::Fatal(_) => self.fatal = Some(ConsumerError::Stream(error)),
            // Look again: whether anything was lost is decided where a partition starts.
            StreamError::OffsetOutOfRange { partition, .. } => {
                let rest = self.backoff.next();
                self.rest(&partition, rest).await;
            }
            StreamError::Transient(_) | StreamError::Refused(_) => {
                self.backoff.wait(shutdown).await;
            }
        }
    }

    /// Starts the task of a partition that was just assigned, or is to be tried again.
    fn begin(&mut self, partition: TopicPartition, count: Arc<OnceCell<i32>>) {
        self.generations += 1;
        let generation = self.generations;
        let (inbox, receiver) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let load = Arc::new(Load::default());
        self.context.board.begin(&partition, generation);
        let task = PartitionTask {
            context: Arc::clone(&self.context),
            source: Source {
                group: self.context.group.to_string(),
                cluster_id: self.cluster_id.clone(),
                partition: partition.clone(),
            },
            generation,
            partitions: count,
            inbox: receiver,
            outbox: self.sender.clone(),
            cancel: cancel.clone(),
            load: Arc::clone(&load),
        };
        let (sender, ended) = (self.sender.clone(), partition.clone());
        let rest = Duration::from_millis(self.context.settings().reclaim_after_ms);
        self.tasks.spawn(async move {
            // A defect must not leave a partition that looks as if it ran.
            if AssertUnwindSafe(task.run()).catch_unwind().await.is_err() {
                let news = News::Lost { rest };
                let _ = sender.send(FromPartition { partition: ended, generation, news });
            }
        });
        let slot = Slot {
            generation,
            phase: Phase::Fencing,
            inbox,
            _guard: cancel.clone().drop_guard(),
            cancel,
            load,
            paused: false,
        };
        self.slots.insert(partition, slot);
    }

    fn end(&mut self, partition: &TopicPartition) {
        self.slots.remove(partition);
        self.context.board.end(partition);
    }

    fn hand_out(&mut self, records: Vec<Incoming>) {
        let largest = records.iter().map(size_of).max().unwrap_or(0);
        // Up at once, down slowly.
        self.usual_bytes = largest.max(self.usual_bytes - self.usual_bytes / 16);
        let mut shares: HashMap<TopicPartition, Vec<Incoming>> = HashMap::new();
        for record in records {
            match shares.get_mut(&record.partition) {
                Some(share) => share.push(record),
                None => {
                    shares.insert(record.partition.clone(), vec![record]);
                }
            }
        }
        for (partition, share) in shares {
            let Some(slot) = self.slots.get(&partition) else { continue };
            if let (Phase::Running, Some(last)) = (&slot.phase, share.last()) {
                self.context.board.end_is(&partition, last.offset + 1);
                slot.load.add(&share);
                // A task that has just ended says so by its news.
                let _ = slot.inbox.send(ToPartition::Records(share));
            }
        }
    }

    /// Takes in what the tasks have to say.
    async fn hear(&mut self) {
        while let Ok(FromPartition { partition, generation, news }) = self.news.try_recv() {
            let Some(slot) = self.slots.get_mut(&partition) else { continue };
            if slot.generation != generation {
                continue;
            }
            match news {
                // Of a task that was given up meanwhile nothing more comes.
                News::Ready { .. } if !matches!(slot.phase, Phase::Fencing) => {}
                News::Ready { offset } => {
                    slot.phase = Phase::Starting { offset, after: Instant::now() };
                }
                News::Lost { rest } => {
                    self.count_lost(&partition);
                    self.rest(&partition, rest).await;
                }
                News::Stopped(reason) => self.stop(&partition, reason).await,
            }
        }
    }

    /// Gives a partition up for a while. It stays assigned: should the group mean that, it is
    /// taken over again; a revocation that is on its way arrives before.
    async fn rest(&mut self, partition: &TopicPartition, rest: Duration) {
        let Some(slot) = self.slots.get_mut(partition) else {
            return self.halt(partition).await;
        };
        slot.cancel.cancel();
        slot.phase = Phase::Resting { until: Instant::now() + rest };
        slot.paused = false;
        self.context.board.set_state(partition, slot.generation, PartitionState::Resting);
        self.halt(partition).await;
    }

    async fn stop(&mut self, partition: &TopicPartition, reason: StopReason) {
        let Some(slot) = self.slots.get_mut(partition) else { return };
        slot.phase = Phase::Stopped;
        slot.paused = false;
        let (group, topic) = (&self.context.group, &partition.topic);
        counter!(
            m::STOPS.name,
            "group" => Arc::clone(group), "topic" => Arc::clone(topic), "reason" => reason.label()
        )
        .increment(1);
        tracing::error!(%group, %partition, %reason, "partition is stopped");
        let state = PartitionState::Stopped(reason.clone());
        self.context.board.set_state(partition, slot.generation, state);
        if !reason.spares_the_consumer() {
            slot.cancel.cancel();
            self.fatal = Some(ConsumerError::Stopped { partition: partition.clone(), reason });
        }
        self.halt(partition).await;
    }

    async fn halt(&mut self, partition: &TopicPartition) {
        if let Err(error) = self.consumer.stop(partition).await {
            // Whatever is still delivered is dropped in `hand_out`.
            self.context.board.stream_error(&error);
        }
    }

    /// Starts delivery of partitions that are ready.
    async fn start(&mut self) {
        let now = Instant::now();
        let ready: Vec<_> = self
            .slots
            .iter()
            .filter_map(|(partition, slot)| match slot.phase {
                Phase::Starting { offset, after } if after <= now => {
                    Some((partition.clone(), offset))
                }
                _ => None,
            })
            .collect();
        for (partition, offset) in ready {
            let started = self.consumer.start(&partition, offset).await;
            let Some(slot) = self.slots.get_mut(&partition) else { continue };
            match started {
                Ok(()) => {
                    slot.phase = Phase::Running;
                    let _ = slot.inbox.send(ToPartition::Start);
                }
                Err(error) => {
                    self.context.board.stream_error(&error);
                    let after = Instant::now() + self.backoff.next();
                    slot.phase = Phase::Starting { offset, after };
                }
            }
        }
    }

    /// Takes partitions over again that were lost a while ago and are still assigned: if two
    /// fences crossed, nobody else would.
    fn reclaim(&mut self) {
        let now = Instant::now();
        let rested: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| matches!(slot.phase, Phase::Resting { until } if until <= now))
            .map(|(partition, _)| partition.clone())
            .collect();
        for partition in rested {
            self.begin(partition, Arc::default());
        }
    }

    /// Pauses partitions that hold enough, resumes those that have caught up.
    async fn balance(&mut self) {
        let settings = self.context.settings();
        let most = (settings.batch_records * BATCHES_AHEAD, settings.batch_bytes * BATCHES_AHEAD);
        let mut changes = Vec::new();
        for (partition, slot) in &self.slots {
            if !matches!(slot.phase, Phase::Running) {
                continue;
            }
            let (records, bytes) = slot.load.now();
            if !slot.paused && (records >= most.0 || bytes >= most.1) {
                changes.push((partition.clone(), true));
            } else if slot.paused && records <= most.0 / 2 && bytes <= most.1 / 2 {
                changes.push((partition.clone(), false));
            }
        }
        for (partition, pause) in changes {
            let result = if pause {
                self.consumer.pause(&partition).await
            } else {
                self.consumer.resume(&partition).await
            };
            match (result, self.slots.get_mut(&partition)) {
                (Ok(()), Some(slot)) => slot.paused = pause,
                (Err(error), _) => self.context.board.stream_error(&error),
                (Ok(()), None) => {}
            }
        }
    }

    /// Once a second: gauges, progress for lag tools, and the ends of some partitions.
    async fn look(&mut self) {
        if Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + LOOK;
        self.context.board.measure();
        let progress = self.context.board.progress();
        if !progress.is_empty() {
            self.consumer.report_progress(&progress).await;
        }
        let mut running: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| matches!(slot.phase, Phase::Running))
            .map(|(partition, _)| partition.clone())
            .collect();
        running.sort();
        // A few at a time, and beside the loop: an answer may take long.
        if running.is_empty() || !self.looking.is_finished() {
            return;
        }
        let count = running.len().div_ceil(4);
        let some: Vec<_> =
            (0..count).map(|n| running[(self.look_at + n) % running.len()].clone()).collect();
        self.look_at += count;
        let context = Arc::clone(&self.context);
        self.looking = AbortOnDropHandle::new(tokio::spawn(async move {
            for partition in some {
                match context.stream.watermarks(&partition).await {
                    Ok((_, end)) => context.board.end_is(&partition, end),
                    Err(error) => context.board.stream_error(&error),
                }
            }
        }));
    }

    async fn close(mut self) -> Result<(), ConsumerError> {
        for slot in self.slots.values() {
            slot.cancel.cancel();
        }
        self.tasks.close();
        if timeout(CLOSING, self.tasks.wait()).await.is_err() {
            tracing::warn!(group = %self.context.group, "some partitions did not end in time");
        }
        let progress = self.context.board.progress();
        if !progress.is_empty() {
            self.consumer.report_progress(&progress).await;
        }
        if timeout(CLOSING, self.consumer.close()).await.is_err() {
            tracing::warn!(group = %self.context.group, "leaving the group took too long");
        }
        self.fatal.map_or(Ok(()), Err)
    }

    fn count_lost(&self, partition: &TopicPartition) {
        let (group, topic) = (&self.context.group, &partition.topic);
        counter!(
            m::FENCES.name,
            "group" => Arc::clone(group), "topic" => Arc::clone(topic), "outcome" => "lost"
        )
        .increment(1);
        tracing::warn!(%group, %partition, "partition was lost to another consumer");
    }
}
