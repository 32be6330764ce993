//! What a disk may do to a spool while its edge is down.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tollgate_spool::disk::{Disk, RealDisk};
use tollgate_spool::frame::{Header, Item, Salt, Scanner, encode};
use tollgate_spool::{Encoded, Position, verify};

use crate::schedule::{Damage, Node};

/// Kind of a frame that holds a request.
const RECORD: u8 = 1;
/// Bytes of a segment before its frames, with the header's two copies in them.
const HEADER_BLOCK: u64 = 4096;
const HEADER_BYTES: u64 = 80;
const POSITION_BYTES: u64 = 40;

/// What was done.
#[derive(Debug)]
pub enum Inflicted {
    /// There was nothing that could be damaged so.
    Nothing,
    /// It must cost nothing.
    Harmless,
    /// A request that is published already is damaged. It may be named, and nothing is lost.
    Published(Position),
    /// It costs this request, which must be named.
    Costs(Box<Hit>),
}

/// A synced request that the disk has lost.
#[derive(Debug)]
pub struct Hit {
    pub edge: Node,
    pub position: Position,
    /// What an operator would have to feed in again.
    pub request: Encoded,
}

struct Frame {
    segment: PathBuf,
    salt: Salt,
    offset: u64,
    header: Header,
    request: Encoded,
}

/// Damages the spool of a dead edge; `seed` says where.
pub fn inflict(edge: Node, dir: &Path, damage: Damage, seed: u64) -> Result<Inflicted> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    match damage {
        Damage::TornTail => tear(dir, &mut rng),
        Damage::FlipHeader => flip_header(dir, &mut rng),
        Damage::FlipPosition => flip_position(dir, &mut rng),
        Damage::FlipPublished | Damage::FlipUnpublished => {
            flip_record(edge, dir, damage == Damage::FlipUnpublished, &mut rng)
        }
    }
}

fn segments(dir: &Path) -> Result<Vec<(PathBuf, Salt)>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let salt = name.strip_suffix(".segment").and_then(|stem| stem.rsplit('-').next());
        if let Some(salt) = salt {
            let salt = Salt::new(u64::from_str_radix(salt, 16).context("a segment's name")?);
            segments.push((path, salt));
        }
    }
    // Names are as long as each other: epoch, then first sequence.
    segments.sort_by(|one, two| one.0.cmp(&two.0));
    Ok(segments)
}

/// The intact requests of a directory, and the highest sequence that each epoch says is synced.
fn frames(dir: &Path) -> Result<Vec<(Frame, bool)>> {
    let mut frames = Vec::new();
    let mut synced = std::collections::BTreeMap::<u64, u64>::new();
    for (segment, salt) in segments(dir)? {
        let bytes = std::fs::read(&segment)?;
        let mut scanner = Scanner::new(bytes.as_slice(), salt, HEADER_BLOCK)?;
        while let Some(item) = scanner.next_item()? {
            let Item::Frame { offset, header, payload } = item else { continue };
            let known = synced.entry(header.epoch).or_default();
            *known = header.synced.max(*known);
            if header.kind == RECORD {
                let request = Encoded::from_payload(payload, header.time_ms)?;
                frames.push(Frame { segment: segment.clone(), salt, offset, header, request });
            }
        }
    }
    let is_synced = |frame: &Frame| {
        synced.get(&frame.header.epoch).is_some_and(|synced| frame.header.sequence <= *synced)
    };
    Ok(frames
        .into_iter()
        .map(|frame| (is_synced(&frame), frame))
        .map(|(is, it)| (it, is))
        .collect())
}

fn flip(path: &Path, from: u64, length: u64, rng: &mut ChaCha8Rng) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let at = from + rng.random_range(0..length);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    byte[0] ^= 1 << rng.random_range(0..8);
    file.write_all_at(&byte, at)?;
    Ok(())
}

fn flip_record(
    edge: Node,
    dir: &Path,
    unpublished: bool,
    rng: &mut ChaCha8Rng,
) -> Result<Inflicted> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let Some(start) = verify(dir, &disk)?.inspection.position else {
        return Ok(Inflicted::Nothing);
    };
    let of =
        |frame: &Frame| Position { epoch: frame.header.epoch, sequence: frame.header.sequence };
    let frames: Vec<Frame> = frames(dir)?
        .into_iter()
        .filter(|(frame, synced)| (of(frame) >= start) == unpublished && (*synced || !unpublished))
        .map(|(frame, _)| frame)
        .collect();
    let Some(frame) = frames.choose(rng) else { return Ok(Inflicted::Nothing) };
    flip(&frame.segment, frame.offset, frame.header.frame_len(), rng)?;
    let position = of(frame);
    Ok(if unpublished {
        Inflicted::Costs(Box::new(Hit { edge, position, request: frame.request.clone() }))
    } else {
        Inflicted::Published(position)
    })
}

/// Appends the beginning of the request that would have come next.
fn tear(dir: &Path, rng: &mut ChaCha8Rng) -> Result<Inflicted> {
    let frames = frames(dir)?;
    let Some((last, _)) = frames.last() else { return Ok(Inflicted::Nothing) };
    if segments(dir)?.last().is_none_or(|(segment, _)| *segment != last.segment) {
        return Ok(Inflicted::Nothing);
    }
    let sequence = last.header.sequence;
    let header = Header { sequence: sequence + 1, synced: sequence, ..last.header };
    let mut torn = Vec::new();
    encode(&mut torn, last.salt, &header, |payload| payload.extend_from_slice(&[b'x'; 400]));
    torn.truncate(rng.random_range(1..torn.len()));
    // Behind the marks that may follow it.
    let bytes = std::fs::read(&last.segment)?;
    let mut scanner = Scanner::new(bytes.as_slice(), last.salt, last.offset)?;
    let mut end = last.offset;
    while let Some(item) = scanner.next_item()? {
        end = match item {
            Item::Frame { offset, header, .. } => offset + header.frame_len(),
            Item::Damage(damage) => damage.offset + damage.len,
        };
    }
    File::options().write(true).open(&last.segment)?.write_all_at(&torn, end)?;
    Ok(Inflicted::Harmless)
}

fn flip_header(dir: &Path, rng: &mut ChaCha8Rng) -> Result<Inflicted> {
    let segments = segments(dir)?;
    let Some((segment, _)) = segments.choose(rng) else { return Ok(Inflicted::Nothing) };
    let copy = rng.random_range(0..2) * HEADER_BLOCK / 2;
    flip(segment, copy, HEADER_BYTES, rng)?;
    Ok(Inflicted::Harmless)
}

/// Both slots: everything that is there is published again.
fn flip_position(dir: &Path, rng: &mut ChaCha8Rng) -> Result<Inflicted> {
    let path = dir.join("position");
    if !path.exists() {
        return Ok(Inflicted::Nothing);
    }
    flip(&path, 0, POSITION_BYTES, rng)?;
    flip(&path, HEADER_BLOCK, POSITION_BYTES, rng)?;
    Ok(Inflicted::Harmless)
}
