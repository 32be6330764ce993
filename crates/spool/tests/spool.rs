//! Appending, reading and confirming, on a disk that does as it is told.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use tollgate_spool::disk::{Disk as _, FaultPlan, FaultyDisk, Injected, Operation, RealDisk};
use tollgate_spool::{AppendError, Options, Position, Settings, Spool, SpoolError};

#[test]
fn what_is_appended_is_read_in_order_and_not_again_after_it_is_confirmed() {
    let disk = FaultyDisk::new(1);
    let (spool, mut reader) = open(&disk);
    for number in 1..=500 {
        spool.append(request(number)).wait().unwrap();
    }
    let stored = drain(&mut reader);
    assert_eq!(numbers(&stored), (1..=500).collect::<Vec<_>>());
    assert_eq!(stored[41].encoded, request(42));
    assert_eq!(stored[0].position.sequence, 1);
    assert_gapless(&positions(&stored));
    assert_eq!(spool.usage().records, 500);
    // Out of order, and one is left out.
    let mut confirmed = positions(&stored);
    let left = confirmed.remove(300);
    confirmed.reverse();
    reader.confirm(&confirmed);
    reader.confirm(&confirmed);
    assert_eq!(spool.usage().records, 1);
    assert_eq!(spool.usage().oldest_unconfirmed_ms, Some(1_000_301));
    spool.close();
    drop((spool, reader));

    let (spool, mut reader) = open(&disk);
    let again = drain(&mut reader);
    assert_eq!(again[0].position, left);
    assert_eq!(numbers(&again), (301..=500).collect::<Vec<_>>());
    reader.confirm(&positions(&again));
    eventually("old segments go", || segments(&disk).len() == 1);
    assert_eq!(spool.usage().records, 0);
    assert_eq!(spool.usage().oldest_unconfirmed_ms, None);
}

#[test]
fn what_repeats_itself_takes_little_of_the_disk_and_comes_back_as_it_was() {
    let disk = FaultyDisk::new(1);
    let (spool, mut reader) = open(&disk);
    // As they came, a segment would hold one.
    for number in 1..=50 {
        spool.append(repetitive(number)).wait().unwrap();
    }
    assert!(segments(&disk).len() < 6);
    let stored = drain(&mut reader);
    spool.close();
    drop((spool, reader));
    let (_spool, mut reader) = open(&disk);
    let from_disk = drain(&mut reader);
    assert_eq!(from_disk, stored);
    assert_eq!(from_disk[41].encoded, repetitive(42));
}

#[test]
fn the_epoch_rises_with_every_start_and_the_sequence_begins_at_one() {
    let disk = FaultyDisk::new(1);
    let mut epochs = Vec::new();
    for start in [5_000, 9_000, 10] {
        let options = Options { settings: settings(), started_at_us: start };
        let (spool, _reader) = Spool::open(options, shared(&disk)).unwrap();
        let position = spool.append(request(start)).wait().unwrap();
        assert_eq!(position.sequence, 1);
        epochs.push(position.epoch);
    }
    assert_eq!(epochs, [5_000, 9_000, 9_001]);
}

#[test]
fn an_append_whose_answer_nobody_waits_for_is_stored() {
    let disk = FaultyDisk::new(1);
    let (spool, mut reader) = open(&disk);
    drop(spool.append(request(1)));
    spool.close();
    assert_eq!(numbers(&drain(&mut reader)), [1]);
    assert!(reader.is_exhausted());
    assert_eq!(spool.append(request(2)).wait(), Err(AppendError::Closing));
}

#[test]
fn a_disk_that_does_not_answer_is_silent_until_it_does() {
    let disk = FaultyDisk::new(1);
    let (spool, _reader) = open(&disk);
    let held_syncs = disk.held_syncs();
    let append = spool.append(request(1));
    eventually("time passes", || spool.disk_silence() > Duration::from_millis(20));
    assert!(spool.is_writable(), "nothing has failed");
    drop(held_syncs);
    append.wait().unwrap();
    eventually("it has answered", || spool.disk_silence().is_zero());
}

#[test]
fn requests_that_arrive_during_a_sync_share_the_next_one() {
    let disk = FaultyDisk::new(1);
    let (spool, mut reader) = open(&disk);
    let before = disk.count(Operation::Sync);
    let held_syncs = disk.held_syncs();
    let first = spool.append(request(1));
    eventually("the first sync waits", || disk.syncs_waiting() == 1);
    let rest: Vec<_> = (2..=40).map(|number| spool.append(request(number))).collect();
    assert!(reader.next_blocking(100, 1 << 20).unwrap().is_empty(), "nothing unsynced is read");
    drop(held_syncs);
    assert_eq!(first.wait().unwrap().sequence, 1);
    for (append, sequence) in rest.into_iter().zip(2..) {
        assert_eq!(append.wait().unwrap().sequence, sequence);
    }
    assert_eq!(disk.count(Operation::Sync) - before, 2);
    assert_eq!(drain(&mut reader).len(), 40);
}

#[test]
fn many_threads_append_at_once_and_every_one_gets_its_own_position() {
    let disk = FaultyDisk::new(1);
    let (spool, mut reader) = open(&disk);
    let threads: Vec<_> = (0..8u64)
        .map(|thread| {
            let spool = spool.clone();
            std::thread::spawn(move || {
                let append = |n| {
                    let number = thread * 1000 + n;
                    (spool.append(request(number)).wait().unwrap(), number)
                };
                (0..100).map(append).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut answered: Vec<_> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    answered.sort_unstable();
    let stored = drain(&mut reader);
    let read: Vec<_> = stored.iter().map(|stored| (stored.position, number(stored))).collect();
    assert_eq!(read, answered);
    assert_gapless(&positions(&stored));
}

#[test]
fn what_memory_does_not_hold_is_read_from_disk_in_the_same_order() {
    let disk = FaultyDisk::new(1);
    let tight = Settings { tail_bytes: 2_000, ..settings() };
    let (spool, mut reader) = try_open(&disk, &tight).unwrap();
    let mut expected = 1..;
    let mut next = 1;
    for round in 1..60 {
        for _ in 0..round % 25 {
            spool.append(request(next)).wait().unwrap();
            next += 1;
        }
        for stored in reader.next_blocking(round % 17, 5_000).unwrap() {
            assert_eq!(Some(number(&stored)), expected.next());
            reader.confirm(&[stored.position]);
        }
    }
    for stored in drain(&mut reader) {
        assert_eq!(Some(number(&stored)), expected.next());
    }
    assert_eq!(expected.next(), Some(next));
}

#[test]
fn a_read_is_bounded_by_records_and_bytes_but_never_by_less_than_one_record() {
    let disk = FaultyDisk::new(1);
    let (spool, mut reader) = open(&disk);
    for number in 1..=10 {
        spool.append(sized(number, 1000)).wait().unwrap();
    }
    assert_eq!(reader.next_blocking(3, 1 << 20).unwrap().len(), 3);
    assert_eq!(reader.next_blocking(9, 1).unwrap().len(), 1);
    assert_eq!(reader.next_blocking(9, 2_700).unwrap().len(), 2);
    drop((spool, reader));
    let (_spool, mut reader) = open(&disk);
    assert_eq!(reader.next_blocking(3, 1 << 20).unwrap().len(), 3);
    assert_eq!(reader.next_blocking(9, 1).unwrap().len(), 1);
    assert_eq!(drain(&mut reader).len(), 6);
}

#[tokio::test]
async fn a_waiting_reader_wakes_for_a_record_and_an_abandoned_read_loses_none() {
    let disk = FaultyDisk::new(1);
    let (spool, mut reader) = open(&disk);
    let long = Duration::from_mins(1);
    let (read, position) = tokio::join!(reader.next(10, 1 << 20, long), spool.append(request(1)));
    assert_eq!(positions(&read.unwrap()), [position.unwrap()]);
    assert!(reader.next(10, 1 << 20, Duration::ZERO).await.unwrap().is_empty());
    for number in 2..=50 {
        spool.append(request(number)).await.unwrap();
    }
    drop((spool, reader));
    let (spool, mut reader) = open(&disk);
    let mut seen = Vec::new();
    while seen.len() < 50 {
        // Polled once and dropped: the disk read it began goes on without it.
        let once = tokio::time::timeout(Duration::ZERO, reader.next(3, 1 << 20, long)).await;
        if let Ok(read) = once {
            seen.extend(numbers(&read.unwrap()));
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(seen, (1..=50).collect::<Vec<_>>());
    let closing = spool.clone();
    let close = tokio::task::spawn_blocking(move || closing.close());
    assert!(reader.next(10, 1 << 20, long).await.unwrap().is_empty(), "closing ends the wait");
    close.await.unwrap();
}

#[test]
fn each_refusal_has_its_reason() {
    let disk = FaultyDisk::new(1);
    let small = Settings { max_bytes: 4 * 16 * 1024, queue_bytes: 64 * 1024, ..settings() };
    let (spool, reader) = try_open(&disk, &small).unwrap();
    assert_eq!(spool.append(sized(1, 16 * 1024)).wait(), Err(AppendError::TooLarge));
    let largest = small.max_record_bytes() as usize - 200;
    let held_syncs = disk.held_syncs();
    let waiting: Vec<_> = (0..20).map(|n| spool.append(sized(n, largest))).collect();
    drop(held_syncs);
    let answers: Vec<_> = waiting.into_iter().map(tollgate_spool::Append::wait).collect();
    let refused = |reason| answers.iter().filter(|answer| **answer == Err(reason)).count();
    assert!(refused(AppendError::Overloaded) + refused(AppendError::Full) >= 16, "{answers:?}");
    assert_eq!(spool.append(sized(30, largest)).wait(), Err(AppendError::Full));
    assert!(spool.usage().is_in_reserve());
    assert!(spool.is_writable(), "a full spool is not a failing disk");
    assert!(spool.usage().bytes <= small.max_bytes);
    drop(reader);
}

#[test]
fn a_full_disk_stops_neither_confirmations_nor_the_removal_that_makes_room() {
    let disk = FaultyDisk::new(1);
    let (spool, mut reader) = open(&disk);
    let mut stored = 0;
    let used = |disk: &FaultyDisk| (1 << 30) - disk.free_space("/".as_ref()).unwrap();
    let full = used(&disk) + 3 * 16 * 1024;
    disk.set_capacity(full);
    while spool.append(sized(stored + 1, 1000)).wait().is_ok() {
        stored += 1;
        assert!(stored < 1000, "the disk is never full");
    }
    drop((spool, reader));
    // Also after a restart, which can make no segment.
    let (spool, mut reader2) = open(&disk);
    assert!(!spool.is_writable() || spool.append(sized(9, 9000)).wait().is_err());
    let all = drain(&mut reader2);
    assert_eq!(numbers(&all), (1..=stored).collect::<Vec<_>>());
    reader2.confirm(&positions(&all));
    eventually("room is made and writing goes on", || {
        spool.is_writable() && spool.append(request(7777)).wait().is_ok()
    });
    reader = reader2;
    assert_eq!(numbers(&drain(&mut reader)).last(), Some(&7777));
}

#[test]
fn segments_stay_while_removal_is_off_and_go_when_it_is_on_again() {
    let disk = FaultyDisk::new(1);
    let (spool, mut reader) = open(&disk);
    spool.set_allow_removal(false);
    for number in 1..=60 {
        spool.append(sized(number, 1000)).wait().unwrap();
    }
    assert!(segments(&disk).len() > 3);
    let before = segments(&disk);
    confirm_all(&mut reader);
    spool.close();
    reader.close();
    drop(spool);
    assert_eq!(segments(&disk), before);
    // A start does not switch it on.
    let options = Options { settings: settings(), started_at_us: 1_000 };
    let (spool, reader) = Spool::open(options, shared(&disk)).unwrap();
    reader.close();
    drop(spool);
    assert!(segments(&disk).starts_with(&before));
    let (spool, mut reader) = open(&disk);
    assert!(drain(&mut reader).is_empty(), "confirmed is confirmed, removed or not");
    eventually("they go", || segments(&disk).len() == 1);
    assert_eq!(spool.usage().segments, 1);
}

#[test]
fn a_failed_write_or_sync_is_answered_once_and_followed_by_a_new_epoch() {
    for operation in [Operation::Write, Operation::Sync] {
        let disk = FaultyDisk::new(1);
        let (spool, mut reader) = open(&disk);
        let first = spool.append(request(1)).wait().unwrap();
        let file = segments(&disk)[0].clone();
        eventually("the log is idle and marked", || frames(&disk, &file).len() == 2);
        disk.arm(FaultPlan::once(operation, 0, Injected::Eio).on(".segment"));
        assert_eq!(spool.append(request(2)).wait(), Err(AppendError::Failed));
        let third = spool.append(request(3)).wait().unwrap();
        assert!(spool.is_writable(), "one failure is not two");
        assert!(third.epoch > first.epoch);
        assert_eq!(third.sequence, 1);
        assert_eq!(numbers(&drain(&mut reader)), [1, 3]);
        // Nothing is ever written or synced there again.
        disk.arm(FaultPlan::all(Operation::Sync, Injected::Eio).on(file.to_str().unwrap()));
        disk.arm(FaultPlan::all(Operation::Write, Injected::Eio).on(file.to_str().unwrap()));
        spool.append(request(4)).wait().unwrap();
    }
}

#[test]
fn two_failures_in_a_row_make_it_unwritable_until_a_probe_succeeds() {
    let disk = FaultyDisk::new(1);
    let (spool, mut reader) = open(&disk);
    disk.arm(FaultPlan::all(Operation::Sync, Injected::Eio));
    assert_eq!(spool.append(request(1)).wait(), Err(AppendError::Failed));
    eventually("it is unwritable", || !spool.is_writable());
    assert_eq!(spool.append(request(2)).wait(), Err(AppendError::Failed));
    disk.heal();
    eventually("a probe succeeds", || spool.is_writable());
    spool.append(request(3)).wait().unwrap();
    assert_eq!(numbers(&drain(&mut reader)), [3]);
}

#[test]
fn an_unwritable_spool_is_probed_although_a_new_segment_could_be_made() {
    let disk = FaultyDisk::new(1);
    let (spool, mut reader) = open(&disk);
    // The syncs of two groups fail, and none of those that make the segments behind them.
    for skip in [0, 1] {
        disk.arm(FaultPlan::once(Operation::Sync, skip, Injected::Eio).on(".segment"));
    }
    for number in 1..=2 {
        assert_eq!(spool.append(request(number)).wait(), Err(AppendError::Failed));
    }
    eventually("a probe succeeds", || spool.is_writable());
    spool.append(request(3)).wait().unwrap();
    assert_eq!(numbers(&drain(&mut reader)), [3]);
}

#[test]
fn a_smaller_bound_than_the_last_segment_fills_the_spool_only_until_all_is_confirmed() {
    let disk = FaultyDisk::new(1);
    let large = Settings { segment_bytes: 64 * 1024, max_bytes: 256 * 1024, ..settings() };
    let (spool, reader) = try_open(&disk, &large).unwrap();
    for number in 1..=50 {
        spool.append(sized(number, 900)).wait().unwrap();
    }
    drop((spool, reader));
    assert_eq!(segments(&disk).len(), 1);
    let small = Settings { segment_bytes: 16 * 1024, max_bytes: 64 * 1024, ..settings() };
    let (spool, mut reader) = try_open(&disk, &small).unwrap();
    let largest = small.max_record_bytes() as usize - 200;
    assert_eq!(spool.append(sized(61, largest)).wait(), Err(AppendError::Full));
    confirm_all(&mut reader);
    eventually("it takes requests again", || spool.append(sized(62, largest)).wait().is_ok());
    assert!(spool.usage().bytes <= small.max_bytes);
}

#[test]
fn a_bound_that_is_no_multiple_of_a_segment_keeps_its_reserve() {
    let disk = FaultyDisk::new(1);
    let segment = settings().segment_bytes;
    let bound = 4 * segment;
    let settings = Settings { max_bytes: 5 * segment - 1, ..settings() };
    let (spool, _reader) = try_open(&disk, &settings).unwrap();
    let append = || spool.append(sized(1, 500)).wait();
    while !spool.is_reserved() {
        append().unwrap();
    }
    let reserved_from = spool.usage().bytes;
    let full = loop {
        if let Err(reason) = append() {
            break reason;
        }
    };
    assert_eq!(full, AppendError::Full);
    let usage = spool.usage();
    assert_eq!(usage.max_bytes, bound);
    let taken = usage.bytes - reserved_from;
    // A fifth, down to whole records.
    assert!(taken >= bound / 6, "only {taken} bytes were reserved");
}

#[test]
fn a_spool_that_is_closed_is_no_failing_disk() {
    let disk = FaultyDisk::new(1);
    let (spool, _reader) = open(&disk);
    spool.close();
    assert!(spool.is_writable());
    assert_eq!(spool.append(request(1)).wait(), Err(AppendError::Closing));
}

#[test]
fn a_second_process_is_told_that_the_directory_is_taken() {
    let temp = tempfile::tempdir().unwrap();
    let settings = Settings { dir: temp.path().join("spool"), ..settings() };
    let open = || {
        let options = Options { settings: settings.clone(), started_at_us: 1 };
        Spool::open(options, Arc::new(RealDisk))
    };
    let (spool, reader) = open().unwrap();
    spool.append(request(1)).wait().unwrap();
    let error = open().unwrap_err();
    assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
    drop((spool, reader));
    let (_spool, mut reader) = open().unwrap();
    assert_eq!(numbers(&drain(&mut reader)), [1]);
}

#[test]
fn files_of_a_newer_format_and_strangers_are_refused_untouched() {
    for (name, newer) in [
        ("v3-00000000000000000001-00000000000000000001-0000000000000001.segment", true),
        ("important.segment", false),
    ] {
        let disk = FaultyDisk::new(1);
        drop(open(&disk));
        disk.put(&std::path::Path::new(DIR).join(name), vec![1, 2, 3]);
        let before = disk.paths();
        let error = try_open(&disk, &settings()).unwrap_err();
        assert_eq!(matches!(error, SpoolError::NewerFormat { .. }), newer, "{error}");
        assert_eq!(matches!(error, SpoolError::ForeignFile { .. }), !newer, "{error}");
        assert_eq!(disk.paths(), before);
    }
}

#[test]
fn contradicting_settings_are_refused_by_name() {
    let wrong = Settings { max_bytes: 1 << 20, segment_bytes: 1 << 20, ..settings() };
    let error = try_open(&FaultyDisk::new(1), &wrong).unwrap_err().to_string();
    assert!(error.contains("max_bytes") && error.contains("segment_bytes"), "{error}");
    assert_eq!(Settings::default().validate(), Ok(()));
    assert!(Position::default() < Position { epoch: 0, sequence: 1 });
}

#[test]
fn nothing_is_removed_while_the_position_cannot_be_written() {
    let disk = FaultyDisk::new(1);
    let (spool, mut reader) = open(&disk);
    for number in 1..=60 {
        spool.append(sized(number, 1000)).wait().unwrap();
    }
    let before = segments(&disk);
    for operation in [Operation::Write, Operation::Create] {
        disk.arm(FaultPlan::all(operation, Injected::Eio).on("position"));
    }
    let tried = disk.count(Operation::Write);
    confirm_all(&mut reader);
    eventually("the position is tried again", || disk.count(Operation::Write) > tried + 3);
    assert_eq!(segments(&disk), before);
    disk.heal();
    eventually("segments go", || segments(&disk).len() == 1);
    drop(spool);
}
