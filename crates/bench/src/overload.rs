//! The edge asked for more than it can do, by the clock.
//!
//! ```text
//!  core 0: edge, Kafka, threads that spin      core 1: load generator, alone
//! ```
//!
//! The spinning threads leave the edge a part of its core, so that the generator is several times
//! faster. First the peak, in a closed loop; then another over as many connections as the overload.
//! Then the generator shows against the bare handler, which is not held to a core, that it can
//! sustain the overload. Then the edge gets it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::bodies::Kind;
use crate::figures::{Spread, text};
use crate::load::{self, Options, Seen};
use crate::machine::{self, on_core};
use crate::service::cluster;
use crate::subject::{Running, Subject};
use crate::table::Table;

/// The part of the machine that the edge is held to, and the broker with it.
const SERVED: usize = 0;
/// A spool that takes a closed loop, and is soon full under more.
const SPOOL: &[(&str, &str)] =
    &[("TOLLGATE_SPOOL__MAX_BYTES", "134217728"), ("TOLLGATE_SPOOL__SEGMENT_BYTES", "16777216")];
/// What it holds when the last fifth is reserved.
const RESERVED_FROM: f64 = 0.8 * 134_217_728.0;

/// What the generator has for itself.
const GENERATOR: usize = 1;

#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// Interleaved rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How many times the peak
    #[arg(long, default_value_t = 3.0)]
    times: f64,
    /// Connections during the overload
    #[arg(long, default_value_t = 1024)]
    connections: usize,
    /// Threads that spin on the edge's core
    #[arg(long, default_value_t = 2)]
    spinning: usize,
    /// Overload an edge whose spool is full already, up to its reserve
    #[arg(long)]
    full: bool,
    /// Write the table to this file too
    #[arg(long)]
    markdown: Option<PathBuf>,
}

struct Round {
    /// Answered and published a second.
    rate: f64,
    peak: Seen,
    /// Microseconds of the edge for each request at the peak, Kafka's confirmation included.
    peak_cpu_us: f64,
    /// A closed loop over as many connections as the overload.
    crowd: Seen,
    /// The bare handler under what is then sent to the edge.
    floor: Seen,
    seen: Seen,
    /// Microseconds of the edge for each answer of any kind, until the end of the load.
    cpu_us: f64,
    /// Share of the accepted that was published when the load ended.
    published: f64,
    /// Why it refused, and how often.
    reasons: BTreeMap<String, u64>,
    memory: u64,
}

#[expect(clippy::print_stderr, reason = "progress")]
pub fn measure(plan: &Plan) -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores > GENERATOR, "the generator needs a core of its own, and there is one only");
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        let round = one_round(plan)?;
        let (peak, seen) = (&round.peak, &round.seen);
        eprintln!("round {number}: peak {peak:?}\n  floor {:?}\n  overload {seen:?}", round.floor);
        rounds.push(round);
    }
    crate::publish(&report(&rounds, plan), plan.markdown.as_deref())
}

/// Threads that take their share of the core that they were started on.
struct Spinning(Arc<AtomicBool>);

impl Spinning {
    fn start(threads: usize) -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        for _ in 0..threads {
            let goes_on = Arc::clone(&goes_on);
            std::thread::spawn(move || {
                while goes_on.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(goes_on)
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn one_round(plan: &Plan) -> Result<Round> {
    let (kafka, dir) = on_core(SERVED, cluster)?;
    let settings = if plan.full { SPOOL } else { &[] };
    let edge = || Running::start_with(Subject::Spooled, &kafka.bootstrap(), dir.path(), settings);
    let edge = on_core(SERVED, edge)?;
    let spin = || on_core(SERVED, || Ok(Spinning::start(plan.spinning)));
    let generate = |options: &Options| on_core(GENERATOR, || load::apart(options));

    let mut options =
        Options { seconds: plan.seconds.min(2.0), ..Options::new(edge.address, Kind::Status) };
    generate(&options)?;
    edge.await_confirmed()?;
    options.seconds = plan.seconds;
    options.first = 1_000_000_000;
    let spinning = spin()?;
    let cpu = edge.cpu()?;
    let began = Instant::now();
    let peak = generate(&options)?;
    edge.await_confirmed()?;
    let rate = peak.ok as f64 / began.elapsed().as_secs_f64();
    let peak_cpu_us = (edge.cpu()? - cpu) * 1e6 / peak.ok as f64;

    options.clients = plan.connections;
    options.first = 2_000_000_000;
    let crowd = generate(&options)?;
    edge.await_confirmed()?;
    drop(spinning);

    options.rate = Some(plan.times * rate);
    options.first = 3_000_000_000;
    let floor = Running::start(Subject::Floor, "", dir.path())?;
    let floor = generate(&Options { target: floor.address, ..options.clone() })?;

    let spinning = spin()?;
    while plan.full && edge.spool_bytes()? < RESERVED_FROM {
        options.first += 100_000_000;
        generate(&Options { rate: None, seconds: 1.0, ..options.clone() })?;
    }
    let cpu = edge.cpu()?;
    let seen = generate(&options)?;
    let cpu_us = (edge.cpu()? - cpu) * 1e6 / (seen.ok + seen.refused) as f64;
    let published = 1.0 - edge.pending()? / seen.ok as f64;
    let reasons = edge.refused()?;
    drop(spinning);
    edge.await_confirmed()?;
    let memory = edge.memory()?;
    Ok(Round { rate, peak, peak_cpu_us, crowd, floor, seen, cpu_us, published, reasons, memory })
}

/// Answered 200 a second.
fn rate(seen: &Seen) -> f64 {
    seen.ok as f64 / seen.seconds
}

fn report(rounds: &[Round], plan: &Plan) -> String {
    let mut table = Table::new(&["measure", "median (least–greatest)"]);
    let mut row = |name: &str, digits, figure: &dyn Fn(&Round) -> f64| {
        let spread = Spread::of(rounds.iter().map(figure));
        table.row(&[name.to_owned(), text(spread, digits)]);
    };
    let ms = |micros: u64| micros as f64 / 1000.0;
    let asked = |round: &Round| plan.times * round.rate;
    row("closed loop of 256: answered 200 a second", 0, &|r| rate(&r.peak));
    row("peak: the same, until all was published", 0, &|r| r.rate);
    row("its p99, ms", 1, &|r| ms(r.peak.sent_p99_us));
    row("its CPU µs a request, published too", 1, &|r| r.peak_cpu_us);
    row("closed loop over as many connections as the overload: its p99, ms", 1, &|r| {
        ms(r.crowd.sent_p99_us)
    });
    row("overload: sent a second", 0, &asked);
    row("generator alone: answered by the bare handler ÷ sent", 2, &|r| rate(&r.floor) / asked(r));
    row("its p99, ms", 1, &|r| ms(r.floor.p99_us));
    row("**goodput: answered 200 a second ÷ peak**", 2, &|r| rate(&r.seen) / r.rate);
    row("p99 of the accepted from when they were sent, ms", 1, &|r| ms(r.seen.sent_p99_us));
    row("**÷ p99 at the peak**", 2, &|r| r.seen.sent_p99_us as f64 / r.peak.sent_p99_us as f64);
    row("÷ p99 of the closed loop over as many", 2, &|r| {
        r.seen.sent_p99_us as f64 / r.crowd.sent_p99_us as f64
    });
    row("the same from when they were due, ms", 1, &|r| ms(r.seen.p99_us));
    row("refused ÷ sent", 2, &|r| r.seen.refused as f64 / r.seen.seconds / asked(r));
    row("**p99 of the refused, ms**", 1, &|r| ms(r.seen.refused_p99_us));
    row("never sent, for want of a free connection, ÷ sent", 2, &|r| {
        r.seen.unsent as f64 / r.seen.seconds / asked(r)
    });
    row("broken connections", 0, &|r| r.seen.broken as f64);
    row("CPU µs an answer of either kind", 1, &|r| r.cpu_us);
    if !plan.full {
        row("published ÷ accepted when the load ended", 2, &|r| r.published);
    }
    row("memory, MiB at most", 0, &|r| r.memory as f64 / f64::from(1 << 20));
    let reasons: Vec<_> = rounds.iter().map(|round| &round.reasons).collect();
    format!(
        "{} rounds of {} s over {} connections, {} spinning threads, on {}.\n\n{}\n\
         Refused by reason: {reasons:?}\n",
        plan.rounds,
        plan.seconds,
        plan.connections,
        plan.spinning,
        machine::describe(),
        table.into_text()
    )
}
