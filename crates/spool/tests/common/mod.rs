//! What the tests of the spool share.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tollgate_spool::disk::{Disk, FaultyDisk};
use tollgate_spool::frame::{Item, Salt, Scanner};
use tollgate_spool::{
    Encoded, Options, Position, Reader, Request, Settings, Spool, SpoolError, Stored,
};

pub const DIR: &str = "/spool";

/// Small enough that everything happens within a few records.
pub fn settings() -> Settings {
    Settings {
        dir: DIR.into(),
        max_bytes: 64 * 16 * 1024,
        segment_bytes: 16 * 1024,
        tail_bytes: 1 << 20,
        queue_bytes: 1 << 20,
        group_bytes: 8 * 1024,
        commit_interval_ms: 0,
        position_interval_ms: 1,
        probe_interval_ms: 1,
        ..Settings::default()
    }
}

pub fn shared(disk: &FaultyDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// A spool from which segments may be removed.
pub fn try_open(disk: &FaultyDisk, settings: &Settings) -> Result<(Spool, Reader), SpoolError> {
    let options = Options { settings: settings.clone(), started_at_us: 1_000 };
    let (spool, reader) = Spool::open(options, shared(disk))?;
    spool.set_allow_removal(true);
    Ok((spool, reader))
}

pub fn open(disk: &FaultyDisk) -> (Spool, Reader) {
    try_open(disk, &settings()).unwrap()
}

/// A request that is recognised by its number.
pub fn request(number: u64) -> Encoded {
    sized(number, 20)
}

/// As [`request`], with a body of about this size in which nothing repeats: it takes as much on disk.
pub fn sized(number: u64, bytes: usize) -> Encoded {
    let mut random = SmallRng::seed_from_u64(number);
    let filler = std::iter::repeat_with(|| random.random());
    with_body(number, filler.take(bytes.saturating_sub(8)))
}

/// As [`request`], with a body that takes hardly anything on disk.
pub fn repetitive(number: u64) -> Encoded {
    with_body(number, std::iter::repeat_n(b'.', 9000))
}

/// One or the other.
pub fn some_request(number: u64, bytes: usize) -> Encoded {
    if number % 5 == 3 { repetitive(number) } else { sized(number, bytes) }
}

fn with_body(number: u64, filler: impl Iterator<Item = u8>) -> Encoded {
    let mut body = format!("{number:08}").into_bytes();
    body.extend(filler);
    Request {
        application: "shop",
        utc_offset_minutes: Some(480),
        received_at_ms: 1_000_000 + number as i64,
        edge_id: "edge-1",
        peer: "192.0.2.1:4711",
        authorization: None,
        signature: Some("UsernameToken"),
        body: &body,
    }
    .encode()
}

pub fn number(stored: &Stored) -> u64 {
    std::str::from_utf8(&stored.request().body[..8]).unwrap().parse().unwrap()
}

pub fn numbers(stored: &[Stored]) -> Vec<u64> {
    stored.iter().map(number).collect()
}

pub fn positions(stored: &[Stored]) -> Vec<Position> {
    stored.iter().map(|stored| stored.position).collect()
}

/// Everything there is to read now.
pub fn drain(reader: &mut Reader) -> Vec<Stored> {
    let mut all = Vec::new();
    loop {
        let some = reader.next_blocking(7, 1 << 20).unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

/// Waits for a condition that other threads bring about.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < deadline, "did not come about: {what}");
        std::thread::yield_now();
    }
}

/// Paths of the segment files, in order.
pub fn segments(disk: &FaultyDisk) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "segment");
    disk.paths().into_iter().filter(is_segment).collect()
}

/// Files in `damaged/`.
pub fn kept(disk: &FaultyDisk) -> Vec<String> {
    let dir = Path::new(DIR).join("damaged");
    disk.list(&dir).unwrap().into_iter().map(|entry| entry.name).collect()
}

pub fn assert_gapless(positions: &[Position]) {
    for pair in positions.windows(2) {
        let follows = pair[1] == Position { epoch: pair[0].epoch, sequence: pair[0].sequence + 1 };
        let begins = pair[1].epoch > pair[0].epoch && pair[1].sequence == 1;
        assert!(follows || begins, "{} is followed by {}", pair[0], pair[1]);
    }
}

/// Reads everything and confirms it.
pub fn confirm_all(reader: &mut Reader) {
    let all = drain(reader);
    reader.confirm(&positions(&all));
}

/// A valid frame in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub offset: u64,
    pub len: u64,
    pub is_record: bool,
    pub sequence: u64,
}

/// The valid frames of a segment.
pub fn frames(disk: &FaultyDisk, segment: &Path) -> Vec<Found> {
    let bytes = disk.contents(segment).unwrap();
    let name = segment.file_stem().unwrap().to_str().unwrap();
    let salt = u64::from_str_radix(name.rsplit('-').next().unwrap(), 16).unwrap();
    let mut scanner = Scanner::new(&bytes[..], Salt::new(salt), 4096).unwrap();
    let mut found = Vec::new();
    while let Some(item) = scanner.next_item().unwrap() {
        if let Item::Frame { offset, header, .. } = item {
            let (len, sequence) = (header.frame_len(), header.sequence);
            found.push(Found { offset, len, is_record: header.kind == 1, sequence });
        }
    }
    found
}

/// The frame of a record.
pub fn record(disk: &FaultyDisk, segment: &Path, sequence: u64) -> Found {
    let all = frames(disk, segment);
    *all.iter().find(|frame| frame.is_record && frame.sequence == sequence).unwrap()
}
