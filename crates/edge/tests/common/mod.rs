//! A whole edge on a real port, over the embedded log, in temporary directories.

#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]

pub mod bodies;
pub mod double;
pub mod raw;
pub mod topics;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tollgate_edge::{Application, Counts, Edge, EdgeError, Running, Settings, Watch};
use tollgate_runtime::Health;
use tollgate_spool::disk::{Disk, FaultyDisk, RealDisk};
use tollgate_stream::embedded::{EmbeddedOptions, EmbeddedStream};
use tollgate_stream::settings::EmbeddedSettings;
use tollgate_stream::{Stream, TopicSpec};

pub use double::{Double, Mode, Report};
pub use raw::{Answer, Raw, post};
pub use topics::Topics;

/// What the platform must read.
pub const SUCCESS: &str = r#"{"resultcode":"0","resultdesc":"Success"}"#;

/// The answer's content type.
pub const CONTENT_TYPE: &str = "application/json;charset=UTF-8";

/// Longer than anything here takes, unless it never comes.
pub const LONG: Duration = Duration::from_mins(1);

/// Directories, the stream, and what the next edge is started with.
pub struct Bench {
    dir: TempDir,
    pub stream: Arc<Double>,
    pub settings: Settings,
    pub spool: tollgate_spool::Settings,
    pub applications: Vec<Application>,
    pub disk: Arc<dyn Disk>,
}

/// A disk whose syncs do not end until this is dropped, also by a test that fails.
pub struct Held(FaultyDisk);

impl Held {
    pub fn syncs(disk: &FaultyDisk) -> Self {
        disk.hold_syncs();
        Self(disk.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.release_syncs();
    }
}

/// A running edge.
pub struct Node {
    pub address: SocketAddr,
    pub health: Health,
    pub watch: Watch,
    stop: CancellationToken,
    running: Running,
}

impl Bench {
    pub async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let log = EmbeddedSettings {
            dir: dir.path().join("stream"),
            segment_bytes: 16 << 20,
            max_bytes: 256 << 20,
        };
        // In memory: these tests are not about its disk, whose pauses would count as Kafka's.
        let disk = Arc::new(FaultyDisk::new(1));
        let log = EmbeddedStream::open(EmbeddedOptions { settings: log, disk }).unwrap();
        log.create_topics(&TopicSpec::catalogue(Some(1))).await.unwrap();
        let spool = tollgate_spool::Settings {
            dir: dir.path().join("spool"),
            segment_bytes: 4 << 20,
            max_bytes: 64 << 20,
            group_bytes: 4 << 20,
            ..tollgate_spool::Settings::default()
        };
        let settings = Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            edge_id: "edge-1".into(),
            workers: 2,
            allow_weak_topics: true,
            flush_deadline_ms: 10_000,
            ..Settings::default()
        };
        Self {
            dir,
            stream: Double::over(log),
            settings,
            spool,
            applications: Vec::new(),
            disk: Arc::new(RealDisk),
        }
    }

    /// A spool of half a mebibyte and bodies of 64 KiB at most, so that bounds are soon reached.
    pub fn make_small(&mut self) {
        self.settings.max_body_bytes = 64 << 10;
        self.spool.segment_bytes = 128 << 10;
        self.spool.group_bytes = 128 << 10;
        self.spool.max_bytes = 512 << 10;
    }

    pub fn try_start(&self) -> Result<Node, EdgeError> {
        let stop = CancellationToken::new();
        let health = Health::default();
        health.started();
        let edge = Edge {
            settings: self.settings.clone(),
            spool: self.spool.clone(),
            applications: self.applications.clone(),
            stream: Arc::clone(&self.stream) as _,
            disk: Arc::clone(&self.disk),
            health: health.clone(),
        };
        let running = edge.start(stop.clone())?;
        Ok(Node { address: running.address, health, watch: running.watch(), stop, running })
    }

    pub fn start(&self) -> Node {
        self.try_start().unwrap()
    }

    /// Everything on the topics now.
    pub async fn topics(&self) -> Topics {
        Topics::read(self.stream.log().as_ref()).await
    }

    /// Puts a secret into a file.
    pub fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Node {
    pub async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        let mut raw = Raw::connect(self.address).await;
        raw.write(&post(path, body.as_ref())).await;
        raw.answer().await
    }

    /// Posts, and expects it to be taken.
    pub async fn give(&self, path: &str, body: impl AsRef<[u8]>) {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    pub fn counts(&self) -> Counts {
        self.watch.counts()
    }

    /// Waits until nothing of what was answered is unconfirmed.
    pub async fn settled(&self) {
        eventually("everything is published", || self.watch.spool_usage().records == 0).await;
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.running.stopped().await.unwrap();
    }

    pub fn begin_to_stop(&self) {
        self.stop.cancel();
    }
}

pub fn application(name: &str) -> Application {
    Application {
        name: name.into(),
        app_key: format!("key-{name}"),
        service: None,
        path_secret: None,
        path_secret_file: None,
        app_secret_file: None,
        enforce_authentication: false,
        ack: None,
        utc_offset_minutes: 0,
    }
}

pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + LONG;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
