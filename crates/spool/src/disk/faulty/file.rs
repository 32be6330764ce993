//! An open file of the faulty disk.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{MutexGuard, PoisonError};

use rand::Rng as _;

use super::inner::{Change, Inner};
use super::{FaultyDisk, Injected, Loss, Operation};
use crate::disk::{Access, DiskFile};

#[derive(Debug)]
pub(super) struct FaultyFile {
    pub(super) disk: FaultyDisk,
    pub(super) file: u64,
    pub(super) path: PathBuf,
    pub(super) life: u64,
    pub(super) access: Access,
}

impl FaultyFile {
    fn attempt(&self, operation: Operation) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.disk.lock();
        if inner.life != self.life {
            return Err(Injected::Eio.error());
        }
        if self.access == Access::Read && operation != Operation::Read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        inner.attempt(operation, &self.path)?;
        Ok(inner)
    }

    /// A write that failed may have been carried out in part.
    fn write_in_part(&self, offset: u64, data: &[u8]) {
        let mut inner = self.disk.lock();
        if inner.life != self.life || self.access == Access::Read {
            return;
        }
        let kept = inner.rng.random_range(0..=data.len());
        let change = Change::Write { offset: offset as usize, data: data[..kept].to_vec() };
        // If even this part does not fit, nothing of it was written.
        let _ = inner.change(self.file, change);
    }
}

impl DiskFile for FaultyFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let change = Change::Write { offset: offset as usize, data: data.to_vec() };
        let written =
            self.attempt(Operation::Write).and_then(|mut inner| inner.change(self.file, change));
        if written.is_err() {
            self.write_in_part(offset, data);
        }
        written
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.attempt(Operation::Read)?;
        let end = offset + into.len() as u64;
        let hit = |(path, range): &(PathBuf, Range<u64>)| {
            *path == self.path && range.start < end && offset < range.end
        };
        if inner.spoilt.iter().any(hit) {
            return Err(Injected::Eio.error());
        }
        let seen = &inner.inode(self.file)?.seen;
        let from = (offset as usize).min(seen.len());
        let read = into.len().min(seen.len() - from);
        into[..read].copy_from_slice(&seen[from..from + read]);
        Ok(read)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.syncs_waiting += 1;
        while inner.syncs_held && inner.life == self.life {
            inner = self.disk.shared.released.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.syncs_waiting -= 1;
        drop(inner);
        match self.attempt(Operation::Sync) {
            Ok(mut inner) => {
                inner.inode(self.file)?.synced();
                Ok(())
            }
            Err(error) => {
                let mut inner = self.disk.lock();
                if inner.life == self.life {
                    // Any part may have reached the medium, and no later sync tries again.
                    let Inner { rng, files, .. } = &mut *inner;
                    if let Some(inode) = files.get_mut(&self.file) {
                        inode.settle(rng, Loss::Random);
                    }
                }
                Err(error)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        let mut inner = self.disk.lock();
        if inner.life != self.life {
            return Err(Injected::Eio.error());
        }
        Ok(inner.inode(self.file)?.seen.len() as u64)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let mut inner = self.attempt(Operation::Resize)?;
        if inner.inode(self.file)?.seen.len() as u64 >= size {
            return Ok(());
        }
        inner.change(self.file, Change::Resize(size as usize))
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        let mut inner = self.attempt(Operation::Resize)?;
        inner.change(self.file, Change::Resize(size as usize))
    }
}
