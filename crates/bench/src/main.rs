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
mod edge;
mod figures;
mod load;
mod machine;
mod serve;
mod subject;
mod table;

use std::path::PathBuf;

use anyhow::Result;
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
    /// A load generator; prints what it saw as JSON
    Load(load::Options),
    /// A server to compare with
    Serve(serve::Options),
}

fn main() -> Result<()> {
    match Line::parse().command {
        Command::Edge { rounds, seconds, only, markdown } => {
            edge::measure(&edge::Plan { rounds, seconds, only, markdown })
        }
        Command::Load(options) => load::run(&options),
        Command::Serve(options) => serve::run(options),
    }
}
