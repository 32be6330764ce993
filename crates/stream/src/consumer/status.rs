//! What a consumer is doing, for health pages, metrics and people.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{counter, gauge};

use super::StopReason;
use crate::metrics as m;
use crate::{Claim, StoreError, StreamError, TopicPartition};

/// What one partition is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionState {
    /// Being fenced, placed, or verified.
    Starting,
    /// Applying.
    Running,
    /// Waiting for the database; the text says why.
    Retrying(String),
    /// Lost to another consumer; taken over again later if it is still assigned.
    Resting,
    /// Waits for a person.
    Stopped(StopReason),
}

impl PartitionState {
    /// A short word for metrics and pages.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying(_) => "retrying",
            Self::Resting => "resting",
            Self::Stopped(_) => "stopped",
        }
    }
}

const STATES: &[&str] = &["starting", "running", "retrying", "resting", "stopped"];

/// One partition that is assigned to this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Which.
    pub partition: TopicPartition,
    /// What it is doing.
    pub state: PartitionState,
    /// Offset to apply next; 0 before the first record.
    pub next_offset: i64,
    /// Records behind the end when that was looked at last; `None` before.
    pub lag: Option<i64>,
    /// Records applied since this process started.
    pub applied: u64,
    /// Of those, sent to quarantine.
    pub poison: u64,
}

/// A whole consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerStatus {
    /// Its group.
    pub group: String,
    /// The partitions assigned to this process, sorted.
    pub partitions: Vec<PartitionStatus>,
    /// Records applied since this process started, by all partitions it ever held.
    pub applied: u64,
    /// Sum of the known lags.
    pub lag: i64,
    /// The last trouble with the cluster, until it passes.
    pub trouble: Option<String>,
}

/// Asks a consumer what it is doing. Cheap to clone and to ask.
#[derive(Debug, Clone)]
pub struct ConsumerHandle {
    board: Arc<Board>,
}

impl ConsumerHandle {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { board }
    }

    /// A snapshot.
    pub fn status(&self) -> ConsumerStatus {
        let state = self.board.lock();
        ConsumerStatus {
            group: self.board.group.to_string(),
            partitions: state.rows.values().map(|row| row.status.clone()).collect(),
            applied: state.applied,
            lag: state.rows.values().filter_map(|row| row.status.lag).sum(),
            trouble: state.trouble.clone(),
        }
    }
}

/// Where the tasks write down what they do.
#[derive(Debug)]
pub(super) struct Board {
    group: Arc<str>,
    topics: Vec<Arc<str>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<TopicPartition, Row>,
    applied: u64,
    trouble: Option<String>,
}

#[derive(Debug)]
struct Row {
    generation: u64,
    end: Option<i64>,
    status: PartitionStatus,
}

impl Row {
    fn refresh_lag(&mut self) {
        self.status.lag = self.end.map(|end| (end - self.status.next_offset).max(0));
    }
}

impl Board {
    pub(super) fn new(group: Arc<str>, topics: &[String]) -> Self {
        let topics = topics.iter().map(|topic| topic.as_str().into()).collect();
        Self { group, topics, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves at worst a stale number here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A partition begins, or begins again.
    pub(super) fn begin(&self, partition: &TopicPartition, generation: u64) {
        let mut state = self.lock();
        let row = state.rows.entry(partition.clone()).or_insert_with(|| Row {
            generation,
            end: None,
            status: PartitionStatus {
                partition: partition.clone(),
                state: PartitionState::Starting,
                next_offset: 0,
                lag: None,
                applied: 0,
                poison: 0,
            },
        });
        row.generation = generation;
        row.status.state = PartitionState::Starting;
    }

    /// A partition is not this process's any more.
    pub(super) fn end(&self, partition: &TopicPartition) {
        self.lock().rows.remove(partition);
    }

    fn update(&self, partition: &TopicPartition, generation: u64, change: impl FnOnce(&mut Row)) {
        let mut state = self.lock();
        // A task that was cancelled may still report; its successor's row is not its to change.
        if let Some(row) = state.rows.get_mut(partition)
            && row.generation == generation
        {
            change(row);
        }
    }

    pub(super) fn set_state(
        &self,
        partition: &TopicPartition,
        generation: u64,
        to: PartitionState,
    ) {
        self.update(partition, generation, |row| row.status.state = to);
    }

    pub(super) fn placed(&self, partition: &TopicPartition, generation: u64, next: i64) {
        self.update(partition, generation, |row| {
            row.status.next_offset = next;
            row.refresh_lag();
        });
    }

    pub(super) fn end_is(&self, partition: &TopicPartition, end: i64) {
        if let Some(row) = self.lock().rows.get_mut(partition) {
            row.end = Some(end.max(row.end.unwrap_or(0)));
            row.refresh_lag();
        }
    }

    pub(super) fn applied(
        &self,
        partition: &TopicPartition,
        generation: u64,
        next: i64,
        records: u64,
        poison: u64,
    ) {
        self.update(partition, generation, |row| {
            row.status.state = PartitionState::Running;
            row.status.next_offset = next;
            row.status.applied += records;
            row.status.poison += poison;
            row.refresh_lag();
        });
        self.lock().applied += records;
    }

    /// Offsets to tell the group about.
    pub(super) fn progress(&self) -> Vec<(TopicPartition, i64)> {
        let state = self.lock();
        let rows = state.rows.values().map(|row| &row.status);
        rows.filter(|row| row.next_offset > 0)
            .map(|row| (row.partition.clone(), row.next_offset))
            .collect()
    }

    pub(super) fn stream_error(&self, error: &StreamError) {
        let kind = match error {
            StreamError::Transient(_) => "transient",
            StreamError::Refused(_) => "refused",
            StreamError::OffsetOutOfRange { .. } => "offset_out_of_range",
            StreamError::Fatal(_) => "fatal",
        };
        counter!(m::STREAM_ERRORS.name, "group" => Arc::clone(&self.group), "kind" => kind)
            .increment(1);
        let first = self.lock().trouble.replace(error.to_string()).is_none();
        if matches!(error, StreamError::Fatal(_)) {
            tracing::warn!(group = %self.group, %error, "consumer cannot go on with the cluster");
        } else if first || !matches!(error, StreamError::Transient(_)) {
            tracing::warn!(
                group = %self.group, %error,
                "consumer has trouble with the cluster; it is tried again"
            );
        }
    }

    pub(super) fn stream_works(&self) {
        let mut state = self.lock();
        if state.trouble.take().is_some() {
            drop(state);
            tracing::info!(group = %self.group, "consumer reaches the cluster again");
        }
    }

    /// Counts and logs a store call that failed.
    pub(super) fn store_error(&self, claim: &Claim, operation: &'static str, error: &StoreError) {
        let kind = match error {
            StoreError::Fenced => "fenced",
            StoreError::Rejected(_) => "rejected",
            StoreError::Transient(_) => "transient",
            StoreError::Refused(_) => "refused",
        };
        counter!(
            m::STORE_ERRORS.name,
            "group" => Arc::clone(&self.group), "operation" => operation, "kind" => kind
        )
        .increment(1);
        if matches!(error, StoreError::Transient(_) | StoreError::Refused(_)) {
            tracing::warn!(
                source = %claim.source, operation, %error, "store call failed; it is tried again"
            );
        } else {
            tracing::warn!(source = %claim.source, operation, %error, "store call failed");
        }
    }

    /// Sets the gauges.
    pub(super) fn measure(&self) {
        let state = self.lock();
        // All topics, also those of which no partition is left here: a gauge must not keep the
        // value of a partition that somebody else has now.
        for topic in &self.topics {
            let rows = || state.rows.values().filter(|row| row.status.partition.topic == *topic);
            let lag: i64 = rows().filter_map(|row| row.status.lag).sum();
            let (group, topic) = (Arc::clone(&self.group), Arc::clone(topic));
            gauge!(m::LAG.name, "group" => Arc::clone(&group), "topic" => Arc::clone(&topic))
                .set(lag as f64);
            for state in STATES {
                let count = rows().filter(|row| row.status.state.label() == *state).count();
                gauge!(
                    m::PARTITIONS.name,
                    "group" => Arc::clone(&group), "topic" => Arc::clone(&topic), "state" => *state
                )
                .set(count as f64);
            }
        }
    }
}
