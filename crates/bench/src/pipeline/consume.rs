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
    /// From the first commit until the outbox was empty.
    pub published_seconds: f64,
    /// Of the whole backlog, what was committed before the first look included.
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
    let lengths = consumer.topics().iter().map(|topic| topic::length(brokers, topic));
    let total: i64 = lengths.sum::<Result<u64>>()? as i64;
    // Not all tables are there before the first partition is taken over; of another cluster's
    // records there may be some already.
    let before = db.int(PROGRESS).unwrap_or(0);
    let service = Service::start(consumer, brokers, &db.url, dir)?;
    let progress = || db.int(PROGRESS).map_or(0, |offsets| offsets - before);
    let first = wait_for(|| Some(progress()).filter(|done| *done > 0))?;
    let (began, cpu, database_cpu) = (Instant::now(), service.cpu()?, db.cpu()?);
    wait_for(|| (progress() >= total).then_some(()))?;
    let seconds = began.elapsed().as_secs_f64();
    let transactions = service.metric("tollgate_consumer_batch_records_count")? as u64;
    let waiting = match consumer {
        Consumer::Billing => "SELECT count(*) FROM tollgate_outbox",
        Consumer::UserState => "SELECT count(*) FROM state_changed",
    };
    wait_for(|| db.int(waiting).is_ok_and(|rows| rows == 0).then_some(()))?;
    ensure!(first < total, "the backlog of {total} is too short to be measured");
    Ok(Consumed {
        records: (total - first) as u64,
        seconds,
        cpu_seconds: service.cpu()? - cpu,
        database_cpu_seconds: db.cpu()? - database_cpu,
        published_seconds: began.elapsed().as_secs_f64(),
        transactions,
        backlog: total as u64,
    })
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
