//! What the machine says about a process, and about its disk.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// User and system time of a process so far, all its threads, in seconds.
pub fn cpu(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything.
    let (_, rest) = stat.rsplit_once(')').context("unexpected /proc/PID/stat")?;
    let field = |number: usize| -> Result<u64> {
        let text = rest.split_whitespace().nth(number - 3).context("short /proc/PID/stat")?;
        Ok(text.parse()?)
    };
    let ticks = field(14)? + field(15)?;
    Ok(of_ticks(ticks))
}

/// The same of a server that forks: itself, its children that have ended, and those that run.
pub fn cpu_of_family(pid: u32) -> Result<f64> {
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((head, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<u64> = rest.split_whitespace().skip(1).map(parse_or_zero).collect();
        let own = head.split(' ').next().map(parse_or_zero) == Some(pid.into());
        // After the name: state, parent; user and system time are the 14th and 15th of all, those
        // of ended children the two behind.
        if own {
            ticks += fields[10..14].iter().sum::<u64>();
        } else if fields[0] == u64::from(pid) {
            ticks += fields[10] + fields[11];
        }
    }
    Ok(of_ticks(ticks))
}

fn parse_or_zero(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

fn of_ticks(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// The most memory that a process has had resident so far, in bytes.
pub fn memory(pid: u32) -> Result<u64> {
    memory_line(pid, "VmHWM:")
}

/// What it has resident now.
pub fn memory_now(pid: u32) -> Result<u64> {
    memory_line(pid, "VmRSS:")
}

fn memory_line(pid: u32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.with_context(|| format!("no {name} in /proc/PID/status"))?.parse::<u64>()? * 1024)
}

/// Keeps what is started by this thread meanwhile on one core, for good.
pub fn on_core<T>(core: usize, start: impl FnOnce() -> Result<T>) -> Result<T> {
    let all = sched_getaffinity(None)?;
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one).with_context(|| format!("core {core} cannot be used"))?;
    let started = start();
    sched_setaffinity(None, &all)?;
    started
}

/// Processor and kernel, for the head of a table.
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let kernel = rustix::system::uname();
    format!(
        "{cores} cores of {}, Linux {}",
        model.unwrap_or("unknown"),
        kernel.release().to_string_lossy()
    )
}

/// Syncs 4 KiB over and over on the disk of a directory, while something else happens.
pub struct SyncProbe {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Result<Histogram<u64>>>,
    path: PathBuf,
}

/// Pause between two syncs, long enough not to be the load.
const PAUSE: Duration = Duration::from_millis(10);

impl SyncProbe {
    pub fn start(dir: &Path) -> Result<Self> {
        let path = dir.join("sync-probe");
        let mut file = File::create(&path)?;
        file.write_all(&vec![0; 1 << 20])?;
        file.sync_all()?;
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut took = Histogram::new(3)?;
            let mut count = 0;
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                let began = Instant::now();
                file.write_all_at(&[1; 4096], count % 256 * 4096)?;
                file.sync_data()?;
                took.record(began.elapsed().as_micros() as u64)?;
                count += 1;
            }
            Ok(took)
        });
        Ok(Self { stop, thread, path })
    }

    /// Durations in microseconds.
    pub fn stop(self) -> Result<Histogram<u64>> {
        drop(self.stop);
        let took = self.thread.join().map_err(|_| anyhow::anyhow!("the sync probe panicked"))?;
        let _ = std::fs::remove_file(&self.path);
        took
    }
}
