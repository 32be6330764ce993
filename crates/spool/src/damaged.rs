//! Keeps the bytes that could not be read.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::DAMAGED;
use crate::cursor::Lost;
use crate::disk::{Access, Disk, DiskFile, Listed, read_up_to};
use crate::error::{During as _, SpoolError};
use crate::frame::{self, Damage, Item, Salt, Scanner};
use crate::metrics::disk_failed;
use crate::packed;
use crate::segment::{HEADER_BLOCK, SegmentName};

/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

/// How the name of an unfinished write begins, which nobody was answered for.
pub(crate) const TORN: &str = "torn-";

/// What is kept of a spool directory.
pub(crate) fn list(disk: &dyn Disk, spool_dir: &Path) -> Result<Vec<Listed>, SpoolError> {
    let dir = spool_dir.join(DAMAGED);
    match disk.list(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.during_at("list directory", &dir),
    }
}

/// What can be read of the requests in a file of `damaged/`, be it a stretch or a whole segment,
/// compressed ones unpacked, one a line. Nothing vouches for it: it is for a person.
pub fn read_damaged(path: &Path, disk: &dyn Disk) -> Result<Vec<u8>, SpoolError> {
    let file = disk.open(path, Access::Read).during_at("open", path)?;
    let len = file.len().during_at("read", path)?;
    let kept = read_up_to(&*file, 0, len as usize).during_at("read", path)?;
    let name = path.file_name().and_then(OsStr::to_str).and_then(SegmentName::parse);
    let (salt, start) = match name.transpose()? {
        Some(segment) => (segment.salt, HEADER_BLOCK),
        None => (salt_of(&kept), 0),
    };
    let mut scanner = Scanner::new(kept.as_slice(), salt, start).during_at("read", path)?;
    let mut readable = Vec::new();
    while let Some(item) = scanner.next_item().during_at("read", path)? {
        match item {
            Item::Frame { payload, .. } => add_request(&payload, &mut readable),
            Item::Damage(Damage { offset, len, .. }) => {
                add_stretch(&kept[offset as usize..][..len as usize], &mut readable);
            }
        }
    }
    Ok(readable)
}

/// That of the frame it begins with, unless this is what is damaged.
fn salt_of(stretch: &[u8]) -> Salt {
    Salt::new(stretch.first_chunk().map_or(0, |first| u64::from_le_bytes(*first)))
}

/// Adds the requests of frames that do not prove themselves.
fn add_stretch(mut stretch: &[u8], readable: &mut Vec<u8>) {
    while let Some((head, behind)) = stretch.split_first_chunk() {
        // It may be what is damaged.
        let (payload, next) = behind.split_at(frame::payload_len(head).min(behind.len()));
        add_request(payload, readable);
        stretch = next;
    }
}

fn add_request(payload: &[u8], readable: &mut Vec<u8>) {
    let request = packed::salvage(payload);
    if !request.is_empty() {
        readable.extend(request);
        readable.push(b'\n');
    }
}

/// Why something is not kept.
pub(crate) fn bound_reached() -> io::Error {
    io::Error::other(
        "damaged_max_bytes is reached; take away what is in damaged/, or raise spool.damaged_max_bytes",
    )
}

/// Whether so many bytes more fit beside what is listed.
pub(crate) fn fits(listed: &[Listed], max_bytes: u64, len: u64) -> bool {
    let held: u64 = listed.iter().map(|entry| entry.len).sum();
    held + len <= max_bytes
}

/// Copies damaged bytes into `damaged/`, up to a bound.
#[derive(Debug)]
pub(crate) struct Keeper {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    max_bytes: u64,
}

impl Keeper {
    pub fn new(disk: Arc<dyn Disk>, spool_dir: &Path, max_bytes: u64) -> Self {
        Self { disk, dir: spool_dir.join(DAMAGED), max_bytes }
    }

    /// Keeps the bytes of a lost stretch; the name of the file, if that worked. The name says
    /// which epoch and sequences, when, and where they stood, so that finding the same damage
    /// again after a restart keeps it once.
    pub fn keep(&mut self, file: &dyn DiskFile, lost: &Lost) -> Option<String> {
        let name = format!(
            "epoch-{}-sequences-{}-{}-received-{}-offset-{}.bytes",
            lost.epoch,
            lost.sequences.start(),
            lost.sequences.end(),
            lost.time_ms.unwrap_or(0),
            lost.offset
        );
        self.copy(file, lost.offset, lost.len, name)
    }

    /// Moves a torn tail aside; the name of the file, if that worked.
    pub fn keep_tail(
        &mut self,
        file: &dyn DiskFile,
        epoch: u64,
        after: u64,
        from: u64,
        len: u64,
    ) -> Option<String> {
        let name = format!("{TORN}epoch-{epoch}-after-sequence-{after}-offset-{from}.bytes");
        self.copy(file, from, len, name)
    }

    fn copy(&mut self, file: &dyn DiskFile, from: u64, len: u64, name: String) -> Option<String> {
        match self.try_copy(file, from, len, &name) {
            Ok(()) => Some(name),
            Err(error) => {
                disk_failed("keep", &name, &error);
                let _ = self.disk.remove(&self.dir.join(format!("{name}.new")));
                None
            }
        }
    }

    fn try_copy(&self, file: &dyn DiskFile, from: u64, len: u64, name: &str) -> io::Result<()> {
        let listed = self.disk.list(&self.dir)?;
        let unfinished = format!("{name}.new");
        if listed.iter().any(|entry| entry.name == name) {
            return Ok(());
        }
        if !fits(&listed, self.max_bytes, len) {
            return Err(bound_reached());
        }
        if listed.iter().any(|entry| entry.name == unfinished) {
            self.disk.remove(&self.dir.join(&unfinished))?;
        }
        let copy = self.disk.create(&self.dir.join(&unfinished), len)?;
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(PIECE as u64) as usize;
            let bytes = read_up_to(file, from + done, piece)?;
            if bytes.is_empty() {
                break;
            }
            copy.write_at(done, &bytes)?;
            done += bytes.len() as u64;
        }
        copy.sync_data()?;
        self.disk.rename(&self.dir.join(&unfinished), &self.dir.join(name))?;
        self.disk.sync_dir(&self.dir)
    }
}
