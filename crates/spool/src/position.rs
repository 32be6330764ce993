//! The reader's position on disk: two slots in a file that is reserved and written in full when
//! it is made, so that a full disk cannot stop progress.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Access, Disk, DiskFile, read_up_to};
use crate::error::{During as _, SpoolError};
use crate::metrics as m;
use crate::record::Position;

/// Name of the file.
pub(crate) const FILE: &str = "position";
/// Name under which it is made.
pub(crate) const UNFINISHED: &str = "position.new";

const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"tollpos\0";
const SLOT: u64 = 4096;
const SLOT_BYTES: usize = 40;

/// The file, opened for writing.
#[derive(Debug)]
pub(crate) struct PositionFile {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    /// Counts the writes; the higher of two valid slots is in force.
    generation: u64,
    /// Whether the file's name is durable. Whoever made a file that is found may have died before.
    is_named: bool,
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ReadPosition {
    /// The lowest unconfirmed record; `None` when there is no file, or nothing valid in it.
    pub position: Option<Position>,
    /// Whether a slot could not be read: the position in it may be a later one.
    pub in_doubt: bool,
    generation: u64,
}

/// Reads the position of a directory.
pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<ReadPosition, SpoolError> {
    let path = dir.join(FILE);
    let file = match disk.open(&path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(ReadPosition::default());
        }
        Err(error) => {
            let action = "open its position (move the file away, and all is published again under the same ids)";
            return Err(error).during_at(action, &path);
        }
    };
    let mut best = ReadPosition::default();
    for slot in [0, SLOT] {
        let bytes = match read_up_to(&*file, slot, SLOT_BYTES) {
            Ok(bytes) => bytes,
            // At worst everything is published again, under the same ids; that is no reason not to
            // start.
            Err(error) => {
                m::disk_failed("read", FILE, &error);
                best.in_doubt = true;
                continue;
            }
        };
        match decode(&bytes) {
            Some(Ok((generation, position))) if generation >= best.generation => {
                best = ReadPosition { position: Some(position), generation, ..best };
            }
            Some(Err(found)) => {
                return Err(SpoolError::NewerFormat { file: FILE.into(), found, known: FORMAT });
            }
            Some(Ok(_)) | None => {}
        }
    }
    Ok(best)
}

impl PositionFile {
    /// Opens or makes the file. A disk that fails now is tried again at the first write.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, read: &ReadPosition) -> Self {
        let generation = read.generation;
        let mut position =
            Self { disk, dir: dir.to_path_buf(), file: None, generation, is_named: false };
        // Without a valid slot in it the file is made anew: it may be of any length.
        if let Some(known) = read.position {
            position.file = position.disk.open(&dir.join(FILE), Access::ReadWrite).ok();
            if position.file.is_none() {
                let _ = position.make(known);
            }
        } else {
            let _ = position.make(Position::default());
        }
        position
    }

    /// Writes and syncs a position. After a failure the next write goes into a new file if one
    /// can be made, since nothing is known about the old one; on a full disk the slot is written
    /// anew in the old one, whole, which proves itself by its own CRC.
    pub fn write(&mut self, position: Position) -> io::Result<()> {
        let Some(file) = self.file.clone() else { return self.make(position) };
        let written = self.write_slot(&*file, position).and_then(|()| self.name());
        if written.is_err() && self.make(position).is_ok() {
            return Ok(());
        }
        written
    }

    fn write_slot(&mut self, file: &dyn DiskFile, position: Position) -> io::Result<()> {
        let generation = self.generation + 1;
        let slot = generation % 2 * SLOT;
        file.write_at(slot, &encode(generation, position))?;
        file.sync_data()?;
        // Only now: after a failure the same slot is written again, never the one that is valid.
        self.generation = generation;
        Ok(())
    }

    fn make(&mut self, position: Position) -> io::Result<()> {
        let unfinished = self.dir.join(UNFINISHED);
        let _ = self.disk.remove(&unfinished);
        let file = self.disk.create(&unfinished, 2 * SLOT)?;
        let generation = self.generation + 1;
        // Zeros are written, not only reserved, so that the blocks are the file's for good.
        let mut content = vec![0; 2 * SLOT as usize];
        let slot = (generation % 2 * SLOT) as usize;
        content[slot..slot + SLOT_BYTES].copy_from_slice(&encode(generation, position));
        file.write_at(0, &content)?;
        file.sync_data()?;
        self.disk.rename(&unfinished, &self.dir.join(FILE))?;
        self.file = Some(file);
        // Only now: had it failed, the next slot to write in the old file would be the valid one.
        self.generation = generation;
        self.is_named = false;
        self.name()
    }

    /// Makes the file's name durable, unless it is: until then a power cut may bring back the file
    /// before it.
    fn name(&mut self) -> io::Result<()> {
        if !self.is_named {
            self.disk.sync_dir(&self.dir)?;
            self.is_named = true;
        }
        Ok(())
    }
}

fn encode(generation: u64, position: Position) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[0..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[16..24].copy_from_slice(&generation.to_le_bytes());
    bytes[24..32].copy_from_slice(&position.epoch.to_le_bytes());
    bytes[32..40].copy_from_slice(&position.sequence.to_le_bytes());
    let crc = slot_crc(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The generation and the position, or the format if it is newer; `None` for a slot that was
/// never written, or torn.
fn decode(bytes: &[u8]) -> Option<Result<(u64, Position), u32>> {
    let bytes: &[u8; SLOT_BYTES] = bytes.try_into().ok()?;
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    if bytes[..8] != MAGIC || word(12) != slot_crc(bytes) {
        return None;
    }
    if word(8) > FORMAT {
        return Some(Err(word(8)));
    }
    Some(Ok((long(16), Position { epoch: long(24), sequence: long(32) })))
}

fn slot_crc(bytes: &[u8; SLOT_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{FaultPlan, FaultyDisk, Injected, Loss, Operation};

    fn at(sequence: u64) -> Position {
        Position { epoch: 5, sequence }
    }

    fn open(disk: &FaultyDisk) -> (PositionFile, ReadPosition) {
        let dir = Path::new("/d");
        disk.create_dir(dir).unwrap();
        let read = read(disk, dir).unwrap();
        (PositionFile::open(Arc::new(disk.clone()), dir, &read), read)
    }

    fn reread(disk: &FaultyDisk) -> Position {
        read(disk, Path::new("/d")).unwrap().position.unwrap()
    }

    #[test]
    fn the_last_position_written_is_the_one_read_whatever_the_power_does_afterwards() {
        for seed in 0..50 {
            let disk = FaultyDisk::new(seed);
            let (mut file, first) = open(&disk);
            assert_eq!(first.position, None);
            for sequence in 1..=seed % 5 + 1 {
                file.write(at(sequence)).unwrap();
            }
            let last = reread(&disk);
            disk.die_after(1); // the write happens, its sync does not
            file.write(at(99)).unwrap_err();
            disk.power_cut(Loss::Random);
            assert!([last, at(99)].contains(&reread(&disk)));
        }
    }

    #[test]
    fn writes_that_fail_again_and_again_leave_the_last_position() {
        for seed in 0..50 {
            let disk = FaultyDisk::new(seed);
            let (mut file, _) = open(&disk);
            for sequence in 1..=seed % 3 + 2 {
                file.write(at(sequence)).unwrap();
            }
            let last = reread(&disk);
            let (operation, error) = (Operation::Write, Injected::Eio);
            let path_contains = String::new();
            disk.arm(FaultPlan { operation, path_contains, skip: 0, times: u64::MAX, error });
            for _ in 0..5 {
                file.write(at(99)).unwrap_err();
                assert!([last, at(99)].contains(&reread(&disk)));
            }
        }
    }

    #[test]
    fn a_position_is_written_only_when_the_name_of_its_file_is_durable_too() {
        for seed in 0..50 {
            let disk = FaultyDisk::new(seed);
            let (mut file, _) = open(&disk);
            file.write(at(1)).unwrap();
            // A new file is made, whose name cannot be synced at first.
            disk.arm(FaultPlan::once(Operation::Write, 0, Injected::Eio));
            disk.arm(FaultPlan::once(Operation::SyncDir, 0, Injected::Eio));
            let mut last = at(1);
            for sequence in 2..5 {
                if file.write(at(sequence)).is_ok() {
                    last = at(sequence);
                }
            }
            assert_eq!(last, at(4));
            disk.power_cut(Loss::Everything);
            assert_eq!(reread(&disk), last);
        }
    }

    #[test]
    fn any_damaged_byte_leaves_one_of_the_last_two_positions() {
        let disk = FaultyDisk::new(1);
        let (mut file, _) = open(&disk);
        file.write(at(1)).unwrap();
        file.write(at(2)).unwrap();
        for byte in 0..2 * SLOT {
            let fork = disk.fork();
            assert!(fork.flip(Path::new("/d/position"), byte, 0x10));
            assert!([at(1), at(2)].contains(&reread(&fork)), "byte {byte}");
        }
    }

    #[test]
    fn a_full_disk_stops_no_position_and_a_failing_one_is_left_for_a_new_file() {
        let disk = FaultyDisk::new(1);
        let (mut file, _) = open(&disk);
        disk.set_capacity(0);
        file.write(at(3)).unwrap();
        assert_eq!(reread(&disk), at(3));
        disk.arm(FaultPlan::once(Operation::Sync, 0, Injected::Eio));
        file.write(at(4)).unwrap_err();
        file.write(at(5)).unwrap();
        assert_eq!(reread(&disk), at(5));
        disk.set_capacity(1 << 20);
        disk.arm(FaultPlan::once(Operation::Sync, 0, Injected::Eio));
        file.write(at(6)).unwrap();
        disk.power_cut(Loss::Everything);
        assert_eq!(reread(&disk), at(6));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let disk = FaultyDisk::new(1);
        let (_file, _) = open(&disk);
        let mut bytes = encode(9, at(1));
        bytes[8] = 2;
        let crc = slot_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        disk.put(Path::new("/d/position"), bytes.to_vec());
        assert!(matches!(read(&disk, Path::new("/d")), Err(SpoolError::NewerFormat { .. })));
    }
}
