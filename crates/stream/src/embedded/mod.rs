//! A durable partitioned log on local disk, for one process: what `tollgate dev` uses in place
//! of Kafka.
//!
//! ```text
//!  producers ─┐                              ┌▶ consumers: partitions shared among a group's
//!             ├▶ queue ▶ writer: one group,  │   members in this process
//!  relays ────┘          one write, one sync ┼▶ readers without a group
//!                            │               └▶ deliveries, commits
//!                     segment files (all partitions together)
//! ```
//!
//! - A group of requests becomes one frame, is written and synced, and only then confirmed and
//!   shown to readers. So a transaction is there whole or not at all.
//! - Groups are numbered, and each says up to which the log was synced when it was written:
//!   every one before it. At start only the very last can be in doubt; a hole before it is damage,
//!   which is reported (log, metric, [`EmbeddedStream::damage`]), as is what cannot be read, and
//!   never cut away.
//! - Old segments go, oldest first, when the bound is reached and every registered consumer has
//!   applied what they hold, as far as it reported with `Consumer::report_progress`: the report
//!   names what the database has committed. While nothing can go, publishing waits.
//! - The log has one size bound for all topics. It does not compact, and does not look at
//!   `retention.ms`: a reader of a compacted topic sees older values before the latest.
//!
//! It has no network protocol, no replication, and never shares its directory with another
//! process.

mod consumer;
mod cursor;
mod format;
pub(crate) mod fuzz;
mod membership;
mod open;
mod producer;
mod queue;
mod reader;
mod relay;
mod segment;
mod state;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use metrics::{counter, gauge};
use tokio::sync::{oneshot, watch};
use tollgate_spool::disk::{Disk, RealDisk};

use crate::metrics as m;
use crate::settings::EmbeddedSettings;
use crate::{
    Consumer, ConsumerOptions, Deliveries, Producer, ProducerKind, ReadFrom, Relay, Stream,
    StreamError, TopicDescription, TopicPartition, TopicReader, TopicSpec, now_ms,
};

pub use state::Damage;

use format::{StoredGroup, StoredTopic};
use membership::Members;
use queue::{Control, Queue, Request};
use state::State;
use writer::Writer;

/// Where the log is and what it runs on.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Directory and bounds.
    pub settings: EmbeddedSettings,
    /// The file layer; tests give one that fails.
    pub disk: Arc<dyn Disk>,
}

impl EmbeddedOptions {
    /// On the machine's disk.
    pub fn new(settings: EmbeddedSettings) -> Self {
        Self { settings, disk: Arc::new(RealDisk) }
    }
}

/// What producers, relays, consumers, readers and the writer share.
struct Shared {
    options: EmbeddedOptions,
    state: Mutex<State>,
    members: Mutex<HashMap<String, Members>>,
    queue: Queue,
    /// Changes whenever there may be something new for a consumer or a reader.
    version: watch::Sender<u64>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under this lock leaves the state whole, so a panic elsewhere does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members(&self) -> MutexGuard<'_, HashMap<String, Members>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    async fn control(
        &self,
        topics: Vec<StoredTopic>,
        groups: Vec<StoredGroup>,
        forgotten: Vec<String>,
    ) -> Result<(), StreamError> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Request::Control(Control { topics, groups, forgotten, reply }));
        answer
            .await
            .unwrap_or_else(|_| Err(StreamError::Transient("embedded log is closed".to_owned())))
    }
}

/// The embedded log. Dropping it writes what waits, and closes it; its producers and consumers
/// are of no use after that.
#[derive(Debug)]
pub struct EmbeddedStream {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl EmbeddedStream {
    /// Opens the log of a directory, or makes it. Reads all of it, so it takes about a second per
    /// gigabyte; call it where blocking is allowed.
    ///
    /// Fails when another process has the directory, when no segment can be read, and when the
    /// disk fails. Damage to some records is no failure: see [`EmbeddedStream::damage`].
    pub fn open(options: EmbeddedOptions) -> Result<Arc<Self>, StreamError> {
        if options.settings.max_bytes / 4 < options.settings.segment_bytes {
            let message = "max_bytes must be at least four times segment_bytes";
            return Err(StreamError::Fatal(message.to_owned()));
        }
        let dir = &options.settings.dir;
        let fatal = |what: &str, error: std::io::Error| {
            StreamError::Fatal(format!("{what} {}: {error}", dir.display()))
        };
        options.disk.create_dir(dir).map_err(|error| fatal("can not create", error))?;
        let lock = options.disk.lock_dir(dir).map_err(|error| {
            fatal("another process uses the embedded log; stop it, or set another dir than", error)
        })?;
        let opened = open::open(&*options.disk, &options, now_ms())?;
        counter!(m::EMBEDDED_DAMAGE.name).increment(opened.state.damage.len() as u64);
        gauge!(m::EMBEDDED_BYTES.name).set(opened.state.bytes() as f64);

        let disk = Arc::clone(&options.disk);
        let shared = Arc::new(Shared {
            options,
            state: Mutex::new(opened.state),
            members: Mutex::default(),
            queue: Queue::default(),
            version: watch::Sender::new(0),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            disk,
            next_number: opened.active.file.number + 1,
            active: Some(opened.active),
            // What was written again at the start may be records.
            unsettled: true,
            _lock: lock,
        };
        let writer = std::thread::Builder::new()
            .name("embedded-log".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StreamError::Fatal(format!("can not start a thread: {error}")))?;
        Ok(Arc::new(Self { shared, writer: Some(writer) }))
    }

    /// Confirmed records that could not be read when the log was opened or since.
    pub fn damage(&self) -> Vec<Damage> {
        self.shared.state().damage.clone()
    }

    /// Bytes that the log takes on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.state().bytes()
    }

    /// Why publishing waits or fails at the moment, for a person.
    pub fn trouble(&self) -> Option<String> {
        self.shared.state().trouble.clone()
    }

    /// Takes all groups off the register but these, so that the others hold no records back any
    /// more; returns their names. Waits until these are on it: what the others have not read may
    /// be new to one of these.
    pub async fn keep_groups(&self, kept: &[&str]) -> Result<Vec<String>, StreamError> {
        let mut version = self.shared.version.subscribe();
        let others = loop {
            let mut groups = self.groups();
            if kept.iter().all(|group| groups.iter().any(|known| known == group)) {
                groups.retain(|group| !kept.contains(&group.as_str()));
                break groups;
            }
            // Its sender lives as long as this.
            let _ = version.changed().await;
        };
        if !others.is_empty() {
            self.shared.control(Vec::new(), Vec::new(), others.clone()).await?;
            self.shared.queue.nudge();
        }
        Ok(others)
    }

    /// The registered groups.
    pub fn groups(&self) -> Vec<String> {
        self.shared.state().groups.keys().cloned().collect()
    }
}

impl Drop for EmbeddedStream {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the embedded log has panicked");
        }
    }
}

#[async_trait]
impl Stream for EmbeddedStream {
    async fn cluster_id(&self) -> Result<String, StreamError> {
        Ok(self.shared.state().cluster_id.clone())
    }

    fn producer(
        &self,
        kind: ProducerKind,
        deliveries: Arc<dyn Deliveries>,
    ) -> Result<Arc<dyn Producer>, StreamError> {
        Ok(Arc::new(producer::EmbeddedProducer::new(Arc::clone(&self.shared), kind, deliveries)))
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Box<dyn Consumer>, StreamError> {
        Ok(Box::new(consumer::EmbeddedConsumer::join(Arc::clone(&self.shared), options).await?))
    }

    async fn relay(&self, id: &str) -> Result<Box<dyn Relay>, StreamError> {
        Ok(Box::new(relay::EmbeddedRelay::take(Arc::clone(&self.shared), id).await?))
    }

    async fn reader(
        &self,
        topics: &[&str],
        from: ReadFrom,
    ) -> Result<Box<dyn TopicReader>, StreamError> {
        Ok(Box::new(reader::EmbeddedReader::open(Arc::clone(&self.shared), topics, from)?))
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), StreamError> {
        let state = self.shared.state();
        let log = state.partition(partition);
        log.map(|log| (log.low, log.next))
            .ok_or_else(|| StreamError::Transient(format!("{partition} does not exist")))
    }

    async fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<String>, StreamError> {
        if let Some(bad) = topics.iter().find(|spec| !(1..=10_000).contains(&spec.partitions)) {
            return Err(StreamError::Refused(format!(
                "topic {} must have 1 to 10000 partitions",
                bad.name
            )));
        }
        let missing: Vec<StoredTopic> = {
            let state = self.shared.state();
            let missing = topics.iter().filter(|spec| !state.topics.contains_key(&*spec.name));
            missing.map(StoredTopic::from).collect()
        };
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let names = missing.iter().map(|topic| topic.name.clone()).collect();
        self.shared.control(missing, Vec::new(), Vec::new()).await?;
        Ok(names)
    }

    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>, StreamError> {
        let state = self.shared.state();
        Ok(names.iter().filter_map(|name| state.describe(name)).collect())
    }
}
