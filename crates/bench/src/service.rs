//! The binary under measurement: its commands, and its consumers as processes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tollgate_testkit::{Kafka, KafkaOptions, Server, dies_with_us, free_port};

use crate::client::Client;
use crate::machine;

const PATIENCE: Duration = Duration::from_mins(2);

/// The binary, built beside this one.
pub fn tollgate() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("tollgate");
    ensure!(
        path.exists(),
        "{} is not there: build it with `cargo build --release -p tollgate`",
        path.display()
    );
    Ok(path)
}

/// Names another build to measure beside this one.
const BESIDE: &str = "BENCH_BESIDE";

/// Another build of the binary, where one is named.
pub fn beside() -> Result<PathBuf> {
    std::env::var_os(BESIDE).map(PathBuf::from).with_context(|| format!("{BESIDE} names no build"))
}

/// A new broker with the topics, and a directory beside. One for each part: its log would outgrow
/// the disk.
pub fn cluster() -> Result<(Kafka, tempfile::TempDir)> {
    let kafka = Kafka::start(&KafkaOptions::new())?;
    create_topics(&kafka.bootstrap())?;
    Ok((kafka, crate::scratch_dir()?))
}

fn create_topics(brokers: &str) -> Result<()> {
    run(&["topics", "create", "--replication", "1"], &[("TOLLGATE_KAFKA__BROKERS", brokers)])
}

/// Activates the sample tariff, so that records are rated.
pub fn activate_tariff(database: &str) -> Result<()> {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../rating/tariffs/sample.toml");
    let settings = [("TOLLGATE_DATABASE__URL", database)];
    run(&["tariff", "activate", sample, "--from", "beginning"], &settings)
}

fn run(arguments: &[&str], settings: &[(&str, &str)]) -> Result<()> {
    let output =
        Command::new(tollgate()?).args(arguments).envs(settings.iter().copied()).output()?;
    ensure!(
        output.status.success(),
        "tollgate {} failed: {}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Consumer {
    Billing,
    UserState,
}

impl Consumer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Billing => "billing",
            Self::UserState => "user-state",
        }
    }

    /// What it consumes.
    pub fn topics(self) -> &'static [&'static str] {
        match self {
            Self::Billing => &["cdrs"],
            Self::UserState => &["call-events", "cdrs"],
        }
    }
}

/// A running consumer. Killed when dropped.
pub struct Service {
    server: Server,
    metrics: String,
    client: Client,
}

impl Service {
    pub fn start(consumer: Consumer, brokers: &str, database: &str, dir: &Path) -> Result<Self> {
        let address = || -> SocketAddr { ([127, 0, 0, 1], free_port()).into() };
        let health = address();
        let line = dies_with_us(&tollgate()?)?;
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg(consumer.name());
        command.env("TOLLGATE_KAFKA__BROKERS", brokers);
        command.env("TOLLGATE_DATABASE__URL", database);
        command.env("TOLLGATE_LISTENERS__HEALTH", health.to_string());
        command.env("TOLLGATE_LISTENERS__QUERY", address().to_string());
        let mut server = Server::start(command, &dir.join(consumer.name()).with_extension("log"))?;
        let client = Client::new()?;
        let metrics = format!("http://{health}/metrics");
        server.await_ready(consumer.name(), PATIENCE, |_| client.get(&metrics).is_ok())?;
        Ok(Self { server, metrics, client })
    }

    pub fn cpu(&self) -> Result<f64> {
        machine::cpu(self.server.id())
    }

    /// Sum of a metric over its labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let page = self.client.get(&self.metrics)?;
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next())?;
            value?.parse::<f64>().ok()
        });
        Ok(values.sum())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.server.kill();
    }
}
