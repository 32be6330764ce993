//! Reading: positions in partitions, and the records from there on.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use metrics::counter;
use tollgate_spool::disk::read_up_to;

use super::Shared;
use super::format::read_block;
use super::state::{BlockRef, Damage};
use crate::metrics as m;
use crate::{Incoming, StreamError, TopicPartition};

/// Bytes read from disk in one go, beyond which the rest waits for the next call.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// A position in one partition.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) partition: TopicPartition,
    /// Offset of the next record that the caller gets.
    pub(super) position: i64,
    /// Read already: the rest of a block.
    ahead: VecDeque<Incoming>,
}

impl Cursor {
    pub(super) fn new(partition: TopicPartition, position: i64) -> Self {
        Self { partition, position, ahead: VecDeque::new() }
    }

    /// Offset of the next record to be read from disk.
    fn read_up_to(&self) -> i64 {
        self.ahead.back().map_or(self.position, |record| record.offset + 1)
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
            let found = load(shared, &cursor.partition, block.clone()).await?;
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

fn next_block(shared: &Shared, cursor: &Cursor) -> Result<Option<BlockRef>, StreamError> {
    let state = shared.state();
    let missing = || StreamError::Transient(format!("{} does not exist", cursor.partition));
    let log = state.partition(&cursor.partition).ok_or_else(missing)?;
    let from = cursor.read_up_to();
    if from < log.low || from > log.next {
        let partition = cursor.partition.clone();
        return Err(StreamError::OffsetOutOfRange { partition, offset: from });
    }
    Ok(log.block_at(from).cloned())
}

async fn load(
    shared: &Arc<Shared>,
    partition: &TopicPartition,
    block: BlockRef,
) -> Result<Vec<Incoming>, StreamError> {
    let wanted = block.clone();
    let bytes = tokio::task::spawn_blocking(move || -> io::Result<Vec<u8>> {
        read_up_to(&*wanted.segment.file, wanted.position, wanted.len as usize)
    })
    .await
    .map_err(|error| StreamError::Fatal(format!("reading has panicked: {error}")))?
    .map_err(|error| StreamError::Transient(format!("embedded log can not be read: {error}")))?;

    let records = read_block(Bytes::from(bytes), block.crc, partition, block.base, block.count);
    Ok(records.unwrap_or_else(|| {
        report(shared, partition, &block);
        Vec::new()
    }))
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
