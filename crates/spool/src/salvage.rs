//! Reads past bad sectors.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::frame::Source;

/// What a sector that cannot be read is taken for: anything that is not a frame.
const UNREADABLE: u8 = 0xdb;

/// Unit in which a medium fails.
const BLOCK: usize = 4096;

/// A file whose reads fail at first, so that the caller may try again later, and are then carried
/// out around the blocks that cannot be read: a bad sector costs the records it hits, and not
/// everything behind it.
#[derive(Debug)]
pub struct Salvage {
    file: Arc<dyn DiskFile>,
    patience: u32,
    failures: Cell<u32>,
    /// Numbers of blocks.
    given_up: RefCell<BTreeSet<u64>>,
}

impl Salvage {
    /// `patience` is how many failures in a row are reported before a read works around them.
    pub fn new(file: Arc<dyn DiskFile>, patience: u32) -> Self {
        Self { file, patience, failures: Cell::new(0), given_up: RefCell::default() }
    }

    /// Bytes given up as unreadable so far, in whole blocks.
    pub fn given_up(&self) -> u64 {
        (self.given_up.borrow().len() * BLOCK) as u64
    }

    pub(crate) fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    fn around(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let len = self.file.len()?;
        let left = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = into.len().min(left);
        for (index, block) in into[..wanted].chunks_mut(BLOCK).enumerate() {
            let at = offset + (index * BLOCK) as u64;
            if self.file.read_at(at, block).is_err() {
                block.fill(UNREADABLE);
                self.given_up.borrow_mut().insert(at / BLOCK as u64);
            }
        }
        Ok(wanted)
    }
}

impl Source for Salvage {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        match self.file.read_at(offset, into) {
            Ok(read) => {
                self.failures.set(0);
                Ok(read)
            }
            Err(_) if self.failures.get() >= self.patience => self.around(offset, into),
            Err(error) => {
                self.failures.set(self.failures.get() + 1);
                Err(error)
            }
        }
    }

    fn size(&self) -> io::Result<u64> {
        self.file.len()
    }
}
