//! What a faulty disk remembers: contents and names, as seen and as durable.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::{FaultPlan, Injected, Loss, Operation};

/// Unit in which a torn write reaches the medium.
const SECTOR: usize = 512;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) rng: StdRng,
    /// Raised by every power cut and kill; older handles are dead.
    pub(super) life: u64,
    pub(super) files: HashMap<u64, Inode>,
    pub(super) next_file: u64,
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) durable_names: BTreeMap<PathBuf, u64>,
    pub(super) unsynced_names: Vec<NameChange>,
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) capacity: u64,
    pub(super) plans: Vec<FaultPlan>,
    pub(super) spoilt: Vec<(PathBuf, Range<u64>)>,
    pub(super) counts: BTreeMap<Operation, u64>,
    pub(super) changes: u64,
    pub(super) dies_at: Option<u64>,
    pub(super) syncs_held: bool,
    pub(super) syncs_waiting: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What a read returns.
    pub(super) seen: Vec<u8>,
    /// What is on the medium.
    pub(super) medium: Vec<u8>,
    /// What has not been synced, in order.
    pub(super) unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { offset: usize, data: Vec<u8> },
    Resize(usize),
}

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Created { path: PathBuf, file: u64 },
    Removed { path: PathBuf },
    Renamed { from: PathBuf, to: PathBuf, file: u64 },
}

impl Inner {
    pub(super) fn begin_life(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.plans.clear();
        self.dies_at = None;
        self.syncs_held = false;
    }

    /// Counts an operation, and fails it when it is its turn.
    pub(super) fn attempt(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        *self.counts.entry(operation).or_default() += 1;
        let reads = matches!(operation, Operation::Read | Operation::Open | Operation::List);
        if self.dies_at.is_some_and(|at| self.changes >= at) {
            return Err(Injected::Eio.error());
        }
        if !reads {
            self.changes += 1;
        }
        let path = path.to_string_lossy();
        for plan in &mut self.plans {
            if plan.operation != operation || !path.contains(&plan.path_contains) {
                continue;
            }
            if plan.skip > 0 {
                plan.skip -= 1;
            } else if plan.times > 0 {
                plan.times -= 1;
                return Err(plan.error.error());
            }
        }
        Ok(())
    }

    pub(super) fn reserve(&self, growth: usize) -> io::Result<()> {
        if self.used() + growth as u64 > self.capacity {
            return Err(Injected::Enospc.error());
        }
        Ok(())
    }

    /// Bytes of all files that have a name.
    pub(super) fn used(&self) -> u64 {
        let named = self.names.values().filter_map(|file| self.files.get(file));
        named.map(|inode| inode.seen.len() as u64).sum()
    }

    pub(super) fn inode(&mut self, file: u64) -> io::Result<&mut Inode> {
        self.files.get_mut(&file).ok_or_else(|| Injected::Eio.error())
    }

    pub(super) fn change(&mut self, file: u64, change: Change) -> io::Result<()> {
        let growth = change.end().saturating_sub(self.inode(file)?.seen.len());
        if growth > 0 {
            self.reserve(growth)?;
        }
        let inode = self.inode(file)?;
        change.apply(&mut inode.seen);
        inode.unsynced.push(change);
        Ok(())
    }

    pub(super) fn lose_names(&mut self, loss: Loss) {
        let mut cut: BTreeSet<PathBuf> = BTreeSet::new();
        for change in std::mem::take(&mut self.unsynced_names) {
            let dirs = change.dirs();
            let lost = match loss {
                Loss::Nothing => false,
                Loss::Everything => true,
                Loss::Random => self.rng.random_bool(0.4),
            };
            if lost || dirs.iter().any(|dir| cut.contains(dir)) {
                cut.extend(dirs);
            } else {
                change.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
        let alive: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| alive.contains(file));
    }

    pub(super) fn lose_contents(&mut self, loss: Loss) {
        let Self { rng, files, .. } = self;
        let mut order: Vec<_> = files.keys().copied().collect();
        order.sort_unstable();
        for file in order {
            let Some(inode) = files.get_mut(&file) else { continue };
            inode.settle(rng, loss);
            inode.seen.clone_from(&inode.medium);
        }
    }
}

impl Inode {
    /// Makes durable what was written since the last sync, whether that one succeeded or not;
    /// what a failed one lost stays lost.
    pub(super) fn synced(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            change.apply(&mut self.medium);
        }
    }

    /// Lets any part of what is not synced reach the medium, and forgets the rest.
    pub(super) fn settle(&mut self, rng: &mut StdRng, loss: Loss) {
        let mut changes = std::mem::take(&mut self.unsynced);
        if loss == Loss::Everything {
            return;
        }
        if loss == Loss::Random {
            changes.shuffle(rng);
        }
        for change in changes {
            match (loss, rng.random_range(0..10)) {
                (Loss::Nothing, _) | (_, 0..4) => change.apply(&mut self.medium),
                (_, 4..7) => {}
                _ => change.tear(rng, &mut self.medium),
            }
        }
    }
}

impl Change {
    pub(super) fn end(&self) -> usize {
        match self {
            Self::Write { offset, data } => offset + data.len(),
            Self::Resize(size) => *size,
        }
    }

    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => put(bytes, *offset, data),
            Self::Resize(size) => bytes.resize(*size, 0),
        }
    }

    /// Applies some sectors only.
    pub(super) fn tear(&self, rng: &mut StdRng, bytes: &mut Vec<u8>) {
        let Self::Write { offset, data } = self else { return };
        let mut from = 0;
        while from < data.len() {
            let to = (((offset + from) / SECTOR + 1) * SECTOR - offset).min(data.len());
            if rng.random_bool(0.5) {
                put(bytes, offset + from, &data[from..to]);
            }
            from = to;
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

impl NameChange {
    pub(super) fn dirs(&self) -> Vec<PathBuf> {
        match self {
            Self::Created { path, .. } | Self::Removed { path } => vec![parent(path)],
            Self::Renamed { from, to, .. } => vec![parent(from), parent(to)],
        }
    }

    pub(super) fn apply(self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Created { path, file } => {
                names.insert(path, file);
            }
            Self::Removed { path } => {
                names.remove(&path);
            }
            Self::Renamed { from, to, file } => {
                names.remove(&from);
                names.insert(to, file);
            }
        }
    }
}

pub(super) fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_path_buf()
}
