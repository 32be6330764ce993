//! A member of a consumer group that keeps its offsets elsewhere.
//!
//! ```text
//!  next, start, pause … ──▶ commands ──▶ member thread ──▶ librdkafka
//!                              ▲              │
//!                              └── answers ◀──┘  rebalance callback: notes, assigns nothing
//! ```
//!
//! All calls into librdkafka happen on the member's own thread: they block, and a call that its
//! caller gives up (`select!`) must lose no records.

mod assignment;
mod member;
mod membership;
mod rebalance;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tollgate_stream::{Consumer, Event, StreamError, TopicPartition};

use member::Member;

pub use member::Options;

/// A question to the member's thread, with the way back.
enum Command {
    Next { max: usize, wait: Duration, reply: Reply<Event> },
    Start { partition: TopicPartition, offset: i64, reply: Reply<()> },
    Pause { partition: TopicPartition, reply: Reply<()> },
    Resume { partition: TopicPartition, reply: Reply<()> },
    Stop { partition: TopicPartition, reply: Reply<()> },
    Progress { offsets: Vec<(TopicPartition, i64)> },
}

type Reply<T> = oneshot::Sender<Result<T, StreamError>>;

/// See the module's description.
pub struct KafkaConsumer {
    commands: mpsc::Sender<Command>,
    closed: oneshot::Receiver<()>,
    close_timeout: Duration,
}

impl KafkaConsumer {
    /// Joins the group; brokers need not be reachable.
    pub fn join(options: Options) -> Result<Self, StreamError> {
        let close_timeout = options.close_timeout;
        let (commands, inbox) = mpsc::channel();
        let (closing, closed) = oneshot::channel();
        let member = Member::new(options)?;
        thread::Builder::new()
            .name("kafka-consumer".into())
            .spawn(move || {
                member.run(&inbox);
                // Nobody may wait for it any more.
                let _ = closing.send(());
            })
            .map_err(|error| StreamError::Transient(format!("cannot start a thread: {error}")))?;
        Ok(Self { commands, closed, close_timeout })
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StreamError> {
        let (reply, answer) = oneshot::channel();
        let gone = || StreamError::Transient("the consumer's thread has ended".into());
        self.commands.send(command(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Event, StreamError> {
        self.ask(|reply| Command::Next { max: max.max(1), wait, reply }).await
    }

    async fn start(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), StreamError> {
        let partition = partition.clone();
        self.ask(|reply| Command::Start { partition, offset, reply }).await
    }

    async fn pause(&mut self, partition: &TopicPartition) -> Result<(), StreamError> {
        let partition = partition.clone();
        self.ask(|reply| Command::Pause { partition, reply }).await
    }

    async fn resume(&mut self, partition: &TopicPartition) -> Result<(), StreamError> {
        let partition = partition.clone();
        self.ask(|reply| Command::Resume { partition, reply }).await
    }

    async fn stop(&mut self, partition: &TopicPartition) -> Result<(), StreamError> {
        let partition = partition.clone();
        self.ask(|reply| Command::Stop { partition, reply }).await
    }

    async fn report_progress(&mut self, offsets: &[(TopicPartition, i64)]) {
        // Harmless when it does not arrive.
        let _ = self.commands.send(Command::Progress { offsets: offsets.to_vec() });
    }

    async fn close(self: Box<Self>) {
        let Self { commands, closed, close_timeout } = *self;
        // The thread ends with its last command.
        drop(commands);
        if tokio::time::timeout(close_timeout, closed).await.is_err() {
            tracing::warn!(
                "a consumer has not left its group within {close_timeout:?}; the group will \
                 notice at its session time-out"
            );
        }
    }
}
