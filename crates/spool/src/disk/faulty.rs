//! A disk in memory that does everything a real one may do to a careless writer. Test support.

mod file;
mod inner;
mod plan;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use self::file::FaultyFile;
use self::inner::{Change, Inner, Inode, NameChange, parent};
pub use self::plan::{FaultPlan, Injected, Loss, Operation};
use super::{Access, DirLock, Disk, DiskFile, Listed};

/// A disk in memory, seeded, shared by its clones.
///
/// Keeps what the running system sees apart from what the medium has: a power cut shows the
/// difference. A write that fails may have been carried out in part; a sync that fails loses any
/// part of what it should have made durable and is never made good by a later one.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    released: Condvar,
}

/// Holds all syncs; dropping it lets them go on, so that a test that fails does not hang.
#[derive(Debug)]
pub struct HeldSyncs {
    disk: FaultyDisk,
}

impl Drop for HeldSyncs {
    fn drop(&mut self) {
        self.disk.release_syncs();
    }
}

impl FaultyDisk {
    /// An empty disk of 1 GiB without faults; the seed decides how writes tear.
    pub fn new(seed: u64) -> Self {
        Self::from_inner(Inner {
            rng: StdRng::seed_from_u64(seed),
            life: 0,
            files: HashMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            dirs: BTreeSet::from([PathBuf::from("/")]),
            locks: BTreeSet::new(),
            capacity: 1 << 30,
            plans: Vec::new(),
            spoilt: Vec::new(),
            counts: BTreeMap::new(),
            changes: 0,
            dies_at: None,
            syncs_held: false,
            syncs_waiting: 0,
        })
    }

    fn from_inner(inner: Inner) -> Self {
        Self { shared: Arc::new(Shared { inner: Mutex::new(inner), released: Condvar::new() }) }
    }

    /// A copy with the same contents and its own future, as seen by a process that starts now:
    /// no locks, no faults.
    #[must_use]
    pub fn fork(&self) -> Self {
        let inner = self.lock();
        Self::from_inner(Inner {
            rng: inner.rng.clone(),
            life: 0,
            files: inner.files.clone(),
            next_file: inner.next_file,
            names: inner.names.clone(),
            durable_names: inner.durable_names.clone(),
            unsynced_names: inner.unsynced_names.clone(),
            dirs: inner.dirs.clone(),
            locks: BTreeSet::new(),
            capacity: inner.capacity,
            plans: Vec::new(),
            spoilt: Vec::new(),
            counts: BTreeMap::new(),
            changes: 0,
            dies_at: None,
            syncs_held: false,
            syncs_waiting: 0,
        })
    }

    /// Arms a fault.
    pub fn arm(&self, plan: FaultPlan) {
        self.lock().plans.push(plan);
    }

    /// Disarms all faults and cancels [`FaultyDisk::die_after`].
    pub fn heal(&self) {
        let mut inner = self.lock();
        inner.plans.clear();
        inner.spoilt.clear();
        inner.dies_at = None;
    }

    /// Bounds the bytes of all files together; creation and growth beyond it fail with ENOSPC,
    /// what is reserved already can still be written.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    /// Lets this many further changes (writes, syncs, creations, removals, ...) happen; then every
    /// operation fails until [`FaultyDisk::power_cut`] or [`FaultyDisk::kill`].
    pub fn die_after(&self, changes: u64) {
        let mut inner = self.lock();
        inner.dies_at = Some(inner.changes + changes);
    }

    /// How many changes have happened: the range for [`FaultyDisk::die_after`].
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// How many operations of this kind were tried.
    pub fn count(&self, operation: Operation) -> u64 {
        self.lock().counts.get(&operation).copied().unwrap_or(0)
    }

    /// The power goes and comes back: open handles are dead, locks are free, faults are gone, and
    /// of what was not synced remains what `loss` says.
    pub fn power_cut(&self, loss: Loss) {
        let mut inner = self.lock();
        inner.begin_life();
        inner.lose_names(loss);
        inner.lose_contents(loss);
        drop(inner);
        self.shared.released.notify_all();
    }

    /// The process is killed and the machine lives on: open handles are dead, locks are free,
    /// faults are gone, and everything written is still there.
    pub fn kill(&self) {
        self.lock().begin_life();
        self.shared.released.notify_all();
    }

    /// Makes every sync wait until [`FaultyDisk::release_syncs`].
    pub fn hold_syncs(&self) {
        self.lock().syncs_held = true;
    }

    /// As [`FaultyDisk::hold_syncs`], until the answer is dropped: a test that fails meanwhile
    /// does not hang.
    #[must_use = "syncs are held only as long as this lives"]
    pub fn held_syncs(&self) -> HeldSyncs {
        self.hold_syncs();
        HeldSyncs { disk: self.clone() }
    }

    /// Makes a stretch of a file unreadable, as a bad sector is: reads that touch it fail, until
    /// [`FaultyDisk::heal`].
    pub fn spoil(&self, path: &Path, offset: u64, len: u64) {
        let spoilt = (path.to_path_buf(), offset..offset + len);
        self.lock().spoilt.push(spoilt);
    }

    /// Ends [`FaultyDisk::hold_syncs`].
    pub fn release_syncs(&self) {
        self.lock().syncs_held = false;
        self.shared.released.notify_all();
    }

    /// How many syncs are waiting.
    pub fn syncs_waiting(&self) -> u64 {
        self.lock().syncs_waiting
    }

    /// Paths of all files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    /// A file's bytes, if it exists.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let inner = self.lock();
        let file = inner.names.get(path)?;
        inner.files.get(file).map(|inode| inode.seen.clone())
    }

    /// Puts a file there, or replaces its bytes, durably and past every fault.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut inner = self.lock();
        let file = inner.names.get(path).copied().unwrap_or_else(|| {
            inner.next_file += 1;
            inner.next_file
        });
        inner.names.insert(path.to_path_buf(), file);
        inner.durable_names.insert(path.to_path_buf(), file);
        let inode = Inode { medium: bytes.clone(), seen: bytes, unsynced: Vec::new() };
        inner.files.insert(file, inode);
    }

    /// Flips the bits of `mask` in one byte of a file, durably. Whether there was such a byte.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> bool {
        let Some(mut bytes) = self.contents(path) else { return false };
        let Some(byte) = bytes.get_mut(offset as usize) else { return false };
        *byte ^= mask;
        self.put(path, bytes);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, file: u64, path: &Path, life: u64, access: Access) -> Arc<dyn DiskFile> {
        let disk = self.clone();
        Arc::new(FaultyFile { disk, file, path: path.to_path_buf(), life, access })
    }
}

impl Disk for FaultyDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.attempt(Operation::Create, path)?;
        inner.dirs.extend(path.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut inner = self.lock();
        inner.attempt(Operation::List, dir)?;
        if !inner.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = |path: &Path| path.parent() == Some(dir);
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let files =
            inner.names.iter().filter(|(path, _)| inside(path)).filter_map(|(path, file)| {
                let len = inner.files.get(file).map_or(0, |inode| inode.seen.len() as u64);
                Some(Listed { name: name(path)?, is_dir: false, len })
            });
        let dirs = inner.dirs.iter().filter(|path| inside(path));
        let dirs = dirs.filter_map(|path| Some(Listed { name: name(path)?, is_dir: true, len: 0 }));
        let mut listed: Vec<Listed> = files.chain(dirs).collect();
        listed.sort();
        Ok(listed)
    }

    fn create(&self, path: &Path, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.lock();
        inner.attempt(Operation::Create, path)?;
        if !inner.dirs.contains(&parent(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if inner.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        inner.reserve(size as usize)?;
        inner.next_file += 1;
        let file = inner.next_file;
        let inode = Inode {
            seen: vec![0; size as usize],
            medium: Vec::new(),
            unsynced: vec![Change::Resize(size as usize)],
        };
        inner.files.insert(file, inode);
        inner.names.insert(path.to_path_buf(), file);
        inner.unsynced_names.push(NameChange::Created { path: path.to_path_buf(), file });
        Ok(self.handle(file, path, inner.life, Access::ReadWrite))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.lock();
        inner.attempt(Operation::Open, path)?;
        let file = *inner.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(file, path, inner.life, access))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.attempt(Operation::Remove, path)?;
        inner.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        inner.unsynced_names.push(NameChange::Removed { path: path.to_path_buf() });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.attempt(Operation::Rename, from)?;
        let file = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.to_path_buf(), file);
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        inner.unsynced_names.push(NameChange::Renamed { from, to, file });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.attempt(Operation::SyncDir, dir)?;
        let all = std::mem::take(&mut inner.unsynced_names);
        let (now, later): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|change| change.dirs().iter().any(|touched| touched == dir));
        inner.unsynced_names = later;
        for change in now {
            change.apply(&mut inner.durable_names);
        }
        Ok(())
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<Box<dyn DirLock>> {
        let mut inner = self.lock();
        if !inner.locks.insert(dir.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (disk, life) = (self.clone(), inner.life);
        Ok(Box::new(FaultyLock { disk, dir: dir.to_path_buf(), life }))
    }

    fn free_space(&self, _dir: &Path) -> io::Result<u64> {
        let inner = self.lock();
        Ok(inner.capacity.saturating_sub(inner.used()))
    }
}

#[derive(Debug)]
struct FaultyLock {
    disk: FaultyDisk,
    dir: PathBuf,
    life: u64,
}

impl DirLock for FaultyLock {}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        let mut inner = self.disk.lock();
        if inner.life == self.life {
            inner.locks.remove(&self.dir);
        }
    }
}
