//! Where partitions begin and end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;
use tollgate_stream::{StreamError, TopicPartition};

use crate::context::{Common, Context, Role};
use crate::reader::Unmanaged;
use crate::settings::Settings;
use crate::{config, convert};

const SLICE: Duration = Duration::from_millis(100);

type Client = BaseConsumer<Context<Unmanaged>>;

/// Asks through a client of its own: behind a client that reads, each question would wait until
/// the broker has answered the fetch before it, half a second where nothing comes.
pub struct Ends {
    /// Taken when this is dropped.
    client: Option<Arc<Client>>,
    /// For clients that look for markers.
    probe: ClientConfig,
    common: Arc<Common>,
    timeout: Duration,
}

impl Ends {
    pub fn new(
        base: &ClientConfig,
        settings: &Settings,
        common: &Arc<Common>,
    ) -> Result<Self, StreamError> {
        let probe = config::probe(base, settings);
        let client: Client = probe
            .create_with_context(Context::new(Role::Reader, common, Unmanaged))
            .map_err(|error| StreamError::Fatal(error.to_string()))?;
        Ok(Self {
            client: Some(Arc::new(client)),
            probe,
            common: Arc::clone(common),
            timeout: Duration::from_millis(settings.operation_timeout_ms.into()),
        })
    }

    /// Offset of the first record of each partition.
    pub async fn first(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, i64>, StreamError> {
        self.offsets(partitions, Offset::Beginning).await
    }

    /// First offset of each partition that holds nothing committed yet.
    pub async fn next(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, i64>, StreamError> {
        self.offsets(partitions, Offset::End).await
    }

    /// One question for all.
    async fn offsets(
        &self,
        partitions: Vec<TopicPartition>,
        which: Offset,
    ) -> Result<BTreeMap<TopicPartition, i64>, StreamError> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.blocking(move |client, timeout| {
            let mut question = convert::bare_list(&partitions);
            question.set_all_offsets(which)?;
            let answer = client.offsets_for_times(question, timeout)?;
            let mut offsets = BTreeMap::new();
            for element in answer.elements() {
                element.error()?;
                let Offset::Offset(offset) = element.offset() else {
                    return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut));
                };
                let partition = TopicPartition::new(element.topic(), element.partition());
                offsets.insert(partition, offset);
            }
            Ok(offsets)
        })
        .await
    }

    /// Those partitions that hold no committed record from the given offset on.
    pub async fn without_records(
        &self,
        from: BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeSet<TopicPartition>, StreamError> {
        let (config, common) = (self.probe.clone(), Arc::clone(&self.common));
        self.blocking(move |_, timeout| {
            let context = Context::new(Role::Reader, &common, Unmanaged);
            let probe: Client = config.create_with_context(context)?;
            let topics: BTreeSet<&str> = from.keys().map(|partition| &*partition.topic).collect();
            let mut without = BTreeSet::new();
            // One at a time: the end-of-partition event does not name the topic.
            for topic in topics {
                let of_topic = from.iter().filter(|(partition, _)| &*partition.topic == topic);
                let of_topic = of_topic.map(|(partition, offset)| (partition, *offset));
                probe.assign(&convert::list(of_topic)?)?;
                let count = probe.assignment()?.count();
                let ended = ended(&probe, count, timeout)?;
                without.extend(ended.into_iter().map(|number| TopicPartition::new(topic, number)));
            }
            Ok(without)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Client, Duration) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, StreamError> {
        let Some(client) = self.client.clone() else {
            return Err(StreamError::Transient("the client is gone".into()));
        };
        let common = Arc::clone(&self.common);
        let timeout = self.timeout;
        let work = move || {
            work(&client, timeout).map_err(|error| {
                // What the connections said.
                let _ = client.poll(Duration::from_millis(20));
                common.health.explain(&error).into_stream_error()
            })
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| StreamError::Transient(error.to_string()))?
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        // A client closes its group, which it has not joined, for a tenth of a second; nobody needs
        // to wait for that.
        if let Some(client) = self.client.take() {
            std::thread::spawn(move || drop(client));
        }
    }
}

/// Which of the `count` assigned partitions of one topic end before a record comes.
fn ended(client: &Client, count: usize, timeout: Duration) -> Result<BTreeSet<i32>, KafkaError> {
    let deadline = Instant::now() + timeout;
    let (mut ended, mut with_records) = (BTreeSet::new(), BTreeSet::new());
    while ended.len() + with_records.len() < count {
        if Instant::now() > deadline {
            return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
        }
        match client.poll(SLICE) {
            Some(Ok(message)) => {
                with_records.insert(message.partition());
            }
            Some(Err(KafkaError::PartitionEOF(number))) if !with_records.contains(&number) => {
                ended.insert(number);
            }
            Some(Err(_)) | None => {}
        }
    }
    Ok(ended)
}
