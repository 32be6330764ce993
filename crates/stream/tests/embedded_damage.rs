//! What damage to the embedded log costs: what it hits, and nothing else.

mod common;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{contents, open, publish, spec, try_open, wait_for};
use tollgate_spool::disk::{Disk, FaultPlan, FaultyDisk, Injected, Operation};
use tollgate_spool::frame::{Item, Salt, Scanner};
use tollgate_stream::conformance::runtime::{Running, quick};
use tollgate_stream::conformance::store::MemoryStore;
use tollgate_stream::conformance::tools::{key_of, record};
use tollgate_stream::consumer::{PartitionState, StopReason};
use tollgate_stream::embedded::EmbeddedStream;
use tollgate_stream::{
    Incoming, Mark, Outgoing, ReadFrom, Source, Stream, StreamError, TopicPartition, TopicReader,
};

/// The segment files, oldest first.
fn segments(disk: &FaultyDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some()).collect()
}

/// Where the frames of a segment stand.
fn frames(disk: &FaultyDisk, segment: &Path) -> Vec<Range<u64>> {
    let name = segment.file_stem().unwrap().to_str().unwrap();
    let (_, salt) = name.split_once('-').unwrap();
    let salt = Salt::new(u64::from_str_radix(salt, 16).unwrap());
    let bytes = disk.contents(segment).unwrap();
    let mut scanner = Scanner::new(&bytes[..], salt, 0).unwrap();
    let mut frames = Vec::new();
    while let Some(Item::Frame { offset, header, .. }) = scanner.next_item().unwrap() {
        frames.push(offset..offset + header.frame_len());
    }
    frames
}

/// Those of them that hold a record of [`filled`] or [`numbered`], and not only a mark.
fn frames_of_records(disk: &FaultyDisk, segment: &Path) -> Vec<Range<u64>> {
    frames(disk, segment).into_iter().filter(|frame| frame.end - frame.start > 2_000).collect()
}

/// Fills several segments.
async fn filled(disk: &FaultyDisk) {
    let stream = open(disk);
    stream.create_topics(&[spec("t", 2)]).await.unwrap();
    for round in 0..40 {
        let records: Vec<Outgoing> = (0..4)
            .map(|key| {
                record(
                    "t",
                    &format!("k{key}"),
                    "id",
                    &format!("{round}-{key}-{}", "x".repeat(2_000)),
                )
            })
            .collect();
        assert!(publish(&stream, &records).await.iter().all(Result::is_ok));
    }
    drop(stream);
}

/// I5.
#[tokio::test(flavor = "multi_thread")]
async fn any_flipped_byte_is_reported_and_costs_only_what_it_hits() {
    let disk = FaultyDisk::new(6);
    filled(&disk).await;
    let files = segments(&disk);
    assert!(files.len() > 3, "{files:?}");
    let all = contents(&open(&disk.fork()), "t").await;
    let total: usize = all.values().map(Vec::len).sum();
    assert_eq!(total, 160);
    let mut hits = 0;
    // Nothing says of the very last group that it was confirmed.
    let last_file = files.last().unwrap();
    let last = frames(&disk, last_file).pop().unwrap();
    for file in &files {
        let len = disk.contents(file).unwrap().len() as u64;
        for step in 0..6 {
            let hurt = disk.fork();
            let at = (len * step / 6 + 31) % len;
            assert!(hurt.flip(file, at, 0x10));
            let last_group = file == last_file && last.contains(&at);
            let stream = match try_open(&hurt) {
                Ok(stream) => stream,
                Err(error) => panic!("{error} for a byte of {}", file.display()),
            };
            let found = contents(&stream, "t").await;
            let left: usize = found.values().map(Vec::len).sum();
            if left < total && !last_group {
                assert!(!stream.damage().is_empty(), "{} records vanished silently", total - left);
                assert!(total - left <= 4, "one group, not {} records", total - left);
                hits += 1;
            }
            for (partition, records) in &found {
                // What is left is what was there, under the same offsets.
                assert!(records.iter().all(|one| all[partition].contains(one)));
            }
            // And writing goes on behind the end.
            let position =
                publish(&stream, &[record("t", "k0", "id", "more")]).await.remove(0).unwrap();
            let end = all[&position.partition].last().unwrap().0;
            if !last_group {
                assert!(position.offset > end, "{position:?} behind {end}");
            }
        }
    }
    assert!(hits > 5, "{hits}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_segment_is_reported() {
    let disk = FaultyDisk::new(7);
    filled(&disk).await;
    let files = segments(&disk);
    disk.remove(&files[1]).unwrap();
    let stream = open(&disk);
    let lost: i64 =
        stream.damage().iter().filter(|it| it.partition.is_some()).map(|it| it.to - it.from).sum();
    let left: usize = contents(&stream, "t").await.values().map(Vec::len).sum();
    assert_eq!(lost + left as i64, 160);
    assert!(lost > 0);
}

/// A text of its own for each partition and number, under a key of that partition.
fn numbered(partition: i32, number: usize) -> Outgoing {
    let text = format!("{partition}-{number}");
    record("t", &key_of(partition, 2), &text, &format!("{text}/{}", "x".repeat(9_000)))
}

/// Publishes one after the other: each is a group of its own.
async fn publish_each(stream: &EmbeddedStream, records: &[Outgoing]) {
    for record in records {
        assert!(publish(stream, std::slice::from_ref(record)).await[0].is_ok());
    }
}

/// What the topic holds, in order.
async fn records(stream: &EmbeddedStream) -> Vec<Incoming> {
    let mut reader = stream.reader(&["t"], ReadFrom::Earliest).await.unwrap();
    let mut found = Vec::new();
    while !reader.caught_up().await.unwrap() {
        found.extend(reader.next(64, Duration::from_millis(10)).await.unwrap());
    }
    found.sort_by_key(|record| (record.partition.partition, record.offset));
    found
}

/// A store that has applied these records, in order, and everything before them.
async fn having_applied(stream: &EmbeddedStream, records: &[Incoming]) -> Arc<MemoryStore> {
    let store = MemoryStore::new(None);
    let cluster_id = stream.cluster_id().await.unwrap();
    for record in records {
        let (group, partition) = ("group".to_owned(), record.partition.clone());
        let source = Source { group, cluster_id: cluster_id.clone(), partition };
        store.set_position(&source, record.offset + 1, Some(mark_of(record)));
    }
    store
}

fn mark_of(record: &Incoming) -> Mark {
    Mark {
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        event_id: record.header("ce_id").unwrap().to_owned(),
    }
}

fn run(stream: &Arc<EmbeddedStream>, store: &Arc<MemoryStore>) -> Running {
    Running::start(Arc::clone(stream) as Arc<dyn Stream>, store, "group", "t", quick())
}

/// Waits until as many are applied; their ids.
async fn applied(store: &MemoryStore, count: usize) -> Vec<String> {
    let applied = wait_for("they are applied", async || {
        let applied = store.applied();
        (applied.len() >= count).then_some(applied)
    })
    .await;
    let mut ids: Vec<String> = applied.into_iter().map(|one| one.item.unwrap().id).collect();
    ids.sort();
    ids
}

/// The ends of partitions do not go back, so what is published next is new to everybody.
#[tokio::test(flavor = "multi_thread")]
async fn damage_to_any_group_leaves_a_consumer_that_had_applied_all_to_go_on() {
    let disk = FaultyDisk::new(21);
    let stream = open(&disk);
    stream.create_topics(&[spec("t", 2)]).await.unwrap();
    let mut sent: Vec<Outgoing> = (0..5).flat_map(|n| [numbered(0, n), numbered(1, n)]).collect();
    // What stands behind the last one of partition 0 is not of it.
    sent.push(numbered(1, 5));
    publish_each(&stream, &sent).await;
    let all = records(&stream).await;
    assert_eq!(all.len(), sent.len());
    drop(stream);
    let files = segments(&disk);
    let mut hurts: Vec<(PathBuf, Range<u64>)> = Vec::new();
    for file in &files {
        hurts.extend(frames(&disk, file).into_iter().map(|frame| (file.clone(), frame)));
    }
    // Nothing says of the very last group that it was confirmed.
    hurts.pop();
    assert!(files.len() > 1 && hurts.len() > sent.len(), "{hurts:?}");
    for (file, frame) in hurts {
        let hurt = disk.fork();
        assert!(hurt.flip(&file, u64::midpoint(frame.start, frame.end), 0x10));
        let stream = open(&hurt);
        let store = having_applied(&stream, &all).await;
        let running = run(&stream, &store);
        publish_each(&stream, &[numbered(0, 9), numbered(1, 9)]).await;
        assert_eq!(applied(&store, 2).await, ["0-9", "1-9"], "{frame:?} of {}", file.display());
        running.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_the_record_applied_last_does_not_stop_a_consumer() {
    let disk = FaultyDisk::new(22);
    let stream = open(&disk);
    stream.create_topics(&[spec("t", 2)]).await.unwrap();
    publish_each(&stream, &[0, 1, 2, 3, 4].map(|number| numbered(0, number))).await;
    let all = records(&stream).await;
    drop(stream);
    let file = segments(&disk).remove(0);
    let third = frames_of_records(&disk, &file).remove(2);
    assert!(disk.flip(&file, third.end - 1, 0x10));
    let stream = open(&disk);
    assert_eq!(contents(&stream, "t").await[&0].len(), 4);
    let store = having_applied(&stream, &all[..3]).await;
    let running = run(&stream, &store);
    publish_each(&stream, &[numbered(0, 5)]).await;
    assert_eq!(applied(&store, 3).await, ["0-3", "0-4", "0-5"]);
    running.stop().await.unwrap();

    // What stands behind it and is older belongs to another history.
    let store = having_applied(&stream, &[]).await;
    let (group, partition) = ("group".to_owned(), TopicPartition::new("t", 0));
    let cluster_id = stream.cluster_id().await.unwrap();
    let later = Mark { timestamp_ms: all[3].timestamp_ms + 1, ..mark_of(&all[2]) };
    store.set_position(&Source { group, cluster_id, partition }, 3, Some(later));
    let running = run(&stream, &store);
    let stopped = PartitionState::Stopped(StopReason::MarkMismatch { offset: 2 });
    wait_for("it stops", async || {
        let partitions = running.handle.status().partitions;
        partitions.iter().any(|it| it.state == stopped).then_some(())
    })
    .await;
    running.stop().await.unwrap_err();
    assert!(store.applied().is_empty());
}

/// Reads all that there is, over trouble that passes.
async fn read_over_trouble(reader: &mut dyn TopicReader) -> (Vec<Incoming>, usize) {
    let (mut found, mut errors) = (Vec::new(), 0);
    while !reader.caught_up().await.unwrap() {
        match reader.next(64, Duration::from_millis(10)).await {
            Ok(records) => found.extend(records),
            Err(StreamError::Transient(_)) => {
                errors += 1;
                assert!(errors < 100, "it is never given up");
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (found, errors)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_sector_does_not_keep_the_log_from_opening_and_costs_what_it_hits() {
    let disk = FaultyDisk::new(23);
    filled(&disk).await;
    let all = contents(&open(&disk.fork()), "t").await;
    let files = segments(&disk);
    let middle = &files[files.len() / 2];
    let of_middle = frames(&disk, middle);
    // A head, a group in the middle, the last one.
    for frame in [&of_middle[0], &of_middle[of_middle.len() / 2], of_middle.last().unwrap()] {
        let hurt = disk.fork();
        hurt.spoil(middle, frame.start + 60, 1);
        let stream = open(&hurt);
        let found = contents(&stream, "t").await;
        let left: usize = found.values().map(Vec::len).sum();
        // A medium fails in blocks of 4 KiB.
        assert!((160 - 8..=160).contains(&left), "{left} are left");
        for (partition, records) in &found {
            assert!(records.iter().all(|one| all[partition].contains(one)));
        }
        let damage = stream.damage();
        assert_eq!(damage.is_empty(), left == 160, "{damage:?}");
        if left < 160 && frame.end < of_middle.last().unwrap().start {
            assert!(damage.iter().any(|it| it.file == *middle), "{damage:?}");
        }
        assert!(publish(&stream, &[record("t", "k0", "id", "more")]).await[0].is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_away_at_the_start_costs_a_start_and_nothing_else() {
    let disk = FaultyDisk::new(27);
    filled(&disk).await;
    disk.arm(FaultPlan::all(Operation::Read, Injected::Eio));
    let error = try_open(&disk).map(drop).unwrap_err().to_string();
    assert!(error.contains("cannot be read") && error.contains(".log: "), "{error}");
    disk.heal();
    let stream = open(&disk);
    assert_eq!(contents(&stream, "t").await.values().map(Vec::len).sum::<usize>(), 160);
    assert_eq!(stream.damage(), []);
}

/// Nobody knows what stands at the log's end where that cannot be read: its numbers and offsets
/// are not given out again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_start_cannot_read_at_the_end_of_the_log_is_not_written_over() {
    let disk = FaultyDisk::new(24);
    let stream = open(&disk);
    stream.create_topics(&[spec("t", 2)]).await.unwrap();
    let sent: Vec<Outgoing> = (0..3).flat_map(|n| [numbered(0, n), numbered(1, n)]).collect();
    publish_each(&stream, &sent).await;
    let before = records(&stream).await;
    drop(stream);
    let file = segments(&disk).remove(0);
    let of_file = frames(&disk, &file);
    let hidden = &of_file[of_file.len() - 2];
    disk.spoil(&file, hidden.start, of_file.last().unwrap().end - hidden.start);
    let mut added = Vec::new();
    for number in 3..6 {
        let stream = open(&disk);
        assert!(!stream.damage().is_empty());
        // One that had applied what cannot be read goes on behind it.
        let store = having_applied(&stream, &before).await;
        let running = run(&stream, &store);
        added.extend([numbered(0, number), numbered(1, number)]);
        publish_each(&stream, &added[added.len() - 2..]).await;
        applied(&store, added.len()).await;
        running.stop().await.unwrap();
    }
    disk.heal();
    let after = records(&open(&disk)).await;
    let expected: Vec<&Incoming> = before.iter().collect();
    let (old, new): (Vec<&Incoming>, Vec<&Incoming>) =
        after.iter().partition(|record| before.contains(record));
    assert_eq!(old, expected);
    assert_eq!(new.len(), added.len());
}

#[tokio::test]
async fn a_bad_sector_met_while_reading_costs_what_it_hits() {
    let disk = FaultyDisk::new(25);
    filled(&disk).await;
    let stream = open(&disk);
    let all = records(&stream).await;
    let files = segments(&disk);
    let middle = &files[files.len() / 2];
    let of_middle = frames_of_records(&disk, middle);
    let frame = &of_middle[of_middle.len() / 2];
    disk.spoil(middle, frame.end - 100, 1);
    tokio::time::pause();
    let mut reader = stream.reader(&["t"], ReadFrom::Earliest).await.unwrap();
    let (mut found, errors) = read_over_trouble(&mut *reader).await;
    assert!(errors > 2, "it may pass");
    found.sort_by_key(|record| (record.partition.partition, record.offset));
    let lost: Vec<&Incoming> = all.iter().filter(|record| !found.contains(record)).collect();
    assert!((1..=4).contains(&lost.len()), "{} are lost", lost.len());
    let damage = stream.damage().remove(0);
    assert_eq!(stream.damage().len(), 1);
    assert_eq!(damage.file, *middle);
    assert_eq!(damage.partition.as_ref(), Some(&lost[0].partition));
    assert_eq!(damage.from..damage.to, lost[0].offset..lost[lost.len() - 1].offset + 1);
}

#[tokio::test]
async fn a_disk_that_is_away_for_long_is_waited_for() {
    let disk = FaultyDisk::new(26);
    filled(&disk).await;
    let stream = open(&disk);
    tokio::time::pause();
    let mut reader = stream.reader(&["t"], ReadFrom::Earliest).await.unwrap();
    disk.arm(FaultPlan::all(Operation::Read, Injected::Eio));
    for _ in 0..100 {
        reader.next(64, Duration::from_millis(10)).await.unwrap_err();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    disk.heal();
    let (found, errors) = read_over_trouble(&mut *reader).await;
    assert_eq!((found.len(), errors), (160, 0));
    assert_eq!(stream.damage(), []);
}
