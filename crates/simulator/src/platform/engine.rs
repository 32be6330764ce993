//! The loop that decides what is sent when, and what comes again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::collector::{Batch, Collector, Key};
use super::counters::Counters;
use super::job::{Answer, Job, Kind, Target};
use super::link::Link;
use super::sign::Signer;
use super::worker::{Done, Shared, work};
use crate::journal::{Journal, Outcome, Part};
use crate::script::{Delivery, Plan};
use crate::{Options, Progress, SimulatorError};

/// How often the journal is flushed and the bar moves.
const TICK: Duration = Duration::from_millis(200);
/// Requests that wait for a connection, at most, where nobody asks afterwards what became of them.
const WAITING_AT_MOST: usize = 10_000;

/// What an engine is made of.
pub(crate) struct Setup {
    pub plan: Plan,
    /// None for an endless run, whose memory must stay bounded.
    pub journal: Option<Journal>,
    pub counters: Arc<Counters>,
    pub targets: Vec<Target>,
    pub signer: Signer,
}

/// What a finished run leaves.
pub(crate) struct Played {
    pub journal: Option<Journal>,
    /// From when a request was due to its answer, microseconds, in order of arrival.
    pub latencies_us: Vec<u32>,
}

/// Plays a plan.
pub(crate) struct Engine {
    plan: Plan,
    journal: Option<Journal>,
    counters: Arc<Counters>,
    repeats: [Duration; 6],
    undelivered: PathBuf,
    targets: usize,
    workers: Vec<mpsc::Sender<(Job, usize)>>,
    finished: mpsc::UnboundedReceiver<Done>,

    /// The instant that is the plan's start.
    origin: Instant,
    next_call: u64,
    due: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    collector: Collector,
    waiting: VecDeque<Job>,
    idle: VecDeque<usize>,
    in_flight: usize,
    turn: usize,
    /// CDR messages that are to come again.
    repeating: usize,
    latencies_us: Vec<u32>,
}

struct Due {
    at: Instant,
    sequence: u64,
    what: What,
}

enum What {
    Send(Box<Job>),
    /// A call's record is ready.
    Record(u64),
    Merge(Key),
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl Engine {
    /// Starts the workers. The plan's start is now.
    pub fn new(options: &Options, setup: Setup) -> Self {
        let targets: Arc<[Target]> = setup.targets.into();
        let shared = Arc::new(Shared {
            applications: options.applications(),
            signer: setup.signer,
            short: options.short,
        });
        let (done, finished) = mpsc::unbounded_channel();
        let workers = (0..options.connections)
            .map(|worker| {
                let (sender, jobs) = mpsc::channel(1);
                let source = source(worker, options.sources);
                let link = Link::new(Arc::clone(&targets), source, options.timeout());
                tokio::spawn(work(worker, link, Arc::clone(&shared), jobs, done.clone()));
                sender
            })
            .collect();
        Self {
            plan: setup.plan,
            journal: setup.journal,
            counters: setup.counters,
            repeats: options.repeats(),
            undelivered: options.undelivered.clone(),
            targets: targets.len(),
            workers,
            finished,
            origin: Instant::now(),
            next_call: 0,
            due: BinaryHeap::new(),
            sequence: 0,
            collector: Collector::default(),
            waiting: VecDeque::new(),
            idle: (0..options.connections).collect(),
            in_flight: 0,
            turn: 0,
            repeating: 0,
            latencies_us: Vec::new(),
        }
    }

    /// Plays until every call is over and every CDR message is taken or given up, or until told
    /// to stop; what is being sent then is still waited for.
    pub async fn play(
        mut self,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<Played, SimulatorError> {
        let mut tick = tokio::time::interval(TICK);
        let mut stopping = false;
        loop {
            if stopping {
                self.drop_what_waits();
            } else {
                let now = Instant::now();
                self.begin_calls(now);
                self.release(now);
                self.dispatch();
            }
            if self.is_done(stopping) {
                break;
            }
            let wake = self.next_wake();
            tokio::select! {
                () = stop.cancelled(), if !stopping => stopping = true,
                Some(done) = self.finished.recv() => {
                    self.settle(done)?;
                    while let Ok(done) = self.finished.try_recv() {
                        self.settle(done)?;
                    }
                }
                _ = tick.tick() => self.report(progress)?,
                () = sleep_until(wake), if !stopping => {}
            }
        }
        self.report(progress)?;
        Ok(Played { journal: self.journal, latencies_us: self.latencies_us })
    }

    fn is_done(&self, stopping: bool) -> bool {
        let all_begun = self.plan.calls.is_some_and(|calls| self.next_call >= calls);
        let nothing_left =
            self.due.is_empty() && self.collector.is_empty() && self.waiting.is_empty();
        self.in_flight == 0 && (stopping || (all_begun && nothing_left))
    }

    fn instant(&self, ms: i64) -> Instant {
        let after = (ms - self.plan.started_at_ms).max(0);
        self.origin + Duration::from_millis(after as u64)
    }

    fn next_wake(&self) -> Instant {
        let call = self.instant(self.plan.begins_at_ms(self.next_call));
        let has_call = self.plan.calls.is_none_or(|calls| self.next_call < calls);
        let due = self.due.peek().map(|Reverse(due)| due.at);
        let far = Instant::now() + Duration::from_hours(1);
        due.into_iter().chain(has_call.then_some(call)).min().unwrap_or(far)
    }

    fn push(&mut self, at: Instant, what: What) {
        self.sequence += 1;
        self.due.push(Reverse(Due { at, sequence: self.sequence, what }));
    }

    /// Draws up the calls that begin by now.
    fn begin_calls(&mut self, now: Instant) {
        while self.plan.calls.is_none_or(|calls| self.next_call < calls)
            && self.instant(self.plan.begins_at_ms(self.next_call)) <= now
        {
            let call = self.plan.call(self.next_call);
            for (index, status) in call.statuses.iter().enumerate() {
                let job = Job {
                    kind: Kind::Status,
                    application: call.application,
                    body: status.body(&call).into(),
                    parts: vec![Part { call: call.index, part: index as u8 }],
                    due: self.instant(status.due_ms),
                    delivery: status.delivery,
                    attempt: 0,
                    loses_answer: false,
                };
                self.push(job.due, What::Send(Box::new(job)));
            }
            self.push(self.instant(call.cdr_due_ms), What::Record(call.index));
            self.counters.call();
            self.next_call += 1;
        }
    }

    /// Moves what is due by now to the connections' queue.
    fn release(&mut self, now: Instant) {
        while self.due.peek().is_some_and(|Reverse(due)| due.at <= now) {
            let Some(Reverse(due)) = self.due.pop() else { return };
            match due.what {
                What::Send(job) => {
                    self.repeating -= usize::from(job.attempt > 0);
                    self.queue(*job);
                }
                What::Record(index) => {
                    let call = self.plan.call(index);
                    let (full, timer) = self.collector.add(&call);
                    if let Some(batch) = full {
                        self.queue(fee(&batch, due.at));
                    }
                    if let Some((key, until)) = timer {
                        self.push(self.instant(until), What::Merge(key));
                    }
                }
                What::Merge(key) => {
                    if let Some(batch) = self.collector.take(key) {
                        self.queue(fee(&batch, due.at));
                    }
                }
            }
        }
    }

    fn queue(&mut self, job: Job) {
        if self.journal.is_none() && self.waiting.len() >= WAITING_AT_MOST {
            self.counters.answer(Answer::NotSent);
            return;
        }
        self.waiting.push_back(job);
    }

    fn dispatch(&mut self) {
        while !self.waiting.is_empty() {
            let Some(worker) = self.idle.pop_front() else { return };
            let Some(job) = self.waiting.pop_front() else { return };
            let target = self.turn % self.targets;
            self.turn = self.turn.wrapping_add(1);
            // An idle worker has room for one.
            if self.workers[worker].try_send((job, target)).is_ok() {
                self.in_flight += 1;
            }
        }
    }

    /// Notes an outcome and decides whether the request comes again.
    fn settle(&mut self, done: Done) -> Result<(), SimulatorError> {
        let Done { worker, mut job, answer, at } = done;
        self.in_flight -= 1;
        self.idle.push_back(worker);
        self.counters.answer(answer);
        let outcome = match answer {
            Answer::Status(200) => Outcome::Acknowledged,
            Answer::Status(_) => Outcome::Refused,
            Answer::None => Outcome::Unknown,
            Answer::NotSent => Outcome::NotSent,
        };
        if let Some(journal) = &mut self.journal {
            for part in &job.parts {
                journal.note(*part, outcome);
            }
            if outcome == Outcome::Acknowledged {
                let waited = at.saturating_duration_since(job.due).as_micros();
                self.latencies_us.push(u32::try_from(waited).unwrap_or(u32::MAX));
            }
        }
        let is_taken = outcome == Outcome::Acknowledged && !std::mem::take(&mut job.loses_answer);
        if is_taken || !job.kind.is_repeated() {
            return Ok(());
        }
        let Some(wait) = self.repeats.get(job.attempt).copied() else {
            return self.give_up(&job);
        };
        if self.journal.is_none() && self.repeating >= WAITING_AT_MOST {
            return self.give_up(&job);
        }
        job.attempt += 1;
        job.delivery = Delivery::Plain;
        job.due = at + wait;
        self.counters.repeat();
        self.repeating += 1;
        self.push(job.due, What::Send(Box::new(job)));
        Ok(())
    }

    /// The platform writes a CDR file, which its customer may ask for.
    fn give_up(&mut self, job: &Job) -> Result<(), SimulatorError> {
        self.counters.give_up();
        if self.journal.is_none() {
            // A run without an end would write without an end.
            return Ok(());
        }
        let path = &self.undelivered;
        let mut line = job.body.to_vec();
        line.push(b'\n');
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(&line))
            .map_err(|error| SimulatorError::file("write", path, &error))
    }

    /// What is not being sent when the run is stopped never will be.
    fn drop_what_waits(&mut self) {
        self.due.clear();
        self.repeating = 0;
        self.waiting.clear();
        self.collector = Collector::default();
    }

    fn report(&mut self, progress: &Progress) -> Result<(), SimulatorError> {
        let counts = self.counters.read();
        let answered = format!(
            "calls, {} sent, {} acknowledged, {} refused, {} unanswered, {} CDR messages to repeat",
            counts.sent, counts.acknowledged, counts.refused, counts.unknown, self.repeating,
        );
        progress.at(counts.calls, answered);
        self.journal.as_mut().map_or(Ok(()), Journal::flush)
    }
}

fn fee(batch: &Batch, due: Instant) -> Job {
    Job {
        kind: Kind::Fee,
        application: batch.application,
        body: batch.body().into(),
        parts: batch.parts.clone(),
        due,
        delivery: batch.delivery,
        attempt: 0,
        loses_answer: batch.loses_answer,
    }
}

/// The address that a worker sends from: 127.0.0.2, 127.0.0.3, …
fn source(worker: usize, sources: u32) -> Option<Ipv4Addr> {
    if sources == 0 {
        return None;
    }
    let number = (worker as u32) % sources;
    Some(Ipv4Addr::new(127, 0, (number / 250) as u8, (number % 250 + 2) as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_the_source_addresses_from_127_0_0_2_on() {
        assert_eq!(source(0, 0), None);
        assert_eq!(source(0, 3), Some(Ipv4Addr::new(127, 0, 0, 2)));
        assert_eq!(source(5, 3), Some(Ipv4Addr::new(127, 0, 0, 4)));
        assert_eq!(source(250, 60_000), Some(Ipv4Addr::new(127, 0, 1, 2)));
    }
}
