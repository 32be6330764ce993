//! Looking into a spool directory, also into one that is in use: what is in it, and whether
//! anything is missing. Writes nothing and takes no lock.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::catalog::{Catalog, Segment, missing_before, require_spool};
use crate::cursor::{Cursor, Found, Lost};
use crate::disk::Disk;
use crate::error::SpoolError;
use crate::record::Position;
use crate::{damaged, dead_letters};

/// What a spool directory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The lowest unconfirmed record; `None` when nothing was ever confirmed or the position
    /// file is unreadable.
    pub position: Option<Position>,
    /// Each epoch that has a segment, in order.
    pub epochs: Vec<EpochSummary>,
    /// Segment files.
    pub segments: u64,
    /// Bytes of the segment files, reserved ones included.
    pub bytes: u64,
    /// Readable requests.
    pub records: u64,
    /// Those of them that are not confirmed.
    pub unconfirmed: u64,
    /// When the first of these was received, milliseconds since 1970.
    pub oldest_unconfirmed_ms: Option<i64>,
    /// Acknowledged requests that cannot be read any more.
    pub damaged: u64,
    /// Holes where nothing was acknowledged.
    pub unacknowledged: u64,
    /// Files in `damaged/`.
    pub damaged_files: u64,
    /// Their bytes.
    pub damaged_file_bytes: u64,
    /// Records that a topic refused for good; what cannot be read of them counts as one.
    pub dead_letters: u64,
    /// Whether it may be deleted once no edge uses it and the topics pass their check: nothing is
    /// unconfirmed, damaged or refused for good, and `damaged/` holds unfinished writes at most.
    pub deletable: bool,
}

/// One epoch of a spool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EpochSummary {
    /// The epoch.
    pub epoch: u64,
    /// Sequence with which its oldest segment on disk begins.
    pub first: u64,
    /// Its last readable sequence; below `first` when it has none.
    pub last: u64,
    /// Readable requests.
    pub records: u64,
    /// Those of them that are not confirmed.
    pub unconfirmed: u64,
    /// The epoch before it, as its header says; `None` when the header is damaged.
    pub previous_epoch: Option<u64>,
    /// The last sequence found there.
    pub previous_last: Option<u64>,
}

/// What a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Acknowledged requests cannot be read any more.
    Damaged,
    /// Acknowledged requests are gone with their whole segment.
    Missing,
    /// A crash has cut requests off before they were acknowledged.
    Unacknowledged,
    /// An unfinished write at the end of the last segment, or one in progress.
    TornTail,
    /// Unreadable bytes that belong to no request.
    Debris,
    /// A copy of a segment's header is damaged; costs nothing.
    Header,
    /// The position file is missing or unreadable: everything is published again.
    Position,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// In which epoch.
    pub epoch: u64,
    /// First sequence concerned.
    pub first: u64,
    /// Last sequence concerned; below `first` when none is.
    pub last: u64,
    /// When the request was received, or the one before it, milliseconds since 1970.
    pub received_at_ms: Option<i64>,
    /// Which segment file.
    pub segment: String,
    /// Where in it.
    pub offset: u64,
    /// How many bytes; 0 when they are not there.
    pub len: u64,
}

impl Finding {
    /// Whether an acknowledged request is lost.
    pub fn is_loss(&self) -> bool {
        matches!(self.kind, FindingKind::Damaged | FindingKind::Missing)
    }

    pub(crate) fn of(lost: &Lost, is_last_segment: bool) -> Self {
        let kind = match (lost.acknowledged, lost.count()) {
            (true, _) if lost.len == 0 => FindingKind::Missing,
            (true, _) => FindingKind::Damaged,
            (false, _) if is_last_segment && !lost.followed => FindingKind::TornTail,
            (false, 0) => FindingKind::Debris,
            (false, _) => FindingKind::Unacknowledged,
        };
        Self {
            kind,
            epoch: lost.epoch,
            first: *lost.sequences.start(),
            last: *lost.sequences.end(),
            received_at_ms: lost.time_ms,
            segment: lost.segment.clone(),
            offset: lost.offset,
            len: lost.len,
        }
    }

    fn without_records(kind: FindingKind, epoch: u64, segment: String) -> Self {
        let (first, last, received_at_ms, offset, len) = (1, 0, None, 0, 0);
        Self { kind, epoch, first, last, received_at_ms, segment, offset, len }
    }
}

/// A full scan with everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// What the directory holds.
    pub inspection: Inspection,
    /// What is not as it should be, in order.
    pub findings: Vec<Finding>,
}

impl Verification {
    /// Whether every acknowledged request that is not confirmed and removed is there: the
    /// sequences of each epoch have no gap below what was synced, and the chain of epochs has none.
    pub fn is_complete(&self) -> bool {
        !self.findings.iter().any(Finding::is_loss)
    }
}

/// Says what a spool directory holds.
pub fn inspect(dir: &Path, disk: &Arc<dyn Disk>) -> Result<Inspection, SpoolError> {
    verify(dir, disk).map(|verification| verification.inspection)
}

/// Reads a spool directory from end to end and says everything that is wrong with it.
pub fn verify(dir: &Path, disk: &Arc<dyn Disk>) -> Result<Verification, SpoolError> {
    require_spool(&**disk, dir)?;
    let catalog = Catalog::load(&**disk, dir)?;
    let mut found = Verification { inspection: Inspection::default(), findings: Vec::new() };
    found.inspection.position = catalog.position.position.filter(|at| *at != Position::default());
    check_headers(&catalog, &mut found.findings);
    check_chain(&catalog, &mut found.findings);
    scan(&catalog, disk.clone(), &mut found)?;
    let inspection = &mut found.inspection;
    inspection.segments = catalog.segments.len() as u64;
    inspection.bytes = catalog.segments.iter().map(|segment| segment.len).sum();
    inspection.dead_letters = dead_letters::count(&**disk, dir)?;
    let kept = damaged::list(&**disk, dir)?;
    inspection.damaged_files = kept.len() as u64;
    inspection.damaged_file_bytes = kept.iter().map(|entry| entry.len).sum();
    for finding in &found.findings {
        let count = (finding.last + 1).saturating_sub(finding.first);
        if finding.is_loss() {
            inspection.damaged += count;
        } else {
            inspection.unacknowledged += count;
        }
    }
    inspection.deletable = inspection.unconfirmed + inspection.damaged + inspection.dead_letters
        == 0
        && kept.iter().all(|entry| entry.name.starts_with(damaged::TORN));
    Ok(found)
}

fn scan(
    catalog: &Catalog,
    disk: Arc<dyn Disk>,
    found: &mut Verification,
) -> Result<(), SpoolError> {
    let mut epochs: BTreeMap<u64, EpochSummary> = BTreeMap::new();
    for segment in &catalog.segments {
        let name = &segment.name;
        epochs.entry(name.epoch).or_insert_with(|| EpochSummary {
            epoch: name.epoch,
            first: name.first,
            last: name.first - 1,
            previous_epoch: segment.header.map(|header| header.previous_epoch),
            previous_last: segment.header.map(|header| header.previous_last),
            ..EpochSummary::default()
        });
    }
    let last_segment = catalog.segments.last().map(|segment| segment.name.file_name());
    let start = catalog.start();
    let mut cursor = Cursor::new(disk, None, Position::default(), 0);
    while let Some(next) = cursor.next(&catalog.segments)? {
        match next {
            Found::Record { stored, .. } => {
                let position = stored.position;
                let Some(epoch) = epochs.get_mut(&position.epoch) else { continue };
                epoch.records += 1;
                epoch.last = epoch.last.max(position.sequence);
                if position >= start {
                    epoch.unconfirmed += 1;
                    let oldest = &mut found.inspection.oldest_unconfirmed_ms;
                    oldest.get_or_insert(stored.encoded.received_at_ms());
                }
            }
            // Confirmed and removed, though a segment before it could not be.
            Found::Lost(lost)
                if lost.len == 0
                    && (lost.epoch, *lost.sequences.end()) < (start.epoch, start.sequence) => {}
            Found::Lost(lost) => {
                let is_last = last_segment.as_ref() == Some(&lost.segment);
                found.findings.push(Finding::of(&lost, is_last));
            }
        }
    }
    found.inspection.records = epochs.values().map(|epoch| epoch.records).sum();
    found.inspection.unconfirmed = epochs.values().map(|epoch| epoch.unconfirmed).sum();
    found.inspection.epochs = epochs.into_values().collect();
    Ok(())
}

fn check_headers(catalog: &Catalog, findings: &mut Vec<Finding>) {
    for segment in catalog.segments.iter().filter(|segment| segment.bad_header_copies > 0) {
        let (epoch, name) = (segment.name.epoch, segment.name.file_name());
        findings.push(Finding::without_records(FindingKind::Header, epoch, name));
    }
    if catalog.position.position.is_none() && !catalog.segments.is_empty() {
        findings.push(Finding::without_records(FindingKind::Position, 0, "position".into()));
    }
}

/// Whether every epoch that a header names is there, or was confirmed and removed.
fn check_chain(catalog: &Catalog, findings: &mut Vec<Finding>) {
    let Some(first) = catalog.segments.first() else { return };
    let start = catalog.start();
    if let Some(missing) = missing_before(first, start) {
        let lost = Lost::of_missing_file(start.epoch, missing, "(removed)".into());
        findings.push(Finding::of(&lost, false));
    }
    if start == Position::default() {
        // Without a position nobody can say what was removed rightly.
        return;
    }
    let is_there = |epoch: u64| catalog.segments.iter().any(|s: &Segment| s.name.epoch == epoch);
    let mut named: Vec<_> = catalog.segments.iter().filter_map(|s| s.header).collect();
    named.dedup_by_key(|header| header.previous_epoch);
    for header in named {
        let (epoch, last) = (header.previous_epoch, header.previous_last);
        // The epoch of the position itself is the concern of `missing_before`.
        if epoch > start.epoch && last > 0 && !is_there(epoch) {
            let lost = Lost::of_missing_file(epoch, 1..=last, "(removed)".into());
            findings.push(Finding::of(&lost, false));
        }
    }
}
