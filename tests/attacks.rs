//! I11: whatever senders do, the edge's memory stays within `edge.memory_bytes` and a stated base,
//! and honest senders are answered.
//!
//! `make test` runs it small; `scripts/attacks.sh` on the release build and with as many
//! connections as the machine allows. The figures are left in `target/tmp/attacks.md`.

#[path = "attacks/attack.rs"]
mod attack;
#[path = "attacks/attackers.rs"]
mod attackers;
mod common;
#[path = "attacks/scale.rs"]
mod scale;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use attack::Attack;
use attackers::Attackers;
use common::{Process, address, metric, succeed};
use scale::Scale;
use tokio::net::TcpStream;
use tollgate_testkit::{Kafka, KafkaOptions, TestDir, eventually, noise};

const MIB: u64 = 1 << 20;

/// What the process needs beside `edge.memory_bytes`: its code, librdkafka's own buffers, what
/// the allocator keeps back.
const BASE: u64 = 96 * MIB;

/// Longest that an honest sender waits: the platform's own patience is shorter, but here all of it
/// shares two cores with the attackers.
const PATIENCE: Duration = Duration::from_mins(2);

/// Between two looks at how many connections there are.
const LOOK: Duration = Duration::from_millis(50);

struct Target {
    edge: Process,
    address: SocketAddr,
    honest: usize,
}

impl Target {
    /// Peak of the memory since the last call, in bytes.
    fn peak(&self) -> Result<u64> {
        let of_process = format!("/proc/{}", self.edge.id().context("it runs")?);
        let status = std::fs::read_to_string(format!("{of_process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        std::fs::write(format!("{of_process}/clear_refs"), "5")?;
        Ok(kib * 1024)
    }

    /// An honest sender: tries again what was refused for the moment, as the platform does.
    async fn notify(&mut self) -> Result<()> {
        self.honest += 1;
        let url = format!("http://{}/status", self.address);
        let body = format!(
            r#"{{"eventType":"answer","statusInfo":{{"sessionId":"s{}","timestamp":"2026-11-23 07:00:00"}}}}"#,
            self.honest
        );
        let answered = async {
            loop {
                if common::post(&url, body.clone()).await.is_ok_and(|status| status == 200) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.context("an honest sender is not answered")
    }

    /// Lets attackers at it until the honest were answered, and every expensive body was taken;
    /// returns how many connections the edge had at once.
    async fn under(&mut self, attack: &Attack, mut by: Attackers, scale: &Scale) -> Result<u64> {
        let health = self.edge.health();
        let honest = async {
            for _ in 0..scale.honest {
                self.notify().await?;
                tokio::time::sleep(scale.pause).await;
            }
            if matches!(attack, Attack::Body(_)) {
                by.join(PATIENCE).await.context("a body that is within the limits is not taken")
            } else {
                by.go_on()
            }
        };
        let mut most = 0;
        let count = async {
            loop {
                let page = common::metrics(health).await.unwrap_or_default();
                most = most.max(metric(&page, "tollgate_edge_connections") as u64);
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            ended = honest => ended?,
            () = count => {}
        }
        Ok(most)
    }
}

/// I11. Descriptors are bounded as memory is: the spool keeps those that it needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_leave_the_spool_the_files_that_it_opens() -> Result<()> {
    const OPEN_FILES: u32 = 400;
    let dir = TestDir::new("attacks")?;
    let listen = address();
    let environment = [
        ("TOLLGATE_KAFKA__BROKERS", address().to_string()),
        ("TOLLGATE_EDGE__LISTEN", listen.to_string()),
        ("TOLLGATE_SPOOL__DIR", dir.path().join("spool").display().to_string()),
        ("TOLLGATE_EDGE__MAX_BODY_BYTES", "32768".to_owned()),
        ("TOLLGATE_SPOOL__GROUP_BYTES", "65536".to_owned()),
        ("TOLLGATE_SPOOL__SEGMENT_BYTES", "131072".to_owned()),
    ];
    let mut edge =
        Process::start_within(Some(OPEN_FILES), "edge", dir.path(), &["edge"], &environment)
            .await?;
    // On one connection, which it has before the attackers come.
    let honest = reqwest::Client::new();
    let status = format!(
        r#"{{"eventType":"answer","statusInfo":{{"sessionId":"s","userData":"{}"}}}}"#,
        noise(30_000)
    );
    let notify = async || {
        let sent = honest.post(format!("http://{listen}/status")).body(status.clone()).send();
        let answer = sent.await?;
        let status = answer.status().as_u16();
        // Read whole, so that the connection is used again.
        answer.bytes().await?;
        anyhow::Ok(status)
    };
    ensure!(notify().await? == 200);
    let mut attackers = Vec::new();
    for _ in 0..OPEN_FILES {
        attackers.push(TcpStream::connect(listen).await?);
    }
    // Four of them fill a segment, and the attackers are thrown out after some seconds only.
    for _ in 0..40 {
        let status = notify().await?;
        ensure!(status == 200, "{status}:\n{}", edge.output());
    }
    edge.kill();
    let is_segment = |path: &Path| path.extension().is_some_and(|it| it == "segment");
    let spool = std::fs::read_dir(dir.path().join("spool"))?;
    let segments = spool.flatten().filter(|entry| is_segment(&entry.path())).count();
    ensure!(segments > 5, "the spool opened {segments} files");
    Ok(())
}

/// I11. actix-http would read sixteen requests ahead of the one that waits for its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_come_before_the_answer_wait_in_their_connection() -> Result<()> {
    const ATTACKERS: usize = 500;
    let dir = TestDir::new("pipelined")?;
    let listen = address();
    let scale = Scale::small();
    // Nobody there, so that each answer takes the whole deadline.
    let environment = [
        ("TOLLGATE_KAFKA__BROKERS", address().to_string()),
        ("TOLLGATE_EDGE__LISTEN", listen.to_string()),
        ("TOLLGATE_EDGE__ALLOW_WEAK_TOPICS", "true".to_owned()),
        ("TOLLGATE_EDGE__ACK", "delivered".to_owned()),
        ("TOLLGATE_EDGE__DELIVERED_FALLBACK", "false".to_owned()),
        ("TOLLGATE_EDGE__MEMORY_BYTES", scale.memory_bytes.to_string()),
        ("TOLLGATE_EDGE__BODY_BUDGET_BYTES", scale.shared_bytes.to_string()),
        ("TOLLGATE_EDGE__MAX_IN_FLIGHT_BYTES", scale.shared_bytes.to_string()),
        ("TOLLGATE_SPOOL__TAIL_BYTES", scale.shared_bytes.to_string()),
        ("TOLLGATE_SPOOL__DIR", dir.path().join("spool").display().to_string()),
    ];
    let edge = Process::start("edge", dir.path(), &["edge"], &environment).await?;
    let mut target = Target { edge, address: listen, honest: 0 };
    let mut attackers = tokio::task::JoinSet::new();
    for _ in 0..ATTACKERS {
        let stream = TcpStream::connect(listen).await?;
        attackers.spawn(async { Attack::Pipelined.on(stream).await });
    }
    eventually(PATIENCE, async || {
        let answered = metric(&target.edge.metrics().await?, "tollgate_edge_requests_total");
        ensure!(answered >= 3.0 * ATTACKERS as f64, "only {answered} are answered");
        anyhow::Ok(())
    })
    .await;
    let peak = target.peak()?;
    ensure!(peak <= scale.memory_bytes + BASE, "{} MiB are too much memory", peak / MIB);
    attackers.shutdown().await;
    target.edge.kill();
    Ok(())
}

/// Name of the test below.
const TEST: &str = "no_sender_makes_the_edge_exceed_its_memory_or_stops_the_honest";

/// I11.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sender_makes_the_edge_exceed_its_memory_or_stops_the_honest() -> Result<()> {
    if attackers::called().await? {
        return Ok(());
    }
    let scale = Scale::of_environment();
    let dir = TestDir::new("attacks")?;
    let kafka = tokio::task::spawn_blocking(|| Kafka::start(&KafkaOptions::new())).await??;
    let listen = address();
    let shared = scale.shared_bytes.to_string();
    let environment = [
        ("TOLLGATE_KAFKA__BROKERS", kafka.bootstrap()),
        ("TOLLGATE_KAFKA__QUEUE_BYTES", shared.clone()),
        ("TOLLGATE_EDGE__LISTEN", listen.to_string()),
        ("TOLLGATE_EDGE__ALLOW_WEAK_TOPICS", "true".to_owned()),
        ("TOLLGATE_EDGE__MEMORY_BYTES", scale.memory_bytes.to_string()),
        ("TOLLGATE_EDGE__BODY_BUDGET_BYTES", shared.clone()),
        ("TOLLGATE_EDGE__MAX_IN_FLIGHT_BYTES", shared.clone()),
        ("TOLLGATE_SPOOL__TAIL_BYTES", shared),
        ("TOLLGATE_SPOOL__DIR", dir.path().join("spool").display().to_string()),
    ];
    succeed(&["topics", "create", "--replication", "1"], &environment[..1])?;
    let edge = Process::start("edge", dir.path(), &["edge"], &environment).await?;
    let mut target = Target { edge, address: listen, honest: 0 };
    let mut figures = format!(
        "| attack | attackers | connections at once | peak memory, MiB | seconds |\n\
         |--|--|--|--|--|\n| none | 0 | 0 | {} | |\n",
        target.peak()? / MIB
    );
    for (index, (name, wanted, attack)) in scale.attacks().into_iter().enumerate() {
        let begun = std::time::Instant::now();
        let attackers = Attackers::start(TEST, index, wanted, listen, dir.path())?;
        let connections = target.under(&attack, attackers, &scale).await?;
        let peak = target.peak()?;
        let (peak_mib, seconds) = (peak / MIB, begun.elapsed().as_secs());
        writeln!(figures, "| {name} | {wanted} | {connections} | {peak_mib} | {seconds} |")?;
        std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/attacks.md"), &figures)?;
        ensure!(peak <= scale.memory_bytes + BASE, "{name} takes too much memory:\n{figures}");
    }
    target.edge.stop().await?;
    Ok(())
}
