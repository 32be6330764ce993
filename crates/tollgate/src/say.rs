//! Printing for people and pipes.

use std::io::Write;

/// Prints a line to standard output. A reader that has seen enough, as `head` has, ends the
/// program quietly.
pub fn line(text: std::fmt::Arguments<'_>) {
    if writeln!(std::io::stdout().lock(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// `println!` for a command line: no panic when nobody reads any more.
macro_rules! say {
    ($($argument:tt)*) => { $crate::say::line(format_args!($($argument)*)) };
}

pub(crate) use say;
