//! I11: whatever senders do, the edge's memory stays within `edge.memory_bytes` and a stated base,
//! and honest senders are answered.
//!
//! `make test` runs it small; `scripts/attacks.sh` on the release build and with as many
//! connections as the machine allows. The figures are left in `target/tmp/attacks.md`.

mod common;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{Process, address, succeed};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tollgate_testkit::{Kafka, KafkaOptions, TestDir};

const MIB: u64 = 1 << 20;

/// What the process needs beside `edge.memory_bytes`: its code, librdkafka's own buffers, what
/// the allocator keeps back.
const BASE: u64 = 96 * MIB;

/// Longest that an honest sender waits: the platform's own patience is shorter, but here all of it
/// shares two cores with the attackers.
const PATIENCE: Duration = Duration::from_mins(2);

/// What every attacker does on each of its connections.
#[derive(Debug, Clone)]
enum Attack {
    /// Connects, and says nothing.
    Idle,
    /// A head that never ends.
    SlowHead,
    /// A body that comes a little at a time.
    SlowBody,
    /// A body of 1 GiB, announced.
    Huge,
    /// A body without end, in chunks of this size.
    Chunks(usize),
    /// A body that is within the limit, and meant to be expensive.
    Body(Arc<String>),
}

impl Attack {
    /// Returns whether it has reached its aim: a body is taken. The others have none.
    async fn on(&self, mut stream: TcpStream) -> std::io::Result<bool> {
        match self {
            Self::Idle => {}
            Self::SlowHead => {
                stream.write_all(b"POST /status HTTP/1.1\r\nX-Slow: ").await?;
                loop {
                    stream.write_all(b"a").await?;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
            Self::SlowBody => {
                stream.write_all(&head("Content-Length: 1048576")).await?;
                for _ in 0..1024 {
                    stream.write_all(&[b' '; 1024]).await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Self::Huge => {
                stream.write_all(&head("Content-Length: 1073741824")).await?;
                let some = " ".repeat(65536);
                loop {
                    stream.write_all(some.as_bytes()).await?;
                }
            }
            Self::Chunks(size) => {
                stream.write_all(&head("Transfer-Encoding: chunked")).await?;
                // Of small ones as many as can be.
                let extension = if *size > 1 { ";an=extension" } else { "" };
                let mut chunk = format!("{size:x}{extension}\r\n").into_bytes();
                chunk.resize(chunk.len() + size, b' ');
                chunk.extend_from_slice(b"\r\n");
                let many = chunk.repeat(65536 / chunk.len() + 1);
                loop {
                    stream.write_all(&many).await?;
                }
            }
            Self::Body(body) => {
                let length = format!("Connection: close\r\nContent-Length: {}", body.len());
                stream.write_all(&head(&length)).await?;
                stream.write_all(body.as_bytes()).await?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await?;
                let answer = String::from_utf8_lossy(&answer);
                // Refused for the moment, or because a machine with so much to do is too slow.
                let answers = ["HTTP/1.1 200 ", "HTTP/1.1 503 ", "HTTP/1.1 408 "];
                assert!(answers.iter().any(|it| answer.starts_with(it)), "{answer}");
                return Ok(answer.starts_with(answers[0]));
            }
        }
        stream.read_to_end(&mut Vec::new()).await?;
        Ok(false)
    }
}

fn head(headers: &str) -> Vec<u8> {
    format!("POST /fee HTTP/1.1\r\nHost: edge\r\n{headers}\r\n\r\n").into_bytes()
}

/// How large it all is.
struct Scale {
    memory_bytes: u64,
    shared_bytes: u64,
    idle: usize,
    slow: usize,
    large: usize,
    bodies: usize,
    /// Honest notifications that must be answered 200 during each attack, one after the other.
    honest: usize,
    /// Between two of them.
    pause: Duration,
}

impl Scale {
    fn small() -> Self {
        let (memory_bytes, shared_bytes) = (256 * MIB, 32 * MIB);
        Self {
            memory_bytes,
            shared_bytes,
            idle: 700,
            slow: 400,
            large: 250,
            bodies: 8,
            honest: 10,
            pause: Duration::from_millis(100),
        }
    }

    fn full() -> Self {
        // Admits 22,000 connections, more than a process here may have files open.
        let (memory_bytes, shared_bytes) = (6 * 1024 * MIB, 64 * MIB);
        Self {
            memory_bytes,
            shared_bytes,
            idle: 10_000,
            slow: 25_000,
            large: 1_000,
            bodies: 400,
            honest: 60,
            pause: Duration::from_millis(500),
        }
    }

    fn attacks(&self) -> Vec<(&'static str, usize, Attack)> {
        let nested = "[".repeat(500_000) + &"]".repeat(500_000);
        let body = |text: String| Attack::Body(Arc::new(text));
        let fee = |item: &str| format!(r#"{{"eventType":"fee","feeLst":[{item}]}}"#);
        let long = "x".repeat(1_000_000);
        let item = format!(r#"{{"sessionId":"{long}","appKey":"app"}}"#);
        let status = format!(r#"{{"eventType":"answer","statusInfo":{{"userData":"{long}"}}}}"#);
        vec![
            ("idle connections", self.idle, Attack::Idle),
            ("slow heads", self.slow, Attack::SlowHead),
            ("slow bodies of 1 MiB", self.slow, Attack::SlowBody),
            ("bodies of 1 GiB", self.large, Attack::Huge),
            ("endless chunks of 64 KiB", self.large, Attack::Chunks(65536)),
            ("endless chunks of one byte", self.large, Attack::Chunks(1)),
            ("nested 500,000 deep", self.bodies, body(nested.clone())),
            (
                "a record nested 500,000 deep",
                self.bodies,
                body(fee(&format!(r#"{{"a":{nested}}}"#))),
            ),
            ("a session of 1 MB", self.bodies, body(fee(&item))),
            ("userData of 1 MB", self.bodies, body(status)),
            (
                "349,000 empty items",
                self.bodies,
                body(fee(&format!("{}{{}}", "{},".repeat(348_999)))),
            ),
        ]
    }
}

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
    /// returns how many connections there were at once.
    async fn under(&mut self, attack: &Attack, connections: usize, scale: &Scale) -> Result<usize> {
        let (open, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let mut attackers = JoinSet::new();
        for _ in 0..connections {
            let (attack, address) = (attack.clone(), self.address);
            let (open, most) = (Arc::clone(&open), Arc::clone(&most));
            attackers.spawn(async move {
                loop {
                    if let Ok(stream) = TcpStream::connect(address).await {
                        most.fetch_max(open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                        let is_done = attack.on(stream).await.unwrap_or(false);
                        open.fetch_sub(1, Ordering::Relaxed);
                        if is_done {
                            return;
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        for _ in 0..scale.honest {
            self.notify().await?;
            tokio::time::sleep(scale.pause).await;
        }
        if matches!(attack, Attack::Body(_)) {
            let taken = tokio::time::timeout(PATIENCE, attackers.join_all()).await;
            taken.context("a body that is within the limits is not taken")?;
        }
        Ok(most.load(Ordering::Relaxed))
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
        "x".repeat(30_000)
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
    Ok(())
}

/// As many connections as this process may have, and leaves some for the rest of it.
fn affordable(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let most = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| most as usize);
    wanted.min(most.saturating_sub(512))
}

/// I11.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sender_makes_the_edge_exceed_its_memory_or_stops_the_honest() -> Result<()> {
    let is_full = std::env::var("ATTACKS").is_ok_and(|scale| scale == "full");
    let scale = if is_full { Scale::full() } else { Scale::small() };
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
        "| attack | connections at once | peak memory, MiB | seconds |\n\
         |--|--|--|--|\n| none | 0 | {} | |\n",
        target.peak()? / MIB
    );
    for (name, wanted, attack) in scale.attacks() {
        let begun = std::time::Instant::now();
        let connections = target.under(&attack, affordable(wanted), &scale).await?;
        let peak = target.peak()?;
        let (peak_mib, seconds) = (peak / MIB, begun.elapsed().as_secs());
        writeln!(figures, "| {name} | {connections} | {peak_mib} | {seconds} |")?;
        std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/attacks.md"), &figures)?;
        ensure!(peak <= scale.memory_bytes + BASE, "{name} takes too much memory:\n{figures}");
    }
    target.edge.stop().await?;
    Ok(())
}
