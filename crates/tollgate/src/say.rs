//! Printing for people and pipes.

use std::fmt::{Arguments, Display};
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Context;

const CANNOT_PRINT: &str = "standard output cannot be written";

/// Prints a line to standard output. A reader that has seen enough, as `head` has, ends the
/// program quietly. Any other error ends it with 1: what it prints is its work, and is not whole.
pub fn line(text: Arguments<'_>) {
    if let Err(error) = try_line(text) {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        trouble(format_args!("{CANNOT_PRINT}: {error}"));
        std::process::exit(1);
    }
}

/// Prints how something goes on that goes on without being watched: an error ends nothing. Whether
/// it was printed.
pub fn progress(text: &str) -> bool {
    let printed = try_line(format_args!("{text}"));
    if let Err(error) = &printed {
        trouble(format_args!("{CANNOT_PRINT}: {error}; what runs goes on without it"));
    }
    printed.is_ok()
}

/// Prints what a check found and returns its result, which stands although nobody may read to the
/// end.
pub fn result(text: &dyn Display, code: ExitCode) -> anyhow::Result<ExitCode> {
    match try_line(format_args!("{text}")) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context(CANNOT_PRINT),
        _ => Ok(code),
    }
}

/// Says on standard error what is wrong. Where that cannot be written either, nothing more is done:
/// the exit code says the rest.
pub fn trouble(text: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "tollgate: {text}");
}

fn try_line(text: Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// `println!` for a command line: see [`line`].
macro_rules! say {
    ($($argument:tt)*) => { $crate::say::line(format_args!($($argument)*)) };
}

pub(crate) use say;
