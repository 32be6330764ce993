//! Reads topics without a group.
//!
//! ```text
//!  thread: librdkafka ──▶ bounded channel ──▶ next()
//! ```
//!
//! The records' own thread makes `next` safe to give up at any time: what was not taken stays in
//! the channel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message;
use tokio::sync::mpsc;
use tollgate_stream::{Incoming, ReadFrom, StreamError, TopicPartition, TopicReader};

use crate::context::{Common, Context, Extra, Role, STRANDED};
use crate::ends::Ends;
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

impl Extra for Unmanaged {}

impl ConsumerContext for Context<Unmanaged> {}

type Client = BaseConsumer<Context<Unmanaged>>;

/// See the module's description.
pub struct KafkaReader {
    records: Records,
    config: ClientConfig,
    common: Arc<Common>,
    ends: Ends,
    /// Offset after the last record returned.
    positions: BTreeMap<TopicPartition, i64>,
    /// Up to here nothing is left to read, although the position is lower: markers of
    /// transactions take offsets too.
    read_up_to: BTreeMap<TopicPartition, i64>,
    /// Where the partitions ended when somebody asked whether all has been read.
    asked: Option<BTreeMap<TopicPartition, i64>>,
    /// When the last record was returned, or the reading began.
    last_record: Instant,
    /// What came behind the records of the last call.
    trouble: Option<StreamError>,
}

type Records = mpsc::Receiver<Result<Incoming, StreamError>>;

impl KafkaReader {
    /// Starts to read. `partitions` are all those of the topics asked for.
    pub async fn open(
        base: &ClientConfig,
        settings: &Settings,
        common: &Arc<Common>,
        partitions: Vec<TopicPartition>,
        from: ReadFrom,
    ) -> Result<Self, StreamError> {
        let ends = Ends::new(base, settings, common)?;
        let positions = match from {
            ReadFrom::Earliest => ends.first(partitions).await?,
            ReadFrom::Latest => ends.next(partitions).await?,
        };
        let config = config::reader(base, settings);
        let common = Arc::clone(common);
        let records = read(&config, &common, &positions)?;
        Ok(Self {
            records,
            config,
            common,
            ends,
            positions,
            read_up_to: BTreeMap::new(),
            asked: None,
            last_record: Instant::now(),
            trouble: None,
        })
    }

    /// Reads on with another client.
    fn begin_anew(&mut self) -> Result<(), StreamError> {
        tracing::warn!("a reader gets nothing although there is something; it begins anew");
        self.records = read(&self.config, &self.common, &self.positions)?;
        self.last_record = Instant::now();
        Ok(())
    }

    /// Whether all up to this offset has been returned, as far as is known.
    fn has_read(&self, partition: &TopicPartition, next: i64) -> bool {
        let of = |offsets: &BTreeMap<_, i64>| offsets.get(partition).copied().unwrap_or(0);
        of(&self.positions).max(of(&self.read_up_to)) >= next
    }

    fn note(&mut self, record: &Incoming) {
        self.positions.insert(record.partition.clone(), record.offset + 1);
    }
}

#[async_trait]
impl TopicReader for KafkaReader {
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Incoming>, StreamError> {
        if let Some(trouble) = self.trouble.take() {
            return Err(trouble);
        }
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
                // The records in hand go first.
                Ok(Err(trouble)) => {
                    self.trouble = Some(trouble);
                    break;
                }
                Err(_) => break,
            }
        }
        for record in &taken {
            self.note(record);
        }
        self.last_record = Instant::now();
        Ok(taken)
    }

    async fn caught_up(&mut self) -> Result<bool, StreamError> {
        let mut behind = match self.asked.take() {
            Some(ends) => ends,
            None => self.ends.next(self.positions.keys().cloned().collect()).await?,
        };
        behind.retain(|partition, next| !self.has_read(partition, *next));
        if behind.is_empty() {
            return Ok(true);
        }
        self.asked = Some(behind.clone());
        if !self.records.is_empty() || self.last_record.elapsed() < QUIET {
            return Ok(false);
        }
        // Perhaps there is nothing but markers between here and the end.
        let mut from = self.positions.clone();
        from.retain(|partition, _| behind.contains_key(partition));
        for partition in self.ends.without_records(from).await? {
            if let Some(next) = behind.remove(&partition) {
                self.read_up_to.insert(partition, next);
            }
        }
        if behind.is_empty() {
            self.asked = None;
            return Ok(true);
        }
        if self.records.is_empty() && self.last_record.elapsed() > STUCK {
            self.begin_anew()?;
        }
        Ok(false)
    }
}

/// Starts the thread that reads from these positions on.
fn read(
    config: &ClientConfig,
    common: &Arc<Common>,
    positions: &BTreeMap<TopicPartition, i64>,
) -> Result<Records, StreamError> {
    let client: Client = config
        .create_with_context(Context::new(Role::Reader, common, Unmanaged))
        .map_err(|error| StreamError::Fatal(error.to_string()))?;
    convert::list(positions.iter().map(|(partition, offset)| (partition, *offset)))
        .and_then(|list| client.assign(&list))
        .map_err(|error| StreamError::Fatal(error.to_string()))?;
    let (sender, records) = mpsc::channel(CHANNEL);
    let positions = positions.clone();
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
            None if client.context().is_stranded() => {
                let error = StreamError::Transient(format!("{STRANDED}: open anew"));
                let _ = sender.blocking_send(Err(error));
                return;
            }
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
