//! A wall clock of its own for a process, by libfaketime.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

const SOURCE: &str = include_str!("ready.c");

/// The libraries to load before a process that is to have its own clock, where libfaketime is
/// installed. What has to be compiled for that goes to `dir`.
pub fn libraries(dir: &Path) -> Result<Option<String>> {
    let places =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/lib64"];
    let path = |place| format!("{place}/faketime/libfaketimeMT.so.1");
    let Some(faketime) = places.into_iter().map(path).find(|path| Path::new(path).exists()) else {
        return Ok(None);
    };
    let (source, ready) = (dir.join("ready.c"), dir.join("ready.so"));
    std::fs::write(&source, SOURCE)?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O0", "-Wl,-z,initfirst", "-o"]).arg(&ready).arg(&source);
    ensure!(cc.status().context("cc cannot be run")?.success(), "ready.c does not compile");
    Ok(Some(format!("{faketime} {}", ready.display())))
}
