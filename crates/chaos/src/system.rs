//! The system of one schedule: servers, processes, and the network between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use tollgate_testkit::{Kafka, Postgres, PostgresOptions, run};

use crate::clock;
use crate::links::Links;
use crate::process::{Process, Program, address};
use crate::schedule::{BROKERS, Node, Schedule};
use crate::server::Orders;
use crate::tmpfs::Tmpfs;

/// Small, so that a run fills several: a segment's room is reserved when it is created, and only
/// the next one feels that the disk is full.
const SEGMENT_BYTES: &str = "131072";
const GROUP_BYTES: &str = "131072";
/// The largest that fits into a segment with its headers.
const BODY_BYTES: &str = "90000";
/// Less than a segment, so that what waits is read from disk again.
const TAIL_BYTES: &str = "65536";
/// Fits into the small file system.
const SPOOL_BYTES: &str = "12582912";

/// Everything that one schedule needs.
pub struct System {
    pub processes: BTreeMap<Node, Process>,
    pub links: Links,
    /// One for each broker.
    pub kafka: Vec<Orders<Arc<Kafka>>>,
    pub postgres: Orders<Arc<Postgres>>,
    pub clocks: BTreeMap<Node, PathBuf>,
    /// File system of edge 2's spool.
    pub tmpfs: Option<Tmpfs>,
    pub spools: BTreeMap<Node, PathBuf>,
    /// Where the edges listen, past the proxies.
    pub listens: BTreeMap<Node, SocketAddr>,
    pub billing_url: String,
    pub user_state_url: String,
    /// Past all proxies.
    pub brokers: String,
    /// Name of the database.
    pub database: String,
    pub binary: PathBuf,
    cluster: Arc<Kafka>,
    databases: Arc<Postgres>,
}

impl System {
    /// Starts everything and waits until all are ready. `dir` takes logs and spools.
    pub async fn start(schedule: &Schedule, binary: &Path, dir: &Path) -> Result<Self> {
        let links = Links::open().await?;
        let options = links
            .kafka()
            .property("num.network.threads", "1")
            // A busy machine must not look like a dead broker.
            .property("broker.session.timeout.ms", "6000")
            .property("broker.heartbeat.interval.ms", "1000")
            .property("controller.quorum.fetch.timeout.ms", "4000")
            .property("initial.broker.registration.timeout.ms", "300000")
            .property("group.consumer.session.timeout.ms", "6000")
            .property("group.consumer.heartbeat.interval.ms", "1000");
        let (kafka, postgres) = tokio::task::spawn_blocking(move || {
            let postgres = std::thread::spawn(|| Postgres::start(&PostgresOptions::new()));
            let kafka = Kafka::start(&options)?;
            let postgres = postgres.join().ok().context("starting PostgreSQL panicked")??;
            anyhow::Ok((Arc::new(kafka), Arc::new(postgres)))
        })
        .await??;
        links.lead_to(&kafka, postgres.port());
        let url = postgres.create_database("tollgate")?;
        let database = url.rsplit('/').next().unwrap_or_default().to_owned();
        let mut system = Self {
            processes: BTreeMap::new(),
            links,
            kafka: (0..BROKERS).map(|_| Orders::to(Arc::clone(&kafka))).collect(),
            postgres: Orders::to(Arc::clone(&postgres)),
            clocks: BTreeMap::new(),
            tmpfs: None,
            spools: BTreeMap::new(),
            listens: BTreeMap::new(),
            billing_url: String::new(),
            user_state_url: String::new(),
            brokers: kafka.bootstrap(),
            database,
            binary: binary.to_owned(),
            cluster: kafka,
            databases: postgres,
        };
        system.prepare(&url)?;
        for node in Node::ALL {
            let environment = system.environment(node, schedule, dir)?;
            let log = dir.join(format!("{}.log", node.name()));
            let command = match node {
                Node::Edge1 | Node::Edge2 => "edge",
                Node::Billing1 | Node::Billing2 => "billing",
                Node::UserState1 | Node::UserState2 => "user-state",
            };
            let program =
                Program { name: node.name(), binary: binary.to_owned(), command, environment, log };
            let mut process = Process::new(program);
            process.start()?;
            system.processes.insert(node, process);
        }
        for process in system.processes.values_mut() {
            process.ready().await?;
        }
        Ok(system)
    }

    /// Topics as the catalogue wants them, and a tariff.
    fn prepare(&self, url: &str) -> Result<()> {
        let environment =
            [("TOLLGATE_KAFKA__BROKERS", self.brokers.as_str()), ("TOLLGATE_DATABASE__URL", url)];
        self.tollgate(&["topics", "create"], &environment)?;
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../rating/tariffs/sample.toml");
        self.tollgate(&["tariff", "activate", sample, "--from", "beginning"], &environment)?;
        Ok(())
    }

    /// Runs a command of the binary to its end and returns what it printed.
    pub fn tollgate(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<String> {
        run(Command::new(&self.binary).args(arguments).envs(environment.iter().copied()))
    }

    fn environment(
        &mut self,
        node: Node,
        schedule: &Schedule,
        dir: &Path,
    ) -> Result<Vec<(String, String)>> {
        let mut environment = vec![
            ("TOLLGATE_KAFKA__BROKERS", self.links.bootstrap(node)),
            ("TOLLGATE_KAFKA__CLIENT_ID", node.name().to_owned()),
            ("TOLLGATE_KAFKA__REQUEST_TIMEOUT_MS", "3000".to_owned()),
            ("TOLLGATE_KAFKA__OPERATION_TIMEOUT_MS", "5000".to_owned()),
        ];
        if node.is_edge() {
            environment.extend(self.edge(node, schedule, dir)?);
        } else {
            environment.extend(self.consumer(node, schedule));
        }
        let clock = dir.join(format!("{}.clock", node.name()));
        if let Some(library) = clock::library() {
            std::fs::write(&clock, "+0\n")?;
            environment.extend([
                ("LD_PRELOAD", library),
                ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
                // Read anew each second; clocks that only count are left alone.
                ("FAKETIME_CACHE_DURATION", "1".to_owned()),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
                ("FAKETIME_NO_CACHE", "0".to_owned()),
            ]);
            self.clocks.insert(node, clock);
        }
        Ok(environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn edge(
        &mut self,
        node: Node,
        schedule: &Schedule,
        dir: &Path,
    ) -> Result<Vec<(&'static str, String)>> {
        let listen = address();
        self.links.lead_to_edge(node, listen.port());
        self.listens.insert(node, listen);
        let mut spool = dir.join(node.name());
        std::fs::create_dir(&spool)?;
        if node == Node::Edge2
            && let Ok(tmpfs) = Tmpfs::mount(&spool, &dir.join("mount.log"))
        {
            spool = tmpfs.path().join("spool");
            self.tmpfs = Some(tmpfs);
        }
        self.spools.insert(node, spool.clone());
        let is_delivered = node == Node::Edge2 && schedule.delivered;
        let ack = if is_delivered { "delivered" } else { "spooled" };
        Ok(vec![
            ("TOLLGATE_EDGE__LISTEN", listen.to_string()),
            ("TOLLGATE_EDGE__EDGE_ID", node.name().to_owned()),
            ("TOLLGATE_EDGE__ACK", ack.to_owned()),
            ("TOLLGATE_EDGE__FLUSH_DEADLINE_MS", "2000".to_owned()),
            ("TOLLGATE_EDGE__HEAD_DEADLINE_MS", "2000".to_owned()),
            ("TOLLGATE_EDGE__BODY_DEADLINE_MS", "3000".to_owned()),
            ("TOLLGATE_SPOOL__DIR", spool.display().to_string()),
            ("TOLLGATE_SPOOL__SEGMENT_BYTES", SEGMENT_BYTES.to_owned()),
            ("TOLLGATE_SPOOL__GROUP_BYTES", GROUP_BYTES.to_owned()),
            ("TOLLGATE_SPOOL__TAIL_BYTES", TAIL_BYTES.to_owned()),
            ("TOLLGATE_EDGE__MAX_BODY_BYTES", BODY_BYTES.to_owned()),
            ("TOLLGATE_SPOOL__MAX_BYTES", SPOOL_BYTES.to_owned()),
        ])
    }

    fn consumer(&mut self, node: Node, schedule: &Schedule) -> Vec<(&'static str, String)> {
        let query = address();
        match node {
            Node::Billing1 => self.billing_url = format!("http://{query}"),
            Node::UserState1 => self.user_state_url = format!("http://{query}"),
            _ => {}
        }
        let port = self.links.database(node).unwrap_or_default();
        let database = format!("postgres://tollgate@127.0.0.1:{port}/{}", self.database);
        let protocol = if schedule.new_protocol { "consumer" } else { "classic" };
        let mut settings = vec![
            ("TOLLGATE_DATABASE__URL", database),
            ("TOLLGATE_DATABASE__CONNECT_TIMEOUT_MS", "3000".to_owned()),
            ("TOLLGATE_DATABASE__STATEMENT_TIMEOUT_MS", "10000".to_owned()),
            ("TOLLGATE_DATABASE__IDLE_IN_TRANSACTION_TIMEOUT_MS", "2000".to_owned()),
            ("TOLLGATE_DATABASE__LOCK_TIMEOUT_MS", "4000".to_owned()),
            ("TOLLGATE_LISTENERS__QUERY", query.to_string()),
            ("TOLLGATE_KAFKA__GROUP_PROTOCOL", protocol.to_owned()),
            ("TOLLGATE_KAFKA__SESSION_TIMEOUT_MS", "6000".to_owned()),
            ("TOLLGATE_KAFKA__TRANSACTION_TIMEOUT_MS", "10000".to_owned()),
            ("TOLLGATE_KAFKA__CLOSE_TIMEOUT_MS", "3000".to_owned()),
            ("TOLLGATE_CONSUMER__RETRY_MAX_MS", "1000".to_owned()),
            ("TOLLGATE_CONSUMER__RECLAIM_AFTER_MS", "2000".to_owned()),
        ];
        if schedule.static_members {
            settings.push(("TOLLGATE_CONSUMER__INSTANCE_ID", node.name().to_owned()));
        }
        settings
    }

    /// Runs SQL past all proxies.
    pub fn sql(&self, statement: &str) -> Result<String> {
        self.databases.sql(&self.database, statement)
    }

    /// Where an edge takes notifications, past all proxies.
    pub fn edge_url(&self, edge: Node) -> String {
        self.listens.get(&edge).map(|listen| format!("http://{listen}")).unwrap_or_default()
    }

    /// The database server.
    pub fn databases(&self) -> Arc<Postgres> {
        Arc::clone(&self.databases)
    }

    /// How often another node has become the active controller since the first one.
    pub fn controllers(&self) -> u64 {
        self.cluster.elections().saturating_sub(1) as u64
    }

    /// Writes down what the brokers have logged since their last start.
    pub fn keep_broker_logs(&self, dir: &Path) {
        for number in 0..usize::from(BROKERS) {
            let log = self.cluster.broker(number).log();
            let _ = std::fs::write(dir.join(format!("broker-{number}.log")), log);
        }
    }
}
