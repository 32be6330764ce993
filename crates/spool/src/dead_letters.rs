//! Records that the topic refused for good: kept here, so that the spool can go on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::catalog::require_spool;
use crate::disk::{Access, Disk, DiskFile};
use crate::error::{During as _, SpoolError};
use crate::frame::{HEADER_LEN, Header, Item, Salt, Scanner, encode};
use crate::metrics as m;
use crate::record::{Fields, Position, Undecodable, begin_fields, put_field};
use crate::salvage::Salvage;

/// Directory inside the spool's.
pub(crate) const DIR: &str = "dead-letters";

const SUFFIX: &str = ".letters";
/// Kind of the only frame in these files.
const LETTER: u8 = 3;
/// Size of a file, unless one letter is larger: small, since there should be none.
const FILE_BYTES: u64 = 1 << 20;

const TOPIC: u8 = 1;
const KEY: u8 = 2;
const VALUE: u8 = 3;
const HEADER_NAME: u8 = 4;
const HEADER_VALUE: u8 = 5;
const REASON: u8 = 6;
const POSITION: u8 = 7;

/// A record that can never be published as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which topic refused it.
    pub topic: String,
    /// The record's key.
    pub key: Bytes,
    /// The record's value.
    pub value: Option<Bytes>,
    /// The record's headers.
    pub headers: Vec<(String, Bytes)>,
    /// What the topic said; names no content.
    pub reason: String,
    /// The spooled request it came from.
    pub position: Position,
    /// When it was refused, milliseconds since 1970.
    pub refused_at_ms: i64,
}

impl std::fmt::Debug for DeadLetter {
    /// Leaves keys and values out: they hold phone numbers.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetter")
            .field("topic", &self.topic)
            .field("reason", &self.reason)
            .field("position", &self.position)
            .field("refused_at_ms", &self.refused_at_ms)
            .finish_non_exhaustive()
    }
}

/// The dead letters of one spool directory. Calls block on the disk.
#[derive(Debug)]
pub struct DeadLetters {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    max_bytes: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    file: Option<Open>,
    /// Number of the next file, and epoch of its frames.
    next_file: u64,
    held_bytes: u64,
    count: u64,
}

#[derive(Debug)]
struct Open {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    salt: Salt,
    number: u64,
    offset: u64,
    size: u64,
    sequence: u64,
}

impl DeadLetters {
    /// Opens those of a spool directory; `max_bytes` bounds what they take on disk. Call it while
    /// the spool is open: the spool's lock is also theirs.
    pub fn open(spool_dir: &Path, max_bytes: u64, disk: Arc<dyn Disk>) -> Result<Self, SpoolError> {
        let dir = spool_dir.join(DIR);
        disk.create_dir(&dir).during_at("create directory", &dir)?;
        let mut inner = Inner::default();
        for entry in files(&*disk, &dir)? {
            inner.next_file = inner.next_file.max(entry.number + 1);
            let (mut letters, mut is_empty) = (0, true);
            scan_file(&*disk, &dir, &entry, |letter| {
                letters += u64::from(letter.is_some());
                is_empty = false;
            })?;
            inner.count += letters;
            // Reserved for a letter that was never written.
            if !is_empty || disk.remove(&dir.join(&entry.name)).is_err() {
                inner.held_bytes += entry.len;
            }
        }
        metrics::gauge!(m::DEAD_LETTERS_HELD.name).set(inner.count as f64);
        Ok(Self { disk, dir, max_bytes, inner: Mutex::new(inner) })
    }

    /// Keeps a letter; durable when this returns. After an error it is not kept: the record stays
    /// unconfirmed, and the call is repeated after a pause.
    pub fn append(&self, letter: &DeadLetter) -> Result<(), SpoolError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = letter.encoded_len() + HEADER_LEN as u64;
        if inner.file.as_ref().is_none_or(|open| open.offset + needed > open.size) {
            self.next_file(&mut inner, needed)?;
        }
        let Some(mut open) = inner.file.take() else {
            return Err(io::Error::from(io::ErrorKind::NotFound)).during("open dead letters");
        };
        let header = Header {
            kind: LETTER,
            epoch: open.number,
            sequence: open.sequence,
            synced: open.sequence - 1,
            time_ms: letter.refused_at_ms,
            length: 0,
        };
        let mut bytes = Vec::new();
        encode(&mut bytes, open.salt, &header, |out| letter.encode(out));
        let written = open.file.write_at(open.offset, &bytes).and_then(|()| open.file.sync_data());
        if let Err(error) = written {
            // The file is not used again.
            if open.sequence == 1 {
                self.discard(&mut inner, &open.path, open.size);
            }
            return Err(error).during_at("keep a dead letter in", &open.path);
        }
        open.offset += bytes.len() as u64;
        open.sequence += 1;
        inner.file = Some(open);
        inner.count += 1;
        metrics::counter!(m::DEAD_LETTERS.name).increment(1);
        metrics::gauge!(m::DEAD_LETTERS_HELD.name).set(inner.count as f64);
        tracing::error!(
            topic = letter.topic,
            reason = letter.reason,
            position = %letter.position,
            "spool: a record is refused for good and kept as a dead letter"
        );
        Ok(())
    }

    /// How many letters are on disk.
    pub fn count(&self) -> u64 {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    fn next_file(&self, inner: &mut Inner, needed: u64) -> Result<(), SpoolError> {
        let size = FILE_BYTES.max(needed);
        if inner.held_bytes + size > self.max_bytes {
            return Err(SpoolError::DeadLettersFull { max_bytes: self.max_bytes });
        }
        let (number, salt) = (inner.next_file, Salt::random());
        inner.next_file += 1;
        let path = self.dir.join(format!("{number:010}-{:016x}{SUFFIX}", salt.number()));
        let action = "create a file of dead letters,";
        let file = self.disk.create(&path, size).during_at(action, &path)?;
        inner.held_bytes += size;
        if let Err(error) = self.disk.sync_dir(&self.dir) {
            self.discard(inner, &path, size);
            return Err(error).during_at(action, &path);
        }
        inner.file = Some(Open { file, path, salt, number, offset: 0, size, sequence: 1 });
        Ok(())
    }

    /// Gives up a file that holds no letter. What cannot be removed still costs its size.
    fn discard(&self, inner: &mut Inner, path: &Path, size: u64) {
        if self.disk.remove(path).is_ok() {
            inner.held_bytes -= size;
        }
    }
}

/// What the dead letters of a spool directory are.
#[derive(Debug, Default)]
pub struct DeadLetterList {
    /// In the order they were kept.
    pub letters: Vec<DeadLetter>,
    /// Stretches of the files that could not be read.
    pub damaged: u64,
}

/// Reads the dead letters of a spool directory, also of one in use; writes nothing.
pub fn list(disk: &dyn Disk, spool_dir: &Path) -> Result<DeadLetterList, SpoolError> {
    require_spool(disk, spool_dir)?;
    let mut found = DeadLetterList::default();
    scan(disk, spool_dir, |letter| match letter {
        Some(letter) => found.letters.push(letter),
        None => found.damaged += 1,
    })?;
    Ok(found)
}

/// How many dead letters a spool directory holds, with what cannot be read of them.
pub(crate) fn count(disk: &dyn Disk, spool_dir: &Path) -> Result<u64, SpoolError> {
    let mut count = 0;
    scan(disk, spool_dir, |_| count += 1)?;
    Ok(count)
}

/// Gives each letter to `found`, and `None` for each stretch that cannot be read.
fn scan(
    disk: &dyn Disk,
    spool_dir: &Path,
    mut found: impl FnMut(Option<DeadLetter>),
) -> Result<(), SpoolError> {
    let dir = spool_dir.join(DIR);
    for entry in files(disk, &dir)? {
        scan_file(disk, &dir, &entry, &mut found)?;
    }
    Ok(())
}

fn scan_file(
    disk: &dyn Disk,
    dir: &Path,
    entry: &File,
    mut found: impl FnMut(Option<DeadLetter>),
) -> Result<(), SpoolError> {
    let path = dir.join(&entry.name);
    let file = match disk.open(&path, Access::Read) {
        // Removed since the listing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.during_at("open dead letters", &path)?,
    };
    // A bad sector costs the letters it hits, and neither the others nor the start.
    let source = Salvage::new(file, 0);
    let mut scanner = Scanner::new(source, entry.salt, 0).during_at("read dead letters", &path)?;
    while let Some(item) = scanner.next_item().during_at("read dead letters", &path)? {
        found(match item {
            Item::Frame { header, payload, .. } => {
                DeadLetter::decode(&payload, header.time_ms).ok()
            }
            Item::Damage(_) => None,
        });
    }
    Ok(())
}

struct File {
    name: String,
    number: u64,
    salt: Salt,
    len: u64,
}

fn files(disk: &dyn Disk, dir: &Path) -> Result<Vec<File>, SpoolError> {
    let listed = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.during_at("list directory", dir)?,
    };
    let parse = |name: &str| {
        let (number, salt) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        Some((number.parse().ok()?, Salt::new(u64::from_str_radix(salt, 16).ok()?)))
    };
    let files = listed.into_iter().filter_map(|entry| {
        let (number, salt) = parse(&entry.name)?;
        Some(File { name: entry.name, number, salt, len: entry.len })
    });
    Ok(files.collect())
}

impl DeadLetter {
    fn encoded_len(&self) -> u64 {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes.len() as u64
    }

    fn encode(&self, out: &mut Vec<u8>) {
        begin_fields(out);
        put_field(out, TOPIC, self.topic.as_bytes());
        put_field(out, KEY, &self.key);
        if let Some(value) = &self.value {
            put_field(out, VALUE, value);
        }
        for (name, value) in &self.headers {
            put_field(out, HEADER_NAME, name.as_bytes());
            put_field(out, HEADER_VALUE, value);
        }
        put_field(out, REASON, self.reason.as_bytes());
        let mut position = [0; 16];
        position[..8].copy_from_slice(&self.position.epoch.to_le_bytes());
        position[8..].copy_from_slice(&self.position.sequence.to_le_bytes());
        put_field(out, POSITION, &position);
    }

    fn decode(payload: &Bytes, refused_at_ms: i64) -> Result<Self, Undecodable> {
        let mut letter = Self {
            topic: String::new(),
            key: Bytes::new(),
            value: None,
            headers: Vec::new(),
            reason: String::new(),
            position: Position::default(),
            refused_at_ms,
        };
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).map_err(|_| Undecodable);
        for field in Fields::new(payload)? {
            let (tag, value) = field?;
            match tag {
                TOPIC => letter.topic = text(value)?,
                KEY => letter.key = payload.slice_ref(value),
                VALUE => letter.value = Some(payload.slice_ref(value)),
                HEADER_NAME => letter.headers.push((text(value)?, Bytes::new())),
                HEADER_VALUE => {
                    letter.headers.last_mut().ok_or(Undecodable)?.1 = payload.slice_ref(value);
                }
                REASON => letter.reason = text(value)?,
                POSITION => letter.position = position(value)?,
                _ => {}
            }
        }
        Ok(letter)
    }
}

fn position(value: &[u8]) -> Result<Position, Undecodable> {
    let (epoch, sequence) = value.split_first_chunk::<8>().ok_or(Undecodable)?;
    let sequence: [u8; 8] = sequence.try_into().map_err(|_| Undecodable)?;
    Ok(Position { epoch: u64::from_le_bytes(*epoch), sequence: u64::from_le_bytes(sequence) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{FaultPlan, FaultyDisk, Injected, Loss, Operation};

    fn letter(number: u64) -> DeadLetter {
        DeadLetter {
            topic: "cdrs".into(),
            key: format!("key {number}").into(),
            value: (!number.is_multiple_of(2)).then(|| Bytes::from("value")),
            headers: vec![("ce_id".into(), "1".into()), ("empty".into(), Bytes::new())],
            reason: "message too large".into(),
            position: Position { epoch: 7, sequence: number },
            refused_at_ms: 1000 + number as i64,
        }
    }

    fn spool_dir(disk: &FaultyDisk) -> &'static Path {
        let dir = Path::new("/s");
        disk.create_dir(dir).unwrap();
        disk.put(&dir.join("position"), Vec::new());
        dir
    }

    #[test]
    fn letters_survive_power_cuts_failures_and_restarts_in_order() {
        let disk = FaultyDisk::new(3);
        let dir = spool_dir(&disk);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let letters = DeadLetters::open(dir, 1 << 24, shared.clone()).unwrap();
        letters.append(&letter(1)).unwrap();
        letters.append(&letter(2)).unwrap();
        disk.arm(FaultPlan::once(Operation::Sync, 0, Injected::Eio));
        letters.append(&letter(3)).unwrap_err();
        letters.append(&letter(3)).unwrap();
        disk.power_cut(Loss::Everything);
        let letters = DeadLetters::open(dir, 1 << 24, shared).unwrap();
        letters.append(&letter(4)).unwrap();
        let found = list(&disk, dir).unwrap();
        let numbers: Vec<u64> = found.letters.iter().map(|l| l.position.sequence).collect();
        let mut distinct = numbers.clone();
        distinct.dedup();
        assert_eq!(distinct, [1, 2, 3, 4], "{numbers:?}");
        assert_eq!(found.letters[0], letter(1));
        assert_eq!(letters.count(), numbers.len() as u64);
        let shown = format!("{:?}", letter(1));
        assert!(!shown.contains("value") && !shown.contains("key 1"), "{shown}");
    }

    #[test]
    fn the_bound_holds_and_a_large_letter_gets_a_file_of_its_own() {
        let disk = FaultyDisk::new(3);
        let dir = spool_dir(&disk);
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let letters = DeadLetters::open(dir, 5 << 20, disk.clone()).unwrap();
        let large = DeadLetter { value: Some(vec![7; 3 << 20].into()), ..letter(1) };
        letters.append(&large).unwrap();
        letters.append(&letter(2)).unwrap();
        let full = letters.append(&large).unwrap_err();
        assert!(matches!(full, SpoolError::DeadLettersFull { .. }));
        let found = list(&*disk, dir).unwrap();
        assert_eq!(found.letters, [large, letter(2)]);
        assert_eq!(found.damaged, 0);
    }

    #[test]
    fn a_disk_that_fails_for_long_costs_no_room() {
        let disk = FaultyDisk::new(3);
        let dir = spool_dir(&disk);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let letters = DeadLetters::open(dir, 2 << 20, shared.clone()).unwrap();
        for operation in [Operation::Write, Operation::Sync, Operation::SyncDir] {
            disk.arm(FaultPlan::all(operation, Injected::Eio));
            for _ in 0..5 {
                let failed = letters.append(&letter(1)).unwrap_err();
                assert!(failed.to_string().contains("/s/dead-letters/"), "{failed}");
            }
            disk.heal();
        }
        letters.append(&letter(1)).unwrap();
        assert_eq!(disk.paths().len(), 2);
        // What a crash has left behind before its letter was written goes at the next start.
        let empty = dir.join(DIR).join("0000000099-00000000000000aa.letters");
        disk.put(&empty, vec![0; FILE_BYTES as usize]);
        let letters = DeadLetters::open(dir, 2 << 20, shared).unwrap();
        assert!(!disk.paths().contains(&empty));
        letters.append(&letter(2)).unwrap();
        assert_eq!(list(&disk, dir).unwrap().letters, [letter(1), letter(2)]);
    }

    #[test]
    fn a_bad_sector_costs_the_letters_it_hits_and_not_the_start() {
        let disk = FaultyDisk::new(3);
        let dir = spool_dir(&disk);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let letters = DeadLetters::open(dir, 1 << 24, shared.clone()).unwrap();
        let large = DeadLetter { value: Some(vec![7; 9000].into()), ..letter(1) };
        letters.append(&large).unwrap();
        letters.append(&letter(2)).unwrap();
        disk.spoil(&disk.paths()[0], 5000, 1);
        let letters = DeadLetters::open(dir, 1 << 24, shared).unwrap();
        assert_eq!(letters.count(), 1);
        let found = list(&disk, dir).unwrap();
        assert_eq!((found.letters, found.damaged), (vec![letter(2)], 1));
    }
}
