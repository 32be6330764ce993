//! The task of one partition, from the fence to the end.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::counter;
use tokio::sync::{Notify, OnceCell, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::apply::End;
use super::backoff::Backoff;
use super::poison::PoisonWatch;
use super::relay::{RelayEnd, RelayTask};
use super::start::{First, Plan, compare, plan};
use super::status::PartitionState;
use super::{Context, StopReason};
use crate::metrics as m;
use crate::{
    Claim, Decode, Fence, Incoming, Mark, Source, Store, StoreError, TopicPartition, now_ms,
};

/// How long a store call that is under way may still take once the partition is gone.
const GRACE: Duration = Duration::from_secs(3);
/// How long a partition rests whose last commit may have succeeded unheard.
const UNCERTAIN_REST: Duration = Duration::from_secs(1);

/// From the poll loop to a partition.
#[derive(Debug)]
pub(super) enum ToPartition {
    /// Delivery begins.
    Start,
    /// Records in order.
    Records(Vec<Incoming>),
}

/// From a partition to the poll loop.
#[derive(Debug)]
pub(super) struct FromPartition {
    pub(super) partition: TopicPartition,
    pub(super) generation: u64,
    pub(super) news: News,
}

#[derive(Debug)]
pub(super) enum News {
    /// The partition is this process's in the database: deliver from this offset.
    Ready { offset: i64 },
    /// Given up; may be taken over again after this time if it is still assigned.
    Lost { rest: Duration },
    /// Stopped until a person has acted.
    Stopped(StopReason),
}

/// What a partition holds in memory and has not applied yet.
#[derive(Debug, Default)]
pub(super) struct Load {
    records: AtomicUsize,
    bytes: AtomicUsize,
}

impl Load {
    pub(super) fn add(&self, records: &[Incoming]) {
        self.records.fetch_add(records.len(), Ordering::Relaxed);
        self.bytes.fetch_add(records.iter().map(size_of).sum(), Ordering::Relaxed);
    }

    fn take(&self, records: usize, bytes: usize) {
        self.records.fetch_sub(records, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Records and bytes.
    pub(super) fn now(&self) -> (usize, usize) {
        (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// Bytes a record takes, near enough for bounds.
pub(super) fn size_of(record: &Incoming) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    record.key.len() + record.value.as_ref().map_or(0, bytes::Bytes::len) + headers + 64
}

/// A cancellation that lets what is under way finish, within bounds.
#[derive(Debug, Clone)]
pub(super) struct Cancel(CancellationToken);

impl Cancel {
    pub(super) fn token(&self) -> &CancellationToken {
        &self.0
    }

    /// The result, or `None` when cancelled and the grace is over.
    pub(super) async fn finish<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let over = async {
            self.0.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            biased;
            result = work => Some(result),
            () = over => None,
        }
    }
}

/// Everything that a new partition task is given.
pub(super) struct PartitionTask<S: Store + ?Sized, D> {
    pub(super) context: Arc<Context<S, D>>,
    pub(super) source: Source,
    pub(super) generation: u64,
    /// Shared by the partitions of a topic that were assigned together.
    pub(super) partitions: Arc<OnceCell<i32>>,
    pub(super) inbox: mpsc::UnboundedReceiver<ToPartition>,
    pub(super) outbox: mpsc::UnboundedSender<FromPartition>,
    pub(super) cancel: CancellationToken,
    pub(super) load: Arc<Load>,
}

impl<S, D> PartitionTask<S, D>
where
    S: Store + ?Sized,
    D: Decode<Item = S::Item>,
{
    /// Runs until cancelled, lost or stopped.
    pub(super) async fn run(mut self) {
        let Some((claim, fence)) = self.take_over().await else { return };
        let expect = match self.place(&fence).await {
            None => return,
            Some(Plan::Stop(reason)) => {
                return tell(&self.outbox, &claim, self.generation, News::Stopped(reason));
            }
            Some(Plan::Start { offset, expect }) => {
                tell(&self.outbox, &claim, self.generation, News::Ready { offset });
                expect
            }
        };
        let next = fence.next_offset;
        let cancelled = self.cancel.clone();
        tokio::select! {
            () = cancelled.cancelled() => return,
            message = self.inbox.recv() => match message {
                Some(ToPartition::Start) => {}
                // Records before the start would be the poll loop's mistake; they are dropped, and
                // read again at the next start.
                Some(ToPartition::Records(_)) | None => return,
            },
        }
        self.context.board.placed(&claim.source.partition, self.generation, next);
        let (outbox, generation) = (self.outbox.clone(), self.generation);
        let claim = Arc::new(claim);
        if let Some(news) = Worker::new(self, Arc::clone(&claim), next, expect).run().await {
            tell(&outbox, &claim, generation, news);
        }
    }

    /// Fences the partition in the database, however long that takes.
    async fn take_over(&self) -> Option<(Claim, Fence)> {
        let context = &self.context;
        let mut backoff = context.backoff();
        let mut claim = Claim { source: self.source.clone(), epoch: 0, partitions: 0 };
        loop {
            let work = async {
                claim.partitions = *self.partitions.get_or_try_init(|| self.count()).await?;
                context.store.fence(&self.source).await.inspect_err(|error| {
                    context.board.store_error(&claim, "fence", error);
                })
            };
            let result = tokio::select! {
                () = self.cancel.cancelled() => return None,
                result = work => result,
            };
            match result {
                Ok(fence) => {
                    claim.epoch = fence.epoch;
                    self.count_fence("taken");
                    tracing::info!(
                        source = %self.source, epoch = fence.epoch, next = fence.next_offset,
                        "partition taken over"
                    );
                    return Some((claim, fence));
                }
                Err(error) => {
                    let state = PartitionState::Retrying(error.to_string());
                    context.board.set_state(&self.source.partition, self.generation, state);
                    if !backoff.wait(&self.cancel).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Finds out where to go on, however long the partition's leader is away. Here, and not in the
    /// poll loop, which serves the others meanwhile.
    async fn place(&self, fence: &Fence) -> Option<Plan> {
        let (context, partition) = (&self.context, &self.source.partition);
        let mut backoff = context.backoff();
        loop {
            let ends = tokio::select! {
                () = self.cancel.cancelled() => return None,
                ends = context.stream.watermarks(partition) => ends,
            };
            match ends {
                Ok((first, end)) => {
                    context.board.end_is(partition, end);
                    return Some(plan(fence, first, end));
                }
                Err(error) => {
                    context.board.stream_error(&error);
                    if !backoff.wait(&self.cancel).await {
                        return None;
                    }
                }
            }
        }
    }

    /// How many partitions the topic has.
    async fn count(&self) -> Result<i32, StoreError> {
        let topic = &*self.source.partition.topic;
        let described = self.context.stream.describe_topics(&[topic]).await.map_err(|error| {
            self.context.board.stream_error(&error);
            StoreError::Transient(error.to_string())
        })?;
        let found = described.into_iter().find(|description| description.name == topic);
        found.map(|description| description.partitions).ok_or_else(|| {
            StoreError::Transient(format!("topic {topic} is missing; run `tollgate topics create`"))
        })
    }

    fn count_fence(&self, outcome: &'static str) {
        let (group, topic) = (&self.context.group, &self.source.partition.topic);
        counter!(
            m::FENCES.name,
            "group" => Arc::clone(group), "topic" => Arc::clone(topic), "outcome" => outcome
        )
        .increment(1);
    }
}

fn tell(outbox: &mpsc::UnboundedSender<FromPartition>, claim: &Claim, generation: u64, news: News) {
    let partition = claim.source.partition.clone();
    // Nobody listens any more only when the whole consumer has ended.
    let _ = outbox.send(FromPartition { partition, generation, news });
}

/// A partition that was fenced and placed.
pub(super) struct Worker<S: Store + ?Sized, D> {
    pub(super) context: Arc<Context<S, D>>,
    pub(super) claim: Arc<Claim>,
    pub(super) generation: u64,
    /// `next_offset` as it stands in the database.
    pub(super) next: i64,
    pub(super) watch: PoisonWatch,
    pub(super) cancel: Cancel,
    pub(super) slow: Backoff,
    pub(super) wake_relay: Arc<Notify>,
    /// A store call failed without saying whether it had committed.
    pub(super) uncertain: bool,
    /// Records that became poison by the database's refusal and are not committed yet.
    pub(super) refused: u64,
    expect: Option<Mark>,
    inbox: mpsc::UnboundedReceiver<ToPartition>,
    outbox: mpsc::UnboundedSender<FromPartition>,
    buffer: VecDeque<Incoming>,
    buffered_bytes: usize,
    load: Arc<Load>,
    /// When the oldest buffered record has waited long enough.
    due: Instant,
    next_tick: Instant,
    stopped: bool,
}

impl<S, D> Worker<S, D>
where
    S: Store + ?Sized,
    D: Decode<Item = S::Item>,
{
    fn new(task: PartitionTask<S, D>, claim: Arc<Claim>, next: i64, expect: Option<Mark>) -> Self {
        let now = Instant::now();
        Self {
            claim,
            generation: task.generation,
            next,
            watch: PoisonWatch::new(task.context.settings()),
            cancel: Cancel(task.cancel),
            slow: task.context.backoff(),
            wake_relay: Arc::new(Notify::new()),
            uncertain: false,
            refused: 0,
            expect,
            inbox: task.inbox,
            outbox: task.outbox,
            buffer: VecDeque::new(),
            buffered_bytes: 0,
            load: task.load,
            due: now,
            next_tick: now,
            stopped: false,
            context: task.context,
        }
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.claim.source.partition
    }

    pub(super) fn labels(&self) -> (Arc<str>, Arc<str>) {
        (Arc::clone(&self.context.group), Arc::clone(&self.partition().topic))
    }

    pub(super) fn set_state(&self, state: PartitionState) {
        self.context.board.set_state(self.partition(), self.generation, state);
    }

    /// Runs to the end; says what the poll loop has to know.
    async fn run(mut self) -> Option<News> {
        if let Err(end) = self.verify().await {
            return self.news_of(end);
        }
        self.set_state(PartitionState::Running);
        let mut relay = self.spawn_relay();
        let end = loop {
            if let Err(end) = self.step(&mut relay).await {
                match end {
                    End::Stop(reason) => self.stop(reason),
                    end => break end,
                }
            }
        };
        relay.stop().await;
        self.news_of(end)
    }

    /// Waits for the first record, if a mark is expected, and compares.
    async fn verify(&mut self) -> Result<(), End> {
        while let Some(mark) = self.expect.clone() {
            let Some(first) = self.buffer.front() else {
                tokio::select! {
                    () = self.cancel.token().cancelled() => return Err(End::Cancelled),
                    message = self.inbox.recv() => self.receive(message)?,
                }
                continue;
            };
            match compare(first, &mark) {
                First::Marked => self.drop_first(),
                First::Behind => tracing::warn!(
                    source = %self.claim.source, applied = mark.offset, first = first.offset,
                    "the record that was applied last is not there any more; goes on with the next"
                ),
                First::Another => {
                    return Err(End::Stop(StopReason::MarkMismatch { offset: mark.offset }));
                }
            }
            self.expect = None;
        }
        Ok(())
    }

    /// Does the next thing there is to do.
    async fn step(&mut self, relay: &mut RunningRelay) -> Result<(), End> {
        if self.cancel.token().is_cancelled() {
            return Err(End::Cancelled);
        }
        if Instant::now() >= self.next_tick {
            self.tick().await?;
        }
        if self.batch_is_ready() {
            let batch = self.take_batch();
            let bytes = batch.iter().map(size_of).sum();
            let records = batch.len();
            let result = self.apply(batch).await;
            self.load.take(records, bytes);
            return result;
        }
        let due =
            if self.buffer.is_empty() { self.next_tick } else { self.due.min(self.next_tick) };
        tokio::select! {
            () = self.cancel.token().cancelled() => Err(End::Cancelled),
            message = self.inbox.recv() => self.receive(message),
            () = tokio::time::sleep_until(due) => Ok(()),
            () = relay.lost() => Err(End::Lost { uncertain: false }),
        }
    }

    fn receive(&mut self, message: Option<ToPartition>) -> Result<(), End> {
        match message {
            None => Err(End::Cancelled),
            Some(ToPartition::Start) => Ok(()),
            Some(ToPartition::Records(records)) => {
                if self.buffer.is_empty() {
                    let wait = Duration::from_millis(self.context.settings().batch_wait_ms);
                    self.due = Instant::now() + wait;
                }
                for record in records {
                    let applied = record.offset < self.next && self.expect.is_none();
                    if self.stopped || applied {
                        self.load.take(1, size_of(&record));
                        continue;
                    }
                    self.buffered_bytes += size_of(&record);
                    self.buffer.push_back(record);
                }
                Ok(())
            }
        }
    }

    fn batch_is_ready(&self) -> bool {
        let settings = self.context.settings();
        !self.buffer.is_empty()
            && (self.buffer.len() >= settings.batch_records
                || self.buffered_bytes >= settings.batch_bytes
                || Instant::now() >= self.due)
    }

    fn take_batch(&mut self) -> Vec<Incoming> {
        let settings = self.context.settings();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(first) = self.buffer.front() {
            let size = size_of(first);
            let full = batch.len() >= settings.batch_records || bytes + size > settings.batch_bytes;
            if full && !batch.is_empty() {
                break;
            }
            bytes += size;
            batch.extend(self.buffer.pop_front());
        }
        self.buffered_bytes -= bytes;
        batch
    }

    fn drop_first(&mut self) {
        let Some(record) = self.buffer.pop_front() else { return };
        let bytes = size_of(&record);
        self.buffered_bytes -= bytes;
        self.load.take(1, bytes);
    }

    /// Work that time or another table asks for.
    async fn tick(&mut self) -> Result<(), End> {
        let interval = Duration::from_millis(self.context.settings().tick_interval_ms);
        self.next_tick = Instant::now() + interval;
        // In a task of its own, as batches are: a transaction is not dropped half way.
        let (store, claim) = (Arc::clone(&self.context.store), Arc::clone(&self.claim));
        let work = tokio::spawn(async move { store.tick(&claim, now_ms()).await });
        let Some(ended) = self.cancel.finish(work).await else { return Err(End::Cancelled) };
        // A panic, which has been reported.
        let Ok(result) = ended else { return Err(End::Lost { uncertain: true }) };
        match result {
            Ok(more) => {
                if more {
                    self.next_tick = Instant::now();
                }
                self.wake_relay.notify_one();
                Ok(())
            }
            Err(error) => {
                self.context.board.store_error(&self.claim, "tick", &error);
                match error {
                    StoreError::Fenced => Err(End::Lost { uncertain: self.uncertain }),
                    // Tried again at the next interval.
                    _ => Ok(()),
                }
            }
        }
    }

    /// No more records are applied; ticks and the relay go on, so that what was applied and
    /// what was quarantined is seen.
    fn stop(&mut self, reason: StopReason) {
        self.stopped = true;
        for record in std::mem::take(&mut self.buffer) {
            self.load.take(1, size_of(&record));
        }
        self.buffered_bytes = 0;
        tell(&self.outbox, &self.claim, self.generation, News::Stopped(reason));
    }

    fn spawn_relay(&self) -> RunningRelay {
        let cancel = self.cancel.token().child_token();
        let task = RelayTask {
            context: Arc::clone(&self.context),
            claim: Arc::clone(&self.claim),
            wake: Arc::clone(&self.wake_relay),
            cancel: Cancel(cancel.clone()),
        };
        RunningRelay { handle: Some(tokio::spawn(task.run())), cancel }
    }

    fn news_of(&self, end: End) -> Option<News> {
        match end {
            End::Cancelled => None,
            End::Stop(reason) => Some(News::Stopped(reason)),
            End::Lost { uncertain } => {
                let configured = Duration::from_millis(self.context.settings().reclaim_after_ms);
                let rest = if uncertain { configured.min(UNCERTAIN_REST) } else { configured };
                Some(News::Lost { rest })
            }
        }
    }
}

/// The relay task of a partition.
struct RunningRelay {
    handle: Option<JoinHandle<RelayEnd>>,
    cancel: CancellationToken,
}

impl RunningRelay {
    /// Returns when the relay has found out that the partition is lost.
    async fn lost(&mut self) {
        if let Some(handle) = &mut self.handle {
            let end = handle.await;
            self.handle = None;
            if matches!(end, Ok(RelayEnd::Cancelled)) {
                std::future::pending::<()>().await;
            }
            return;
        }
        std::future::pending::<()>().await;
    }

    /// Lets it finish the transaction it is in.
    async fn stop(self) {
        self.cancel.cancel();
        if let Some(handle) = self.handle {
            // A panic there has been reported by the runtime, and ends with the partition.
            let _ = handle.await;
        }
    }
}
