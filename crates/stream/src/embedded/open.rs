//! Start: reads every segment, finds where the log ends, and begins a new segment there.
//!
//! Groups are numbered without gaps and each was synced before the next was written, so:
//!
//! - a number that is missing between two that are there is damage, and reported;
//! - bytes behind the last group were never confirmed: the torn last group;
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
use tollgate_spool::disk::Disk;
use tollgate_spool::frame::{HEADER_LEN, Item, Scanner};

use super::EmbeddedOptions;
use super::format::{FORMAT, GROUP, Group, read_group};
use super::segment::{Active, Found, Frame, find_all};
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
        recovery.read(segment).map_err(fatal)?;
    }
    for damage in &recovery.state.damage {
        tracing::error!(
            file = %damage.file.display(), partition = ?damage.partition.as_ref().map(ToString::to_string),
            from = damage.from, to = damage.to,
            "embedded log is damaged: confirmed records cannot be read"
        );
    }
    recovery.finish(disk, options, now_ms).map_err(fatal)
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
        }
        self.state.segments.push_back(Segment {
            file: Arc::clone(&found.file),
            bytes: found.bytes,
            ends: HashMap::new(),
        });
        let mut data_end = 0;
        let mut scanner = Scanner::new(Arc::clone(&found.file.file), found.salt, 0)?;
        while let Some(item) = scanner.next_item()? {
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
            data_end = scanner.offset();
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
        let dir = &options.settings.dir;
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
        let size =
            options.settings.segment_bytes.max(again.as_ref().map_or(0, |(frame, _)| frame.len()));
        let head = self.state.snapshot();
        let number = self.highest_number + 1;
        let mut active = Active::create(disk, dir, number, &head, size, now_ms)?;
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
        Ok(Opened { state: self.state, active })
    }
}

/// Whether a segment without a head has anything at all in it: one whose making was interrupted
/// has not, or at most a torn head.
fn has_data(segment: &Found) -> bool {
    let Ok(mut scanner) = Scanner::new(Arc::clone(&segment.file.file), segment.salt, 0) else {
        return true;
    };
    while let Ok(Some(item)) = scanner.next_item() {
        if matches!(item, Item::Frame { .. }) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::format::SegmentHead;
    use super::*;
    use crate::settings::EmbeddedSettings;
    use tollgate_spool::disk::FaultyDisk;

    fn open_one_of(format: u32) -> Result<Opened, StreamError> {
        let disk = FaultyDisk::new(1);
        let options = EmbeddedOptions::new(EmbeddedSettings {
            dir: "/log".into(),
            ..EmbeddedSettings::default()
        });
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
}
