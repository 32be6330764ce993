//! A server under measurement, as a process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tollgate_testkit::{Server, dies_with_us, free_port};

use crate::client::Client;
use crate::machine;
use crate::service::{beside, tollgate};

const PATIENCE: Duration = Duration::from_mins(2);
const REFUSED: &str = "tollgate_edge_refused_total{reason=\"";
const DEPTH: &str = "tollgate_spool_depth_records ";
const BYTES: &str = "tollgate_spool_bytes ";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Floor,
    PlainEnqueued,
    PlainDelivered,
    Spooled,
    Delivered,
    /// Another build of Tollgate, `spooled`.
    Beside,
}

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::PlainEnqueued => "plain, enqueued",
            Self::PlainDelivered => "plain, delivered",
            Self::Spooled => "Tollgate, `spooled`",
            Self::Delivered => "Tollgate, `delivered`",
            Self::Beside => "the other build, `spooled`",
        }
    }

    fn server(self) -> Option<&'static str> {
        match self {
            Self::Floor => Some("floor"),
            Self::PlainEnqueued => Some("plain-enqueued"),
            Self::PlainDelivered => Some("plain-delivered"),
            Self::Spooled | Self::Delivered | Self::Beside => None,
        }
    }
}

/// A running one. Killed when dropped.
pub struct Running {
    server: Server,
    pub address: SocketAddr,
    /// Says how much is not with Kafka yet.
    pending: String,
    client: Client,
}

impl Running {
    pub fn start(subject: Subject, brokers: &str, dir: &Path) -> Result<Self> {
        Self::start_with(subject, brokers, dir, &[])
    }

    /// With more settings, as environment variables.
    pub fn start_with(
        subject: Subject,
        brokers: &str,
        dir: &Path,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        // Another edge may still use it while a plain handler is started.
        if subject.server().is_none() {
            let _ = std::fs::remove_dir_all(spool(dir));
        }
        Self::go_on(subject, brokers, dir, settings)
    }

    /// The same, over the spool that another has left.
    pub fn go_on(
        subject: Subject,
        brokers: &str,
        dir: &Path,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let health: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let (program, pending) = match subject.server() {
            Some(_) => (std::env::current_exe()?, format!("http://{address}/pending")),
            None if subject == Subject::Beside => (beside()?, format!("http://{health}/metrics")),
            None => (tollgate()?, format!("http://{health}/metrics")),
        };
        let line = dies_with_us(&program)?;
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        if let Some(name) = subject.server() {
            command.args(["serve", name, "--brokers", brokers]);
            command.args(["--listen", &address.to_string()]);
        } else {
            let ack = if subject == Subject::Delivered { "delivered" } else { "spooled" };
            command.arg("edge");
            command.env("TOLLGATE_KAFKA__BROKERS", brokers);
            command.env("TOLLGATE_EDGE__LISTEN", address.to_string());
            command.env("TOLLGATE_EDGE__ACK", ack);
            command.env("TOLLGATE_EDGE__ALLOW_WEAK_TOPICS", "true");
            command.env("TOLLGATE_LISTENERS__HEALTH", health.to_string());
            command.env("TOLLGATE_SPOOL__DIR", spool(dir));
            command.envs(settings.iter().copied());
        }
        let mut server = Server::start(command, &dir.join("subject.log"))?;
        let client = Client::new()?;
        server.await_ready(subject.name(), PATIENCE, |_| client.get(&pending).is_ok())?;
        Ok(Self { server, address, pending, client })
    }

    pub fn cpu(&self) -> Result<f64> {
        machine::cpu(self.server.id())
    }

    /// Most bytes resident so far.
    pub fn memory(&self) -> Result<u64> {
        machine::memory(self.server.id())
    }

    /// Bytes resident now.
    pub fn memory_now(&self) -> Result<u64> {
        machine::memory_now(self.server.id())
    }

    /// Notifications refused so far by reason, of Tollgate.
    pub fn refused(&self) -> Result<BTreeMap<String, u64>> {
        let page = self.client.get(&self.pending)?;
        let lines = page.lines().filter_map(|line| line.strip_prefix(REFUSED)?.split_once("\"} "));
        lines.map(|(reason, count)| Ok((reason.to_owned(), count.parse()?))).collect()
    }

    /// Requests or records that Kafka has not confirmed yet.
    pub fn pending(&self) -> Result<f64> {
        self.gauge(DEPTH)
    }

    /// Bytes that Tollgate's spool holds.
    pub fn spool_bytes(&self) -> Result<f64> {
        self.gauge(BYTES)
    }

    /// Of a page of metrics, or of one that is nothing but the number.
    fn gauge(&self, name: &str) -> Result<f64> {
        let page = self.client.get(&self.pending)?;
        let value = page.lines().find_map(|line| line.strip_prefix(name));
        Ok(value.unwrap_or(&page).trim().parse().unwrap_or(f64::NAN))
    }

    /// Waits until Kafka has confirmed everything.
    pub fn await_confirmed(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let pending = self.pending()?;
            if pending == 0.0 {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{pending} are still not confirmed");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.kill();
    }
}

/// Where an edge that is measured keeps its spool.
fn spool(dir: &Path) -> PathBuf {
    dir.join("spool")
}
