//! Servers that cannot outlive the test process.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::blocking_until;

type Job = (Command, mpsc::Sender<std::io::Result<Child>>);

/// The kernel sends the parent-death signal when the *thread* that forked ends, and a test's
/// thread ends with the test: so one thread, which never ends, forks them all.
#[expect(clippy::expect_used, reason = "without threads no test could run at all")]
static SPAWNER: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<Job>();
    thread::Builder::new()
        .name("testkit-spawner".into())
        .spawn(move || {
            for (mut command, reply) in jobs {
                let _ = reply.send(command.spawn());
            }
        })
        .expect("cannot start a thread");
    sender
});

/// Puts a program behind `setpriv --pdeathsig KILL`. To be the last step before the program: a
/// change of user clears the signal.
pub fn dies_with_us(program: &Path) -> Result<Vec<String>> {
    crate::machine::program("setpriv", "util-linux")?;
    let program = program.to_str().context("program path is not UTF-8")?.to_owned();
    Ok(["setpriv", "--pdeathsig", "KILL", "--"]
        .map(str::to_owned)
        .into_iter()
        .chain([program])
        .collect())
}

/// A running server whose output goes to a log file.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    /// Length of the log when this process was started.
    log_start: u64,
}

impl Server {
    /// Starts the command; what it prints is appended to `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let log_start = file.metadata()?.len();
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let what = command.get_program().to_string_lossy().into_owned();
        let (reply, answer) = mpsc::channel();
        SPAWNER.send((command, reply)).context("spawner is gone")?;
        let child = answer
            .recv()
            .context("spawner is gone")?
            .with_context(|| format!("cannot start {what}"))?;
        Ok(Self { child, log: log.to_owned(), log_start })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; a process that is gone already is no error.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Kills it and waits until it is dead.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end, killing what has not ended within the time given.
    pub fn wait_or_kill(&mut self, patience: Duration) {
        if !blocking_until(patience, || self.exited().is_some()) {
            self.kill();
        }
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// What it has printed since it was started.
    pub fn output(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.log) {
            let _ = file.seek(SeekFrom::Start(self.log_start));
            let _ = file.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until `ready`, or fails with the end of the log.
    pub fn await_ready(
        &mut self,
        what: &str,
        patience: Duration,
        ready: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let mut ended = None;
        let in_time = blocking_until(patience, || {
            ended = self.exited();
            ended.is_some() || ready(self)
        });
        if let Some(status) = ended {
            bail!("{what} ended at start ({status}):\n{}", tail(&self.output()));
        }
        if !in_time {
            self.kill();
            bail!("{what} is not ready after {patience:?}:\n{}", tail(&self.output()));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Copies a directory with owners and times, sharing blocks where the file system can.
pub fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    crate::machine::run(Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(from).arg(to))?;
    fs::metadata(to).context("copied directory is missing")?;
    Ok(())
}
