//! Reads topics without a group.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::cursor::{Cursor, read};
use crate::{Incoming, ReadFrom, StreamError, TopicPartition, TopicReader};

#[derive(Debug)]
pub(super) struct EmbeddedReader {
    shared: Arc<Shared>,
    cursors: Vec<Cursor>,
    version: watch::Receiver<u64>,
    turn: usize,
    /// Where the partitions ended when somebody asked whether all has been read, as the cursors.
    asked: Option<Vec<i64>>,
}

impl EmbeddedReader {
    pub(super) fn open(
        shared: Arc<Shared>,
        topics: &[&str],
        from: ReadFrom,
    ) -> Result<Self, StreamError> {
        let version = shared.version.subscribe();
        let mut cursors = Vec::new();
        {
            let state = shared.state();
            for name in topics {
                let topic = state.topics.get(*name).ok_or_else(|| {
                    StreamError::Transient(format!(
                        "topic {name} is missing; run `tollgate topics create`"
                    ))
                })?;
                for (index, log) in topic.partitions.iter().enumerate() {
                    let position = match from {
                        ReadFrom::Earliest => log.low,
                        ReadFrom::Latest => log.next,
                    };
                    cursors.push(Cursor::new(TopicPartition::new(*name, index as i32), position));
                }
            }
        }
        Ok(Self { shared, cursors, version, turn: 0, asked: None })
    }

    async fn read(&mut self, max: usize) -> Result<Vec<Incoming>, StreamError> {
        let mut cursors: Vec<&mut Cursor> = self.cursors.iter_mut().collect();
        if cursors.is_empty() {
            return Ok(Vec::new());
        }
        self.turn = (self.turn + 1) % cursors.len();
        cursors.rotate_left(self.turn);
        read(&self.shared, &mut cursors, max).await
    }
}

#[async_trait]
impl TopicReader for EmbeddedReader {
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Incoming>, StreamError> {
        let until = Instant::now() + wait;
        loop {
            self.version.borrow_and_update();
            let records = match self.read(max.max(1)).await {
                // Retention has overtaken a slow reader, which holds nothing back: it goes on
                // at the first record that is left, and the error says so once.
                Err(StreamError::OffsetOutOfRange { partition, offset }) => {
                    let low = self.shared.state().partition(&partition).map_or(0, |log| log.low);
                    for cursor in &mut self.cursors {
                        if cursor.partition == partition {
                            *cursor = Cursor::new(partition.clone(), low);
                        }
                    }
                    return Err(StreamError::OffsetOutOfRange { partition, offset });
                }
                other => other?,
            };
            if !records.is_empty() {
                return Ok(records);
            }
            match timeout_at(until, self.version.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(Vec::new()),
            }
        }
    }

    async fn caught_up(&mut self) -> Result<bool, StreamError> {
        let ends = self.asked.take().unwrap_or_else(|| {
            let state = self.shared.state();
            let end =
                |cursor: &Cursor| state.partition(&cursor.partition).map_or(0, |log| log.next);
            self.cursors.iter().map(end).collect()
        });
        let mut read = self.cursors.iter().zip(&ends);
        let all = read.all(|(cursor, end)| cursor.position >= *end);
        self.asked = (!all).then_some(ends);
        Ok(all)
    }
}
