//! Runs the real binary, as processes, and looks at what it does from outside.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tollgate_testkit::{Server, Signal, dies_with_us, free_port, run};

/// The binary under test.
pub const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");

/// Long enough for a debug build on a busy machine; every wait is on a condition.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A `tollgate` process with its own health listener.
pub struct Process {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    health: SocketAddr,
    open_files: Option<u32>,
    server: Option<Server>,
}

impl Process {
    /// Starts `tollgate <arguments>` and waits until it is ready. `TOLLGATE_LISTENERS__HEALTH` is
    /// set to a free port.
    pub async fn start(
        name: &str,
        dir: &Path,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Result<Self> {
        Self::start_within(None, name, dir, arguments, environment).await
    }

    /// The same, and it may have no more files open than this.
    pub async fn start_within(
        open_files: Option<u32>,
        name: &str,
        dir: &Path,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Result<Self> {
        let mut process = Self { open_files, ..Self::new(name, dir, arguments, environment) };
        process.restart().await?;
        Ok(process)
    }

    /// One that does not run yet.
    pub fn new(name: &str, dir: &Path, arguments: &[&str], environment: &[(&str, String)]) -> Self {
        let health = address();
        let mut environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        environment.push(("TOLLGATE_LISTENERS__HEALTH".into(), health.to_string()));
        Self {
            arguments: arguments.iter().map(ToString::to_string).collect(),
            environment,
            log: dir.join(format!("{name}.log")),
            health,
            open_files: None,
            server: None,
        }
    }

    /// Starts it again with the same arguments, ports and directories, and waits until it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.restart_unready()?;
        self.ready().await
    }

    /// The same, and waits for nothing.
    pub fn restart_unready(&mut self) -> Result<()> {
        let mut line = dies_with_us(Path::new(TOLLGATE))?;
        if let Some(limit) = self.open_files {
            let limited = ["sh", "-c", r#"ulimit -n "$0" && exec "$@""#, &limit.to_string()];
            line.splice(0..0, limited.map(Into::into));
        }
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.server = Some(Server::start(command, &self.log)?);
        Ok(())
    }

    /// Waits until it is ready.
    pub async fn ready(&mut self) -> Result<()> {
        let url = format!("http://{}/readyz", self.health);
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            let ended = self.server.as_mut().and_then(Server::exited);
            ensure!(ended.is_none(), "ended at start ({ended:?}):\n{}", self.output());
            ensure!(tokio::time::Instant::now() < end, "is not ready:\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.server.as_ref().map(Server::id)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(server) = &self.server {
            server.signal(signal);
        }
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        server.signal(Signal::TERM);
        let end = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < end {
            if let Some(status) = server.exited() {
                ensure!(status.success(), "ended with {status}:\n{}", server.output());
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("does not stop:\n{}", server.output())
    }

    /// Waits until it has ended by itself, with an error.
    pub async fn failed(&mut self) -> Result<()> {
        let server = self.server.as_mut().context("it is not running")?;
        let end = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < end {
            if let Some(status) = server.exited() {
                ensure!(!status.success(), "ended with {status}:\n{}", server.output());
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("goes on:\n{}", server.output())
    }

    /// What it has printed since its last start.
    pub fn output(&self) -> String {
        self.server.as_ref().map(Server::output).unwrap_or_default()
    }

    /// Everything it has ever printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where its health and its metrics are.
    pub fn health(&self) -> SocketAddr {
        self.health
    }

    /// Its metrics page.
    pub async fn metrics(&self) -> Result<String> {
        metrics(self.health).await
    }
}

/// Compiles a library for `LD_PRELOAD` from its source below `tests/`.
pub fn preloaded(source: &str, dir: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(source);
    let library = dir.join("preloaded.so");
    run(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source))?;
    Ok(library)
}

/// The metrics page at this health listener.
pub async fn metrics(health: SocketAddr) -> Result<String> {
    Ok(reqwest::get(format!("http://{health}/metrics")).await?.text().await?)
}

/// A free loopback address.
pub fn address() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

/// Runs a command of the binary to its end.
pub fn tollgate(arguments: &[&str], environment: &[(&str, String)]) -> Result<Output> {
    let mut command = Command::new(TOLLGATE);
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    command.output().context("the binary cannot be run")
}

/// Runs a command that must succeed, and returns what it printed.
pub fn succeed(arguments: &[&str], environment: &[(&str, String)]) -> Result<String> {
    run(Command::new(TOLLGATE).args(arguments).envs(environment.iter().cloned()))
}

/// Posts a body and returns the status.
pub async fn post(url: &str, body: impl Into<reqwest::Body>) -> Result<u16> {
    let answer = reqwest::Client::new().post(url).body(body).send().await?;
    Ok(answer.status().as_u16())
}

/// A JSON answer of a query API.
pub async fn get(url: &str) -> Result<serde_json::Value> {
    let answer = reqwest::get(url).await?;
    let status = answer.status();
    let text = answer.text().await?;
    ensure!(status.is_success(), "{url} answered {status}: {text}");
    Ok(serde_json::from_str(&text)?)
}

/// Value of a metric without labels, or the sum over its labels; 0 when it has not appeared.
pub fn metric(page: &str, name: &str) -> f64 {
    page.lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
