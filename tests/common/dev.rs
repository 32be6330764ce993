//! `tollgate dev`: the whole system in one process.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;

use crate::common::{PATIENCE, Process, address, get, metric, tollgate};

pub struct Dev {
    pub process: Process,
    pub edge: String,
    pub query: String,
}

impl Dev {
    /// Starts it with its data below `dir` and these arguments more, and waits until it is ready.
    pub async fn start(dir: &Path, more: &[&str], environment: &[(&str, String)]) -> Result<Self> {
        let (listen, query) = (address().to_string(), address().to_string());
        let data = dir.join("data").display().to_string();
        let base = ["dev", "--data", &data, "--listen", &listen, "--query", &query];
        let arguments = [&base[..], more].concat();
        let process = Process::start("dev", dir, &arguments, environment).await?;
        Ok(Self { process, edge: format!("http://{listen}"), query: format!("http://{query}") })
    }
}

/// A simulated platform that sends, and can say later whether all it was told holds.
pub struct Platform {
    arguments: Vec<String>,
    sender: JoinHandle<Result<Output>>,
}

impl Platform {
    /// Begins to call; its journal is in `dir`.
    pub fn start(dev: &Dev, dir: &Path, more: &[&str]) -> Self {
        let path = |name: &str| dir.join(name).display().to_string();
        let (journal, undelivered) = (path("journal.jsonl"), path("undelivered.jsonl"));
        let base = [
            "simulate",
            "--quiet",
            "--alone",
            "--edge",
            &dev.edge,
            "--query",
            &dev.query,
            "--journal",
            &journal,
            "--undelivered",
            &undelivered,
            "--faults",
            "all",
            "--repeat-after",
            "2",
        ];
        let arguments: Vec<String> = base.iter().chain(more).map(ToString::to_string).collect();
        Self { sender: run(&arguments, &["--no-verify"]), arguments }
    }

    /// Whether everything is sent.
    pub fn is_done(&self) -> bool {
        self.sender.is_finished()
    }

    /// Waits until `dev` has acknowledged so many since its start; on a slow machine everything may
    /// be sent before it has.
    pub async fn acknowledged(&self, dev: &Dev, count: f64) -> Result<()> {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !self.is_done() {
            let page = dev.process.metrics().await.unwrap_or_default();
            if metric(&page, "tollgate_edge_acknowledged_total") >= count {
                break;
            }
            ensure!(tokio::time::Instant::now() < end, "fewer than {count} were acknowledged");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until everything is sent, then compares what was acknowledged with what is there.
    pub async fn verify(self, dev: &Dev) -> Result<()> {
        let sent = self.sender.await.context("sender")??;
        ensure!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
        let verified = run(&self.arguments, &["--verify-only", "--settle", "90"]).await??;
        ensure!(
            verified.status.success(),
            "the verifier found something:\n{}{}\n--- dev\n{}",
            String::from_utf8_lossy(&verified.stdout),
            String::from_utf8_lossy(&verified.stderr),
            dev.process.log(),
        );
        let checks = get(&format!("{}/v1/checks", dev.query)).await?;
        ensure!(checks["consistent"] == true, "ledger and aggregates differ: {checks}");
        Ok(())
    }
}

fn run(arguments: &[String], more: &[&str]) -> JoinHandle<Result<Output>> {
    let more = more.iter().map(ToString::to_string);
    let arguments: Vec<String> = arguments.iter().cloned().chain(more).collect();
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        tollgate(&arguments, &[])
    })
}
