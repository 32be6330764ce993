//! Writes groups of requests into the active segment. One thread owns it; it takes no locks and
//! reads no clock, so that its every step can be tested alone.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::frame::{HEADER_LEN, Header, Salt, encode};
use crate::record::{Encoded, Position};
use crate::segment::{FORMAT, HEADER_BLOCK, MARK, RECORD, SegmentHeader, SegmentName, create};

/// The writing end of a spool.
#[derive(Debug)]
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    active: Option<Active>,
    /// The highest epoch that was ever tried.
    highest_epoch: u64,
    /// The last epoch that has a segment, and where it ended.
    previous: Ended,
    next_sequence: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Active {
    file: Arc<dyn DiskFile>,
    name: SegmentName,
    offset: u64,
    /// Sequences that a mark in this segment has named as synced.
    marked: u64,
}

/// Where an epoch ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ended {
    pub epoch: u64,
    pub last: u64,
    pub synced: u64,
}

/// A segment that was just created.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub name: SegmentName,
    pub path: PathBuf,
    pub header: SegmentHeader,
}

/// A group that is on disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    /// Where its first record stands.
    pub first: Position,
    /// Where readers stop now.
    pub end: u64,
    /// Bytes written.
    pub bytes: u64,
}

impl Writer {
    /// Nothing is written until the first [`Writer::open_segment`]. `lowest_epoch` bounds the next
    /// epoch from below.
    pub fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        segment_bytes: u64,
        previous: Ended,
        lowest_epoch: u64,
    ) -> Self {
        Self {
            disk,
            dir,
            segment_bytes,
            active: None,
            highest_epoch: lowest_epoch.saturating_sub(1).max(previous.epoch),
            previous,
            next_sequence: 1,
            buffer: Vec::new(),
        }
    }

    /// Whether there is a segment to write to.
    pub fn is_open(&self) -> bool {
        self.active.is_some()
    }

    /// Bytes of records that still fit into the active segment, next to a mark.
    pub fn room(&self) -> u64 {
        let taken = |active: &Active| active.offset + HEADER_LEN as u64;
        self.active.as_ref().map_or(0, |active| self.segment_bytes.saturating_sub(taken(active)))
    }

    /// The sequence of the next record, while an epoch is open; after a failure the one that was
    /// not stored.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Bytes that a request takes in a segment at most.
    pub fn frame_len(request: &Encoded) -> u64 {
        (HEADER_LEN + request.len()) as u64
    }

    /// Creates the next segment: of the same epoch while everything before is synced, else the
    /// first of a new one. After an error there is no active segment.
    pub fn open_segment(&mut self, now_ms: i64) -> io::Result<Opened> {
        let rolls = self.active.take().map(|active| active.name.epoch);
        let epoch = rolls.unwrap_or_else(|| self.begin_epoch());
        let (first, salt) = (self.next_sequence, Salt::random());
        let name = SegmentName { format: FORMAT, epoch, first, salt };
        let header = SegmentHeader {
            previous_epoch: self.previous.epoch,
            previous_last: self.previous.last,
            previous_synced: self.previous.synced,
            created_ms: now_ms,
        };
        match create(&*self.disk, &self.dir, &name, &header, self.segment_bytes) {
            Ok(file) => {
                let marked = self.next_sequence - 1;
                self.active = Some(Active { file, name, offset: HEADER_BLOCK, marked });
                Ok(Opened { name, path: self.dir.join(name.file_name()), header })
            }
            Err(error) => {
                // An epoch that never had a segment is not named by the next.
                if rolls.is_some() {
                    self.end_epoch(epoch);
                }
                Err(error)
            }
        }
    }

    fn begin_epoch(&mut self) -> u64 {
        self.highest_epoch += 1;
        self.next_sequence = 1;
        self.highest_epoch
    }

    /// Nothing more is written under this epoch.
    fn end_epoch(&mut self, epoch: u64) {
        self.active = None;
        let last = self.next_sequence - 1;
        self.previous = Ended { epoch, last, synced: last };
    }

    /// Writes and syncs a group, which must fit ([`Writer::room`]). After an error the segment is
    /// given up for good, and with it the epoch.
    pub fn write(&mut self, group: &[Encoded]) -> io::Result<Written> {
        let Some(active) = &mut self.active else {
            return Err(io::Error::other("no segment is open"));
        };
        let epoch = active.name.epoch;
        let first = Position { epoch, sequence: self.next_sequence };
        let synced = self.next_sequence - 1;
        self.buffer.clear();
        for (sequence, request) in (first.sequence..).zip(group) {
            let time_ms = request.received_at_ms();
            let header = Header { kind: RECORD, epoch, sequence, synced, time_ms, length: 0 };
            encode(&mut self.buffer, active.name.salt, &header, |out| request.put_payload(out));
        }
        let written = active
            .file
            .write_at(active.offset, &self.buffer)
            .and_then(|()| active.file.sync_data());
        let bytes = self.buffer.len() as u64;
        // One huge group must not hold its memory for ever.
        self.buffer.shrink_to(1 << 20);
        if let Err(error) = written {
            self.end_epoch(epoch);
            return Err(error);
        }
        active.offset += bytes;
        self.next_sequence += group.len() as u64;
        Ok(Written { first, end: active.offset, bytes })
    }

    /// Whether the last group is known as synced to nobody but this process.
    pub fn wants_mark(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.marked < self.next_sequence - 1)
    }

    /// Says in the log that everything written so far is synced, so that damage to the last group
    /// can be told from a torn tail. Needs no sync of its own unless the log is closed after it.
    pub fn mark(&mut self, sync: bool) -> io::Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let epoch = active.name.epoch;
        let synced = self.next_sequence - 1;
        let header = Header { kind: MARK, epoch, sequence: synced, synced, time_ms: 0, length: 0 };
        self.buffer.clear();
        encode(&mut self.buffer, active.name.salt, &header, |_| {});
        let mut written = active.file.write_at(active.offset, &self.buffer);
        if sync {
            written = written.and_then(|()| active.file.sync_data());
        }
        if let Err(error) = written {
            self.end_epoch(epoch);
            return Err(error);
        }
        active.offset += self.buffer.len() as u64;
        active.marked = synced;
        Ok(())
    }
}
