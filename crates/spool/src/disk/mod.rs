//! The file layer: every disk access of the spool and of the embedded log goes through it.
//!
//! ```text
//!  spool, embedded log ──▶ Disk / DiskFile ──▶ RealDisk   (std::fs, fallocate, flock)
//!                                         └──▶ FaultyDisk (memory; loses what was not synced)
//! ```
//!
//! The contract is that of a POSIX file system seen by a pessimist: what was written may be lost,
//! torn or reordered until [`DiskFile::sync_data`] has succeeded; a name may be lost until
//! [`Disk::sync_dir`] has; and after a sync that failed nothing is known about anything written
//! since the last one that succeeded, whatever a later sync says.

mod faulty;
mod real;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use faulty::{FaultPlan, FaultyDisk, HeldSyncs, Injected, Loss, Operation};
pub use real::RealDisk;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading only; works on a read-only volume.
    Read,
    /// For reading and writing.
    ReadWrite,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Name without the directory. A name that is not UTF-8 is left out of a listing.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
}

/// A file system, as far as a durable log needs one. All calls block.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates a directory with its parents, mode 0700, and makes it durable. One that exists is
    /// left as it is.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// What is in the directory, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>>;

    /// Creates a file, mode 0600, and reserves `size` bytes that read as zeros. Fails when the
    /// name is taken, and when the space is not there. The name is durable only after
    /// [`Disk::sync_dir`].
    fn create(&self, path: &Path, size: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file that exists.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file. Durable only after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Renames a file, replacing the target. Atomic; durable only after [`Disk::sync_dir`] of the
    /// directories of both names.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a directory against every other process until the lock is dropped or the process
    /// dies. [`io::ErrorKind::WouldBlock`] when somebody else has it.
    fn lock_dir(&self, dir: &Path) -> io::Result<Box<dyn DirLock>>;

    /// Bytes that this process may still write to the volume of this directory.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;
}

/// A lock on a directory; dropping it releases it.
pub trait DirLock: fmt::Debug + Send + Sync {}

/// An open file. Reads and writes name their offset, so that one handle serves many threads.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Writes all of `data`, or fails having written any part of it. Extends the file if need be.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Reads until `into` is full or the file ends; the number of bytes read.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Makes contents and length durable. Never call it again on a file where it has failed.
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes, reserved bytes included.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes at all.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reserves space up to `size`; never shrinks. New bytes read as zeros.
    fn allocate(&self, size: u64) -> io::Result<()>;

    /// Cuts or extends the file; new bytes read as zeros and are not reserved.
    fn set_len(&self, size: u64) -> io::Result<()>;
}

/// Reads exactly `len` bytes, or as many as the file has from there.
pub fn read_up_to(file: &dyn DiskFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; len];
    let read = file.read_at(offset, &mut buffer)?;
    buffer.truncate(read);
    Ok(buffer)
}

#[cfg(test)]
mod tests;
