//! Batches of several partitions in one transaction.
//!
//! A transaction costs a database much the same whether it carries one record or a hundred. So
//! batches that are not full go together: their transactions begin at least `batch_wait_ms` apart,
//! each with all that has come since the last. A full batch waits for nobody. What fails in company
//! is tried apart, so that no partition suffers from its neighbour's records, locks or claim.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::apply::Prepared;
use crate::settings::ConsumerSettings;
use crate::{Batch, Claim, Store, StoreError, now_ms};

/// A transaction that takes longer than this keeps the next one waiting no more: it may wait for a
/// lock that has nothing to do with the others.
const STALLED: Duration = Duration::from_millis(250);

/// Records of one partition that are to be written, and what is needed for it.
pub(super) struct Job<I> {
    pub(super) claim: Arc<Claim>,
    pub(super) prepared: Prepared<I>,
    /// Of the prepared records.
    pub(super) range: Range<usize>,
    /// `next_offset` as it stands.
    pub(super) from: i64,
}

impl<I> Job<I> {
    fn batch(&self, now_ms: i64) -> Batch<'_, I> {
        let mark = &self.prepared.marks[self.range.end - 1];
        let entries = &self.prepared.entries[self.range.clone()];
        let to = mark.offset + 1;
        Batch { claim: &self.claim, from: self.from, to, mark, entries, now_ms }
    }
}

/// A job that is over.
pub(super) struct Done<I> {
    pub(super) job: Job<I>,
    pub(super) result: Result<(), StoreError>,
    /// Other partitions' batches were in the same transaction.
    pub(super) in_company: bool,
}

/// Writes the batches of all partitions of a process.
pub(super) struct Committer<S: Store + ?Sized> {
    store: Arc<S>,
    most_records: usize,
    most_bytes: usize,
    apart: Duration,
    queue: Mutex<Queue<S::Item>>,
}

struct Queue<I> {
    waiting: VecDeque<Waiting<I>>,
    /// When the next transaction that is not full may begin.
    next: Instant,
    /// Somebody will look again then.
    timed: Option<Instant>,
    /// When the latest of them began.
    begun: Option<Instant>,
}

struct Waiting<I> {
    job: Job<I>,
    bytes: usize,
    reply: oneshot::Sender<Done<I>>,
}

impl<S: Store + ?Sized> Committer<S> {
    pub(super) fn new(store: Arc<S>, settings: &ConsumerSettings) -> Arc<Self> {
        let next = Instant::now();
        Arc::new(Self {
            store,
            most_records: settings.batch_records,
            most_bytes: settings.batch_bytes,
            apart: Duration::from_millis(settings.batch_wait_ms),
            queue: Mutex::new(Queue { waiting: VecDeque::new(), next, timed: None, begun: None }),
        })
    }

    /// Writes a batch, in a transaction of its own. Like every transaction here it runs in a task of
    /// its own, so that none is dropped half way with its caller. `None` when the store has panicked.
    pub(super) async fn alone(self: &Arc<Self>, job: Job<S::Item>) -> Option<Done<S::Item>> {
        let (reply, done) = oneshot::channel();
        tokio::spawn(Arc::clone(self).write(vec![Waiting { job, bytes: 0, reply }]));
        done.await.ok()
    }

    /// Writes a batch together with those of others, as far as they fit. `None` when the store
    /// has panicked.
    pub(super) async fn together(
        self: &Arc<Self>,
        job: Job<S::Item>,
        bytes: usize,
    ) -> Option<Done<S::Item>> {
        if job.range.len() >= self.most_records || bytes >= self.most_bytes {
            return self.alone(job).await;
        }
        let (reply, done) = oneshot::channel();
        self.lock().waiting.push_back(Waiting { job, bytes, reply });
        self.begin();
        done.await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, Queue<S::Item>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the transactions for which it is time.
    fn begin(self: &Arc<Self>) {
        let mut queue = self.lock();
        while !queue.waiting.is_empty() {
            let fitting = self.fitting(&queue.waiting);
            let full = fitting < queue.waiting.len();
            let now = Instant::now();
            if !full && now < queue.next {
                if queue.timed.is_none_or(|at| queue.next < at) {
                    queue.timed = Some(queue.next);
                    tokio::spawn(Arc::clone(self).begin_later(queue.next));
                }
                return;
            }
            let group = queue.waiting.drain(..fitting).collect();
            if full {
                tokio::spawn(Arc::clone(self).write(group));
            } else {
                queue.begun = Some(now);
                queue.next = now + STALLED.max(self.apart);
                tokio::spawn(Arc::clone(self).write_in_turn(group, now));
            }
        }
    }

    async fn begin_later(self: Arc<Self>, at: Instant) {
        tokio::time::sleep_until(at).await;
        let mut queue = self.lock();
        if queue.timed == Some(at) {
            queue.timed = None;
        }
        drop(queue);
        self.begin();
    }

    /// How many of the waiting go into one transaction.
    fn fitting(&self, waiting: &VecDeque<Waiting<S::Item>>) -> usize {
        let (mut records, mut bytes) = (0, 0);
        let fit = waiting.iter().take_while(|it| {
            records += it.job.range.len();
            bytes += it.bytes;
            records <= self.most_records && bytes <= self.most_bytes
        });
        fit.count().max(1)
    }

    /// Writes what is not full; when that is over, the next may begin.
    async fn write_in_turn(self: Arc<Self>, group: Vec<Waiting<S::Item>>, begun: Instant) {
        Arc::clone(&self).write(group).await;
        let mut queue = self.lock();
        // Unless it has stalled and another has begun.
        if queue.begun == Some(begun) {
            queue.next = begun + self.apart;
        }
        drop(queue);
        self.begin();
    }

    async fn write(self: Arc<Self>, group: Vec<Waiting<S::Item>>) {
        let now_ms = now_ms();
        let batches: Vec<_> = group.iter().map(|it| it.job.batch(now_ms)).collect();
        let applied = AssertUnwindSafe(self.store.apply(&batches)).catch_unwind().await;
        drop(batches);
        // A defect, and reported as a panic: without an answer the partitions are given up.
        let Ok(result) = applied else { return };
        let in_company = group.len() > 1;
        if let Err(error) = &result
            && in_company
        {
            tracing::debug!(%error, partitions = group.len(), "what failed together is tried apart");
        }
        for Waiting { job, reply, .. } in group {
            // Who was told to stop meanwhile does not wait for it.
            let _ = reply.send(Done { job, result: result.clone(), in_company });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use futures_util::future::join_all;

    use super::*;
    use crate::{Entry, Fence, Mark, Outcome, Pending, Source, TopicPartition};

    /// Notes who goes with whom and when, and does to a partition's transaction what it is told.
    struct Notes {
        begun: Instant,
        seen: Mutex<Vec<(u128, Vec<i32>)>>,
        fates: HashMap<i32, Fate>,
        /// Transactions that came to their end.
        ended: AtomicUsize,
    }

    #[derive(Clone, Copy)]
    enum Fate {
        Takes(u64),
        Fails,
        Panics,
    }

    #[async_trait]
    impl Store for Notes {
        type Item = ();

        async fn fence(&self, _: &Source) -> Result<Fence, StoreError> {
            unreachable!()
        }

        async fn apply(&self, batches: &[Batch<'_, ()>]) -> Result<(), StoreError> {
            let of = |batch: &Batch<'_, ()>| batch.claim.source.partition.partition;
            let partitions: Vec<i32> = batches.iter().map(of).collect();
            let at = self.begun.elapsed().as_millis();
            self.seen.lock().unwrap().push((at, partitions.clone()));
            for fate in partitions.iter().filter_map(|it| self.fates.get(it)) {
                match fate {
                    Fate::Takes(ms) => tokio::time::sleep(Duration::from_millis(*ms)).await,
                    Fate::Fails => return Err(StoreError::Rejected("23514".to_owned())),
                    Fate::Panics => panic!("a store with a defect"),
                }
            }
            self.ended.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        async fn pending(&self, _: &Claim, _: usize, _: usize) -> Result<Vec<Pending>, StoreError> {
            unreachable!()
        }

        async fn published(&self, _: &Claim, _: &[Pending]) -> Result<(), StoreError> {
            unreachable!()
        }
    }

    fn committer(fates: &[(i32, Fate)]) -> Arc<Committer<Notes>> {
        let fates = fates.iter().copied().collect();
        let (seen, ended) = (Mutex::default(), AtomicUsize::new(0));
        let store = Notes { begun: Instant::now(), seen, fates, ended };
        let settings =
            ConsumerSettings { batch_records: 10, batch_wait_ms: 20, ..Default::default() };
        Committer::new(Arc::new(store), &settings)
    }

    fn job(partition: i32, records: usize) -> Job<()> {
        let source = Source {
            group: "group".to_owned(),
            cluster_id: "cluster".to_owned(),
            partition: TopicPartition::new("topic", partition),
        };
        let mark = |offset| Mark { offset, timestamp_ms: 0, event_id: String::new() };
        let entry = |offset| Entry { offset, timestamp_ms: 0, outcome: Outcome::Apply(()) };
        let prepared = Prepared {
            records: Vec::new(),
            marks: (0..records as i64).map(mark).collect(),
            entries: (0..records as i64).map(entry).collect(),
            stop: None,
        };
        let claim = Arc::new(Claim { source, epoch: 1, partitions: 12 });
        Job { claim, prepared, range: 0..records, from: 0 }
    }

    /// Commits jobs of (partition, records) that come at the same time. Returns who went with
    /// whom, and when.
    async fn commit(
        committer: &Arc<Committer<Notes>>,
        jobs: &[(i32, usize)],
    ) -> Vec<(u128, Vec<i32>)> {
        let done =
            join_all(jobs.iter().map(|(p, records)| committer.together(job(*p, *records), 0)))
                .await;
        for ((partition, _), done) in jobs.iter().zip(done) {
            let done = done.expect("no store panicked");
            assert_eq!(done.job.claim.source.partition.partition, *partition, "its own job back");
            assert!(done.result.is_ok());
        }
        committer.store.seen.lock().unwrap().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_the_time_is_not_yet_goes_together() {
        let committer = committer(&[]);
        let seen = commit(&committer, &[(0, 1), (1, 2), (2, 3)]).await;
        assert_eq!(seen, [(0, vec![0]), (20, vec![1, 2])]);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let seen = commit(&committer, &[(3, 1)]).await;
        assert_eq!(seen[2..], [(120, vec![3])], "nobody waits without a reason");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_full_waits_for_nobody() {
        let committer = committer(&[(0, Fate::Takes(200))]);
        let jobs = [(0, 1), (1, 4), (2, 4), (3, 10), (4, 4), (5, 1)];
        let mut seen = commit(&committer, &jobs).await;
        seen.sort();
        // Partition 3 is full by itself; 1 and 2 are when 4 does not fit any more.
        assert_eq!(seen, [(0, vec![0]), (0, vec![1, 2]), (0, vec![3]), (200, vec![4, 5])]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stalls_keeps_the_next_waiting_no_longer() {
        let committer = committer(&[(0, Fate::Takes(10_000)), (1, Fate::Takes(100))]);
        let seen = commit(&committer, &[(0, 1), (1, 1)]).await;
        assert_eq!(seen, [(0, vec![0]), (250, vec![1])]);
        // The end of the first, long after, allows nothing that the second would not.
        let seen = commit(&committer, &[(2, 1), (3, 1)]).await;
        assert_eq!(seen[2..], [(10_000, vec![2]), (10_020, vec![3])]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_says_whether_there_was_company() {
        let committer = committer(&[(2, Fate::Fails)]);
        let jobs = [0, 1, 2].map(|partition| committer.together(job(partition, 1), 0));
        let done: Vec<_> = join_all(jobs).await.into_iter().flatten().collect();
        let outcomes: Vec<_> = done.iter().map(|it| (it.result.is_ok(), it.in_company)).collect();
        assert_eq!(outcomes, [(true, false), (false, true), (false, true)]);
        assert!(committer.alone(job(1, 1)).await.unwrap().result.is_ok());
        let alone = committer.alone(job(2, 1)).await.unwrap();
        assert!(alone.result.is_err() && !alone.in_company);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transaction_goes_on_when_nobody_waits_for_it_any_more() {
        let committer = committer(&[(1, Fate::Takes(500))]);
        for given_up in
            [committer.alone(job(1, 1)).boxed(), committer.together(job(1, 10), 0).boxed()]
        {
            assert!(tokio::time::timeout(Duration::from_millis(1), given_up).await.is_err());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(committer.store.ended.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_the_store_is_told_to_those_in_it_and_to_nobody_else() {
        let committer = committer(&[(1, Fate::Panics)]);
        let jobs = [0, 1, 2].map(|partition| committer.together(job(partition, 1), 0));
        let done: Vec<bool> = join_all(jobs).await.iter().map(Option::is_some).collect();
        assert_eq!(done, [true, false, false]);
        assert!(committer.together(job(3, 1), 0).await.is_some(), "others go on");
    }
}
