//! Start: reads every segment, finds where the log ends, and begins a new segment there.
//!
//! Groups are numbered without gaps and each was synced before the next was written, so:
//!
//! - a number that is missing between two that are there is damage, and reported;
//! - bytes behind the last group were never confirmed: the torn last group; but where they cannot
//!   be read nobody knows, and numbers and offsets are left out for what may stand there;
//! - a number that comes again in a later segment replaces what was not confirmed before.
//!
//! The last group may stand in the page cache only, or its sync may have failed: nothing on disk
//! says so. It is therefore written again, as the first group of the new segment, before anybody
//! reads it. Nothing is cut out of a file, whatever it contains.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tollgate_spool::disk::Disk;
use tollgate_spool::frame::{HEADER_LEN, Item};

use super::EmbeddedOptions;
use super::format::{FORMAT, GROUP, Group, read_group};
use super::segment::{Active, Found, Frame, Reader, find_all, named};
use super::state::{Segment, SegmentFile, State};
use crate::StreamError;

/// A log that was read, ready to be written.
pub(super) struct Opened {
    pub(super) state: State,
    pub(super) active: Active,
}

pub(super) fn open(
    disk: &dyn Disk,
    options: &EmbeddedOptions,
    now_ms: i64,
) -> Result<Opened, StreamError> {
    let dir = &options.settings.dir;
    let fatal = |error: io::Error| {
        StreamError::Fatal(format!("embedded log in {}: {error}", dir.display()))
    };
    let found = find_all(disk, dir).map_err(fatal)?;
    let mut recovery = Recovery::default();
    recovery.begin(&found, dir)?;
    for segment in &found {
        recovery.read(segment).map_err(|error| fatal(named(&segment.file.path, &error)))?;
    }
    let opened = recovery.finish(disk, options, now_ms).map_err(fatal)?;
    for damage in &opened.state.damage {
        tracing::error!(
            file = %damage.file.display(), partition = ?damage.partition.as_ref().map(ToString::to_string),
            from = damage.from, to = damage.to,
            "embedded log is damaged: confirmed records cannot be read"
        );
    }
    Ok(opened)
}

/// The last group read, not taken in yet: a later segment may replace it.
struct Last {
    sequence: u64,
    payload: Bytes,
    group: Group,
    file: Arc<SegmentFile>,
    payload_at: u64,
}

#[derive(Default)]
struct Recovery {
    state: State,
    last: Option<Last>,
    highest_number: u64,
    /// Bytes behind the last group that cannot be read, or stand behind such: groups may be there.
    in_doubt: u64,
}

impl Recovery {
    fn begin(&mut self, found: &[Found], dir: &Path) -> Result<(), StreamError> {
        let newest = found.iter().filter_map(|it| it.head.as_ref()).map(|head| head.format).max();
        if let Some(newest) = newest.filter(|format| *format > FORMAT) {
            return Err(StreamError::Fatal(format!(
                "embedded log in {} has format {newest}, this version knows formats up to \
                 {FORMAT}; start the newer version, or move the directory away to begin an empty log",
                dir.display()
            )));
        }
        let Some(first) = found.iter().position(|segment| segment.head.is_some()) else {
            if found.iter().any(|segment| segment.bytes > 0 && has_data(segment)) {
                return Err(StreamError::Fatal(format!(
                    "embedded log in {}: no segment can be read; restore the directory, or move \
                     it away to begin an empty log",
                    dir.display()
                )));
            }
            self.state.cluster_id = format!("embedded-{:032x}", rand::random::<u128>());
            return Ok(());
        };
        if let Some(head) = &found[first].head {
            self.state.begin(head, first > 0);
        }
        Ok(())
    }

    fn read(&mut self, found: &Found) -> io::Result<()> {
        self.highest_number = found.file.number;
        if let Some(head) = &found.head {
            if self.last.as_ref().is_some_and(|last| last.sequence <= head.after) {
                self.take_in_last();
            }
            self.state.check_head(head, &found.file);
            self.in_doubt = 0;
        }
        self.state.segments.push_back(Segment {
            file: Arc::clone(&found.file),
            bytes: found.bytes,
            ends: HashMap::new(),
        });
        let (mut groups_end, mut data_end) = (0, 0);
        let mut reader = Reader::new(&found.file.file, found.salt)?;
        while let Some(item) = reader.next_item()? {
            match item {
                Item::Frame { offset, header, payload } if header.kind == GROUP => {
                    let Some(group) = read_group(&payload) else { continue };
                    self.next_group(Last {
                        sequence: header.sequence,
                        payload,
                        group,
                        file: Arc::clone(&found.file),
                        payload_at: offset + HEADER_LEN as u64,
                    });
                }
                Item::Frame { .. } => {}
                Item::Damage(damage) => {
                    data_end = damage.offset + damage.len;
                    tracing::warn!(
                    file = %found.file.path.display(), offset = damage.offset, len = damage.len,
                    followed = damage.followed, "bytes of the embedded log that are no group"
                    );
                    continue;
                }
            }
            groups_end = reader.offset();
            data_end = groups_end;
        }
        if reader.gave_up() {
            self.in_doubt += data_end - groups_end;
        }
        self.release_reserve(data_end);
        Ok(())
    }

    /// Gives the zeros at the end of a segment back to the file system: nobody writes there.
    fn release_reserve(&mut self, data_end: u64) {
        if let Some(segment) = self.state.segments.back_mut()
            && segment.bytes > data_end
            && segment.file.file.set_len(data_end).is_ok()
        {
            segment.bytes = data_end;
        }
    }

    fn next_group(&mut self, next: Last) {
        match &self.last {
            Some(last) if last.sequence >= next.sequence => {}
            Some(_) => self.take_in_last(),
            None => {}
        }
        self.last = Some(next);
    }

    fn take_in_last(&mut self) {
        let Some(last) = self.last.take() else { return };
        self.state.note_gap(last.sequence, &last.file);
        self.state.apply(last.sequence, &last.group, &last.file, last.payload_at);
    }

    /// Begins the segment that this process writes.
    fn finish(
        mut self,
        disk: &dyn Disk,
        options: &EmbeddedOptions,
        now_ms: i64,
    ) -> io::Result<Opened> {
        let settings = &options.settings;
        if self.in_doubt > 0
            && let Some(file) = self.state.segments.back().map(|segment| Arc::clone(&segment.file))
        {
            self.take_in_last();
            self.state.leave_out(self.in_doubt, &file);
        }
        let last = self.last.take();
        if let Some(last) = &last {
            self.state.note_gap(last.sequence, &last.file);
        }
        let again = last.map(|last| {
            let synced = last.sequence.saturating_sub(1);
            let payload = last.payload.to_vec();
            let frame =
                Frame { kind: GROUP, sequence: last.sequence, synced, time_ms: now_ms, payload };
            (frame, last.group)
        });
        let head = self.state.snapshot();
        let needed = again.as_ref().map_or(0, |(frame, _)| frame.len());
        let size = if self.state.bytes() + settings.segment_bytes <= settings.max_bytes {
            needed.max(settings.segment_bytes)
        } else {
            // Records have to ask for room; a mark, which is no longer than the head, has it.
            needed + (HEADER_LEN + head.encoded_len()) as u64
        };
        let number = self.highest_number + 1;
        let mut active = Active::create(disk, &settings.dir, number, &head, size, now_ms)?;
        let segment =
            Segment { file: Arc::clone(&active.file), bytes: active.size, ends: HashMap::new() };
        match again {
            None => self.state.segments.push_back(segment),
            Some((frame, group)) => {
                let payload_at = active.append(&frame)?;
                self.state.segments.push_back(segment);
                self.state.apply(frame.sequence, &group, &active.file, payload_at);
            }
        }
        self.state.check_progress(&active.file);
        Ok(Opened { state: self.state, active })
    }
}

/// Whether a segment without a head has anything at all in it: one whose making was interrupted
/// has not, or at most a torn head.
fn has_data(segment: &Found) -> bool {
    let Ok(mut reader) = Reader::new(&segment.file.file, segment.salt) else {
        return true;
    };
    while let Ok(Some(item)) = reader.next_item() {
        if matches!(item, Item::Frame { .. }) {
            return true;
        }
    }
    reader.gave_up()
}

#[cfg(test)]
mod tests {
    use super::super::format::{
        GroupHead, SegmentHead, StoredGroup, StoredProgress, StoredTopic, put_group,
    };
    use super::*;
    use crate::settings::EmbeddedSettings;
    use tollgate_spool::disk::FaultyDisk;

    fn options() -> EmbeddedOptions {
        let settings = EmbeddedSettings { dir: "/log".into(), ..EmbeddedSettings::default() };
        EmbeddedOptions::new(settings)
    }

    fn open_one_of(format: u32) -> Result<Opened, StreamError> {
        let disk = FaultyDisk::new(1);
        let options = options();
        let dir = &options.settings.dir;
        disk.create_dir(dir).unwrap();
        let head = SegmentHead { cluster_id: "here".into(), format, ..SegmentHead::default() };
        Active::create(&disk, dir, 1, &head, 4096, 0).unwrap();
        open(&disk, &options, 0)
    }

    #[test]
    fn a_log_of_a_newer_format_is_refused_and_says_what_to_do() {
        for format in [0, FORMAT] {
            assert_eq!(open_one_of(format).unwrap().state.cluster_id, "here");
        }
        let Err(StreamError::Fatal(said)) = open_one_of(FORMAT + 1) else {
            panic!("a newer format was opened")
        };
        assert!(said.contains("format 2") && said.contains("start the newer version"), "{said}");
    }

    /// Older versions wrote no ends into groups.
    #[test]
    fn a_partition_reaches_as_far_as_it_was_applied_whatever_can_be_read() {
        let disk = FaultyDisk::new(1);
        let options = options();
        let dir = &options.settings.dir;
        disk.create_dir(dir).unwrap();
        let topic = StoredTopic { name: "t".into(), partitions: 2, ..StoredTopic::default() };
        let head = SegmentHead { topics: vec![topic], ..SegmentHead::default() };
        let mut active = Active::create(&disk, dir, 1, &head, 4096, 0).unwrap();
        // Of group 1, with its three records, nothing is left.
        let progress = StoredProgress { topic: "t".into(), partition: 1, next_offset: 3 };
        let group =
            StoredGroup { name: "g".into(), topics: vec!["t".into()], progress: vec![progress] };
        for (sequence, groups) in [(2, vec![group]), (3, Vec::new())] {
            let mut payload = Vec::new();
            put_group(&mut payload, &GroupHead { groups, ..GroupHead::default() }, &[]);
            let frame = Frame { kind: GROUP, sequence, synced: sequence - 1, time_ms: 0, payload };
            active.append(&frame).unwrap();
        }
        let state = open(&disk, &options, 0).unwrap().state;
        let ends: Vec<i64> = state.topics["t"].partitions.iter().map(|log| log.next).collect();
        assert_eq!(ends, [0, 3]);
        assert!(state.damage.iter().any(|it| (it.from, it.to) == (0, 3)), "{:?}", state.damage);
    }
}
