//! Segment files: names, header block, creation.
//!
//! A segment is `v<format>-<epoch>-<first sequence>-<salt>.segment`. Its first [`HEADER_BLOCK`] bytes hold
//! the header twice, so that a damaged header costs nothing; frames follow. The header names the
//! previous epoch and where that ended: the chain by which anybody can prove that nothing is
//! missing.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, read_up_to};
use crate::error::SpoolError;
use crate::frame::Salt;
use crate::metrics as m;

/// Format of the segment files that this version writes, and the newest that it reads. In format 1
/// no request is compressed.
pub const FORMAT: u32 = 2;

/// Bytes before the first frame.
pub const HEADER_BLOCK: u64 = 4096;

/// Kind of a frame that holds a request.
pub(crate) const RECORD: u8 = 1;

/// Kind of a frame without payload that says what is synced, where no record follows to say it:
/// written when the log falls idle and when it is closed.
pub(crate) const MARK: u8 = 2;

/// Where the two copies of the header stand.
const COPIES: [u64; 2] = [0, HEADER_BLOCK / 2];

const MAGIC: [u8; 8] = *b"tollgate";
const HEADER_BYTES: usize = 80;
const SUFFIX: &str = ".segment";

/// Orders segments: epoch, then first sequence.
pub(crate) type Key = (u64, u64);

/// What a segment's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentName {
    pub format: u32,
    pub epoch: u64,
    /// Sequence of its first record.
    pub first: u64,
    pub salt: Salt,
}

impl SegmentName {
    pub fn key(&self) -> Key {
        (self.epoch, self.first)
    }

    pub fn file_name(&self) -> String {
        let Self { format, epoch, first, salt } = self;
        format!("v{format}-{epoch:020}-{first:020}-{:016x}{SUFFIX}", salt.number())
    }

    /// Reads a name; `None` for a file that is not a segment at all.
    pub fn parse(name: &str) -> Option<Result<Self, SpoolError>> {
        let stem = name.strip_suffix(SUFFIX)?;
        let version = stem.strip_prefix('v').and_then(|rest| rest.split('-').next());
        let version = version.and_then(|digits| digits.parse::<u32>().ok());
        Some(match version {
            Some(found) if found > FORMAT => {
                Err(SpoolError::NewerFormat { file: name.into(), found, known: FORMAT })
            }
            _ => version
                .filter(|format| *format > 0)
                .and_then(|format| Self::parse_stem(stem, format))
                .filter(|parsed| parsed.file_name() == name)
                .ok_or_else(|| SpoolError::ForeignFile { file: name.into() }),
        })
    }

    fn parse_stem(stem: &str, format: u32) -> Option<Self> {
        let mut parts = stem.split('-').skip(1);
        let epoch = parts.next()?.parse().ok()?;
        let first = parts.next()?.parse().ok()?;
        let salt = Salt::new(u64::from_str_radix(parts.next()?, 16).ok()?);
        Some(Self { format, epoch, first, salt })
    }
}

/// What a segment says about what came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SegmentHeader {
    /// The epoch before this one; 0 when there was none.
    pub previous_epoch: u64,
    /// The last valid sequence found there.
    pub previous_last: u64,
    /// The last sequence known to be synced there.
    pub previous_synced: u64,
    /// When the segment was created, milliseconds since 1970 by the log's own clock.
    pub created_ms: i64,
}

impl SegmentHeader {
    fn encode(&self, name: &SegmentName) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&name.format.to_le_bytes());
        let fields = [
            name.salt.number(),
            name.epoch,
            name.first,
            self.previous_epoch,
            self.previous_last,
            self.previous_synced,
            self.created_ms as u64,
        ];
        for (index, field) in fields.iter().enumerate() {
            bytes[16 + index * 8..24 + index * 8].copy_from_slice(&field.to_le_bytes());
        }
        let crc = header_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The format and, if it is known here, the header. `None` when the bytes are none.
    fn decode(bytes: &[u8], name: &SegmentName) -> Option<Result<Self, u32>> {
        let bytes: &[u8; HEADER_BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if bytes[..8] != MAGIC || word(12) != header_crc(bytes) {
            return None;
        }
        if word(8) > FORMAT {
            return Some(Err(word(8)));
        }
        if (long(16), long(24), long(32)) != (name.salt.number(), name.epoch, name.first) {
            return None;
        }
        Some(Ok(Self {
            previous_epoch: long(40),
            previous_last: long(48),
            previous_synced: long(56),
            created_ms: long(64) as i64,
        }))
    }
}

/// Over everything but the CRC itself.
fn header_crc(bytes: &[u8; HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

/// What reading a header block found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadHeader {
    pub header: Option<SegmentHeader>,
    /// How many of the two copies are not valid.
    pub bad_copies: u32,
}

/// Creates a segment and makes it durable: reserved, header written and synced, name synced.
pub(crate) fn create(
    disk: &dyn Disk,
    dir: &Path,
    name: &SegmentName,
    header: &SegmentHeader,
    size: u64,
) -> io::Result<Arc<dyn DiskFile>> {
    let path = dir.join(name.file_name());
    let file = disk.create(&path, size)?;
    let made = (|| {
        let encoded = header.encode(name);
        let mut block = vec![0; HEADER_BLOCK as usize];
        for copy in COPIES {
            block[copy as usize..copy as usize + HEADER_BYTES].copy_from_slice(&encoded);
        }
        file.write_at(0, &block)?;
        file.sync_data()?;
        disk.sync_dir(dir)
    })();
    if let Err(error) = made {
        // It holds nothing. Should the removal fail or not become durable, the next start finds
        // an empty segment of an epoch that nothing else uses.
        let _ = disk.remove(&path);
        return Err(error);
    }
    Ok(file)
}

/// Reads a segment's header; refuses a format newer than this version.
pub(crate) fn read_header(
    file: &dyn DiskFile,
    name: &SegmentName,
) -> Result<ReadHeader, SpoolError> {
    let mut read = ReadHeader { header: None, bad_copies: 0 };
    for copy in COPIES {
        // A copy that cannot be read is a damaged one.
        let bytes = read_up_to(file, copy, HEADER_BYTES).unwrap_or_else(|error| {
            m::disk_failed("read", &name.file_name(), &error);
            Vec::new()
        });
        match SegmentHeader::decode(&bytes, name) {
            Some(Ok(header)) => read.header = Some(header),
            Some(Err(found)) => {
                let file = name.file_name();
                return Err(SpoolError::NewerFormat { file, found, known: FORMAT });
            }
            None => read.bad_copies += 1,
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::FaultyDisk;

    const NAME: fn() -> SegmentName = || SegmentName {
        format: FORMAT,
        epoch: 1_763_000_000_000_000,
        first: 42,
        salt: Salt::new(0xabcd),
    };

    #[test]
    fn a_name_reads_back_and_strangers_are_told_apart() {
        let name = NAME().file_name();
        assert_eq!(SegmentName::parse(&name).unwrap().unwrap(), NAME());
        assert!(SegmentName::parse("position").is_none());
        let older = SegmentName { format: 1, ..NAME() };
        assert_eq!(SegmentName::parse(&name.replace("v2-", "v1-")).unwrap().unwrap(), older);
        let newer = name.replace("v2-", "v3-");
        assert!(matches!(
            SegmentName::parse(&newer).unwrap(),
            Err(SpoolError::NewerFormat { found: 3, known: FORMAT, .. })
        ));
        for foreign in
            ["x.segment", "v1-1-2-3.segment", "v0-1.segment", &name.replace("v2-", "v0-")]
        {
            let parsed = SegmentName::parse(foreign).unwrap();
            assert!(matches!(parsed, Err(SpoolError::ForeignFile { .. })), "{foreign}");
        }
    }

    #[test]
    fn one_damaged_copy_of_the_header_costs_nothing_and_a_newer_format_is_refused() {
        let disk = FaultyDisk::new(1);
        let dir = Path::new("/d");
        disk.create_dir(dir).unwrap();
        let header = SegmentHeader {
            previous_epoch: 9,
            previous_last: 8,
            previous_synced: 7,
            created_ms: -6,
        };
        let file = create(&disk, dir, &NAME(), &header, 20_000).unwrap();
        let clean = ReadHeader { header: Some(header), bad_copies: 0 };
        assert_eq!(read_header(&*file, &NAME()).unwrap(), clean);
        let path = dir.join(NAME().file_name());
        for at in 0..HEADER_BLOCK {
            let fork = disk.fork();
            assert!(fork.flip(&path, at, 4));
            let file = fork.open(&path, crate::disk::Access::Read).unwrap();
            assert_eq!(read_header(&*file, &NAME()).unwrap().header, Some(header), "byte {at}");
        }
        let mut newer = header.encode(&NAME());
        newer[8] = 3;
        let crc = header_crc(&newer);
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        file.write_at(0, &newer).unwrap();
        assert!(matches!(
            read_header(&*file, &NAME()),
            Err(SpoolError::NewerFormat { found: 3, .. })
        ));
    }
}
