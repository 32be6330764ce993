//! Every order in which senders, a canceller and the committer can meet: nobody is left asleep,
//! each has the answer that was given to it, and nothing stays behind.
//!
//! A sender that is never woken leaves its thread without work, which loom reports as a deadlock.

use std::task::Wake;

use loom::sync::Condvar;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::*;

/// The tasks of a thread that are to be polled.
#[derive(Default)]
struct Run {
    woken: Mutex<Vec<usize>>,
    bell: Condvar,
}

impl Run {
    fn wake(&self, task: usize) {
        self.woken.lock().unwrap().push(task);
        self.bell.notify_one();
    }

    fn next(&self) -> usize {
        let mut woken = self.woken.lock().unwrap();
        loop {
            if let Some(task) = woken.pop() {
                return task;
            }
            woken = self.bell.wait(woken).unwrap();
        }
    }
}

struct TaskWaker {
    run: Arc<Run>,
    task: usize,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.run.wake(self.task);
    }
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered(Answer),
    GaveUp,
}

struct Task {
    waiting: Option<Waiting>,
    /// Once set, the task drops what it waits for when it is polled.
    gives_up: Arc<AtomicBool>,
}

impl Task {
    fn patient(waiting: Waiting) -> Self {
        Self { waiting: Some(waiting), gives_up: Arc::new(AtomicBool::new(false)) }
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<End> {
        if self.gives_up.load(Ordering::Acquire) {
            self.waiting = None;
            return Poll::Ready(End::GaveUp);
        }
        self.waiting.as_mut().unwrap().poll(context).map(End::Answered)
    }
}

/// Polls tasks, each only when it was woken, until all have ended.
fn run(run: &Arc<Run>, mut tasks: Vec<Task>) -> Vec<End> {
    let mut ends = vec![None; tasks.len()];
    (0..tasks.len()).rev().for_each(|task| run.wake(task));
    while ends.contains(&None) {
        let task = run.next();
        if ends[task].is_some() {
            continue;
        }
        let waker = Waker::from(Arc::new(TaskWaker { run: Arc::clone(run), task }));
        if let Poll::Ready(end) = tasks[task].poll(&Context::from_waker(&waker)) {
            ends[task] = Some(end);
        }
    }
    ends.into_iter().flatten().collect()
}

fn pairs(count: usize) -> (Vec<Reply>, Vec<Task>) {
    (0..count).map(|_| pair()).map(|(reply, waiting)| (reply, Task::patient(waiting))).unzip()
}

#[expect(clippy::unnecessary_wraps, reason = "an answer is what is compared")]
fn at(sequence: u64) -> Answer {
    Ok(Position { epoch: 1, sequence })
}

/// Answers in the order given, from 1 on.
fn answer(replies: Vec<Reply>) {
    answer_all(replies.into_iter().zip(1..).map(|(reply, n)| (reply, at(n))));
}

fn assert_nothing_is_left() {
    LANE.with(|lane| {
        let state = lane.lock();
        assert!(state.slots.is_empty() && state.due.is_empty());
    });
}

/// Every schedule with at most `preemptions` of them forced on a thread that could go on.
fn model(preemptions: Option<usize>, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    builder.check(test);
}

#[test]
fn one_wake_up_reaches_everyone_who_waits_on_a_thread() {
    model(None, || {
        let (replies, tasks) = pairs(3);
        let committer = thread::spawn(|| answer(replies));
        let ends = run(&Arc::default(), tasks);
        assert_eq!(ends, [1, 2, 3].map(|n| End::Answered(at(n))));
        committer.join().unwrap();
        assert_nothing_is_left();
    });
}

#[test]
fn groups_that_follow_each_other_forget_nobody() {
    model(Some(3), || {
        let (mut first, tasks) = pairs(3);
        let second = first.split_off(1);
        let committer = thread::spawn(|| {
            answer(first);
            answer(second);
        });
        let ends = run(&Arc::default(), tasks);
        assert_eq!(ends, [1, 1, 2].map(|n| End::Answered(at(n))));
        committer.join().unwrap();
        assert_nothing_is_left();
    });
}

#[test]
fn a_thread_does_not_depend_on_another_for_its_wake_up() {
    model(Some(3), || {
        let (mut replies, mine) = pairs(2);
        let (give, theirs_are_there) = loom::sync::mpsc::channel();
        let other = thread::spawn(move || {
            let (replies, theirs) = pairs(2);
            give.send(replies).unwrap();
            let ends = run(&Arc::default(), theirs);
            assert_eq!(ends, [3, 4].map(|n| End::Answered(at(n))));
            assert_nothing_is_left();
        });
        replies.extend(theirs_are_there.recv().unwrap());
        let committer = thread::spawn(|| answer(replies));
        let ends = run(&Arc::default(), mine);
        assert_eq!(ends, [1, 2].map(|n| End::Answered(at(n))));
        committer.join().unwrap();
        other.join().unwrap();
        assert_nothing_is_left();
    });
}

#[test]
fn who_gives_up_at_whatever_moment_takes_no_wake_up_along() {
    for who in 0..3 {
        model(Some(3), move || {
            let (replies, tasks) = pairs(3);
            let gives_up = Arc::clone(&tasks[who].gives_up);
            let woken = Arc::<Run>::default();
            let committer = thread::spawn(|| answer(replies));
            let canceller = thread::spawn({
                let woken = Arc::clone(&woken);
                move || {
                    gives_up.store(true, Ordering::Release);
                    woken.wake(who);
                }
            });
            let ends = run(&woken, tasks);
            for (task, end) in ends.into_iter().enumerate() {
                let answered = End::Answered(at(task as u64 + 1));
                assert!(end == answered || task == who && end == End::GaveUp);
            }
            committer.join().unwrap();
            canceller.join().unwrap();
            assert_nothing_is_left();
        });
    }
}

#[test]
fn a_committer_that_dies_answers_everyone_that_it_failed() {
    model(Some(3), || {
        let (mut replies, tasks) = pairs(3);
        let committer = thread::spawn(move || {
            let rest = replies.split_off(1);
            answer(replies);
            drop(rest);
        });
        let ends = run(&Arc::default(), tasks);
        let failed = End::Answered(Err(AppendError::Failed));
        assert_eq!(ends, [End::Answered(at(1)), failed, failed]);
        committer.join().unwrap();
        assert_nothing_is_left();
    });
}

#[test]
fn only_one_of_a_thread_is_woken_from_outside() {
    model(None, || {
        let (replies, mut tasks) = pairs(3);
        let woken = Arc::<Run>::default();
        for (task, waiting) in tasks.iter_mut().enumerate() {
            let waker = Waker::from(Arc::new(TaskWaker { run: Arc::clone(&woken), task }));
            assert!(waiting.poll(&Context::from_waker(&waker)).is_pending());
        }
        answer(replies);
        assert_eq!(woken.woken.lock().unwrap().len(), 1);
        drop(tasks);
    });
}
