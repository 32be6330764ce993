//! Reading a dead edge's spool directory to the end, so that what it acknowledged is published.

use std::path::Path;
use std::sync::Arc;

use crate::catalog::{Catalog, DAMAGED, Segment, missing_before, require_spool};
use crate::cursor::{Cursor, Found, Lost, PATIENCE};
use crate::damaged::Keeper;
use crate::disk::{DirLock, Disk};
use crate::error::{During as _, SpoolError};
use crate::examine::Finding;
use crate::position::PositionFile;
use crate::record::{Position, Stored};
use crate::recovery;
use crate::window::Window;

/// How a directory is adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// Takes the directory's lock and writes the position as records are confirmed: a replay that
    /// is broken off goes on where it was.
    Exclusive {
        /// Bound of what is kept in `damaged/`.
        damaged_max_bytes: u64,
    },
    /// Writes nothing and takes no lock; works on a read-only volume and beside a living edge,
    /// whose newest records it may miss.
    ReadOnly,
}

/// An adopted directory: iterate over its unconfirmed records, and confirm them. Segments stay.
/// All calls block on the disk. After an error stop iterating, or try again after a pause.
#[derive(Debug)]
pub struct Adopted {
    segments: Vec<Segment>,
    cursor: Cursor,
    window: Window,
    position: Option<PositionFile>,
    written: Position,
    findings: Vec<Finding>,
    _lock: Option<Box<dyn DirLock>>,
}

impl Adopted {
    /// Opens a directory that no edge has open.
    pub fn open(dir: &Path, disk: Arc<dyn Disk>, how: Adoption) -> Result<Self, SpoolError> {
        require_spool(&*disk, dir)?;
        let lock = match how {
            Adoption::Exclusive { .. } => Some(recovery::lock(&*disk, dir)?),
            Adoption::ReadOnly => None,
        };
        let catalog = Catalog::load(&*disk, dir)?;
        let start = catalog.start();
        let mut position = None;
        let mut keeper = None;
        if let Adoption::Exclusive { damaged_max_bytes } = how {
            let damaged_dir = dir.join(DAMAGED);
            disk.create_dir(&damaged_dir).during_at("create directory", &damaged_dir)?;
            position = Some(PositionFile::open(disk.clone(), dir, &catalog.position));
            keeper = Some(Keeper::new(disk.clone(), dir, damaged_max_bytes));
        }
        let missing = catalog.segments.first().and_then(|first| missing_before(first, start));
        let missing = missing.map(|sequences| {
            Finding::of(&Lost::of_missing_file(start.epoch, sequences, "(removed)".into()), false)
        });
        Ok(Self {
            segments: catalog.segments,
            cursor: Cursor::new(disk, keeper, start, PATIENCE),
            window: Window::new(start),
            position,
            written: start,
            findings: missing.into_iter().collect(),
            _lock: lock,
        })
    }

    /// Confirms records that the iterator gave, in any order, and makes the position durable.
    pub fn confirm(&mut self, positions: &[Position]) -> Result<(), SpoolError> {
        if self.position.is_none() {
            return Err(SpoolError::ReadOnly);
        }
        for position in positions {
            self.window.confirm(*position);
        }
        self.write_position()
    }

    /// What could not be read so far.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    fn write_position(&mut self) -> Result<(), SpoolError> {
        let lowest = self.window.lowest();
        if lowest == self.written {
            return Ok(());
        }
        if let Some(file) = &mut self.position {
            file.write(lowest).during("write its position")?;
            self.written = lowest;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Stored>, SpoolError> {
        loop {
            match self.cursor.next(&self.segments)? {
                Some(Found::Record { stored, .. }) => {
                    self.window.serve(stored.position, stored.encoded.received_at_ms());
                    return Ok(Some(stored));
                }
                Some(Found::Lost(lost)) => {
                    let last = self.segments.last().map(|segment| segment.name.file_name());
                    let is_last = last.as_ref() == Some(&lost.segment);
                    self.findings.push(Finding::of(&lost, is_last));
                }
                None => {
                    self.write_position()?;
                    return Ok(None);
                }
            }
        }
    }
}

impl Iterator for Adopted {
    type Item = Result<Stored, SpoolError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
