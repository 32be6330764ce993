//! Reads topics without a group.
//!
//! ```text
//!  thread: librdkafka ──▶ bounded channel ──▶ next()
//! ```
//!
//! The records' own thread makes `next` safe to give up at any time: what was not taken stays in
//! the channel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use tokio::sync::mpsc;
use tollgate_stream::{Incoming, ReadFrom, StreamError, TopicPartition, TopicReader};

use crate::context::{Common, Context, Role};
use crate::settings::Settings;
use crate::trouble::{Trouble, code_of};
use crate::{config, convert};

/// Records that wait between the thread and `next`.
const CHANNEL: usize = 512;
const SLICE: Duration = Duration::from_millis(100);
/// A reader that is behind looks whether there is anything left for it when nothing has come for
/// so long; a look costs a client of its own.
const QUIET: Duration = Duration::from_millis(500);
/// There is something left, and it has not come for so long: the reading begins anew where it
/// stands. A client can miss that its brokers are back.
const STUCK: Duration = Duration::from_secs(5);

/// Marks the context of a consumer that assigns itself.
pub struct Unmanaged;

impl ConsumerContext for Context<Unmanaged> {}

type Client = BaseConsumer<Context<Unmanaged>>;

/// See the module's description.
pub struct KafkaReader {
    records: Records,
    watch: Watch,
    /// Offset after the last record returned.
    positions: BTreeMap<TopicPartition, i64>,
    /// Up to here nothing is left to read, although the position is lower: markers of
    /// transactions take offsets too.
    read_up_to: BTreeMap<TopicPartition, i64>,
    /// When the last record was returned, or the reading began.
    last_record: Instant,
}

type Records = mpsc::Receiver<Result<Incoming, StreamError>>;

/// Asks about ends of partitions, through the client that reads.
struct Watch {
    client: Arc<Client>,
    /// For the client that reads.
    reader: ClientConfig,
    /// For clients that look for markers.
    probe: ClientConfig,
    common: Arc<Common>,
    timeout: Duration,
}

impl KafkaReader {
    /// Starts to read. `partitions` are all those of the topics asked for.
    pub async fn open(
        base: &ClientConfig,
        settings: &Settings,
        common: &Arc<Common>,
        partitions: Vec<TopicPartition>,
        from: ReadFrom,
    ) -> Result<Self, StreamError> {
        let reader = config::reader(base, settings);
        let client: Client = reader
            .create_with_context(Context::new(Role::Reader, common, Unmanaged))
            .map_err(|error| StreamError::Fatal(error.to_string()))?;
        let watch = Watch {
            client: Arc::new(client),
            reader,
            probe: config::probe(base, settings),
            common: Arc::clone(common),
            timeout: Duration::from_millis(settings.operation_timeout_ms.into()),
        };
        let ends = watch.ends(partitions).await?;
        let positions: BTreeMap<TopicPartition, i64> = ends
            .into_iter()
            .map(|(partition, (low, high))| match from {
                ReadFrom::Earliest => (partition, low),
                ReadFrom::Latest => (partition, high),
            })
            .collect();

        let records = read(&watch.client, &positions)?;
        let read_up_to = BTreeMap::new();
        Ok(Self { records, watch, positions, read_up_to, last_record: Instant::now() })
    }

    /// Reads on with another client.
    fn begin_anew(&mut self) -> Result<(), StreamError> {
        tracing::warn!("a reader gets nothing although there is something; it begins anew");
        let context = Context::new(Role::Reader, &self.watch.common, Unmanaged);
        let client: Client = self
            .watch
            .reader
            .create_with_context(context)
            .map_err(|error| StreamError::Fatal(error.to_string()))?;
        self.watch.client = Arc::new(client);
        self.records = read(&self.watch.client, &self.positions)?;
        self.last_record = Instant::now();
        Ok(())
    }

    fn note(&mut self, record: &Incoming) {
        self.positions.insert(record.partition.clone(), record.offset + 1);
    }
}

#[async_trait]
impl TopicReader for KafkaReader {
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Incoming>, StreamError> {
        let Ok(first) = tokio::time::timeout(wait, self.records.recv()).await else {
            return Ok(Vec::new());
        };
        let Some(first) = first else {
            return Err(StreamError::Transient("the reader's thread has ended: open anew".into()));
        };
        let mut taken = vec![first?];
        while taken.len() < max {
            match self.records.try_recv() {
                Ok(Ok(record)) => taken.push(record),
                // Errors repeat; the records in hand go first.
                Ok(Err(_)) | Err(_) => break,
            }
        }
        for record in &taken {
            self.note(record);
        }
        self.last_record = Instant::now();
        Ok(taken)
    }

    async fn caught_up(&mut self) -> Result<bool, StreamError> {
        let partitions = self.positions.keys().cloned().collect();
        let ends = self.watch.ends(partitions).await?;
        let behind: BTreeMap<TopicPartition, i64> = ends
            .into_iter()
            .filter(|(partition, (_, high))| {
                let position = self.positions.get(partition).copied().unwrap_or(0);
                let known = self.read_up_to.get(partition).copied().unwrap_or(0);
                position.max(known) < *high
            })
            .map(|(partition, (_, high))| (partition, high))
            .collect();
        if behind.is_empty() {
            return Ok(true);
        }
        if !self.records.is_empty() || self.last_record.elapsed() < QUIET {
            return Ok(false);
        }
        // Perhaps there is nothing but markers between here and the end.
        let from: Vec<(TopicPartition, i64)> = behind
            .keys()
            .map(|partition| {
                (partition.clone(), self.positions.get(partition).copied().unwrap_or(0))
            })
            .collect();
        let nothing_left = self.watch.without_records(from).await?;
        for (partition, high) in &behind {
            if nothing_left.contains(partition) {
                self.read_up_to.insert(partition.clone(), *high);
            }
        }
        let caught_up = behind.keys().all(|partition| nothing_left.contains(partition));
        if !caught_up && self.records.is_empty() && self.last_record.elapsed() > STUCK {
            self.begin_anew()?;
        }
        Ok(caught_up)
    }
}

/// Starts the thread that reads from these positions on.
fn read(
    client: &Arc<Client>,
    positions: &BTreeMap<TopicPartition, i64>,
) -> Result<Records, StreamError> {
    convert::list(positions.iter().map(|(partition, offset)| (partition, *offset)))
        .and_then(|list| client.assign(&list))
        .map_err(|error| StreamError::Fatal(error.to_string()))?;
    let (sender, records) = mpsc::channel(CHANNEL);
    let (client, positions) = (Arc::clone(client), positions.clone());
    thread::Builder::new()
        .name("kafka-reader".into())
        .spawn(move || pump(&client, &sender, positions))
        .map_err(|error| StreamError::Transient(format!("cannot start a thread: {error}")))?;
    Ok(records)
}

/// Moves records into the channel until nobody takes them any more.
fn pump(
    client: &Client,
    sender: &mpsc::Sender<Result<Incoming, StreamError>>,
    mut positions: BTreeMap<TopicPartition, i64>,
) {
    while !sender.is_closed() {
        let item = match client.poll(SLICE) {
            None => continue,
            Some(Ok(message)) => {
                let partition = TopicPartition::new(message.topic(), message.partition());
                positions.insert(partition.clone(), message.offset() + 1);
                Ok(convert::incoming(&message, partition))
            }
            Some(Err(error)) => match code_of(&error) {
                RDKafkaErrorCode::AutoOffsetReset => Err(expired(client, &positions)),
                // A reader has no use for its group.
                RDKafkaErrorCode::GroupAuthorizationFailed => continue,
                _ => {
                    let trouble = Trouble::from_error(&error);
                    if !trouble.kind.needs_somebody() {
                        continue;
                    }
                    Err(trouble.into_stream_error())
                }
            },
        };
        if sender.blocking_send(item).is_err() {
            return;
        }
    }
}

/// Which position is not retained any more; librdkafka's error does not say.
fn expired(client: &Client, positions: &BTreeMap<TopicPartition, i64>) -> StreamError {
    for (partition, offset) in positions {
        let ends =
            client.fetch_watermarks(&partition.topic, partition.partition, Duration::from_secs(5));
        if ends.is_ok_and(|(low, high)| *offset < low || *offset > high) {
            return StreamError::OffsetOutOfRange { partition: partition.clone(), offset: *offset };
        }
    }
    StreamError::Transient("an offset was not there; it is now: open anew".into())
}

impl Watch {
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Client, Duration) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, StreamError> {
        let client = Arc::clone(&self.client);
        let common = Arc::clone(&self.common);
        let timeout = self.timeout;
        let work = move || {
            work(&client, timeout).map_err(|error| {
                // What the connections said; a client that reads already is polled anyway.
                if client.assignment().is_ok_and(|assigned| assigned.count() == 0) {
                    let _ = client.poll(Duration::from_millis(20));
                }
                common.health.explain(&error).into_stream_error()
            })
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| StreamError::Transient(error.to_string()))?
    }

    /// First and next offset of each partition; next means the first that is not committed.
    async fn ends(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, (i64, i64)>, StreamError> {
        self.blocking(move |client, timeout| {
            partitions
                .into_iter()
                .map(|partition| {
                    let number = partition.partition;
                    let ends = client.fetch_watermarks(&partition.topic, number, timeout)?;
                    Ok((partition, ends))
                })
                .collect()
        })
        .await
    }

    /// Those partitions that hold no committed record from the given offset on.
    async fn without_records(
        &self,
        from: Vec<(TopicPartition, i64)>,
    ) -> Result<BTreeSet<TopicPartition>, StreamError> {
        let (config, common) = (self.probe.clone(), Arc::clone(&self.common));
        self.blocking(move |_, timeout| {
            let context = Context::new(Role::Reader, &common, Unmanaged);
            let probe: Client = config.create_with_context(context)?;
            let mut without = BTreeSet::new();
            // One at a time: the end-of-partition event does not name the topic.
            for (partition, offset) in from {
                probe.assign(&convert::list([(&partition, offset)])?)?;
                if reaches_end(&probe, timeout)? {
                    without.insert(partition);
                }
            }
            Ok(without)
        })
        .await
    }
}

/// Whether the assigned partition ends before a record comes.
fn reaches_end(client: &Client, timeout: Duration) -> Result<bool, KafkaError> {
    let end = Instant::now() + timeout;
    while Instant::now() < end {
        match client.poll(SLICE) {
            Some(Ok(_)) => return Ok(false),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(true),
            Some(Err(_)) | None => {}
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
}
