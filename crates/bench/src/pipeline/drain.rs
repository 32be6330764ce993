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
    fill(dir)?;
    let running = Running::go_on(Subject::Spooled, &brokers, dir, SPOOL)?;
    let full = running.pending()?;
    let first = wait_for(&running, |pending| pending < full)?;
    let (began, cpu) = (Instant::now(), running.cpu()?);
    wait_for(&running, |pending| pending == 0.0)?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu_seconds = running.cpu()? - cpu;
    drop(running);
    let bare = send_apart(&brokers, "call-events", "bare-call-events")?;
    Ok(Published { edge: Sent { records: first as u64, seconds, cpu_seconds }, bare })
}

/// Until it refuses.
fn fill(dir: &Path) -> Result<()> {
    let nobody = format!("127.0.0.1:{}", free_port());
    let running = Running::start_with(Subject::Spooled, &nobody, dir, SPOOL)?;
    let mut options = Options { seconds: 1.0, ..Options::new(running.address, Kind::Status) };
    loop {
        let seen = load::apart(&options)?;
        if seen.refused > 0 {
            return Ok(());
        }
        ensure!(seen.ok > 0, "the edge answers nothing: {seen:?}");
        options.first += 100_000_000;
    }
}

/// Posts batches of CDRs until there are so many records, from this request on.
pub fn batches(kafka: &Kafka, dir: &Path, first: u64, records: u64) -> Result<Published> {
    let brokers = kafka.bootstrap();
    let running = Running::start(Subject::Spooled, &brokers, dir)?;
    let requests = records / BATCH;
    let (began, cpu) = (Instant::now(), running.cpu()?);
    let options = Options { requests, first, ..Options::new(running.address, Kind::Cdrs) };
    let seen = load::apart(&options)?;
    ensure!(seen.ok == requests, "not everything was taken: {seen:?}");
    running.await_confirmed()?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu_seconds = running.cpu()? - cpu;
    drop(running);
    let bare = send_apart(&brokers, "cdrs", "bare-cdrs")?;
    Ok(Published { edge: Sent { records: requests * BATCH, seconds, cpu_seconds }, bare })
}

/// Posts the statuses of some calls; not measured.
pub fn statuses(kafka: &Kafka, dir: &Path, first: u64, records: u64) -> Result<()> {
    let running = Running::start(Subject::Spooled, &kafka.bootstrap(), dir)?;
    let options =
        Options { requests: records, first, ..Options::new(running.address, Kind::Calls) };
    let seen = load::apart(&options)?;
    ensure!(seen.ok == records, "not everything was taken: {seen:?}");
    running.await_confirmed()
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
