//! What a topic holds, and a bare librdkafka producer that sends the same again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use tollgate_kafka::{Settings, producer_config};

use crate::machine;

const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[arg(long)]
    brokers: String,
    /// Read from here, before the clock runs
    #[arg(long)]
    from: String,
    /// Send to here; created with as many partitions
    #[arg(long)]
    to: String,
}

/// What a bare producer did.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sent {
    pub records: u64,
    pub seconds: f64,
    pub cpu_seconds: f64,
}

impl Sent {
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    pub fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.records as f64
    }
}

/// Runs and prints.
#[expect(clippy::print_stdout, reason = "the result")]
pub fn run(options: &Options) -> Result<()> {
    println!("{}", serde_json::to_string(&send_again(options)?)?);
    Ok(())
}

/// Runs a bare producer as a process of its own.
pub fn send_apart(brokers: &str, from: &str, to: &str) -> Result<Sent> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(["produce", "--brokers", brokers, "--from", from, "--to", to]);
    let output = command.output().context("the bare producer cannot be started")?;
    ensure!(
        output.status.success(),
        "the bare producer failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Records of a topic, by its offsets.
pub fn length(brokers: &str, topic: &str) -> Result<u64> {
    let consumer = consumer(brokers)?;
    let watermarks = watermarks(&consumer, topic)?;
    Ok(watermarks.iter().map(|(first, end)| (end - first) as u64).sum())
}

fn consumer(brokers: &str) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "bench");
    config.set("enable.auto.commit", "false").set("fetch.message.max.bytes", "4194304");
    Ok(config.create()?)
}

/// First and end offset of each partition.
fn watermarks(consumer: &BaseConsumer, topic: &str) -> Result<Vec<(i64, i64)>> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let topic_metadata = metadata.topics().first().context("no such topic")?;
    let partitions = 0..topic_metadata.partitions().len() as i32;
    let each = partitions.map(|partition| consumer.fetch_watermarks(topic, partition, PATIENCE));
    Ok(each.collect::<Result<_, _>>()?)
}

fn read(brokers: &str, topic: &str) -> Result<(i32, Vec<OwnedMessage>)> {
    let consumer = consumer(brokers)?;
    let watermarks = watermarks(&consumer, topic)?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..watermarks.len() as i32 {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let total: i64 = watermarks.iter().map(|(first, end)| end - first).sum();
    let mut messages = Vec::with_capacity(total as usize);
    let mut last = Instant::now();
    while messages.len() < total as usize {
        ensure!(last.elapsed() < PATIENCE, "only {} of {total} came", messages.len());
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            messages.push(message?.detach());
            last = Instant::now();
        }
    }
    Ok((watermarks.len() as i32, messages))
}

/// Counts what was confirmed.
#[derive(Clone, Default)]
struct Confirmed(Arc<AtomicU64>);

impl ClientContext for Confirmed {}

impl ProducerContext for Confirmed {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.0.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
    }
}

fn send_again(options: &Options) -> Result<Sent> {
    let (partitions, messages) = read(&options.brokers, &options.from)?;
    let settings = Settings { brokers: options.brokers.clone(), ..Settings::default() };
    create(&options.brokers, &options.to, partitions)?;
    let confirmed = Confirmed::default();
    let producer: ThreadedProducer<Confirmed> =
        producer_config(&settings, None)?.create_with_context(confirmed.clone())?;
    // Connected before the clock runs, as the edge is.
    producer.client().fetch_metadata(Some(&options.to), PATIENCE)?;

    let id = std::process::id();
    let (began, cpu) = (Instant::now(), machine::cpu(id)?);
    for message in &messages {
        send(&producer, &options.to, message)?;
    }
    producer.flush(PATIENCE)?;
    let seconds = began.elapsed().as_secs_f64();
    let records = confirmed.0.load(Ordering::Relaxed);
    ensure!(records == messages.len() as u64, "{records} of {} are confirmed", messages.len());
    Ok(Sent { records, seconds, cpu_seconds: machine::cpu(id)? - cpu })
}

fn send(producer: &ThreadedProducer<Confirmed>, to: &str, message: &OwnedMessage) -> Result<()> {
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(to);
    record.key = message.key();
    record.payload = message.payload();
    record.headers = message.headers().cloned();
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                record = same;
                std::thread::park_timeout(Duration::from_millis(1));
            }
            Err((error, _)) => bail!(error),
        }
    }
}

fn create(brokers: &str, topic: &str, partitions: i32) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let created = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()))?;
    for outcome in created {
        outcome.map_err(|(topic, code)| anyhow::anyhow!("cannot create {topic}: {code}"))?;
    }
    Ok(())
}
