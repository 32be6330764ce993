//! A process of the product, from outside.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep};
use tollgate_testkit::{Server, Signal, dies_with_us, free_port};

/// For a debug build on a busy machine to become ready, or to stop.
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// What a process is started with.
pub struct Program {
    pub name: &'static str,
    pub binary: PathBuf,
    pub command: &'static str,
    pub environment: Vec<(String, String)>,
    pub log: PathBuf,
}

/// A process that is killed, frozen and started again.
pub struct Process {
    program: Program,
    health: SocketAddr,
    server: Option<Server>,
    frozen: bool,
    client: reqwest::Client,
}

impl Process {
    /// Sets its health listener; starts nothing.
    pub fn new(mut program: Program) -> Self {
        let health = address();
        program.environment.push(("TOLLGATE_LISTENERS__HEALTH".into(), health.to_string()));
        let client = reqwest::Client::new();
        Self { program, health, server: None, frozen: false, client }
    }

    /// Starts it, unless it runs; does not wait for it.
    pub fn start(&mut self) -> Result<()> {
        if self.server.is_some() {
            return Ok(());
        }
        let line = dies_with_us(&self.program.binary)?;
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg(self.program.command);
        command.envs(self.program.environment.iter().map(|(name, value)| (name, value)));
        self.server = Some(Server::start(command, &self.program.log)?);
        self.frozen = false;
        Ok(())
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> Result<()> {
        self.still_runs()?;
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
        Ok(())
    }

    /// SIGSTOP.
    pub fn freeze(&mut self) {
        self.frozen = true;
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&mut self) {
        self.frozen = false;
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(server) = &self.server {
            server.signal(signal);
        }
    }

    /// SIGTERM; does not wait.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the end after [`Process::terminate`], which must be a good one.
    pub async fn ended(&mut self) -> Result<()> {
        let Some(server) = &mut self.server else { return Ok(()) };
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = server.exited() {
                // One that was only just started has no handler yet, and has begun nothing.
                let had_not_begun =
                    status.signal() == Some(Signal::TERM.as_raw()) && server.output().is_empty();
                self.server = None;
                ensure!(
                    status.success() || had_not_begun,
                    "{} ended with {status} on SIGTERM",
                    self.program.name
                );
                return Ok(());
            }
            ensure!(Instant::now() < end, "{} does not stop on SIGTERM", self.program.name);
            sleep(PAUSE).await;
        }
    }

    /// What its threads are doing, for whoever looks into a failure; nothing without gdb.
    pub fn keep_stacks(&self, dir: &Path) {
        let Some(server) = &self.server else { return };
        let file = dir.join(format!("{}.stacks", self.name()));
        let _ = std::fs::File::create(file).and_then(|file| {
            let pid = server.id().to_string();
            let all = ["-batch", "-ex", "thread apply all backtrace 16", "-p", &pid];
            Command::new("gdb").args(all).stdin(Stdio::null()).stdout(file).status()
        });
    }

    /// Fails when it has ended by itself.
    pub fn still_runs(&mut self) -> Result<()> {
        let ended = self.server.as_mut().and_then(Server::exited);
        let log = self.program.log.display();
        ensure!(ended.is_none(), "{} ended by itself ({ended:?}): see {log}", self.name());
        Ok(())
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&mut self) -> Result<()> {
        let url = format!("http://{}/readyz", self.health);
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.client.get(&url).timeout(Duration::from_secs(2)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            self.still_runs()?;
            ensure!(
                Instant::now() < end,
                "{} is not ready after {PATIENCE:?}: see {}",
                self.name(),
                self.program.log.display()
            );
            sleep(PAUSE).await;
        }
    }

    /// Its metrics page.
    pub async fn metrics(&self) -> Result<Metrics> {
        let url = format!("http://{}/metrics", self.health);
        let answer = self.client.get(url).timeout(Duration::from_secs(5)).send().await;
        let answer = answer.with_context(|| format!("{} shows no metrics", self.name()))?;
        Ok(Metrics(answer.text().await?))
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.program.name
    }

    /// Where everything it has ever printed is.
    pub fn log(&self) -> &Path {
        &self.program.log
    }
}

/// A metrics page.
pub struct Metrics(String);

impl Metrics {
    /// Sum of a metric over the labels that contain `label`; `None` when it has not appeared.
    pub fn sum(&self, name: &str, label: &str) -> Option<f64> {
        let values: Vec<f64> = self
            .0
            .lines()
            .filter_map(|line| {
                let rest = line.strip_prefix(name)?;
                let is_it = rest.starts_with('{') || rest.starts_with(' ');
                (is_it && rest.contains(label)).then_some(rest)
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}

/// A free loopback address.
pub fn address() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}
