//! Answers to appends, with one wake-up for all that wait on a thread.
//!
//! ```text
//!  committer ─▶ lane of thread A ─▶ wakes one of its tasks ─▶ which wakes the others
//!            └▶ lane of thread B ─▶ …
//! ```
//!
//! To wake a task of another thread costs a system call, and a group has hundreds of waiters; to
//! wake a task of one's own thread costs nearly nothing. So the committer wakes one waiter of each
//! thread, and whoever of them runs first passes it on. Nobody is forgotten: an answer is seen
//! under the lock under which the wake-ups that are due were noted.

use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::error::AppendError;
use crate::record::Position;
use crate::sync::{Mutex, MutexGuard, thread_local};

pub(crate) type Answer = Result<Position, AppendError>;

/// Those who wait on one thread.
#[derive(Debug, Default)]
struct Lane {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    slots: Slab<Slot>,
    /// Of those that are answered, to be woken by whoever runs first.
    due: Vec<Waker>,
}

#[derive(Debug)]
enum Slot {
    Waiting(Option<Waker>),
    Answered(Answer),
    /// Nobody waits any more.
    Abandoned,
}

thread_local! {
    static LANE: Arc<Lane> = Arc::default();
}

/// The waiting end. Once polled, to be polled on or dropped: others may wait for it to pass their
/// wake-up on.
#[derive(Debug)]
pub(crate) struct Waiting {
    lane: Arc<Lane>,
    key: usize,
    done: bool,
}

/// The answering end; answers [`AppendError::Failed`] when it is dropped.
#[derive(Debug)]
pub(crate) struct Reply {
    lane: Arc<Lane>,
    key: usize,
    given: bool,
}

/// A place to wait in on this thread.
pub(crate) fn pair() -> (Reply, Waiting) {
    let lane = LANE.with(Arc::clone);
    let key = lane.lock().slots.insert(Slot::Waiting(None));
    (Reply { lane: Arc::clone(&lane), key, given: false }, Waiting { lane, key, done: false })
}

/// Gives all these answers, then wakes one waiter of each thread.
pub(crate) fn answer_all(answers: impl IntoIterator<Item = (Reply, Answer)>) {
    let mut rest: Vec<(Reply, Answer)> = answers.into_iter().collect();
    while let Some((first, _)) = rest.first() {
        let lane = Arc::clone(&first.lane);
        let mut state = lane.lock();
        rest.retain_mut(|(reply, answer)| {
            let elsewhere = !Arc::ptr_eq(&reply.lane, &lane);
            if !elsewhere {
                reply.given = true;
                state.give(reply.key, *answer);
            }
            elsewhere
        });
        let first = state.due.pop();
        drop(state);
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn give(&mut self, key: usize, answer: Answer) {
        let slot = &mut self.slots[key];
        match std::mem::replace(slot, Slot::Answered(answer)) {
            Slot::Waiting(waker) => self.due.extend(waker),
            Slot::Answered(_) | Slot::Abandoned => {
                self.slots.remove(key);
            }
        }
    }
}

impl Waiting {
    pub fn poll(&mut self, context: &Context<'_>) -> Poll<Answer> {
        let mut state = self.lane.lock();
        match &mut state.slots[self.key] {
            Slot::Answered(answer) => {
                let answer = *answer;
                state.slots.remove(self.key);
                self.done = true;
                pass_on(state);
                Poll::Ready(answer)
            }
            Slot::Waiting(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            Slot::Abandoned => unreachable!("only dropping abandons"),
        }
    }
}

/// Wakes all whose wake-up is due.
fn pass_on(mut state: MutexGuard<'_, State>) {
    let due = std::mem::take(&mut state.due);
    drop(state);
    due.into_iter().for_each(Waker::wake);
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.lane.lock();
        let slot = &mut state.slots[self.key];
        if let Slot::Answered(_) = slot {
            state.slots.remove(self.key);
            pass_on(state);
        } else {
            *slot = Slot::Abandoned;
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.given {
            let mut state = self.lane.lock();
            state.give(self.key, Err(AppendError::Failed));
            pass_on(state);
        }
    }
}

#[cfg(test)]
mod tests;
