//! Reading: positions in partitions, and the records from there on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::Instant;
use tollgate_spool::disk::read_up_to;

use super::Shared;
use super::format::read_block;
use super::state::{BlockRef, Damage};
use crate::metrics as m;
use crate::{Incoming, StreamError, TopicPartition};

/// Bytes read from disk in one go, beyond which the rest waits for the next call.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// How long a block is tried that cannot be read, before it is given up as damaged.
const PATIENCE: Duration = Duration::from_secs(5);

/// A position in one partition.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) partition: TopicPartition,
    /// Offset of the next record that the caller gets.
    pub(super) position: i64,
    /// Read already: the rest of a block.
    ahead: VecDeque<Incoming>,
    /// First offset of a block that could not be read, and since when.
    failing: Option<(i64, Instant)>,
}

impl Cursor {
    pub(super) fn new(partition: TopicPartition, position: i64) -> Self {
        Self { partition, position, ahead: VecDeque::new(), failing: None }
    }

    /// Offset of the next record to be read from disk.
    fn read_up_to(&self) -> i64 {
        self.ahead.back().map_or(self.position, |record| record.offset + 1)
    }

    /// How long this block could not be read.
    fn failing_for(&mut self, block: &BlockRef) -> Duration {
        let now = Instant::now();
        let (_, since) =
            self.failing.filter(|(base, _)| *base == block.base).unwrap_or((block.base, now));
        self.failing = Some((block.base, since));
        now - since
    }

    fn take(&mut self, most: usize, into: &mut Vec<Incoming>) {
        while into.len() < most
            && let Some(record) = self.ahead.pop_front()
        {
            self.position = record.offset + 1;
            into.push(record);
        }
    }
}

/// Up to `max` records from these positions, those of earlier cursors first. Reads only what is
/// synced, since only that is known to the state.
///
/// A caller may give up at any await: positions move only after the last one.
pub(super) async fn read(
    shared: &Arc<Shared>,
    cursors: &mut [&mut Cursor],
    max: usize,
) -> Result<Vec<Incoming>, StreamError> {
    let trouble = fill(shared, cursors, max).await.err();
    if let Some(error @ StreamError::OffsetOutOfRange { .. }) = trouble {
        // Said at once, or a busy partition would hide it for ever; what was read stays ahead.
        return Err(error);
    }
    let mut records = Vec::new();
    for cursor in cursors {
        cursor.take(max, &mut records);
    }
    // What was read before the trouble comes first; the trouble is still there at the next call.
    match trouble {
        Some(error) if records.is_empty() => Err(error),
        _ => Ok(records),
    }
}

/// Reads blocks until there are `max` records ahead, or no more.
async fn fill(
    shared: &Arc<Shared>,
    cursors: &mut [&mut Cursor],
    max: usize,
) -> Result<(), StreamError> {
    let mut bytes = 0;
    let mut records: usize = cursors.iter().map(|cursor| cursor.ahead.len()).sum();
    for cursor in cursors {
        while records < max && bytes < MOST_BYTES {
            let Some(block) = next_block(shared, cursor)? else { break };
            bytes += block.len as usize;
            let from = cursor.read_up_to();
            let found = load(shared, cursor, &block).await?;
            let before = cursor.ahead.len();
            cursor.ahead.extend(found.into_iter().filter(|record| record.offset >= from));
            records += cursor.ahead.len() - before;
            if cursor.ahead.len() == before {
                if before > 0 {
                    // Damage behind records that come first.
                    break;
                }
                cursor.position = block.end();
            }
        }
    }
    Ok(())
}

fn next_block(shared: &Shared, cursor: &mut Cursor) -> Result<Option<BlockRef>, StreamError> {
    let state = shared.state();
    let missing = || StreamError::Transient(format!("{} does not exist", cursor.partition));
    let log = state.partition(&cursor.partition).ok_or_else(missing)?;
    let from = cursor.read_up_to();
    if from < log.low || from > log.next {
        let partition = cursor.partition.clone();
        return Err(StreamError::OffsetOutOfRange { partition, offset: from });
    }
    let block = log.block_at(from).cloned();
    if block.is_none() && cursor.ahead.is_empty() {
        // The last records may be lost.
        cursor.position = log.next;
    }
    Ok(block)
}

async fn load(
    shared: &Arc<Shared>,
    cursor: &mut Cursor,
    block: &BlockRef,
) -> Result<Vec<Incoming>, StreamError> {
    let panicked = |error| StreamError::Fatal(format!("reading has panicked: {error}"));
    let wanted = block.clone();
    let read = spawn_blocking(move || {
        read_up_to(&*wanted.segment.file, wanted.position, wanted.len as usize)
    });
    let bytes = match read.await.map_err(panicked)? {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) => {
            let long = cursor.failing_for(block) >= PATIENCE;
            if !long || is_away(shared).await.map_err(panicked)? {
                let file = block.segment.path.display();
                return Err(StreamError::Transient(format!("{file} can not be read: {error}")));
            }
            Bytes::new()
        }
    };
    let records = read_block(bytes, block.crc, &cursor.partition, block.base, block.count);
    Ok(records.unwrap_or_else(|| {
        report(shared, &cursor.partition, block);
        Vec::new()
    }))
}

/// Whether no segment can be read: that is more than a bad sector, and may pass.
async fn is_away(shared: &Arc<Shared>) -> Result<bool, JoinError> {
    let files: Vec<_> =
        shared.state().segments.iter().map(|segment| Arc::clone(&segment.file)).collect();
    spawn_blocking(move || files.iter().all(|it| it.file.read_at(0, &mut [0]).is_err())).await
}

/// Records that were there when the log was opened, and are not any more.
fn report(shared: &Shared, partition: &TopicPartition, block: &BlockRef) {
    let damage = Damage {
        file: block.segment.path.clone(),
        partition: Some(partition.clone()),
        from: block.base,
        to: block.end(),
    };
    let mut state = shared.state();
    if !state.damage.contains(&damage) {
        counter!(m::EMBEDDED_DAMAGE.name).increment(1);
        tracing::error!(
            file = %damage.file.display(), %partition, from = damage.from, to = damage.to,
            "embedded log is damaged: confirmed records cannot be read"
        );
        state.damage.push(damage);
    }
}
