//! Whatever the disk does, and whenever the power goes: what was acknowledged is served.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::*;
use proptest::prelude::*;
use tollgate_spool::disk::{FaultPlan, FaultyDisk, Injected, Loss, Operation};
use tollgate_spool::{AppendError, Position, Reader, Settings, Spool, verify};

/// What the world outside knows about a spool.
#[derive(Debug, Default)]
struct Model {
    next_number: u64,
    acknowledged: BTreeMap<Position, u64>,
    refused: BTreeSet<u64>,
    confirmed: BTreeSet<Position>,
    /// Served since the last start, in order.
    served: Vec<Position>,
}

impl Model {
    fn append(&mut self, spool: &Spool, count: u64, bytes: usize) {
        let numbers: Vec<u64> = (0..count).map(|index| self.next_number + index).collect();
        self.next_number += count;
        let appends: Vec<_> =
            numbers.iter().map(|number| spool.append(some_request(*number, bytes))).collect();
        for (number, append) in numbers.into_iter().zip(appends) {
            match append.wait() {
                Ok(position) => {
                    let before = self.acknowledged.insert(position, number);
                    assert_eq!(before, None, "{position} is given twice");
                }
                Err(error) => {
                    assert_ne!(error, AppendError::TooLarge);
                    self.refused.insert(number);
                }
            }
        }
    }

    fn read(&mut self, reader: &mut Reader, count: usize) {
        // A read that fails is repeated later.
        let Ok(stored) = reader.next_blocking(count, 1 << 20) else { return };
        for stored in stored {
            let number = number(&stored);
            let acknowledged = self.acknowledged.get(&stored.position);
            assert!(
                acknowledged == Some(&number)
                    || acknowledged.is_none() && self.refused.contains(&number),
                "{} holds {number}, acknowledged was {acknowledged:?}",
                stored.position
            );
            assert!(self.served.last() < Some(&stored.position), "out of order");
            self.served.push(stored.position);
        }
    }

    fn confirm(&mut self, reader: &Reader, pick: u64) {
        let open = self.served.iter().filter(|position| !self.confirmed.contains(position));
        let picked: Vec<_> = open.enumerate().filter(|(i, _)| pick >> (i % 64) & 1 == 1).collect();
        let picked: Vec<Position> = picked.into_iter().map(|(_, position)| *position).collect();
        reader.confirm(&picked);
        self.confirmed.extend(picked);
    }

    /// Everything acknowledged and not confirmed is there, and nothing claims to be damaged.
    fn check(&mut self, disk: &FaultyDisk, settings: &Settings) {
        let proof = verify(Path::new(DIR), &shared(disk)).unwrap();
        assert!(proof.is_complete(), "{:?}", proof.findings);
        let (spool, mut reader) = try_open(disk, settings).unwrap();
        self.served.clear();
        loop {
            let before = self.served.len();
            self.read(&mut reader, 50);
            if self.served.len() == before {
                break;
            }
        }
        let served: BTreeSet<_> = self.served.iter().copied().collect();
        for position in self.acknowledged.keys() {
            assert!(
                served.contains(position) || self.confirmed.contains(position),
                "{position} was acknowledged and is lost"
            );
        }
        assert_eq!(spool.usage().damaged, 0);
        assert_eq!(spool.usage().records, served.len() as u64);
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for position in self.acknowledged.keys() {
            let sequence = last.entry(position.epoch).or_insert(0);
            assert_eq!(position.sequence, *sequence + 1, "a gap in epoch {}", position.epoch);
            *sequence = position.sequence;
        }
        reader.confirm(&self.served);
        self.confirmed.extend(self.served.iter().copied());
        assert_eq!(spool.usage().records, 0);
        self.append(&spool, 1, 20);
        assert!(self.refused.iter().all(|number| *number < self.next_number - 1), "takes writes");
        spool.close();
        drop((spool, reader));
    }
}

/// Ends the process at once, in whatever it is doing.
fn crash(disk: &FaultyDisk, running: Option<(Spool, Reader)>, loss: Option<Loss>) {
    disk.die_after(0);
    drop(running);
    match loss {
        Some(loss) => disk.power_cut(loss),
        None => disk.kill(),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64, usize),
    Read(usize),
    Confirm(u64),
    Restart,
    Kill,
    PowerCut(Loss),
    Die(u64, Loss),
    Fault(FaultPlan),
    Heal,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop::sample::select(vec![
        Operation::Write,
        Operation::Sync,
        Operation::Read,
        Operation::Resize,
        Operation::Create,
        Operation::Open,
        Operation::Remove,
        Operation::Rename,
        Operation::SyncDir,
    ])
}

fn step() -> impl Strategy<Value = Step> {
    let loss = || prop::sample::select(vec![Loss::Everything, Loss::Nothing, Loss::Random]);
    let error = prop::sample::select(vec![Injected::Eio, Injected::Enospc]);
    prop_oneof![
        6 => (1u64..20, 10usize..1500).prop_map(|(count, bytes)| Step::Append(count, bytes)),
        4 => (1usize..40).prop_map(Step::Read),
        4 => any::<u64>().prop_map(Step::Confirm),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        1 => loss().prop_map(Step::PowerCut),
        1 => (0u64..30, loss()).prop_map(|(changes, loss)| Step::Die(changes, loss)),
        3 => (operation(), 0u64..8, prop_oneof![Just(1), Just(3), Just(u64::MAX)], error).prop_map(
            |(operation, skip, times, error)| Step::Fault(FaultPlan {
                operation, path_contains: String::new(), skip, times, error
            })
        ),
        2 => Just(Step::Heal),
    ]
}

fn settings_for(tail_bytes: u64) -> Settings {
    Settings { tail_bytes, ..settings() }
}

fn run(seed: u64, tail_bytes: u64, steps: Vec<Step>) {
    let disk = FaultyDisk::new(seed);
    let settings = settings_for(tail_bytes);
    let mut model = Model::default();
    let mut running = try_open(&disk, &settings).ok();
    for step in steps {
        if running.is_none() {
            // A start may fail on a failing disk; then it is tried again.
            running = try_open(&disk, &settings).ok();
            model.served.clear();
        }
        let Some((spool, reader)) = &mut running else {
            disk.heal();
            continue;
        };
        match step {
            Step::Append(count, bytes) => model.append(spool, count, bytes),
            Step::Read(count) => model.read(reader, count),
            Step::Confirm(pick) => model.confirm(reader, pick),
            Step::Restart => {
                spool.close();
                running = None;
            }
            Step::Kill => crash(&disk, running.take(), None),
            Step::PowerCut(loss) => crash(&disk, running.take(), Some(loss)),
            Step::Die(changes, loss) => {
                disk.die_after(changes);
                model.append(spool, 10, 200);
                model.read(reader, 5);
                model.confirm(reader, u64::MAX);
                drop(running.take());
                disk.power_cut(loss);
            }
            Step::Fault(plan) => disk.arm(plan),
            Step::Heal => disk.heal(),
        }
    }
    disk.heal();
    drop(running);
    model.check(&disk, &settings);
    model.check(&disk, &settings);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(250) })]

    /// I1.
    #[test]
    fn no_acknowledged_record_is_lost_by_any_mixture_of_faults_crashes_and_power_cuts(
        seed: u64,
        tail_bytes in prop::sample::select(vec![0u64, 3_000, 1 << 20]),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(seed, tail_bytes, steps);
    }
}

/// A short life: what happens in it is the same each time, up to the moment it goes wrong.
fn short_life(disk: &FaultyDisk, model: &mut Model) {
    let settings = settings_for(2_000);
    let Ok((spool, mut reader)) = try_open(disk, &settings) else { return };
    model.served.clear();
    for round in 0..6 {
        model.append(&spool, 4, 700);
        model.read(&mut reader, 3);
        model.confirm(&reader, 0b1101 << round);
    }
    spool.close();
    reader.close();
}

#[test]
fn the_power_may_go_after_any_change_to_the_disk() {
    let whole = FaultyDisk::new(0);
    short_life(&whole, &mut Model::default());
    for changes in 0..whole.changes() + 5 {
        for (seed, loss) in [(1, Loss::Random), (2, Loss::Random), (3, Loss::Everything)] {
            let disk = FaultyDisk::new(seed * 1000 + changes);
            let mut model = Model::default();
            short_life(&disk, &mut model);
            disk.die_after(changes);
            short_life(&disk, &mut model);
            disk.power_cut(loss);
            model.check(&disk, &settings_for(2_000));
        }
    }
}

#[test]
fn any_single_write_sync_or_other_operation_may_fail() {
    let whole = FaultyDisk::new(0);
    short_life(&whole, &mut Model::default());
    let operations = [
        Operation::Write,
        Operation::Sync,
        Operation::Create,
        Operation::SyncDir,
        Operation::Read,
        Operation::Remove,
        Operation::Resize,
        Operation::Open,
        Operation::Rename,
    ];
    for operation in operations {
        for skip in 0..whole.count(operation) + 3 {
            for error in [Injected::Eio, Injected::Enospc] {
                let disk = FaultyDisk::new(skip);
                let mut model = Model::default();
                disk.arm(FaultPlan::once(operation, skip, error));
                short_life(&disk, &mut model);
                disk.heal();
                short_life(&disk, &mut model);
                disk.power_cut(Loss::Random);
                model.check(&disk, &settings_for(2_000));
            }
        }
    }
}

/// I1. A start that cannot read the last segment does not know where it ends, and says so to no
/// later start.
#[test]
fn what_a_start_cannot_read_is_kept_for_later() {
    let operation = Operation::Read;
    for (skip, times) in (0..12).flat_map(|skip| (1..5).map(move |times| (skip, times))) {
        for tail_bytes in [0, 1 << 20] {
            let (path_contains, error) = (String::new(), Injected::Eio);
            let plan = FaultPlan { operation, path_contains, skip, times, error };
            let one = || Step::Append(1, 10);
            let steps = [Step::Fault(plan), one(), Step::Restart, one(), Step::Read(1), one()];
            run(0, tail_bytes, steps.into());
        }
    }
}

/// A process is killed when it has written its position and not synced it. The next one reads it,
/// but the power can still take it back: nothing may be removed by it alone.
#[test]
fn a_position_that_was_read_and_never_synced_removes_nothing() {
    let settings = settings_for(1 << 20);
    for changes in 0..6 {
        let disk = FaultyDisk::new(changes);
        let mut model = Model::default();
        let (spool, mut reader) = try_open(&disk, &settings).unwrap();
        let first = &segments(&disk)[0];
        model.append(&spool, 15, 1184);
        model.read(&mut reader, 15);
        model.confirm(&reader, 1);
        drop((spool, reader));
        let (spool, mut reader) = try_open(&disk, &settings).unwrap();
        model.served.clear();
        model.read(&mut reader, 15);
        disk.die_after(changes);
        model.confirm(&reader, u64::MAX);
        drop((spool, reader));
        disk.kill();
        let running = try_open(&disk, &settings).unwrap();
        eventually("what is confirmed, as far as it knows, is gone", || {
            running.0.usage().records > 0 || !segments(&disk).contains(first)
        });
        crash(&disk, Some(running), Some(Loss::Everything));
        model.check(&disk, &settings);
    }
}
