//! The whole system as processes on real Kafka and real PostgreSQL: simulator, two edges, billing
//! and user-state, with an edge killed and the broker restarted in the middle.

mod common;

use std::time::Duration;

use anyhow::{Result, ensure};
use common::{PATIENCE, Process, address, metric, succeed};
use tollgate_testkit::{
    Kafka, KafkaOptions, Postgres, PostgresOptions, Server, TestDir, dies_with_us,
};

/// Calls of a run: enough for batches, faults and every kind of call.
const CALLS: &str = "800";

/// Everything that one run needs, in the order in which it goes.
struct System {
    edges: Vec<Process>,
    edge_urls: Vec<String>,
    billing: Process,
    user_state: Process,
    billing_url: String,
    user_state_url: String,
    kafka_environment: Vec<(&'static str, String)>,
    kafka: Kafka,
    _postgres: Postgres,
    dir: TestDir,
}

impl System {
    async fn start() -> Result<Self> {
        let dir = TestDir::new("whole-system")?;
        let (kafka, postgres) = tokio::task::spawn_blocking(|| {
            anyhow::Ok((
                Kafka::start(&KafkaOptions::new())?,
                Postgres::start(&PostgresOptions::new())?,
            ))
        })
        .await??;
        let database = postgres.create_database("tollgate")?;
        let kafka_environment = vec![
            ("TOLLGATE_KAFKA__BROKERS", kafka.bootstrap()),
            ("TOLLGATE_DATABASE__URL", database),
        ];
        succeed(&["topics", "create", "--replication", "1"], &kafka_environment)?;
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../rating/tariffs/sample.toml");
        succeed(&["tariff", "activate", sample, "--from", "beginning"], &kafka_environment)?;

        let mut edges = Vec::new();
        let mut edge_urls = Vec::new();
        for name in ["edge-1", "edge-2"] {
            let listen = address();
            let mut environment = kafka_environment.clone();
            environment.extend([
                ("TOLLGATE_EDGE__LISTEN", listen.to_string()),
                ("TOLLGATE_EDGE__EDGE_ID", name.to_owned()),
                ("TOLLGATE_EDGE__ALLOW_WEAK_TOPICS", "true".to_owned()),
                ("TOLLGATE_SPOOL__DIR", dir.path().join(name).display().to_string()),
            ]);
            edges.push(Process::start(name, dir.path(), &["edge"], &environment).await?);
            edge_urls.push(format!("http://{listen}"));
        }
        let (billing_query, user_query) = (address(), address());
        let mut environment = kafka_environment.clone();
        environment.push(("TOLLGATE_LISTENERS__QUERY", billing_query.to_string()));
        let billing = Process::start("billing", dir.path(), &["billing"], &environment).await?;
        let mut environment = kafka_environment.clone();
        environment.push(("TOLLGATE_LISTENERS__QUERY", user_query.to_string()));
        let user_state =
            Process::start("user-state", dir.path(), &["user-state"], &environment).await?;
        Ok(Self {
            edges,
            edge_urls,
            billing,
            user_state,
            billing_url: format!("http://{billing_query}"),
            user_state_url: format!("http://{user_query}"),
            kafka_environment,
            kafka,
            _postgres: postgres,
            dir,
        })
    }

    /// Starts the simulator as a process of its own.
    fn simulate(&self, seed: &str) -> Result<Server> {
        let line = dies_with_us(std::path::Path::new(common::TOLLGATE))?;
        let mut command = std::process::Command::new(&line[0]);
        command.args(&line[1..]).arg("simulate").arg("--kafka").arg("--quiet").arg("--alone");
        for url in &self.edge_urls {
            command.args(["--edge", url]);
        }
        command.args(["--billing", &self.billing_url, "--user-state", &self.user_state_url]);
        command.args(["--calls", CALLS, "--rate", "40", "--seed", seed, "--faults", "all"]);
        command.args(["--repeat-after", "2", "--settle", "120"]);
        command.arg("--undelivered").arg(self.dir.path().join("undelivered.jsonl"));
        command.envs(self.kafka_environment.iter().map(|(name, value)| (name, value)));
        Server::start(command, &self.dir.path().join("simulate.log"))
    }

    async fn acknowledged(&self) -> Result<f64> {
        let mut sum = 0.0;
        for edge in &self.edges {
            sum += metric(&edge.metrics().await?, "tollgate_edge_acknowledged_total");
        }
        Ok(sum)
    }

    async fn wait_for_acknowledged(&self, count: f64) -> Result<()> {
        let end = tokio::time::Instant::now() + PATIENCE;
        while self.acknowledged().await? < count {
            ensure!(tokio::time::Instant::now() < end, "fewer than {count} were acknowledged");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

async fn ended(server: &mut Server, patience: Duration) -> Result<(Option<i32>, String)> {
    let end = tokio::time::Instant::now() + patience;
    loop {
        if let Some(status) = server.exited() {
            return Ok((status.code(), server.output()));
        }
        ensure!(tokio::time::Instant::now() < end, "simulator does not end:\n{}", server.output());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// I1, I3, I5, I6, I7, I8: with an edge killed and the broker gone for a while, what was
/// acknowledged is on the topics, in the ledger and in the states, once and with the right values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_billed_twice_when_an_edge_dies_and_the_broker_restarts()
-> Result<()> {
    let mut system = System::start().await?;
    let mut simulator = system.simulate("7")?;

    system.wait_for_acknowledged(300.0).await?;
    system.edges[0].kill();
    system.edges[0].restart().await?;

    let before = system.acknowledged().await?;
    system.wait_for_acknowledged(before + 100.0).await?;
    system.kafka.broker(0).kill();
    // The edges go on answering without it.
    let before = system.acknowledged().await?;
    system.wait_for_acknowledged(before + 20.0).await?;
    system.kafka.broker(0).restart()?;

    let (code, output) = ended(&mut simulator, Duration::from_mins(4)).await?;
    ensure!(
        code == Some(0),
        "the simulator found something ({code:?}):\n{output}\n--- billing\n{}\n--- user-state\n{}\n--- edge-1\n{}",
        tail(&system.billing.log()),
        tail(&system.user_state.log()),
        tail(&system.edges[0].log()),
    );

    let checks = common::get(&format!("{}/v1/checks", system.billing_url)).await?;
    ensure!(checks["consistent"] == true, "ledger and aggregates differ: {checks}");
    no_number_in(&system).await?;
    for process in system.edges.iter_mut().chain([&mut system.billing, &mut system.user_state]) {
        process.stop().await?;
    }
    for edge in ["edge-1", "edge-2"] {
        let dir = system.dir.path().join(edge).display().to_string();
        let report = succeed(&["spool", "verify", "--dir", &dir], &[])?;
        let report: serde_json::Value = serde_json::from_str(&report)?;
        ensure!(report["inspection"]["unconfirmed"] == 0, "{edge} still holds requests: {report}");
    }
    Ok(())
}

/// I12: the simulator's numbers all begin like this, and are in session ids and user data too. None
/// may be in a log or among the metrics.
async fn no_number_in(system: &System) -> Result<()> {
    for process in system.edges.iter().chain([&system.billing, &system.user_state]) {
        for page in [process.log(), process.metrics().await?] {
            let found = page.lines().find(|line| line.contains("86138000"));
            ensure!(found.is_none(), "a phone number is in a log or a metric: {found:?}");
        }
    }
    Ok(())
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
