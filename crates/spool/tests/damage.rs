//! What damage costs, byte by byte.

mod common;

use std::path::{Path, PathBuf};

use common::*;
use tollgate_spool::disk::{Disk as _, FaultPlan, FaultyDisk, Injected, Loss, Operation};
use tollgate_spool::{
    Encoded, FORMAT, FindingKind, Position, Request, Settings, SpoolError, read_damaged, verify,
};

/// A spool that was closed with six requests in it, and its segment.
fn six() -> (FaultyDisk, PathBuf) {
    six_of(request)
}

fn six_of(request: fn(u64) -> Encoded) -> (FaultyDisk, PathBuf) {
    let disk = FaultyDisk::new(1);
    let (spool, _reader) = open(&disk);
    for number in 1..=6 {
        spool.append(request(number)).wait().unwrap();
    }
    spool.close();
    let segment = segments(&disk).remove(0);
    (disk, segment)
}

/// Bytes of the segment that are in use.
fn used(disk: &FaultyDisk, segment: &Path) -> usize {
    let last = frames(disk, segment).pop().unwrap();
    (last.offset + last.len) as usize
}

#[test]
fn any_flipped_byte_costs_at_most_the_record_it_hits_which_is_named_counted_and_kept() {
    flip_each_byte(six());
}

#[test]
fn any_flipped_byte_of_what_is_compressed_costs_no_more() {
    flip_each_byte(six_of(repetitive));
}

fn flip_each_byte((disk, segment): (FaultyDisk, PathBuf)) {
    let mut lost_of = std::collections::BTreeMap::new();
    let end = used(&disk, &segment);
    for at in (0..4096).step_by(13).chain(4096..end) {
        let fork = disk.fork();
        assert!(fork.flip(&segment, at as u64, 1 << (at % 8)));
        let proof = verify(Path::new(DIR), &shared(&fork)).unwrap();
        let (spool, mut reader) = open(&fork);
        let read = numbers(&drain(&mut reader));
        let lost: Vec<u64> = (1..=6).filter(|number| !read.contains(number)).collect();
        assert!(lost.len() <= 1, "byte {at} cost {lost:?}");
        assert_eq!(read.len() + lost.len(), 6, "byte {at}");
        assert_eq!(spool.usage().damaged, lost.len() as u64, "byte {at}");
        assert_eq!(spool.usage().records, read.len() as u64, "byte {at}");
        assert_eq!(proof.is_complete(), lost.is_empty(), "byte {at}");
        let damaged: Vec<_> =
            proof.findings.iter().filter(|f| f.kind == FindingKind::Damaged).collect();
        assert_eq!(damaged.len(), lost.len());
        for (number, finding) in lost.iter().zip(damaged) {
            assert_eq!((finding.first, finding.last), (*number, *number));
            let kept = kept(&fork);
            assert_eq!(kept.len(), 1);
            assert!(kept[0].contains(&format!("sequences-{number}-{number}-")), "{kept:?}");
            let bytes = fork.contents(&Path::new(DIR).join("damaged").join(&kept[0])).unwrap();
            let file = fork.contents(&segment).unwrap();
            assert!(bytes.len() > 56 && file.windows(bytes.len()).any(|part| part == bytes));
            *lost_of.entry(*number).or_insert(0) += 1;
        }
    }
    assert_eq!(lost_of.len(), 6, "each record is hit: {lost_of:?}");
}

#[test]
fn what_is_left_of_a_compressed_request_that_is_damaged_can_be_read() {
    let (disk, segment) = six_of(repetitive);
    let frame = record(&disk, &segment, 3);
    let (head, late) = (frame.offset + 9, frame.offset + frame.len - 20);
    for (at, least) in [(head, 8992), (late, 500)] {
        let fork = disk.fork();
        fork.flip(&segment, at, 1);
        let (_spool, mut reader) = open(&fork);
        assert_eq!(drain(&mut reader).len(), 5);
        let kept = Path::new(DIR).join("damaged").join(&kept(&fork)[0]);
        let readable = read_damaged(&kept, &fork).unwrap();
        let text = String::from_utf8_lossy(&readable);
        assert!(text.contains("192.0.2.1:4711") && text.contains("00000003...."), "{text}");
        assert!(text.matches('.').count() >= least, "byte {at}: {text}");
    }
}

#[test]
fn a_segment_that_was_kept_whole_can_be_read_around_a_damaged_header() {
    let (disk, segment) = six_of(repetitive);
    // The length of its payload.
    disk.flip(&segment, record(&disk, &segment, 3).offset + 17, 1);
    let readable = read_damaged(&segment, &disk).unwrap();
    let text = String::from_utf8_lossy(&readable);
    for number in 1..=6 {
        assert!(text.contains(&format!("{number:08}....")), "{number}");
    }
    assert_eq!((text.lines().count(), text.matches('.').count() / 8992), (6, 6));
    assert!(!text.starts_with('\0'));
}

#[test]
fn damage_is_found_once_and_its_record_is_gone_for_good_after_the_others_are_confirmed() {
    let (disk, segment) = six();
    disk.flip(&segment, record(&disk, &segment, 3).offset + 60, 1);
    let (spool, mut reader) = open(&disk);
    assert_eq!(drain(&mut reader).len(), 5);
    assert_eq!(spool.usage().damaged, 1);
    drop((spool, reader));
    let (spool, mut reader) = open(&disk);
    confirm_all(&mut reader);
    assert_eq!(spool.usage().records, 0);
    assert_eq!(kept(&disk).len(), 1);
    eventually("the segment goes", || segments(&disk).len() == 1);
    assert!(verify(Path::new(DIR), &shared(&disk)).unwrap().is_complete());
}

#[test]
fn every_prefix_of_a_segment_serves_its_whole_records_and_moves_the_torn_one_aside() {
    let (disk, segment) = six();
    let bytes = disk.contents(&segment).unwrap();
    let end = used(&disk, &segment);
    let mut most = 0;
    for len in (0..4096).step_by(500).chain(4096..=end) {
        let fork = disk.fork();
        fork.put(&segment, bytes[..len].to_vec());
        let (spool, mut reader) = open(&fork);
        let read = drain(&mut reader);
        let count = read.len() as u64;
        assert_eq!(numbers(&read), (1..=count).collect::<Vec<_>>(), "prefix {len}");
        assert!(count >= most, "prefix {len}");
        most = count;
        let torn = kept(&fork);
        assert!(torn.iter().all(|name| name.starts_with("torn-")), "prefix {len}: {torn:?}");
        assert_eq!(spool.usage().damaged, 0);
        assert!(count == 0 || segments(&fork).len() == 2, "a new epoch has begun");
    }
    assert_eq!(most, 6);
}

#[test]
fn a_torn_tail_keeps_its_bytes_and_is_not_found_twice() {
    let (disk, segment) = six();
    let mut bytes = disk.contents(&segment).unwrap();
    let end = used(&disk, &segment);
    bytes.truncate(end);
    bytes.extend_from_slice(b"half a frame");
    bytes.resize(16 * 1024, 0);
    disk.put(&segment, bytes);
    let (spool, mut reader) = open(&disk);
    assert_eq!(drain(&mut reader).len(), 6);
    assert_eq!(kept(&disk).len(), 1);
    let kept_bytes = disk.contents(&Path::new(DIR).join("damaged").join(&kept(&disk)[0])).unwrap();
    assert_eq!(kept_bytes, b"half a frame");
    drop((spool, reader));
    let (_spool, mut reader) = open(&disk);
    assert_eq!(drain(&mut reader).len(), 6);
    assert_eq!(kept(&disk).len(), 1);
    assert_eq!(disk.contents(&segment).unwrap().len(), end, "the torn bytes are cut off");
}

#[test]
fn a_body_that_contains_a_whole_foreign_spool_is_served_as_it_is_and_never_read_as_records() {
    let (other, segment) = six();
    let hostile = other.contents(&segment).unwrap()[..used(&other, &segment)].to_vec();
    let disk = FaultyDisk::new(2);
    let (spool, reader) = open(&disk);
    spool.append(request(1)).wait().unwrap();
    let hostile = Request { body: &hostile, ..request(2).request() }.encode();
    spool.append(hostile.clone()).wait().unwrap();
    spool.append(request(3)).wait().unwrap();
    spool.close();
    drop((spool, reader));
    let (spool, mut reader) = open(&disk);
    let read = drain(&mut reader);
    assert_eq!(read[1].encoded, hostile);
    drop((spool, reader));
    // With its own header gone, a scan runs through the whole body.
    let file = segments(&disk).remove(0);
    disk.flip(&file, record(&disk, &file, 2).offset + 30, 0xff);
    let (spool, mut reader) = open(&disk);
    assert_eq!(numbers(&drain(&mut reader)), [1, 3]);
    assert_eq!(spool.usage().damaged, 1);
}

#[test]
fn a_missing_segment_is_named_and_the_others_are_served() {
    let disk = FaultyDisk::new(1);
    let (spool, reader) = open(&disk);
    for number in 1..=60 {
        spool.append(sized(number, 1000)).wait().unwrap();
    }
    spool.close();
    drop((spool, reader));
    for gone in 0..2 {
        let fork = disk.fork();
        fork.remove(&segments(&fork)[gone]).unwrap();
        let proof = verify(Path::new(DIR), &shared(&fork)).unwrap();
        let (spool, mut reader) = open(&fork);
        let read = drain(&mut reader);
        let missing = 60 - read.len() as u64;
        assert!(missing > 5);
        if gone > 0 {
            assert_eq!(spool.usage().damaged, missing);
            assert_eq!(proof.inspection.damaged, missing);
            assert!(!proof.is_complete());
        }
    }
    // With a position the first segment's absence is known as well.
    let (spool, mut reader) = open(&disk);
    let some = reader.next_blocking(3, 1 << 20).unwrap();
    reader.confirm(&positions(&some));
    spool.close();
    drop((spool, reader));
    disk.remove(&segments(&disk)[0]).unwrap();
    let proof = verify(Path::new(DIR), &shared(&disk)).unwrap();
    assert_eq!(proof.findings[0].kind, FindingKind::Missing);
    assert_eq!(proof.findings[0].first, 4);
    let (spool, mut reader) = open(&disk);
    let read = drain(&mut reader).len() as u64;
    assert_eq!(spool.usage().damaged + read + 3, 60);
}

#[test]
fn an_unreadable_position_serves_everything_again() {
    let (disk, _) = six();
    let (spool, mut reader) = open(&disk);
    spool.set_allow_removal(false);
    confirm_all(&mut reader);
    spool.close();
    drop((spool, reader));
    disk.put(&Path::new(DIR).join("position"), vec![7; 100]);
    let proof = verify(Path::new(DIR), &shared(&disk)).unwrap();
    assert!(proof.findings.iter().any(|finding| finding.kind == FindingKind::Position));
    let (_spool, mut reader) = open(&disk);
    let read = drain(&mut reader);
    assert_eq!(read.len(), 6);
    reader.confirm(&positions(&read));
    reader.close();
    assert!(!disk.contents(&Path::new(DIR).join("position")).unwrap().starts_with(&[7]));
}

/// A crash has left the records 1, 2, 3 and 5. The last three were one group, which no mark names.
fn unacknowledged_hole() -> (FaultyDisk, PathBuf) {
    let disk = FaultyDisk::new(1);
    let (spool, reader) = open(&disk);
    spool.append(request(1)).wait().unwrap();
    let held_syncs = disk.held_syncs();
    let held = spool.append(request(2));
    eventually("a sync waits", || disk.syncs_waiting() == 1);
    let group: Vec<_> = (3..=5).map(|number| spool.append(request(number))).collect();
    drop(held_syncs);
    held.wait().unwrap();
    for append in group {
        append.wait().unwrap();
    }
    let crashed = disk.fork();
    drop((spool, reader));
    // Records 3 to 5 were one group: without the mark, nothing says that they were synced.
    let file = segments(&crashed).remove(0);
    let (fourth, fifth) = (record(&crashed, &file, 4), record(&crashed, &file, 5));
    let mut bytes = crashed.contents(&file).unwrap();
    bytes[fourth.offset as usize..fifth.offset as usize].fill(0);
    bytes.truncate((fifth.offset + fifth.len) as usize);
    crashed.put(&file, bytes);
    crashed.power_cut(Loss::Nothing);
    (crashed, file)
}

#[test]
fn a_hole_above_the_synced_mark_was_never_acknowledged_and_what_is_above_it_is_served() {
    let (crashed, _) = unacknowledged_hole();
    let (spool, mut reader) = open(&crashed);
    assert_eq!(numbers(&drain(&mut reader)), [1, 2, 3, 5]);
    assert_eq!(spool.usage().damaged, 0);
    assert_eq!(spool.usage().records, 4);
    let proof = verify(Path::new(DIR), &shared(&crashed)).unwrap();
    let kinds: Vec<_> = proof.findings.iter().map(|finding| finding.kind).collect();
    assert!(proof.is_complete(), "{kinds:?}");
    assert!(kinds.contains(&FindingKind::Unacknowledged), "{kinds:?}");
}

#[test]
fn a_header_of_a_newer_format_is_refused() {
    let (disk, segment) = six();
    let mut bytes = disk.contents(&segment).unwrap();
    for copy in [0, 2048] {
        bytes[copy + 8] = FORMAT as u8 + 1;
        let crc = crc32c::crc32c_append(
            crc32c::crc32c(&bytes[copy..copy + 12]),
            &bytes[copy + 16..copy + 80],
        );
        bytes[copy + 12..copy + 16].copy_from_slice(&crc.to_le_bytes());
    }
    disk.put(&segment, bytes);
    let error = try_open(&disk, &settings()).unwrap_err();
    assert!(matches!(error, SpoolError::NewerFormat { known: FORMAT, .. }), "{error}");
    assert_eq!(Position::default().to_string(), "0/0");
}

#[test]
fn a_bad_sector_costs_the_records_it_hits_and_neither_the_start_nor_the_others() {
    let disk = FaultyDisk::new(1);
    let (spool, reader) = open(&disk);
    for number in 1..=40 {
        spool.append(sized(number, 1000)).wait().unwrap();
    }
    spool.close();
    drop((spool, reader));
    for (segment, sequence) in [(0, 5), (segments(&disk).len() - 1, 39)] {
        let fork = disk.fork();
        let path = segments(&fork)[segment].clone();
        let hit = record(&fork, &path, sequence);
        fork.spoil(&path, hit.offset + 100, 1);
        let (spool, mut reader) = open(&fork);
        let (mut read, mut errors) = (Vec::new(), 0);
        while spool.usage().records != read.len() as u64 || read.is_empty() {
            match reader.next_blocking(50, 1 << 20) {
                Ok(some) => read.extend(some),
                Err(error) => {
                    assert!(error.is_transient());
                    errors += 1;
                    assert!(errors < 100, "the reader never goes on");
                }
            }
        }
        assert!(errors >= 10, "a passing failure is waited for");
        assert!(read.len() >= 34, "one block of 4 KiB hits at most six of these records");
        if segment == 0 {
            assert_eq!(spool.usage().damaged + read.len() as u64, 40);
        } else {
            // The marks that could say how many were acknowledged are unreadable as well.
            assert_eq!(numbers(&read), (1..=read.len() as u64).collect::<Vec<_>>());
        }
        let proof = verify(Path::new(DIR), &shared(&fork)).unwrap();
        assert_eq!(proof.inspection.damaged, spool.usage().damaged);
        // The bytes could not be copied, so the file is kept instead of removed.
        reader.confirm(&positions(&read));
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        eventually("the segment is moved", || kept(&fork) == [name.as_str()]);
        eventually("the others go", || segments(&fork).len() == 2);
        assert_eq!(spool.usage().segments, 1);
    }
}

#[test]
fn what_could_not_be_copied_is_kept_whole_only_within_the_bound() {
    let disk = FaultyDisk::new(1);
    let (spool, reader) = open(&disk);
    for number in 1..=40 {
        spool.append(sized(number, 1000)).wait().unwrap();
    }
    drop((spool, reader));
    let first_two = segments(&disk)[..2].to_vec();
    for fits in [2, 1, 0] {
        let fork = disk.fork();
        for (segment, sequence) in first_two.iter().zip([5, 20]) {
            fork.spoil(segment, record(&disk, segment, sequence).offset, 1);
        }
        let bounded = Settings { damaged_max_bytes: fits * 16 * 1024, ..settings() };
        let (spool, mut reader) = try_open(&fork, &bounded).unwrap();
        let mut read = Vec::new();
        eventually("the bad sectors are given up", || {
            read.extend(reader.next_blocking(50, 1 << 20).unwrap_or_default());
            spool.usage().damaged + read.len() as u64 == 40
        });
        reader.confirm(&positions(&read));
        eventually("the others go", || segments(&fork).len() as u64 == 1 + fits);
        assert_eq!(kept(&fork).len() as u64, fits);
    }
}

#[test]
fn no_segment_is_kept_for_what_nobody_was_answered_for() {
    let (disk, segment) = unacknowledged_hole();
    disk.arm(FaultPlan::all(Operation::Create, Injected::Eio).on("damaged/"));
    let (spool, mut reader) = open(&disk);
    confirm_all(&mut reader);
    eventually("the segment goes", || !disk.paths().contains(&segment));
    assert_eq!(kept(&disk), [""; 0]);
    assert_eq!(spool.usage().records, 0);
}

#[test]
fn bad_sectors_in_headers_and_the_position_neither_stop_the_start_nor_cost_anything() {
    let disk = FaultyDisk::new(1);
    for epoch in 0..3 {
        let (spool, _reader) = open(&disk);
        for number in 1..=20 {
            spool.append(sized(20 * epoch + number, 1000)).wait().unwrap();
        }
    }
    // The second of these positions lets the first segment go.
    let first = segments(&disk).remove(0);
    for count in [1, 12] {
        let (spool, mut reader) = open(&disk);
        let some = reader.next_blocking(count, 1 << 20).unwrap();
        reader.confirm(&positions(&some));
        spool.close();
        reader.close();
    }
    assert!(!segments(&disk).contains(&first));
    let position = Path::new(DIR).join("position");
    for slots in [vec![0], vec![4096], vec![0, 4096]] {
        let fork = disk.fork();
        for slot in &slots {
            fork.spoil(&position, *slot, 1);
        }
        for segment in segments(&fork) {
            fork.spoil(&segment, 0, 4096);
        }
        let proof = verify(Path::new(DIR), &shared(&fork)).unwrap();
        assert!(proof.is_complete(), "{:?}", proof.findings);
        let (spool, mut reader) = open(&fork);
        let read = drain(&mut reader);
        assert!(numbers(&read).ends_with(&(14..=60).collect::<Vec<_>>()));
        assert_eq!((spool.usage().damaged, spool.usage().records), (0, read.len() as u64));
        reader.confirm(&positions(&read));
        eventually("all segments go but the last", || segments(&fork).len() == 1);
        drop((spool, reader));
        fork.heal();
        assert!(drain(&mut open(&fork).1).is_empty(), "the position is written all the same");
    }
}

#[test]
fn a_bad_sector_that_recovers_costs_nothing() {
    let (disk, segment) = six();
    disk.spoil(&segment, record(&disk, &segment, 6).offset, 10);
    let (spool, mut reader) = open(&disk);
    reader.next_blocking(50, 1 << 20).unwrap_err();
    disk.heal();
    assert_eq!(drain(&mut reader).len(), 6);
    assert_eq!(spool.usage().damaged, 0);
}
