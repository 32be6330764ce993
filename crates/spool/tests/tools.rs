//! Inspecting, verifying and adopting a directory.

mod common;

use std::path::Path;

use common::*;
use tollgate_spool::disk::{Disk as _, FaultPlan, FaultyDisk, Injected, Operation};
use tollgate_spool::{
    Adopted, Adoption, DeadLetter, DeadLetters, FindingKind, Position, SpoolError, dead_letters,
    inspect, verify,
};

const EXCLUSIVE: Adoption = Adoption::Exclusive { damaged_max_bytes: 1 << 28 };

/// Two epochs, some records confirmed.
fn dead_edge() -> (FaultyDisk, Vec<Position>) {
    let disk = FaultyDisk::new(1);
    let (spool, reader) = open(&disk);
    for number in 1..=30 {
        spool.append(sized(number, 1000)).wait().unwrap();
    }
    spool.close();
    drop((spool, reader));
    let (spool, mut reader) = open(&disk);
    for number in 31..=35 {
        spool.append(request(number)).wait().unwrap();
    }
    let all = positions(&drain(&mut reader));
    reader.confirm(&all[..12]);
    spool.close();
    drop((spool, reader));
    disk.kill();
    (disk, all)
}

fn dead_letter(position: Position) -> DeadLetter {
    DeadLetter {
        topic: "cdrs".into(),
        key: "k".into(),
        value: None,
        headers: Vec::new(),
        reason: "too large".into(),
        position,
        refused_at_ms: 1,
    }
}

#[test]
fn an_inspection_says_what_is_there_and_changes_nothing() {
    let (disk, all) = dead_edge();
    let letters = DeadLetters::open(Path::new(DIR), 1 << 24, shared(&disk)).unwrap();
    letters.append(&dead_letter(all[0])).unwrap();
    let (paths, changes) = (disk.paths(), disk.changes());
    let found = inspect(Path::new(DIR), &shared(&disk)).unwrap();
    assert_eq!((disk.paths(), disk.changes()), (paths, changes));
    assert_eq!(found.position, Some(all[12]));
    assert_eq!(found.unconfirmed, 23);
    assert_eq!(found.oldest_unconfirmed_ms, Some(1_000_013));
    assert_eq!((found.damaged, found.unacknowledged, found.dead_letters), (0, 0, 1));
    assert_eq!(found.segments, segments(&disk).len() as u64);
    let [first, second] = &found.epochs[..] else { panic!("{:?}", found.epochs) };
    assert_eq!((first.last, first.unconfirmed), (30, 18));
    assert_eq!((second.first, second.last, second.records), (1, 5, 5));
    assert_eq!(second.previous_epoch, Some(first.epoch));
    assert_eq!(second.previous_last, Some(30));
    assert!(serde_json::to_string(&found).unwrap().contains("\"unconfirmed\":23"));
}

#[test]
fn a_directory_may_be_deleted_when_nothing_in_it_is_needed() {
    let (disk, _) = dead_edge();
    let is_deletable = || inspect(Path::new(DIR), &shared(&disk)).unwrap().deletable;
    assert!(!is_deletable(), "what is unconfirmed is needed");
    let mut adopted = Adopted::open(Path::new(DIR), shared(&disk), EXCLUSIVE).unwrap();
    let rest: Vec<_> = adopted.by_ref().map(Result::unwrap).collect();
    adopted.confirm(&positions(&rest)).unwrap();
    assert!(is_deletable());
    let in_damaged = |name: &str| Path::new(DIR).join("damaged").join(name);
    disk.put(&in_damaged("torn-epoch-1-after-sequence-30-offset-5000.bytes"), vec![1]);
    assert!(is_deletable(), "nobody was answered for an unfinished write");
    let damaged = in_damaged("epoch-1-sequences-3-3-received-1-offset-5000.bytes");
    disk.put(&damaged, vec![1]);
    assert!(!is_deletable(), "damaged bytes may be all that is left of a request");
    disk.remove(&damaged).unwrap();
    let letters = DeadLetters::open(Path::new(DIR), 1 << 24, shared(&disk)).unwrap();
    letters.append(&dead_letter(rest[0].position)).unwrap();
    assert!(!is_deletable(), "a dead letter is in no topic");
}

#[test]
fn a_directory_that_is_no_spool_is_refused_and_left_as_it_is() {
    let (disk, _) = dead_edge();
    let parent = Path::new(DIR).parent().unwrap();
    let empty = Path::new("/unmounted");
    disk.create_dir(empty).unwrap();
    let (paths, changes) = (disk.paths(), disk.changes());
    let within_damaged = Path::new(DIR).join("damaged");
    for (dir, expected) in [(parent, Some(DIR)), (empty, None), (within_damaged.as_path(), None)] {
        for refused in [
            inspect(dir, &shared(&disk)).unwrap_err(),
            verify(dir, &shared(&disk)).unwrap_err(),
            dead_letters::list(&disk, dir).unwrap_err(),
            Adopted::open(dir, shared(&disk), EXCLUSIVE).unwrap_err(),
        ] {
            let SpoolError::NotASpool { inside } = &refused else { panic!("{refused}") };
            assert_eq!(inside.as_deref(), expected);
            assert!(refused.to_string().contains("spool.dir"), "{refused}");
        }
    }
    assert_eq!((disk.paths(), disk.changes()), (paths, changes));
}

#[test]
fn a_spool_that_has_taken_nothing_yet_is_one() {
    let disk = FaultyDisk::new(1);
    let (spool, reader) = open(&disk);
    spool.close();
    drop((spool, reader));
    assert!(inspect(Path::new(DIR), &shared(&disk)).unwrap().deletable);
}

#[test]
fn a_spool_in_use_can_be_verified() {
    let disk = FaultyDisk::new(1);
    let (spool, _reader) = open(&disk);
    for number in 1..=100 {
        spool.append(request(number)).wait().unwrap();
    }
    let proof = verify(Path::new(DIR), &shared(&disk)).unwrap();
    assert!(proof.is_complete());
    assert_eq!(proof.inspection.unconfirmed, 100);
}

#[test]
fn a_dead_edges_directory_is_adopted_and_a_replay_goes_on_where_it_was_broken_off() {
    let (disk, all) = dead_edge();
    let mut adopted = Adopted::open(Path::new(DIR), shared(&disk), EXCLUSIVE).unwrap();
    let taken = Adopted::open(Path::new(DIR), shared(&disk), EXCLUSIVE);
    assert!(matches!(taken, Err(SpoolError::Locked { .. })));
    let some: Vec<_> = adopted.by_ref().take(10).map(Result::unwrap).collect();
    assert_eq!(positions(&some), all[12..22]);
    adopted.confirm(&positions(&some[..7])).unwrap();
    drop(adopted);

    let mut adopted = Adopted::open(Path::new(DIR), shared(&disk), EXCLUSIVE).unwrap();
    let rest: Vec<_> = adopted.by_ref().map(Result::unwrap).collect();
    assert_eq!(positions(&rest), all[19..]);
    adopted.confirm(&positions(&rest)).unwrap();
    assert_eq!(adopted.findings(), []);
    drop(adopted);
    let mut adopted = Adopted::open(Path::new(DIR), shared(&disk), EXCLUSIVE).unwrap();
    assert!(adopted.next().is_none());
    drop(adopted);
    // The edge may come back.
    let (spool, mut reader) = open(&disk);
    assert!(drain(&mut reader).is_empty());
    assert_eq!(spool.usage().records, 0);
}

#[test]
fn an_adoption_keeps_damaged_bytes_up_to_its_bound() {
    for (damaged_max_bytes, expected) in [(1 << 28, 1), (500, 0)] {
        let (disk, _) = dead_edge();
        let segment = segments(&disk).remove(0);
        disk.flip(&segment, record(&disk, &segment, 20).offset + 60, 1);
        let how = Adoption::Exclusive { damaged_max_bytes };
        let mut adopted = Adopted::open(Path::new(DIR), shared(&disk), how).unwrap();
        assert_eq!(adopted.by_ref().map(Result::unwrap).count(), 22);
        assert_eq!(adopted.findings().len(), 1);
        assert_eq!(kept(&disk).len(), expected, "{damaged_max_bytes}");
    }
}

#[test]
fn a_read_only_adoption_works_beside_a_living_edge_and_writes_nothing() {
    let disk = FaultyDisk::new(1);
    let (spool, _reader) = open(&disk);
    for number in 1..=20 {
        spool.append(request(number)).wait().unwrap();
    }
    let segment = segments(&disk).remove(0);
    eventually("the log is marked", || !frames(&disk, &segment).last().unwrap().is_record);
    let changes = disk.changes();
    let mut adopted = Adopted::open(Path::new(DIR), shared(&disk), Adoption::ReadOnly).unwrap();
    let read: Vec<_> = adopted.by_ref().map(Result::unwrap).collect();
    assert_eq!(numbers(&read), (1..=20).collect::<Vec<_>>());
    assert!(matches!(adopted.confirm(&positions(&read)), Err(SpoolError::ReadOnly)));
    assert_eq!(disk.changes(), changes);
}

#[test]
fn verification_names_the_damaged_record_by_sequence_and_time() {
    let (disk, _) = dead_edge();
    let last = segments(&disk).pop().unwrap();
    let third = record(&disk, &last, 3);
    disk.flip(&last, third.offset + third.len - 1, 1);
    let proof = verify(Path::new(DIR), &shared(&disk)).unwrap();
    assert!(!proof.is_complete());
    let [finding] = &proof.findings[..] else { panic!("{:?}", proof.findings) };
    assert_eq!(finding.kind, FindingKind::Damaged);
    assert_eq!((finding.first, finding.last), (3, 3));
    assert_eq!(finding.received_at_ms, Some(1_000_033));
    assert_eq!((finding.offset, finding.len), (third.offset, third.len));
    assert_eq!(proof.inspection.damaged, 1);
}

#[test]
fn an_epoch_whose_segments_are_all_gone_is_missed() {
    let (disk, _) = dead_edge();
    // A third epoch, after which the second disappears.
    let (spool, reader) = open(&disk);
    spool.append(request(36)).wait().unwrap();
    spool.close();
    drop((spool, reader));
    let all = segments(&disk);
    let second = all[all.len() - 2].clone();
    tollgate_spool::disk::Disk::remove(&disk, &second).unwrap();
    let proof = verify(Path::new(DIR), &shared(&disk)).unwrap();
    let [finding] = &proof.findings[..] else { panic!("{:?}", proof.findings) };
    assert_eq!(finding.kind, FindingKind::Missing);
    assert_eq!((finding.first, finding.last), (1, 5));
}

#[test]
fn a_segment_that_cannot_be_removed_makes_no_loss_of_those_behind_it_that_are() {
    let disk = FaultyDisk::new(1);
    let (spool, mut reader) = open(&disk);
    for number in 1..=60 {
        spool.append(sized(number, 1000)).wait().unwrap();
    }
    let all = segments(&disk);
    disk.arm(FaultPlan::all(Operation::Remove, Injected::Eio).on(all[0].to_str().unwrap()));
    confirm_all(&mut reader);
    eventually("the others go", || segments(&disk).len() == 2);
    spool.close();
    reader.close();
    let proof = verify(Path::new(DIR), &shared(&disk)).unwrap();
    assert!(proof.is_complete(), "{:?}", proof.findings);
}

#[test]
fn a_disk_that_cannot_be_read_is_an_error_and_no_damage() {
    let (disk, all) = dead_edge();
    let (_spool, mut reader) = open(&disk);
    disk.arm(FaultPlan::once(Operation::Read, 0, Injected::Eio));
    reader.next_blocking(5, 1 << 20).unwrap_err();
    assert_eq!(positions(&drain(&mut reader)), all[12..]);
}
