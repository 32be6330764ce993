//! The group commit itself, over a disk that forgets what was not synced, in every order in which
//! its thread and its senders can meet.

use std::path::PathBuf;

use loom::thread::{Builder, JoinHandle};

use super::*;
use crate::catalog::Catalog;
use crate::disk::{Disk, FaultPlan, FaultyDisk, Injected, Loss, Operation};
use crate::record::{Encoded, Request};
use crate::settings::Settings;
use crate::shared::Clock;
use crate::spool::first_state;
use crate::writer::Ended;

const DIR: &str = "/spool";

/// In words. Loom's own stacks are too small for a disk.
const STACK: usize = 1 << 16;

fn settings() -> Settings {
    Settings {
        dir: DIR.into(),
        segment_bytes: 16 << 10,
        group_bytes: 8 << 10,
        // Nothing here may depend on time.
        commit_interval_ms: 0,
        ..Settings::default()
    }
}

fn committer(disk: &FaultyDisk) -> Committer {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let dir = PathBuf::from(DIR);
    disk.create_dir(&dir).unwrap();
    let (state, _) = first_state(Catalog::load(&*disk, &dir).unwrap(), None);
    let settings = settings();
    let writer = Writer::new(Arc::clone(&disk), dir, settings.segment_bytes, Ended::default(), 1);
    let shared = Arc::new(Shared::new(disk, settings, Clock::new(0), state));
    let mut committer = Committer::new(shared, writer);
    committer.start();
    committer
}

fn request(body: &str) -> Encoded {
    Request { body: body.as_bytes(), ..Request::default() }.encode()
}

/// Whether the body would still be there if the power went now.
fn is_durable(disk: &FaultyDisk, body: &str) -> bool {
    let after = disk.fork();
    after.power_cut(Loss::Everything);
    let holds = |contents: Vec<u8>| contents.windows(body.len()).any(|it| it == body.as_bytes());
    after.paths().iter().filter_map(|path| after.contents(path)).any(holds)
}

/// Appends and waits for the answer; a 200 must not come before the sync.
fn append(shared: &Shared, disk: &FaultyDisk, body: &'static str) -> Result<Position, AppendError> {
    let mut waiting = shared.enqueue(request(body))?;
    let answer = loom::future::block_on(std::future::poll_fn(|context| waiting.poll(context)));
    if answer.is_ok() {
        assert!(is_durable(disk, body), "{body} was answered before it was synced");
    }
    answer
}

fn close(shared: &Shared) {
    shared.lock().closing = true;
    shared.work.notify_all();
}

fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().stack_size(STACK).spawn(run).unwrap()
}

/// Every schedule with at most two switches forced on a thread that could go on.
fn model(test: impl Fn() + Clone + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    builder.check(move || spawn(test.clone()).join().unwrap());
}

/// I1: a 200 is never earlier than the sync.
#[test]
fn every_append_is_answered_once_and_only_after_its_sync() {
    model(|| {
        let disk = FaultyDisk::new(1);
        let committer = committer(&disk);
        let shared = Arc::clone(&committer.shared);
        let running = spawn(|| committer.run());
        let other = spawn({
            let (shared, disk) = (Arc::clone(&shared), disk.clone());
            move || append(&shared, &disk, "from another thread").unwrap()
        });
        let mine = append(&shared, &disk, "from this thread").unwrap();
        let theirs = other.join().unwrap();
        close(&shared);
        running.join().unwrap();
        let mut sequences = [mine, theirs].map(|position| position.sequence);
        sequences.sort_unstable();
        assert_eq!(sequences, [1, 2]);
    });
}

#[test]
fn an_append_after_an_answer_finds_the_committer_awake_or_wakes_it() {
    model(|| {
        let disk = FaultyDisk::new(1);
        let committer = committer(&disk);
        let shared = Arc::clone(&committer.shared);
        let running = spawn(|| committer.run());
        for (sequence, body) in (1..).zip(["first", "second", "third"]) {
            assert_eq!(append(&shared, &disk, body).unwrap().sequence, sequence);
        }
        close(&shared);
        running.join().unwrap();
    });
}

#[test]
fn a_sync_that_fails_fails_its_group_and_leaves_nobody_asleep() {
    for skip in 0..2 {
        model(move || {
            let disk = FaultyDisk::new(1);
            let committer = committer(&disk);
            let shared = Arc::clone(&committer.shared);
            disk.arm(FaultPlan::once(Operation::Sync, skip, Injected::Eio));
            let running = spawn(|| committer.run());
            let other = spawn({
                let (shared, disk) = (Arc::clone(&shared), disk.clone());
                move || append(&shared, &disk, "from another thread")
            });
            let mine = append(&shared, &disk, "from this thread");
            let theirs = other.join().unwrap();
            close(&shared);
            running.join().unwrap();
            for answer in [mine, theirs] {
                assert!(matches!(answer, Ok(_) | Err(AppendError::Failed)));
            }
        });
    }
}

#[test]
fn a_spool_that_closes_meanwhile_stores_what_it_took_and_refuses_the_rest() {
    model(|| {
        let disk = FaultyDisk::new(1);
        let committer = committer(&disk);
        let shared = Arc::clone(&committer.shared);
        let running = spawn(|| committer.run());
        let sender = spawn({
            let (shared, disk) = (Arc::clone(&shared), disk.clone());
            move || append(&shared, &disk, "at the last moment")
        });
        close(&shared);
        let answer = sender.join().unwrap();
        running.join().unwrap();
        assert!(matches!(answer, Ok(_) | Err(AppendError::Closing)));
    });
}

#[test]
fn an_append_that_nobody_waits_for_is_stored_all_the_same() {
    model(|| {
        let disk = FaultyDisk::new(1);
        let committer = committer(&disk);
        let shared = Arc::clone(&committer.shared);
        let running = spawn(|| committer.run());
        drop(shared.enqueue(request("left behind")).unwrap());
        append(&shared, &disk, "waited for").unwrap();
        assert!(is_durable(&disk, "left behind"), "what came first is synced first");
        close(&shared);
        running.join().unwrap();
    });
}

/// Its thread has panicked: nobody will ever look whether the disk works.
#[test]
fn a_spool_that_has_lost_its_committer_is_not_writable() {
    model(|| {
        let disk = FaultyDisk::new(1);
        let shared = Arc::clone(&committer(&disk).shared);
        drop(Ending(Arc::clone(&shared)));
        assert!(!shared.lock().is_writable());
        assert!(matches!(shared.enqueue(request("in vain")), Err(AppendError::Closing)));
    });
}
