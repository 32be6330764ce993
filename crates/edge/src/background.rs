//! Work that gives way to answers: a status that is answered too late is gone for ever, one that is
//! published late is not.
//!
//! The threads here have a lower priority than those that read, store and answer. Where there is
//! processor time for all of them that changes nothing. Where there is not, the spool takes what
//! publishing leaves undone.

use std::future::Future;
use std::{io, panic, thread};

use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A tenth of the processor time of a thread that answers, if both want all of it.
const NICER: i32 = 10;

fn give_way() {
    // Anybody may lower a thread's priority; where it cannot be, it all works nevertheless.
    let _ = getpriority_process(None).and_then(|nice| setpriority_process(None, nice + NICER));
}

/// Does something whose threads are to give way: they inherit it.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let runtime = Handle::current();
    let work = || {
        give_way();
        let _inside = runtime.enter();
        work()
    };
    let done = thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Runs a task on a thread of its own, which the blocking threads that it needs inherit from. What
/// is returned gives the task's result, or an error once it has panicked.
pub fn spawn<T: Send + 'static>(
    name: &str,
    task: impl Future<Output = T> + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (give, result) = oneshot::channel();
    let runtime = Handle::current();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        give_way();
        // Nobody may be left who waits for it.
        let _ = give.send(runtime.block_on(task));
    })?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        getpriority_process(None).unwrap()
    }

    #[tokio::test]
    async fn what_gives_way_hands_that_on_to_its_threads_and_to_nobody_else() {
        let ours = nice();
        let theirs = run(|| {
            let _reached = Handle::current();
            (nice(), thread::spawn(nice).join().unwrap())
        });
        let given = (ours + NICER).min(19);
        assert_eq!(theirs, (given, given));
        assert_eq!(nice(), ours);
    }

    #[tokio::test]
    async fn a_tasks_end_is_told_also_when_it_panics() {
        let (give, given) = oneshot::channel();
        let end = spawn("works", async { give.send(nice()).unwrap() }).unwrap();
        assert!(end.await.is_ok());
        assert_eq!(given.await.unwrap(), (nice() + NICER).min(19));
        let end = spawn("panics", async { panic!("as the test wants") }).unwrap();
        assert!(end.await.is_err());
    }
}
