//! Segment files: their names, their making, their reading at start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tollgate_spool::Salvage;
use tollgate_spool::disk::{Access, Disk, DiskFile};
use tollgate_spool::frame::{self, HEADER_LEN, Header, Item, Salt, Scanner};

use super::format::{HEAD, SegmentHead};
use super::state::SegmentFile;

/// How often a start repeats a read that fails, before it takes what cannot be read for damage.
const PATIENCE: u32 = 5;
/// How long it waits before that.
const REST: Duration = Duration::from_millis(200);
/// Half of a segment may be unreadable, and in any case not less or more than this; where it is more
/// the disk is away, and not damaged.
const SOME_UNREADABLE: u64 = 16 * 1024;
const MOST_UNREADABLE: u64 = 1024 * 1024;

/// A segment that is being written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: Arc<SegmentFile>,
    pub(super) salt: Salt,
    /// Where the next frame goes.
    pub(super) position: u64,
    /// Bytes reserved.
    pub(super) size: u64,
}

/// A frame on its way to disk.
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) sequence: u64,
    pub(super) synced: u64,
    pub(super) time_ms: i64,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn len(&self) -> u64 {
        (HEADER_LEN + self.payload.len()) as u64
    }
}

impl Active {
    /// Creates a segment, with its head, durably: when this returns, groups can go in.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        number: u64,
        head: &SegmentHead,
        size: u64,
        time_ms: i64,
    ) -> io::Result<Self> {
        let salt = Salt::random();
        let path = dir.join(name_of(number, salt));
        let head_frame = Frame {
            kind: HEAD,
            sequence: head.after,
            synced: head.after,
            time_ms,
            payload: head.encode_to_vec(),
        };
        let size = size + head_frame.len();
        let file = disk.create(&path, size)?;
        let file = Arc::new(SegmentFile { number, path, file });
        let mut active = Self { file, salt, position: 0, size };
        if let Err(error) = active.append(&head_frame).and_then(|_| disk.sync_dir(dir)) {
            active.discard(disk);
            return Err(error);
        }
        Ok(active)
    }

    /// Nobody knows of it, so nobody would ever remove it. Cut first: where its name stays, its
    /// reserve does not.
    fn discard(&self, disk: &dyn Disk) {
        let cut = self.file.file.set_len(0);
        if let Err(error) = cut.and(disk.remove(&self.file.path)) {
            tracing::warn!(file = %self.file.path.display(), %error, "a segment that could not be made stays on disk");
        }
    }

    /// Writes and syncs one frame; returns where its payload begins. After an error this segment
    /// must not be written any more.
    pub(super) fn append(&mut self, frame: &Frame) -> io::Result<u64> {
        let mut bytes = Vec::with_capacity(frame.len() as usize);
        let header = Header {
            kind: frame.kind,
            epoch: self.file.number,
            sequence: frame.sequence,
            synced: frame.synced,
            time_ms: frame.time_ms,
            length: 0,
        };
        frame::encode(&mut bytes, self.salt, &header, |out| out.extend_from_slice(&frame.payload));
        self.file.file.write_at(self.position, &bytes)?;
        self.file.file.sync_data()?;
        let payload_at = self.position + HEADER_LEN as u64;
        self.position += bytes.len() as u64;
        Ok(payload_at)
    }

    pub(super) fn room(&self) -> u64 {
        self.size.saturating_sub(self.position)
    }
}

fn name_of(number: u64, salt: Salt) -> String {
    format!("{number:020}-{:016x}.log", salt.number())
}

/// Number and salt, if this is the name of a segment.
pub(super) fn parse_name(name: &str) -> Option<(u64, Salt)> {
    let (number, salt) = name.strip_suffix(".log")?.split_once('-')?;
    Some((number.parse().ok()?, Salt::new(u64::from_str_radix(salt, 16).ok()?)))
}

/// Reads a segment's frames. A bad sector costs the groups it hits, and not the start.
pub(super) struct Reader {
    scanner: Scanner<Salvage>,
    most_unreadable: u64,
}

impl Reader {
    pub(super) fn new(file: &Arc<dyn DiskFile>, salt: Salt) -> io::Result<Self> {
        let scanner = Scanner::new(Salvage::new(Arc::clone(file), PATIENCE), salt, 0)?;
        let most_unreadable = (file.len()? / 2).clamp(SOME_UNREADABLE, MOST_UNREADABLE);
        Ok(Self { scanner, most_unreadable })
    }

    #[expect(clippy::disallowed_methods, reason = "nobody says when a disk can be read again")]
    pub(super) fn next_item(&mut self) -> io::Result<Option<Item>> {
        let mut item = self.scanner.next_item();
        for _ in 0..PATIENCE {
            if item.is_ok() {
                break;
            }
            std::thread::sleep(REST);
            item = self.scanner.next_item();
        }
        if self.scanner.source().given_up() > self.most_unreadable {
            return Err(io::Error::other("more than a sector cannot be read; is the disk there?"));
        }
        item
    }

    /// Where the next item begins.
    pub(super) fn offset(&self) -> u64 {
        self.scanner.offset()
    }

    /// Whether something could not be read at all.
    pub(super) fn gave_up(&self) -> bool {
        self.scanner.source().given_up() > 0
    }
}

/// A segment found at start.
pub(super) struct Found {
    pub(super) file: Arc<SegmentFile>,
    pub(super) salt: Salt,
    pub(super) bytes: u64,
    /// `None` when it cannot be read.
    pub(super) head: Option<SegmentHead>,
}

/// An error with the file it is about.
pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// All segments of a directory, oldest first, with their heads.
pub(super) fn find_all(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for listed in disk.list(dir)? {
        let Some((number, salt)) = parse_name(&listed.name) else { continue };
        if listed.is_dir {
            continue;
        }
        let path: PathBuf = dir.join(&listed.name);
        let file = disk.open(&path, Access::ReadWrite).map_err(|error| named(&path, &error))?;
        let mut reader = Reader::new(&file, salt).map_err(|error| named(&path, &error))?;
        let head = match reader.next_item().map_err(|error| named(&path, &error))? {
            Some(Item::Frame { offset: 0, header, payload }) if header.kind == HEAD => {
                SegmentHead::decode(payload).ok()
            }
            _ => None,
        };
        let file = Arc::new(SegmentFile { number, path, file });
        found.push(Found { file, salt, bytes: listed.len, head });
    }
    found.sort_by_key(|found| found.file.number);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_sort_by_number() {
        let salt = Salt::new(0x1234);
        assert_eq!(parse_name(&name_of(7, salt)), Some((7, salt)));
        assert!(name_of(9, salt) < name_of(10, Salt::new(0)));
        for name in ["lock", "x.log", "1-zz.log", "00000000000000000001.log"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
