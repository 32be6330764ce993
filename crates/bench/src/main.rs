//! Measures Tollgate as whole processes, in turns with what anybody would write instead.
//!
//! ```text
//!  run ─▶ round ─▶ cell ─▶ subject (a process) ◀── load (another process)
//!                             │                      │
//!                  CPU, memory from /proc     answers, latencies
//!                             └────────▶ table ◀─────┘   ratios within a round, their spread
//! ```
//!
//! Every figure that is compared comes from the same round on the same machine. Nothing here is a
//! test: no speed is asserted.

mod bodies;
mod client;
mod db;
mod edge;
mod figures;
mod growth;
mod load;
mod machine;
mod memory;
mod outage;
mod overload;
mod pipeline;
mod serve;
mod service;
mod subject;
mod table;
mod topic;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "tollgate-bench", about = "Measure Tollgate")]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The edge beside a bare actix-web handler and beside the plain ones
    Edge {
        /// Interleaved rounds
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of each measurement
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Only cells whose name contains this; may be repeated
        #[arg(long)]
        only: Vec<String>,
        /// Write the tables to this file too
        #[arg(long)]
        markdown: Option<PathBuf>,
    },
    /// Publishing, the consumers beside COPY, and freshness
    Pipeline(pipeline::Plan),
    /// The edge's memory
    Memory(memory::Plan),
    /// Brokers away under full load: what is taken and refused, memory, and the way back
    Outage(outage::Plan),
    /// The edge on one core, asked for three times what it can do
    Overload(overload::Plan),
    /// The consumers with ever more rows stored; goes on where it was stopped
    Growth(growth::Plan),
    /// A load generator; prints what it saw as JSON
    Load(load::Options),
    /// A server to compare with
    Serve(serve::Options),
    /// A bare producer to compare with; prints what it did as JSON
    Produce(topic::Options),
}

fn main() -> Result<()> {
    match Line::parse().command {
        Command::Edge { rounds, seconds, only, markdown } => {
            edge::measure(&edge::Plan { rounds, seconds, only, markdown })
        }
        Command::Pipeline(plan) => pipeline::measure(&plan),
        Command::Memory(plan) => memory::measure(&plan),
        Command::Outage(plan) => outage::measure(&plan),
        Command::Overload(plan) => overload::measure(&plan),
        Command::Growth(plan) => growth::measure(&plan),
        Command::Load(options) => load::run(&options),
        Command::Serve(options) => serve::run(options),
        Command::Produce(options) => topic::run(&options),
    }
}

/// A directory on the disk that builds are on, never in memory; removed on drop.
fn scratch_dir() -> Result<tempfile::TempDir> {
    let exe = std::env::current_exe()?;
    let beside = exe.parent().context("a binary is in a directory")?;
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(beside)?)
}

/// Prints a report, and writes it to a file if one is named.
#[expect(clippy::print_stdout, reason = "the result")]
fn publish(report: &str, markdown: Option<&Path>) -> Result<()> {
    println!("{report}");
    if let Some(path) = markdown {
        std::fs::write(path, report).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
