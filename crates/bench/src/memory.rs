//! How much memory the edge takes: idle, at full load, with idle connections beside the bare handler.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;

use crate::bodies::{Kind, Template};
use crate::load::{self, Options};
use crate::machine;
use crate::service::cluster;
use crate::subject::{Running, Subject};
use crate::table::Table;

const MIB: f64 = (1 << 20) as f64;
/// Room for 10,000 connections: the limit follows from this setting, 272 KiB each beside what bodies,
/// the spool's tail and records in flight may take.
const ROOM: &[(&str, &str)] = &[("TOLLGATE_EDGE__MEMORY_BYTES", "3221225472")];
/// The edge gives back what a connection has held once it has been idle for two seconds.
const UNTIL_IDLE: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// Seconds at full load
    #[arg(long, default_value_t = 10.0)]
    load: f64,
    /// Idle connections
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
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
    for measure in [idle_and_busy, idle_connections] {
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
    let mut cells = Vec::new();
    for (subject, settings) in
        [(Subject::Floor, "–"), (Subject::Spooled, "`edge.memory_bytes` 3 GiB")]
    {
        let running = Running::start_with(subject, &brokers, dir.path(), ROOM)?;
        let open = connect(&running, plan.connections)?;
        std::thread::park_timeout(UNTIL_IDLE);
        let name = format!("{}: {} idle connections, brokers down", subject.name(), open.len());
        cells.push(cell(name, settings, &running)?);
    }
    Ok(cells)
}

/// Posts a status over each of so many connections, and keeps them.
fn connect(running: &Running, connections: usize) -> Result<Vec<TcpStream>> {
    let mut template = Template::new(Kind::Status, true, Timestamp::now());
    let mut open = Vec::with_capacity(connections);
    for number in 0..connections as u64 {
        let mut stream = TcpStream::connect(running.address)
            .with_context(|| format!("connection {number}; raise the limit of open files"))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(template.request(number))?;
        let mut answer = [0; 512];
        let read = stream.read(&mut answer)?;
        ensure!(answer[..read].starts_with(b"HTTP/1.1 200"), "connection {number} is refused");
        open.push(stream);
    }
    Ok(open)
}
