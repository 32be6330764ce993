//! The keeper: a thread that writes the reader's position and removes segments that are done.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::catalog::{DAMAGED, Segment};
use crate::damaged;
use crate::metrics::disk_failed;
use crate::position::PositionFile;
use crate::shared::Shared;

pub(crate) struct Keeper {
    shared: Arc<Shared>,
    file: PositionFile,
}

impl Keeper {
    pub fn new(shared: Arc<Shared>, file: PositionFile) -> Self {
        Self { shared, file }
    }

    /// Runs until the reader is gone; then writes the position a last time.
    pub fn run(mut self) {
        loop {
            let stops = self.wait_for_progress();
            self.write_position();
            self.remove_done();
            if stops {
                return;
            }
            self.pause();
        }
    }

    /// Whether the keeper is to stop.
    fn wait_for_progress(&self) -> bool {
        let mut state = self.shared.lock();
        loop {
            let moved = state.window.lowest() != state.persisted;
            let removable = self.shared.removal_allowed() && state.held.has_done(state.persisted);
            if state.keeper_stops || moved || removable {
                return state.keeper_stops;
            }
            let waited = self.shared.progress.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Spares the disk, unless there is a hurry.
    fn pause(&self) {
        let interval = Duration::from_millis(self.shared.settings.position_interval_ms);
        let end = Instant::now() + interval;
        let mut state = self.shared.lock();
        while !state.keeper_stops {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.progress.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn write_position(&mut self) {
        let position = {
            let state = self.shared.lock();
            if state.window.lowest() == state.persisted {
                return;
            }
            state.window.lowest()
        };
        match self.file.write(position) {
            Ok(()) => self.shared.lock().persisted = position,
            // Tried again after the pause; until then nothing is removed.
            Err(error) => disk_failed("position", "position", &error),
        }
    }

    fn remove_done(&mut self) {
        if !self.shared.removal_allowed() {
            return;
        }
        let doomed = {
            let mut state = self.shared.lock();
            let persisted = state.persisted;
            state.held.doom(persisted)
        };
        if doomed.is_empty() {
            return;
        }
        let removed: Vec<_> = doomed
            .iter()
            .filter(|segment| self.remove(segment).is_ok())
            .map(Segment::key)
            .collect();
        if let Err(error) = self.shared.disk.sync_dir(&self.shared.dir) {
            disk_failed("remove", "spool directory", &error);
        }
        let mut state = self.shared.lock();
        state.held.removed(&removed);
        state.report();
        drop(state);
        // There may be room for a new segment now.
        self.shared.work.notify_all();
    }

    fn remove(&self, segment: &Segment) -> io::Result<()> {
        let removed = if segment.pinned {
            self.keep_whole(segment)
        } else {
            self.shared.disk.remove(&segment.path)
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                disk_failed("remove", "segment", &error);
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Moves a segment to `damaged/`, unless that is full: then its damaged bytes are let go.
    fn keep_whole(&self, segment: &Segment) -> io::Result<()> {
        let Shared { disk, dir, settings, .. } = &*self.shared;
        let (name, damaged_dir) = (segment.name.file_name(), dir.join(DAMAGED));
        let held = disk.list(&damaged_dir)?;
        if damaged::fits(&held, settings.damaged_max_bytes, segment.len) {
            return disk.rename(&segment.path, &damaged_dir.join(name));
        }
        disk_failed("keep", &name, &damaged::bound_reached());
        disk.remove(&segment.path)
    }
}
