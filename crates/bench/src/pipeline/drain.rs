//! What the edge publishes a second, beside a bare producer of the same records.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tollgate_testkit::{Kafka, free_port};

use crate::bodies::{BATCH, Kind};
use crate::load::{self, Options};
use crate::subject::{Running, Subject};
use crate::topic::{Sent, send_apart};

const PATIENCE: Duration = Duration::from_mins(5);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// A full spool, small enough for the bare producer to hold its records in memory.
const SPOOL: &[(&str, &str)] =
    &[("TOLLGATE_SPOOL__MAX_BYTES", "134217728"), ("TOLLGATE_SPOOL__SEGMENT_BYTES", "16777216")];

/// Statuses that warm a broker, from this request on.
const WARM_FROM: u64 = 1_000_000_000_000;
const WARM: u64 = 50_000;
/// Records posted in batches.
const BATCHED: u64 = 300_000;

/// The edge and the bare producer.
pub struct Published {
    pub edge: Sent,
    pub bare: Sent,
}

/// Fills a spool under an edge that reaches no broker, and empties it under another that does.
/// Counted from the first confirmation to the last. Both find a broker that has worked already.
pub fn drain(kafka: &Kafka, dir: &Path) -> Result<Published> {
    let brokers = kafka.bootstrap();
    statuses(kafka, dir, WARM_FROM, WARM)?;
    let full = fill(dir)?;
    let running = Running::go_on(Subject::Spooled, &brokers, dir, SPOOL)?;
    let first = wait_for(&running, |pending| (1.0..full).contains(&pending))?;
    let (began, cpu) = (Instant::now(), running.cpu()?);
    wait_for(&running, |pending| pending == 0.0)?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu_seconds = running.cpu()? - cpu;
    drop(running);
    let bare = send_apart(&brokers, "call-events", "bare-call-events")?;
    Ok(Published { edge: Sent { records: first as u64, seconds, cpu_seconds }, bare })
}

/// Until it refuses; how many requests it holds then.
fn fill(dir: &Path) -> Result<f64> {
    let nobody = format!("127.0.0.1:{}", free_port());
    let running = Running::start_with(Subject::Spooled, &nobody, dir, SPOOL)?;
    let mut options = Options { seconds: 1.0, ..Options::new(running.address, Kind::Status) };
    loop {
        let seen = load::apart(&options)?;
        if seen.refused > 0 {
            return running.pending();
        }
        ensure!(seen.ok > 0, "the edge answers nothing: {seen:?}");
        options.first += 100_000_000;
    }
}

/// Posts batches of CDRs as fast as they are taken; counted until the last is confirmed.
pub fn batches(kafka: &Kafka, dir: &Path) -> Result<Published> {
    let brokers = kafka.bootstrap();
    let edge = post(&brokers, dir, Kind::Cdrs, 0, BATCHED / BATCH)?;
    let bare = send_apart(&brokers, "cdrs", "bare-cdrs")?;
    Ok(Published { edge: Sent { records: edge.records * BATCH, ..edge }, bare })
}

/// Posts the statuses of some calls; not measured.
pub fn statuses(kafka: &Kafka, dir: &Path, first: u64, records: u64) -> Result<()> {
    post(&kafka.bootstrap(), dir, Kind::Calls, first, records).map(drop)
}

/// Posts batches of CDRs until there are so many records; not measured.
pub fn cdrs(kafka: &Kafka, dir: &Path, first: u64, records: u64) -> Result<()> {
    post(&kafka.bootstrap(), dir, Kind::Cdrs, first, records / BATCH).map(drop)
}

fn post(brokers: &str, dir: &Path, body: Kind, first: u64, requests: u64) -> Result<Sent> {
    let running = Running::start(Subject::Spooled, brokers, dir)?;
    let (began, cpu) = (Instant::now(), running.cpu()?);
    let seen = load::apart(&Options { requests, first, ..Options::new(running.address, body) })?;
    ensure!(seen.ok == requests, "not everything was taken: {seen:?}");
    running.await_confirmed()?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Sent { records: requests, seconds, cpu_seconds: running.cpu()? - cpu })
}

fn wait_for(running: &Running, reached: impl Fn(f64) -> bool) -> Result<f64> {
    let end = Instant::now() + PATIENCE;
    loop {
        let pending = running.pending()?;
        if reached(pending) {
            return Ok(pending);
        }
        ensure!(Instant::now() < end, "{pending} are still not confirmed");
        std::thread::park_timeout(LOOK);
    }
}
