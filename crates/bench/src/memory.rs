//! How much memory the edge takes: idle, at full load, with idle connections, through an outage.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;

use crate::bodies::{Kind, Template};
use crate::figures::{Spread, text};
use crate::load::{self, Options, Seen};
use crate::machine;
use crate::service::cluster;
use crate::subject::{Running, Subject};
use crate::table::Table;

const MIB: f64 = (1 << 20) as f64;
/// Room for 10,000 connections: the limit follows from this setting, 272 KiB each beside what bodies,
/// the spool's tail and records in flight may take.
const ROOM: &[(&str, &str)] = &[("TOLLGATE_EDGE__MEMORY_BYTES", "3221225472")];
/// Of clients by the clock while the brokers are down, statuses a second.
const OUTAGE_RATE: f64 = 2000.0;

#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// Seconds at full load
    #[arg(long, default_value_t = 10.0)]
    load: f64,
    /// Idle connections
    #[arg(long, default_value_t = 9_500)]
    connections: usize,
    /// Seconds that the brokers are down under load
    #[arg(long, default_value_t = 30.0)]
    outage: f64,
    /// Write the table to this file too
    #[arg(long)]
    markdown: Option<PathBuf>,
}

struct Cell {
    name: String,
    settings: &'static str,
    now: u64,
    most: u64,
}

#[expect(clippy::print_stderr, reason = "progress")]
pub fn measure(plan: &Plan) -> Result<()> {
    let mut table = Table::new(&["edge", "settings", "resident MiB", "at most MiB"]);
    for measure in [idle_and_busy, idle_connections, outage] {
        for Cell { name, settings, now, most } in measure(plan)? {
            let (now, most) = (now as f64 / MIB, most as f64 / MIB);
            eprintln!("{name}: {now:.0} MiB, at most {most:.0} MiB");
            table.row(&[name, settings.to_owned(), format!("{now:.0}"), format!("{most:.0}")]);
        }
    }
    let report = format!("On {}.\n\n{}", machine::describe(), table.into_text());
    crate::publish(&report, plan.markdown.as_deref())
}

fn cell(name: impl Into<String>, settings: &'static str, running: &Running) -> Result<Cell> {
    let (now, most) = (running.memory_now()?, running.memory()?);
    Ok(Cell { name: name.into(), settings, now, most })
}

fn idle_and_busy(plan: &Plan) -> Result<Vec<Cell>> {
    let (kafka, dir) = cluster()?;
    let running = Running::start(Subject::Spooled, &kafka.bootstrap(), dir.path())?;
    let mut cells = vec![cell("idle, just started", "defaults", &running)?];
    let statuses = Options { seconds: plan.load, ..Options::new(running.address, Kind::Status) };
    load::apart(&statuses)?;
    running.await_confirmed()?;
    cells.push(cell("statuses as fast as they go, 256 clients", "defaults", &running)?);
    let cdrs = Options { body: Kind::Cdrs, seconds: plan.load / 4.0, ..statuses };
    load::apart(&cdrs)?;
    running.await_confirmed()?;
    cells.push(cell("then 50-CDR batches as fast as they go", "defaults", &running)?);
    Ok(cells)
}

/// Connections that have posted once and stay open, and no broker.
fn idle_connections(plan: &Plan) -> Result<Vec<Cell>> {
    let (kafka, dir) = cluster()?;
    let brokers = kafka.bootstrap();
    kafka.stop();
    let running = Running::start_with(Subject::Spooled, &brokers, dir.path(), ROOM)?;
    let settings = "`edge.memory_bytes` 3 GiB";
    let mut template = Template::new(Kind::Status, true, Timestamp::now());
    let mut open = Vec::with_capacity(plan.connections);
    for number in 0..plan.connections as u64 {
        let mut stream = TcpStream::connect(running.address)
            .with_context(|| format!("connection {number}; raise the limit of open files"))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(template.request(number))?;
        let mut answer = [0; 512];
        let read = stream.read(&mut answer)?;
        ensure!(answer[..read].starts_with(b"HTTP/1.1 200"), "connection {number} is refused");
        open.push(stream);
    }
    let name = format!("{} idle connections, brokers down", plan.connections);
    Ok(vec![cell(name, settings, &running)?])
}

/// Statuses by the clock while every broker is down, then until Kafka has all of them.
fn outage(plan: &Plan) -> Result<Vec<Cell>> {
    let (kafka, dir) = cluster()?;
    let running = Running::start(Subject::Spooled, &kafka.bootstrap(), dir.path())?;
    kafka.stop();
    let options = Options {
        seconds: plan.outage,
        rate: Some(OUTAGE_RATE),
        ..Options::new(running.address, Kind::Status)
    };
    let generator: JoinHandle<Result<Seen>> = std::thread::spawn(move || load::apart(&options));
    let mut resident = Vec::new();
    while !generator.is_finished() {
        resident.push(running.memory_now()? as f64 / MIB);
        std::thread::park_timeout(Duration::from_secs(1));
    }
    let seen = generator.join().map_err(|_| anyhow::anyhow!("the generator's thread failed"))??;
    ensure!(seen.refused == 0, "not everything was taken: {seen:?}");
    let (half, whole) = (resident.len() / 2, resident.len());
    let late = Spread::of(resident[half..whole].iter().copied());
    let name = format!(
        "brokers down for {} s at {OUTAGE_RATE} statuses a second; second half: {} MiB",
        plan.outage,
        text(late, 0)
    );
    let mut cells = vec![cell(name, "defaults", &running)?];
    kafka.restart()?;
    running.await_confirmed()?;
    cells.push(cell("and when all of it is published", "defaults", &running)?);
    Ok(cells)
}
