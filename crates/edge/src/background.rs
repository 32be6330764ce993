//! Work that gives way to answers, as long as it can: a status that is answered too late is gone
//! for ever, one that is published late is not. One that finds no room in the spool is gone too.
//!
//! A thread that gives way has a lower priority than those that read, store and answer. Where there
//! is processor time for all of them that changes nothing. Where there is not, the spool takes what
//! publishing leaves undone. A priority that was lowered stays so, without privileges: what has to
//! hurry goes on in a thread that never lowered it. The client's own threads cannot move, and give
//! way by half.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::{io, panic, thread};

use futures_util::FutureExt as _;
use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, oneshot, watch};

/// A tenth of the processor time of a thread that answers, if both want all of it.
const NICER: i32 = 10;

/// A third of it. They have less to do, and all of it is published through them.
const CLIENT_NICER: i32 = 5;

/// What a task says of itself to the threads that it may run in.
#[derive(Clone, Default)]
pub struct Haste(Arc<watch::Sender<bool>>);

impl Haste {
    /// The task goes on in a thread of this kind.
    pub async fn set(&self, hurries: bool) {
        let has_changed = self.0.send_if_modified(|now| std::mem::replace(now, hurries) != hurries);
        if has_changed {
            tokio::task::yield_now().await;
        }
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task, until it has ended, and where it is to run.
struct Movable {
    task: Mutex<Option<Task>>,
    haste: Haste,
}

impl Movable {
    /// Runs it in this thread whenever it hurries, or whenever it does not.
    async fn drive(&self, in_haste: bool) {
        let mut haste = self.haste.0.subscribe();
        loop {
            let _ = haste.wait_for(|now| *now == in_haste).await;
            let mut task = self.task.lock().await;
            let Some(running) = task.as_mut() else { return };
            tokio::select! {
                biased;
                _ = haste.wait_for(|now| *now != in_haste) => {}
                () = running => {
                    *task = None;
                    // The other thread ends, too.
                    self.haste.0.send_replace(!in_haste);
                    return;
                }
            }
        }
    }
}

/// Runs a task on threads of its own: one gives way, and the blocking threads that are started from
/// it, one does not. What is returned gives the task's result, or an error once it has panicked.
pub fn spawn<T: Send + 'static>(
    name: &str,
    task: impl Future<Output = T> + Send + 'static,
    haste: Haste,
) -> io::Result<oneshot::Receiver<T>> {
    let (give, result) = oneshot::channel();
    let task = AssertUnwindSafe(task).catch_unwind().map(|outcome| {
        if let Ok(value) = outcome {
            // Nobody may be left who waits for it.
            let _ = give.send(value);
        }
    });
    let movable = Arc::new(Movable { task: Mutex::new(Some(Box::pin(task))), haste });
    for in_haste in [false, true] {
        let (movable, runtime) = (Arc::clone(&movable), Handle::current());
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            if !in_haste {
                give_way(NICER);
            }
            runtime.block_on(movable.drive(in_haste));
        })?;
    }
    Ok(result)
}

/// Makes a client whose threads give way: they inherit it.
pub fn client<T: Send>(make: impl FnOnce() -> T + Send) -> T {
    let runtime = Handle::current();
    let make = || {
        give_way(CLIENT_NICER);
        let _inside = runtime.enter();
        make()
    };
    let made = thread::scope(|scope| scope.spawn(make).join());
    made.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

fn give_way(nicer: i32) {
    // Anybody may lower a thread's priority; where it cannot be, it all works nevertheless.
    let _ = getpriority_process(None).and_then(|nice| setpriority_process(None, nice + nicer));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn nice() -> i32 {
        getpriority_process(None).unwrap()
    }

    #[tokio::test]
    async fn a_client_hands_on_to_its_threads_that_it_gives_way_and_to_nobody_else() {
        let ours = nice();
        let theirs = client(|| {
            let _reached = Handle::current();
            (nice(), thread::spawn(nice).join().unwrap())
        });
        let given = (ours + CLIENT_NICER).min(19);
        assert_eq!(theirs, (given, given));
        assert_eq!(nice(), ours);
    }

    #[tokio::test]
    async fn a_task_gives_way_until_it_hurries_and_again_when_it_does_not() {
        let ours = nice();
        let haste = Haste::default();
        let task = {
            let haste = haste.clone();
            async move {
                let mut seen = vec![nice()];
                for hurries in [false, true, true, false, true] {
                    haste.set(hurries).await;
                    seen.push(nice());
                }
                seen
            }
        };
        let seen = spawn("moves", task, haste).unwrap().await.unwrap();
        let given = (ours + NICER).min(19);
        assert_eq!(seen, [given, given, ours, ours, given, ours]);
        assert_eq!(nice(), ours);
    }

    #[tokio::test]
    async fn a_task_that_waits_is_woken_in_whichever_thread_it_is() {
        let haste = Haste::default();
        let (give, given) = oneshot::channel();
        let task = {
            let haste = haste.clone();
            async move {
                haste.set(true).await;
                given.await.unwrap()
            }
        };
        let result = spawn("waits", task, haste).unwrap();
        give.send(7).unwrap();
        assert_eq!(result.await, Ok(7));
    }

    #[tokio::test]
    async fn a_task_that_panics_is_told() {
        let end = spawn("panics", async { panic!("as the test wants") }, Haste::default());
        assert!(end.unwrap().await.is_err());
    }

    #[tokio::test]
    async fn no_thread_stays_behind_a_task_that_has_ended() {
        let haste = Haste::default();
        spawn("ends", async {}, haste.clone()).unwrap().await.unwrap();
        let both_ended = haste.0.closed();
        tokio::time::timeout(Duration::from_mins(1), both_ended).await.unwrap();
    }
}
