//! Brokers away under full load: what is taken, what is refused and when, the memory, the way back.
//!
//! Statuses come as fast as they are answered and CDR messages by the clock, in windows one after the
//! other. The spool's bound grows with the time, so that it is reached in a short outage too. A message
//! that is refused before its body was read ends its connection, and some senders notice that first.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::bodies::{BATCH, Kind};
use crate::load::{self, Options, Seen};
use crate::machine;
use crate::service::cluster;
use crate::subject::{Running, Subject};
use crate::table::Table;

const MIB: f64 = (1 << 20) as f64;
/// Bound of the spool for each second of the outage.
const BOUND_PER_SECOND: u64 = 12 << 20;
/// CDR messages a second.
const MESSAGES: f64 = 20.0;
/// Request numbers from one window to the next.
const APART: u64 = 1_000_000_000;
const LOOK: Duration = Duration::from_millis(200);
/// Longest without a record more that Kafka has.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// Seconds that the brokers are away
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Lines of the table
    #[arg(long, default_value_t = 10)]
    windows: u64,
    /// Write the tables to this file too
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// What both generators saw in one window.
struct Window {
    statuses: Seen,
    messages: Seen,
    resident: f64,
}

#[expect(clippy::print_stderr, reason = "progress")]
pub fn measure(plan: &Plan) -> Result<()> {
    let (kafka, dir) = cluster()?;
    let bound = BOUND_PER_SECOND * plan.seconds;
    let segment = (bound / 16).min(64 << 20);
    let settings = [
        ("TOLLGATE_SPOOL__MAX_BYTES", bound.to_string()),
        ("TOLLGATE_SPOOL__SEGMENT_BYTES", segment.to_string()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, it)| (*name, &**it)).collect();
    let running = Running::start_with(Subject::Spooled, &kafka.bootstrap(), dir.path(), &settings)?;
    kafka.stop();

    let mut table = Table::new(&[
        "until s",
        "statuses 200/s",
        "refused/s",
        "p99 ms",
        "CDR messages 200/s",
        "refused/s",
        "closed before the answer was read/s",
        "resident MiB",
    ]);
    let seconds = plan.seconds as f64 / plan.windows as f64;
    let mut taken = 0;
    for number in 0..plan.windows {
        let Window { statuses, messages, resident } = window(&running, number, seconds)?;
        taken += statuses.ok + messages.ok * BATCH;
        let rate = |count: u64| format!("{:.0}", count as f64 / seconds);
        let until = format!("{:.0}", seconds * (number + 1) as f64);
        eprintln!("{until} s: {} and {} taken, {resident:.0} MiB", statuses.ok, messages.ok);
        table.row(&[
            until,
            rate(statuses.ok),
            rate(statuses.refused),
            format!("{:.1}", statuses.p99_us as f64 / 1000.0),
            format!("{:.1}", messages.ok as f64 / seconds),
            format!("{:.1}", messages.refused as f64 / seconds),
            format!("{:.1}", messages.broken as f64 / seconds),
            format!("{resident:.0}"),
        ]);
    }
    let refused = running.refused()?;

    let pending = running.pending()?;
    kafka.restart()?;
    let (drained, cpu) = drain(&running, pending)?;
    let most = running.memory()? as f64 / MIB;
    let records = taken as f64;
    let report = format!(
        "On {}. Spool of {} MiB, {MESSAGES} messages of {BATCH} CDRs a second, statuses of 240 clients \
         as fast as they are answered.\n\n{}\nRefused, by reason: {refused:?}. At most {most:.0} MiB \
         resident, with the way back. Then {records:.0} records of {pending:.0} requests were published in \
         {drained:.0} s: {:.0} a second, {:.1} µs of CPU each.\n",
        machine::describe(),
        bound >> 20,
        table.into_text(),
        records / drained,
        cpu * 1e6 / records,
    );
    crate::publish(&report, plan.markdown.as_deref())
}

fn window(running: &Running, number: u64, seconds: f64) -> Result<Window> {
    let first = number * APART;
    let of = |body, clients, rate| {
        let options = Options::new(running.address, body);
        Options { clients, seconds, rate, first, ..options }
    };
    let (statuses, messages) = (of(Kind::Status, 240, None), of(Kind::Cdrs, 16, Some(MESSAGES)));
    let (statuses, messages) = thread::scope(|scope| {
        let statuses = scope.spawn(|| load::apart(&statuses));
        let messages = scope.spawn(|| load::apart(&messages));
        (statuses.join(), messages.join())
    });
    let failed = |_| anyhow::anyhow!("a generator's thread failed");
    let (statuses, messages) = (statuses.map_err(failed)??, messages.map_err(failed)??);
    ensure!(statuses.broken == 0, "connections broke: {statuses:?}");
    Ok(Window { statuses, messages, resident: running.memory_now()? as f64 / MIB })
}

/// Seconds from the first confirmation to the last, and the edge's CPU seconds in between.
fn drain(running: &Running, full: f64) -> Result<(f64, f64)> {
    let mut began = None;
    let (mut pending, mut moved) = (full, Instant::now());
    while pending > 0.0 {
        ensure!(moved.elapsed() < PATIENCE, "{pending} requests wait and none is published");
        thread::park_timeout(LOOK);
        let now = running.pending()?;
        if now < pending {
            (pending, moved) = (now, Instant::now());
            if began.is_none() {
                began = Some((moved, running.cpu()?));
            }
        }
    }
    let Some((began, cpu)) = began else { anyhow::bail!("nothing was left to publish") };
    Ok((began.elapsed().as_secs_f64(), running.cpu()? - cpu))
}
