//! The consumer runtime: one for billing, user state and whoever comes next.
//!
//! ```text
//!                 ┌────────────── poll loop (owns the Consumer) ───────────────┐
//!   Consumer ───▶ │ Assigned: one task per partition    Revoked: cancel it     │
//!                 └──┬──────────────────────────────────────────────▲──────────┘
//!             records│                                fenced, gave up, stopped
//!                    ▼                                              │
//!        partition task: fence ▶ verify the mark ▶ batch ▶ decode ▶ apply ▶ tick
//!                    │ wakes                                    └─▶ committer: one transaction
//!                    ▼                                              for several partitions
//!        relay task: outbox rows in order ▶ transaction ▶ remove them
//! ```
//!
//! Nothing here is awaited for long in the poll loop, so a slow database never costs the group
//! membership, and a slow partition never stops another. Results and offsets are written by one
//! store call under an epoch; whoever lost the epoch can write no more, neither to the database
//! nor, through the relay's transactional id, to a topic.
//!
//! It never sees a connection, and never knows what a record means.

mod apply;
mod backoff;
mod commit;
mod deadline;
mod partition;
mod poison;
mod poll;
mod relay;
mod start;
mod status;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::settings::ConsumerSettings;
use crate::{ConsumerOptions, Decode, Store, Stream, StreamError, TopicPartition};

pub use start::StopReason;
pub use status::{ConsumerHandle, ConsumerStatus, PartitionState, PartitionStatus};

use backoff::Backoff;
use commit::Committer;
use deadline::Deadline;
use status::Board;

/// A client that does not even say that no broker answers hangs.
const JOINING: Duration = Duration::from_mins(6);

/// Who consumes, what, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerServiceOptions {
    /// Group, topics and membership.
    pub consumer: ConsumerOptions,
    /// Batches, retries and limits.
    pub settings: ConsumerSettings,
}

/// A consumer ended for good. Everything that passes by itself is retried instead.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConsumerError {
    /// A partition cannot be continued without a person's decision.
    #[error("{partition} can not be continued: {reason}")]
    Stopped {
        /// Which.
        partition: TopicPartition,
        /// Why, and what to do.
        reason: StopReason,
    },
    /// The stream cannot be used at all.
    #[error(transparent)]
    Stream(StreamError),
    /// The store belongs to a newer release, whose consumers have the partitions from now on.
    #[error("{0}")]
    Outgrown(String),
    /// The settings contradict themselves.
    #[error("consumer settings are not valid: {0}")]
    Settings(String),
}

/// A consumer group's member: runs until told to stop.
pub struct ConsumerService<S: Store + ?Sized, D> {
    context: Arc<Context<Deadline<S>, D>>,
}

/// What all tasks of one consumer share.
struct Context<S: Store + ?Sized, D> {
    stream: Arc<dyn Stream>,
    decode: Arc<D>,
    group: Arc<str>,
    options: ConsumerServiceOptions,
    board: Arc<Board>,
    store: Arc<S>,
    committer: Arc<Committer<S>>,
}

impl<S: Store + ?Sized, D> Context<S, D> {
    fn settings(&self) -> &ConsumerSettings {
        &self.options.settings
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.settings().retry_first_ms, self.settings().retry_max_ms)
    }
}

impl<S, D> ConsumerService<S, D>
where
    S: Store + ?Sized,
    D: Decode<Item = S::Item>,
{
    /// A consumer that does nothing until [`ConsumerService::run`].
    pub fn new(
        stream: Arc<dyn Stream>,
        store: Arc<S>,
        decode: Arc<D>,
        options: ConsumerServiceOptions,
    ) -> Self {
        let group: Arc<str> = options.consumer.group.as_str().into();
        let board = Arc::new(Board::new(Arc::clone(&group), &options.consumer.topics));
        let limit = Duration::from_millis(options.settings.store_deadline_ms);
        let store = Arc::new(Deadline::new(store, limit));
        let committer = Committer::new(Arc::clone(&store), &options.settings);
        let context = Context { stream, decode, group, options, board, store, committer };
        Self { context: Arc::new(context) }
    }

    /// What can be asked of it while it runs, and after.
    pub fn handle(&self) -> ConsumerHandle {
        ConsumerHandle::new(Arc::clone(&self.context.board))
    }

    /// Consumes until `shutdown`, finishing what is being written, then leaves the group.
    ///
    /// Ends early only with an error that trying again cannot mend: then the message says what
    /// to do.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ConsumerError> {
        self.context.settings().validate().map_err(ConsumerError::Settings)?;
        let store = Arc::clone(&self.context.store);
        let stop = shutdown.child_token();
        let mut consumed = std::pin::pin!(self.consume(&stop));
        tokio::select! {
            ended = &mut consumed => ended,
            reason = store.outgrown() => {
                stop.cancel();
                consumed.await?;
                Err(ConsumerError::Outgrown(reason))
            }
        }
    }

    async fn consume(self, stop: &CancellationToken) -> Result<(), ConsumerError> {
        let Some((cluster_id, consumer)) = self.join(stop).await? else { return Ok(()) };
        poll::PollLoop::new(self.context, cluster_id, consumer).run(stop).await
    }

    /// Joins the group; `None` when told to stop before that worked.
    async fn join(
        &self,
        shutdown: &CancellationToken,
    ) -> Result<Option<(String, Box<dyn crate::Consumer>)>, ConsumerError> {
        let context = &self.context;
        let mut backoff = context.backoff();
        loop {
            let attempt = async {
                let cluster_id = context.stream.cluster_id().await?;
                let consumer = context.stream.consumer(context.options.consumer.clone()).await?;
                Ok((cluster_id, consumer))
            };
            let error: StreamError = tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                result = timeout(JOINING, attempt) => match result {
                    Ok(Ok(joined)) => return Ok(Some(joined)),
                    Ok(Err(error)) => error,
                    Err(_) => StreamError::Transient("no answer from the client".to_owned()),
                },
            };
            if !error.is_retriable() {
                return Err(ConsumerError::Stream(error));
            }
            context.board.stream_error(&error);
            if !backoff.wait(shutdown).await {
                return Ok(None);
            }
        }
    }
}
