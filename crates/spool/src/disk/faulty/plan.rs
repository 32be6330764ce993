//! What goes wrong, and when.

use std::io;

#[cfg(doc)]
use crate::disk::{Disk, DiskFile, FaultyDisk};

/// What a fault can hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::sync_data`].
    Sync,
    /// [`DiskFile::read_at`].
    Read,
    /// [`DiskFile::allocate`] and [`DiskFile::set_len`].
    Resize,
    /// [`Disk::create`].
    Create,
    /// [`Disk::open`].
    Open,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`Disk::list`].
    List,
}

/// The error that a fault reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// No space left on the device.
    Enospc,
    /// Input/output error.
    Eio,
}

impl Injected {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Enospc => rustix::io::Errno::NOSPC.into(),
            Self::Eio => rustix::io::Errno::IO.into(),
        }
    }
}

/// When something fails. Counts matching operations from the moment it is armed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultPlan {
    /// Which operation fails.
    pub operation: Operation,
    /// Only for files whose path contains this text; empty for all.
    pub path_contains: String,
    /// How many matching operations succeed before.
    pub skip: u64,
    /// How many fail then; `u64::MAX` for all until [`FaultyDisk::heal`].
    pub times: u64,
    /// With what.
    pub error: Injected,
}

impl FaultPlan {
    /// The operation after `skip` others of its kind fails, once.
    pub fn once(operation: Operation, skip: u64, error: Injected) -> Self {
        Self { operation, path_contains: String::new(), skip, times: 1, error }
    }

    /// Every operation of this kind fails until [`FaultyDisk::heal`].
    pub fn all(operation: Operation, error: Injected) -> Self {
        Self { operation, path_contains: String::new(), skip: 0, times: u64::MAX, error }
    }

    /// Only for files whose path contains this text.
    #[must_use]
    pub fn on(mut self, path_contains: &str) -> Self {
        path_contains.clone_into(&mut self.path_contains);
        self
    }
}

/// What becomes of everything that was not synced when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it is lost.
    Everything,
    /// None of it is lost.
    Nothing,
    /// Each write, drawn from the seed: kept, lost, or torn at sector boundaries, in any order;
    /// names up to a point in each directory's history.
    Random,
}
