//! A member of a consumer group within this process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::cursor::{Cursor, read};
use super::format::StoredGroup;
use crate::{Consumer, ConsumerOptions, Event, StreamError, TopicPartition};

/// Numbers the members of all groups.
static MEMBERS: AtomicU64 = AtomicU64::new(1);

#[derive(Debug)]
struct Delivery {
    cursor: Cursor,
    paused: bool,
}

#[derive(Debug)]
pub(super) struct EmbeddedConsumer {
    shared: Arc<Shared>,
    group: String,
    id: u64,
    /// Partitions whose delivery was started.
    started: BTreeMap<TopicPartition, Delivery>,
    version: watch::Receiver<u64>,
    /// Which partition comes first at the next poll.
    turn: usize,
}

impl EmbeddedConsumer {
    /// Registers the group, so that retention waits for it, and joins.
    pub(super) async fn join(
        shared: Arc<Shared>,
        options: ConsumerOptions,
    ) -> Result<Self, StreamError> {
        let mut wanted = BTreeSet::new();
        let registered = {
            let state = shared.state();
            for name in &options.topics {
                let topic = state.topics.get(name.as_str()).ok_or_else(|| {
                    StreamError::Transient(format!(
                        "topic {name} is missing; run `tollgate topics create`"
                    ))
                })?;
                let partitions = 0..topic.partitions.len() as i32;
                wanted.extend(partitions.map(|index| TopicPartition::new(name.as_str(), index)));
            }
            state.groups.get(&options.group).is_some_and(|group| {
                options.topics.iter().all(|topic| group.topics.contains(topic))
            })
        };
        if !registered {
            let group = StoredGroup {
                name: options.group.clone(),
                topics: options.topics.clone(),
                progress: Vec::new(),
            };
            shared.control(Vec::new(), vec![group], Vec::new()).await?;
        }
        let id = MEMBERS.fetch_add(1, Ordering::Relaxed);
        shared.members().entry(options.group.clone()).or_default().join(id, wanted);
        let version = shared.version.subscribe();
        shared.announce();
        Ok(Self { shared, group: options.group, id, started: BTreeMap::new(), version, turn: 0 })
    }

    fn news(&mut self) -> Option<Event> {
        let event = {
            let mut members = self.shared.members();
            members.get_mut(&self.group)?.news(self.id)?
        };
        if let Event::Revoked(partitions) = &event {
            for partition in partitions {
                self.started.remove(partition);
            }
            // Somebody may be waiting for them.
            self.shared.announce();
        }
        Some(event)
    }

    async fn records(&mut self, max: usize) -> Result<Vec<crate::Incoming>, StreamError> {
        let mut cursors: Vec<&mut Cursor> = self
            .started
            .values_mut()
            .filter(|delivery| !delivery.paused)
            .map(|delivery| &mut delivery.cursor)
            .collect();
        if cursors.is_empty() {
            return Ok(Vec::new());
        }
        self.turn = (self.turn + 1) % cursors.len();
        cursors.rotate_left(self.turn);
        let result = read(&self.shared, &mut cursors, max).await;
        if let Err(StreamError::OffsetOutOfRange { partition, .. }) = &result {
            // Said once; nothing more comes from there until it is started again.
            self.started.remove(partition);
        }
        result
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Event, StreamError> {
        let until = Instant::now() + wait;
        loop {
            self.version.borrow_and_update();
            if let Some(event) = self.news() {
                return Ok(event);
            }
            let records = self.records(max.max(1)).await?;
            if !records.is_empty() {
                return Ok(Event::Records(records));
            }
            if self.shared.queue.is_closed() {
                return Err(StreamError::Transient("embedded log is closed".to_owned()));
            }
            match timeout_at(until, self.version.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(Event::Idle),
            }
        }
    }

    async fn start(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), StreamError> {
        let cursor = Cursor::new(partition.clone(), offset);
        self.started.insert(partition.clone(), Delivery { cursor, paused: false });
        Ok(())
    }

    async fn pause(&mut self, partition: &TopicPartition) -> Result<(), StreamError> {
        if let Some(delivery) = self.started.get_mut(partition) {
            delivery.paused = true;
        }
        Ok(())
    }

    async fn resume(&mut self, partition: &TopicPartition) -> Result<(), StreamError> {
        if let Some(delivery) = self.started.get_mut(partition) {
            delivery.paused = false;
        }
        Ok(())
    }

    async fn stop(&mut self, partition: &TopicPartition) -> Result<(), StreamError> {
        self.started.remove(partition);
        Ok(())
    }

    async fn report_progress(&mut self, offsets: &[(TopicPartition, i64)]) {
        let mut state = self.shared.state();
        let Some(group) = state.groups.get_mut(&self.group) else { return };
        let mut changed = false;
        for (partition, next) in offsets {
            let known = group.progress.entry(partition.clone()).or_insert(0);
            changed |= *next > *known;
            *known = (*known).max(*next);
        }
        if changed {
            state.dirty.insert(self.group.clone());
            drop(state);
            self.shared.queue.nudge();
        }
    }

    async fn close(self: Box<Self>) {}
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        let mut members = self.shared.members();
        if let Some(group) = members.get_mut(&self.group) {
            group.leave(self.id);
            if group.is_empty() {
                members.remove(&self.group);
            }
        }
        drop(members);
        self.shared.announce();
    }
}
