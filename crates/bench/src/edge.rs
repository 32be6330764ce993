//! The edge's cells: one factor changed at a time, every subject in turns within a round.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tollgate_testkit::Kafka;

use crate::bodies::Kind;
use crate::figures::{Spread, text};
use crate::load::{self, Options, Seen};
use crate::machine::{self, SyncProbe};
use crate::service::{beside, cluster, tollgate};
use crate::subject::{Running, Subject};
use crate::table::Table;

pub struct Plan {
    pub rounds: usize,
    pub seconds: f64,
    pub only: Vec<String>,
    pub markdown: Option<PathBuf>,
}

#[derive(Clone, Copy)]
struct Cell {
    name: &'static str,
    clients: usize,
    short: bool,
    body: Kind,
    subject: Subject,
    kafka: bool,
    /// Also at half of each subject's peak, by the clock.
    half: bool,
}

const BASE: Cell = Cell {
    name: "base: status, 256 clients kept alive",
    clients: 256,
    short: false,
    body: Kind::Status,
    subject: Subject::Spooled,
    kafka: true,
    half: true,
};

const CELLS: &[Cell] = &[
    BASE,
    Cell { name: "64 clients", clients: 64, half: false, ..BASE },
    Cell { name: "1024 clients", clients: 1024, half: false, ..BASE },
    Cell { name: "one connection per request", short: true, half: false, ..BASE },
    Cell {
        name: "one connection per request, 1024 clients",
        short: true,
        clients: 1024,
        half: false,
        ..BASE
    },
    Cell { name: "50 CDRs", body: Kind::Cdrs, half: false, ..BASE },
    Cell { name: "`delivered`", subject: Subject::Delivered, half: false, ..BASE },
    // Last, since the broker does not come back.
    Cell { name: "Kafka down", kafka: false, half: false, ..BASE },
];

const WARM_SECONDS: f64 = 3.0;

/// One subject in one cell of one round.
struct Measured {
    cell: &'static str,
    subject: Subject,
    round: usize,
    /// Microseconds of user and system time for each request, Kafka's confirmation included.
    cpu_us: f64,
    /// Answered 200 a second.
    rate: f64,
    /// The same, counted until Kafka had confirmed everything.
    published_rate: f64,
    /// Most bytes resident.
    memory: u64,
    seen: Seen,
    /// At half of the peak, if the cell asks for it; with the disk's p99 then, microseconds.
    half: Option<(Seen, u64)>,
}

pub fn measure(plan: &Plan) -> Result<()> {
    tollgate()?;
    let mut measured = Vec::new();
    for round in 0..plan.rounds {
        measured.extend(one_round(plan, round)?);
    }
    let report = report(&measured, plan);
    crate::publish(&report, plan.markdown.as_deref())
}

#[expect(clippy::print_stderr, reason = "progress")]
fn one_round(plan: &Plan, round: usize) -> Result<Vec<Measured>> {
    let (kafka, dir) = cluster()?;
    warm(&kafka, dir.path())?;
    let mut measured = Vec::new();
    let is_wanted = |cell: &&Cell| {
        plan.only.is_empty() || plan.only.iter().any(|part| cell.name.contains(part.as_str()))
    };
    for cell in CELLS.iter().filter(is_wanted) {
        if !cell.kafka {
            kafka.stop();
        }
        let mut subjects = vec![Subject::Floor, cell.subject];
        if beside().is_ok() && cell.subject == Subject::Spooled {
            subjects.push(Subject::Beside);
        } else if cell.kafka {
            subjects.extend([Subject::PlainEnqueued, Subject::PlainDelivered]);
        }
        // Whoever comes first meets a colder machine: that goes round.
        let first = round % subjects.len();
        subjects.rotate_left(first);
        for subject in subjects {
            let one = measure_one(cell, subject, round, plan.seconds, &kafka, dir.path())?;
            eprintln!(
                "round {} | {} | {} | {:.1} µs | {:.0}/s ({:.0} published) | p99 {:.1} ms",
                round + 1,
                cell.name,
                subject.name(),
                one.cpu_us,
                one.rate,
                one.published_rate,
                one.seen.p99_us as f64 / 1000.0
            );
            measured.push(one);
        }
    }
    Ok(measured)
}

/// A new broker is slow at first, whoever it is that meets it.
fn warm(kafka: &Kafka, dir: &Path) -> Result<()> {
    let running = Running::start(Subject::Spooled, &kafka.bootstrap(), dir)?;
    load::apart(&Options { seconds: WARM_SECONDS, ..Options::new(running.address, Kind::Status) })?;
    running.await_confirmed()
}

fn measure_one(
    cell: &Cell,
    subject: Subject,
    round: usize,
    seconds: f64,
    kafka: &Kafka,
    dir: &Path,
) -> Result<Measured> {
    let running = Running::start(subject, &kafka.bootstrap(), dir)?;
    let mut options = Options {
        clients: cell.clients,
        short: cell.short,
        seconds: 1.0,
        ..Options::new(running.address, cell.body)
    };
    load::apart(&options)?;
    let settle = || if cell.kafka { running.await_confirmed() } else { Ok(()) };
    settle()?;

    options.seconds = seconds;
    options.first = 1_000_000_000;
    let (cpu, began) = (running.cpu()?, std::time::Instant::now());
    let seen = load::apart(&options)?;
    settle()?;
    let published_in = began.elapsed().as_secs_f64();
    let cpu = running.cpu()? - cpu;
    ensure!(seen.ok > 0, "{} answered nothing: {seen:?}", subject.name());
    let ok = seen.ok as f64;
    let rate = ok / seen.seconds;

    let half = cell.half.then(|| {
        options.first = 2_000_000_000;
        options.rate = Some(rate / 2.0);
        let probe = SyncProbe::start(dir)?;
        let seen = load::apart(&options);
        let syncs = probe.stop()?;
        settle()?;
        anyhow::Ok((seen?, syncs.value_at_quantile(0.99)))
    });
    Ok(Measured {
        cell: cell.name,
        subject,
        round,
        cpu_us: cpu * 1e6 / ok,
        rate,
        published_rate: ok / published_in,
        memory: running.memory()?,
        half: half.transpose()?,
        seen,
    })
}

fn report(measured: &[Measured], plan: &Plan) -> String {
    let mut table = Table::new(&[
        "cell",
        "subject",
        "CPU µs a request",
        "÷ floor",
        "÷ plain, delivered",
        "requests/s",
        "÷ floor",
        "published too ÷ floor",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "memory MiB",
    ]);
    let mut halves = Table::new(&[
        "subject",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "fdatasync p99 ms meanwhile",
    ]);
    for cell in CELLS {
        for subject in [
            Subject::Floor,
            Subject::PlainEnqueued,
            Subject::PlainDelivered,
            Subject::Spooled,
            Subject::Delivered,
            Subject::Beside,
        ] {
            let of = |subject| {
                measured
                    .iter()
                    .filter(move |one: &&Measured| one.cell == cell.name && one.subject == subject)
            };
            let spread = |figure: &dyn Fn(&Measured) -> f64| Spread::of(of(subject).map(figure));
            let against =
                |other, figure: &dyn Fn(&Measured) -> f64, under: &dyn Fn(&Measured) -> f64| {
                    let ratios = of(subject).filter_map(|one| {
                        let other = of(other).find(|other| other.round == one.round)?;
                        Some(figure(one) / under(other))
                    });
                    text(Spread::of(ratios), 2)
                };
            let Some(cpu) = spread(&|one| one.cpu_us) else { continue };
            let ms = |micros: u64| micros as f64 / 1000.0;
            table.row(&[
                cell.name.to_owned(),
                subject.name().to_owned(),
                format!("{cpu:.1}"),
                against(Subject::Floor, &|one| one.cpu_us, &|one| one.cpu_us),
                against(Subject::PlainDelivered, &|one| one.cpu_us, &|one| one.cpu_us),
                text(spread(&|one| one.rate), 0),
                against(Subject::Floor, &|one| one.rate, &|one| one.rate),
                against(Subject::Floor, &|one| one.published_rate, &|one| one.published_rate),
                text(spread(&|one| ms(one.seen.p50_us)), 1),
                text(spread(&|one| ms(one.seen.p99_us)), 1),
                text(spread(&|one| ms(one.seen.p999_us)), 1),
                text(spread(&|one| one.memory as f64 / f64::from(1 << 20)), 0),
            ]);
            let half = |figure: &dyn Fn(&(Seen, u64)) -> f64| {
                Spread::of(of(subject).filter_map(|one| one.half.as_ref()).map(figure))
            };
            if let Some(rate) = half(&|(seen, _)| seen.ok as f64 / seen.seconds) {
                halves.row(&[
                    subject.name().to_owned(),
                    format!("{rate:.0}"),
                    text(half(&|(seen, _)| ms(seen.p50_us)), 1),
                    text(half(&|(seen, _)| ms(seen.p99_us)), 1),
                    text(half(&|(seen, _)| ms(seen.p999_us)), 1),
                    text(half(&|(_, sync)| ms(*sync)), 1),
                ]);
            }
        }
    }
    format!(
        "{} rounds of {} s on {}; median (least–greatest) of the rounds.\n\n### Edge at its peak\n\n{}\n### Edge at half of its peak, by the clock\n\n{}",
        plan.rounds,
        plan.seconds,
        machine::describe(),
        table.into_text(),
        halves.into_text()
    )
}
