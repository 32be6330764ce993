//! One batch: decode, apply, retry, and find the one record that cannot be applied.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use metrics::{counter, histogram};
use tollgate_schema::v1::QuarantineReason;

use super::StopReason;
use super::commit::Job;
use super::partition::{Worker, size_of};
use super::start::mark_of;
use super::status::PartitionState;
use crate::metrics as m;
use crate::{
    Decode, Entry, Incoming, Mark, Outcome, Rejection, Store, StoreError, now_ms, quarantine,
};

/// Records that belong together, and what the pure step made of them.
pub(super) struct Prepared<I> {
    pub(super) records: Vec<Incoming>,
    pub(super) marks: Vec<Mark>,
    pub(super) entries: Vec<Entry<I>>,
    /// Set when a limit was reached at the record after the last entry.
    pub(super) stop: Option<StopReason>,
}

/// How a batch ended when it did not end well.
#[derive(Debug)]
pub(super) enum End {
    /// Told to stop.
    Cancelled,
    /// Another consumer holds the partition. `uncertain` when this may be the work of an own
    /// commit whose answer was lost.
    Lost { uncertain: bool },
    /// A limit was reached.
    Stop(StopReason),
}

impl<S, D> Worker<S, D>
where
    S: Store + ?Sized,
    D: Decode<Item = S::Item>,
{
    /// Applies these records completely, in order.
    pub(super) async fn apply(&mut self, records: Vec<Incoming>) -> Result<(), End> {
        let mut prepared = self.prepare(records);
        // A stack, the leftmost range on top: offsets are applied in order also while bisecting.
        let mut ranges: Vec<Range<usize>> = Vec::new();
        ranges.push(0..prepared.entries.len());
        while let Some(range) = ranges.pop() {
            if range.is_empty() {
                continue;
            }
            let (job, written) = self.commit(prepared, range.clone()).await?;
            prepared = job.prepared;
            let Err(refusal) = written else { continue };
            if range.len() > 1 {
                let middle = range.start + range.len() / 2;
                ranges.push(middle..range.end);
                ranges.push(range.start..middle);
                continue;
            }
            self.condemn(&mut prepared, range.start, &refusal).await?;
            ranges.push(range);
        }
        prepared.stop.map_or(Ok(()), |reason| Err(End::Stop(reason)))
    }

    fn prepare(&mut self, records: Vec<Incoming>) -> Prepared<S::Item> {
        let mut prepared = Prepared {
            marks: Vec::with_capacity(records.len()),
            entries: Vec::with_capacity(records.len()),
            records,
            stop: None,
        };
        let mut watch = None;
        for record in &prepared.records {
            let decoded = decode(&*self.context.decode, record);
            let poison = decoded.is_err();
            if poison || watch.is_some() {
                // Judged on a copy: what counts is what will have been applied.
                let entries = &prepared.entries;
                let watch = watch.get_or_insert_with(|| {
                    let mut watch = self.watch.clone();
                    for _ in entries {
                        watch.note(false);
                    }
                    watch
                });
                if poison && let Some(limit) = watch.limit_at_next() {
                    prepared.stop = Some(StopReason::Poison(limit));
                    break;
                }
                watch.note(poison);
            }
            let outcome = match decoded {
                Ok(item) => Outcome::Apply(item),
                Err(rejection) => {
                    tracing::warn!(
                        source = %self.claim.source, offset = record.offset, reason = %rejection.0,
                        "record can not be decoded and goes to quarantine"
                    );
                    let reason = QuarantineReason::UndecodableEvent;
                    Outcome::Poison(quarantine::poison(&self.claim, record, reason, &rejection.0))
                }
            };
            let (offset, timestamp_ms) = (record.offset, record.timestamp_ms);
            prepared.entries.push(Entry { offset, timestamp_ms, outcome });
            prepared.marks.push(mark_of(record));
        }
        prepared
    }

    /// Writes one range in one transaction, again and again until it is written, refused or lost.
    /// The inner error is the database's refusal of the data.
    async fn commit(
        &mut self,
        prepared: Prepared<S::Item>,
        range: Range<usize>,
    ) -> Result<(Job<S::Item>, Result<(), String>), End> {
        let bytes = prepared.records[range.clone()].iter().map(size_of).sum();
        // A part of what was refused bothers nobody.
        let mut in_company = range.len() == prepared.entries.len();
        let mut job = Job { claim: Arc::clone(&self.claim), prepared, range, from: self.next };
        let mut backoff = self.context.backoff();
        loop {
            let begun = Instant::now();
            let committer = &self.context.committer;
            let written = async {
                if in_company {
                    committer.together(job, bytes).await
                } else {
                    committer.alone(job).await
                }
            };
            let Some(written) = self.cancel.finish(written).await else {
                return Err(End::Cancelled);
            };
            let Some(done) = written else { return Err(End::Lost { uncertain: true }) };
            job = done.job;
            let Err(error) = done.result else {
                self.committed(&job, begun);
                return Ok((job, Ok(())));
            };
            if !done.in_company {
                self.context.board.store_error(&self.claim, "apply", &error);
            }
            self.uncertain |= matches!(error, StoreError::Transient(_) | StoreError::Refused(_));
            if std::mem::take(&mut in_company) && done.in_company {
                continue;
            }
            match error {
                StoreError::Fenced => return Err(End::Lost { uncertain: self.uncertain }),
                StoreError::Rejected(reason) => return Ok((job, Err(reason))),
                StoreError::Transient(_) | StoreError::Refused(_) => {
                    self.set_state(PartitionState::Retrying(error.to_string()));
                    if !backoff.wait(self.cancel.token()).await {
                        return Err(End::Cancelled);
                    }
                }
            }
        }
    }

    fn committed(&mut self, job: &Job<S::Item>, begun: Instant) {
        let entries = &job.prepared.entries[job.range.clone()];
        self.next = job.prepared.marks[job.range.end - 1].offset + 1;
        self.uncertain = false;
        let mut poison = 0;
        for entry in entries {
            let is_poison = matches!(entry.outcome, Outcome::Poison(_));
            poison += u64::from(is_poison);
            self.watch.note(is_poison);
        }
        self.context.board.applied(
            self.partition(),
            self.generation,
            self.next,
            entries.len() as u64,
            poison,
        );
        self.wake_relay.notify_one();

        let (group, topic) = self.labels();
        counter!(m::APPLIED.name, "group" => group.clone(), "topic" => topic.clone())
            .increment(entries.len() as u64);
        histogram!(m::BATCH_RECORDS.name, "group" => group.clone(), "topic" => topic.clone())
            .record(entries.len() as f64);
        histogram!(m::COMMIT_SECONDS.name, "group" => group.clone(), "topic" => topic.clone())
            .record(begun.elapsed());
        if let Some(oldest) = entries.iter().map(|entry| entry.timestamp_ms).min() {
            let age_ms = now_ms().saturating_sub(oldest).max(0);
            histogram!(m::FRESHNESS_SECONDS.name, "group" => group, "topic" => topic)
                .record(age_ms as f64 / 1000.0);
        }
        // Counted here and not when decoded, since only now it is decided for good.
        self.count_poison(poison);
    }

    fn count_poison(&mut self, poison: u64) {
        if poison == 0 {
            return;
        }
        let (group, topic) = self.labels();
        let refused = poison.min(std::mem::take(&mut self.refused));
        for (reason, count) in
            [("undecodable_event", poison - refused), ("refused_by_database", refused)]
        {
            if count > 0 {
                counter!(
                    m::POISON.name,
                    "group" => group.clone(), "topic" => topic.clone(), "reason" => reason
                )
                .increment(count);
            }
        }
    }

    /// The database refuses this one record: it becomes poison, unless that reaches a limit.
    async fn condemn(
        &mut self,
        prepared: &mut Prepared<S::Item>,
        index: usize,
        refusal: &str,
    ) -> Result<(), End> {
        let record = &prepared.records[index];
        if matches!(prepared.entries[index].outcome, Outcome::Poison(_)) {
            // Not even the outbox row is taken. Nothing better can be done than to say so and
            // to try again: giving the record up would lose it.
            tracing::error!(
                source = %self.claim.source, offset = record.offset, reason = refusal,
                "database refuses the quarantine of a record; it is tried again"
            );
            self.set_state(PartitionState::Retrying(format!("quarantine refused: {refusal}")));
            return if self.slow.wait(self.cancel.token()).await {
                Ok(())
            } else {
                Err(End::Cancelled)
            };
        }
        if let Some(limit) = self.watch.limit_at_next() {
            return Err(End::Stop(StopReason::Poison(limit)));
        }
        tracing::warn!(
            source = %self.claim.source, offset = record.offset, reason = refusal,
            "database refuses a record; it goes to quarantine"
        );
        let reason = QuarantineReason::RefusedByDatabase;
        let message = quarantine::poison(&self.claim, record, reason, refusal);
        prepared.entries[index].outcome = Outcome::Poison(message);
        self.refused += 1;
        Ok(())
    }
}

/// A defect of the decoder costs the record that shows it, not the partition.
fn decode<D: Decode>(decoder: &D, record: &Incoming) -> Result<D::Item, Rejection> {
    catch_unwind(AssertUnwindSafe(|| decoder.decode(record)))
        .unwrap_or_else(|_| Err(Rejection("the decoder has panicked, a defect".to_owned())))
}
