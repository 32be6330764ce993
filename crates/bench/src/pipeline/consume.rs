//! A consumer working off a backlog: records a second, committed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::db::Db;
use crate::service::{Consumer, Service};
use crate::topic;

const PATIENCE: Duration = Duration::from_mins(30);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(20);
const PROGRESS: &str = "SELECT CAST(coalesce(sum(next_offset), 0) AS bigint) FROM tollgate_fence";

/// What became of a backlog. Counted from the first commit that was seen to the last.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct Consumed {
    pub records: u64,
    pub seconds: f64,
    /// Of the consumer's process and of the database server, until everything is published too.
    pub cpu_seconds: f64,
    pub database_cpu_seconds: f64,
    /// Of the whole part, what was committed before the first look included.
    pub transactions: u64,
    pub backlog: u64,
}

impl Consumed {
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    pub fn a_transaction(&self) -> f64 {
        self.backlog as f64 / self.transactions as f64
    }

    pub fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.records as f64
    }

    pub fn database_cpu_us(&self) -> f64 {
        self.database_cpu_seconds * 1e6 / self.records as f64
    }
}

/// Starts the consumer on its topics and waits until it has committed and published everything.
pub fn consume(consumer: Consumer, brokers: &str, db: &Db, dir: &Path) -> Result<Consumed> {
    let [consumed] = consume_in_parts(consumer, brokers, db, dir)?;
    Ok(consumed)
}

/// The same, told apart by as many equal parts of the backlog. What of a part is published while the
/// next one is consumed is counted with that one.
pub fn consume_in_parts<const PARTS: usize>(
    consumer: Consumer,
    brokers: &str,
    db: &Db,
    dir: &Path,
) -> Result<[Consumed; PARTS]> {
    let lengths = consumer.topics().iter().map(|topic| topic::length(brokers, topic));
    let total = lengths.sum::<Result<u64>>()?;
    // Not all tables are there before the first partition is taken over; of another cluster's
    // records there may be some already.
    let before = db.int(PROGRESS).unwrap_or(0);
    let service = Service::start(consumer, brokers, &db.url, dir)?;
    let read_at = |least: u64| {
        let done = wait_for(|| {
            let done = db.int(PROGRESS).map_or(0, |offsets| (offsets - before) as u64);
            Some(done).filter(|done| *done >= least)
        })?;
        anyhow::Ok(Reading {
            done,
            at: Instant::now(),
            cpu: service.cpu()?,
            database_cpu: db.cpu()?,
            transactions: service.metric("tollgate_consumer_batch_records_count")? as u64,
        })
    };
    let mut readings = vec![read_at(1)?];
    for part in 1..=PARTS as u64 {
        readings.push(read_at(total * part / PARTS as u64)?);
    }
    ensure!(readings[0].done < total / PARTS as u64, "{total} records are too few to be measured");
    let committed: Vec<Instant> = readings.iter().map(|reading| reading.at).collect();
    let waiting = match consumer {
        Consumer::Billing => "SELECT count(*) FROM tollgate_outbox",
        Consumer::UserState => "SELECT count(*) FROM state_changed",
    };
    wait_for(|| db.int(waiting).is_ok_and(|rows| rows == 0).then_some(()))?;
    readings[PARTS] = read_at(total)?;
    Ok(std::array::from_fn(|part| {
        let (from, to) = (&readings[part], &readings[part + 1]);
        // What was committed before the first look is of the first part.
        let before = if part == 0 { (0, 0) } else { (from.transactions, from.done) };
        Consumed {
            records: to.done - from.done,
            seconds: (committed[part + 1] - from.at).as_secs_f64(),
            cpu_seconds: to.cpu - from.cpu,
            database_cpu_seconds: to.database_cpu - from.database_cpu,
            transactions: to.transactions - before.0,
            backlog: to.done - before.1,
        }
    }))
}

/// What stood when it was looked at.
struct Reading {
    done: u64,
    at: Instant,
    cpu: f64,
    database_cpu: f64,
    transactions: u64,
}

fn wait_for<T>(look: impl Fn() -> Option<T>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "the consumer does not come to an end");
        std::thread::park_timeout(LOOK);
    }
}
