//! The one binary: composes, and nothing else.

mod cli;
mod commands;
mod compose;
mod config;
mod dev_api;
mod live_line;
mod mask;
#[cfg(test)]
mod reference;
mod say;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

/// A request's memory is taken on one thread and given back on another, which the system's
/// allocator makes expensive; see `docs/performance.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tollgate_runtime::limits::use_small_pages();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say::trouble(format_args!("cannot start: {error}"));
            return ExitCode::from(1);
        }
    };
    let code = match runtime.block_on(commands::run(cli)) {
        Ok(code) => code,
        Err(error) => {
            say::trouble(format_args!("{}", told(&error)));
            commands::exit_code(&error)
        }
    };
    // Blocking calls into a client that hangs must not hold the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    code
}

/// The error and its causes in one line; a cause that is told already is not told twice.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
