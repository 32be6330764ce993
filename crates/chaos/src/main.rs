//! `make chaos`: runs schedules, prints figures.

#![expect(clippy::print_stdout, reason = "the result")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;
use tollgate_chaos::schedule::Schedule;
use tollgate_chaos::{Journal, Runner};

/// Runs the real system under seeded schedules of faults, and checks that nothing acknowledged is
/// lost, nothing billed twice, nothing wrong.
#[derive(Debug, Parser)]
#[command(name = "tollgate-chaos")]
struct Arguments {
    /// Run this seed only, whether it has run before or not.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run so many seeds, but for those that have passed already.
    #[arg(long, default_value_t = 1, value_name = "N")]
    schedules: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1, value_name = "N")]
    first: u64,
    /// Print the schedules and run nothing.
    #[arg(long)]
    print: bool,
    /// Where figures and the evidence of failures are kept.
    #[arg(long, default_value = "target/chaos", value_name = "DIR")]
    dir: PathBuf,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let seeds = match arguments.seed {
        Some(seed) => seed..seed.saturating_add(1),
        None => arguments.first..arguments.first.saturating_add(arguments.schedules),
    };
    if arguments.print {
        seeds.for_each(|seed| println!("{}", Schedule::of(seed)));
        return Ok(ExitCode::SUCCESS);
    }
    let tollgate = std::env::current_exe()?.with_file_name("tollgate");
    ensure!(
        tollgate.exists(),
        "{} is not there: build it with `cargo build --release -p tollgate`",
        tollgate.display()
    );
    std::fs::create_dir_all(&arguments.dir)?;
    let mut journal = Journal::open(&arguments.dir.join("figures.jsonl"))?;
    let passed = journal.passed();
    let runner = Runner { tollgate, dir: arguments.dir };
    let mut code = ExitCode::SUCCESS;
    for seed in seeds {
        if arguments.seed.is_none() && passed.contains(&seed) {
            continue;
        }
        println!("{}", Schedule::of(seed));
        let outcome = runner.run(seed).await?;
        println!("{outcome}");
        journal.append(&outcome.figures)?;
        if outcome.evidence.is_some() {
            code = ExitCode::FAILURE;
        }
    }
    println!("{journal}");
    Ok(code)
}
