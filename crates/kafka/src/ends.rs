//! Where partitions begin and end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
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
/// So many times as long as a question may take nothing is answered before another client asks: one
/// that knows no broker any more never gets an answer.
const PATIENCE: u32 = 3;

type Client = BaseConsumer<Context<Unmanaged>>;

/// Asks through a client of its own: behind a client that reads, each question would wait until
/// the broker has answered the fetch before it, half a second where nothing comes.
pub struct Ends {
    asker: Arc<Mutex<Asker>>,
    /// Also for clients that look for markers.
    probe: ClientConfig,
    common: Arc<Common>,
    timeout: Duration,
}

struct Asker {
    /// Taken when [`Ends`] is dropped.
    client: Option<Arc<Client>>,
    /// When something was asked first since the last answer.
    unanswered_since: Option<Instant>,
    patience: Duration,
}

impl Ends {
    pub fn new(
        base: &ClientConfig,
        settings: &Settings,
        common: &Arc<Common>,
    ) -> Result<Self, StreamError> {
        let probe = config::probe(base, settings);
        let client =
            new_client(&probe, common).map_err(|error| StreamError::Fatal(error.to_string()))?;
        let timeout = Duration::from_millis(settings.operation_timeout_ms.into());
        let asker = Asker {
            client: Some(Arc::new(client)),
            unanswered_since: None,
            patience: timeout * PATIENCE,
        };
        Ok(Self { asker: Arc::new(Mutex::new(asker)), probe, common: Arc::clone(common), timeout })
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

    /// Both of one partition.
    pub async fn of(&self, partition: &TopicPartition) -> Result<(i64, i64), StreamError> {
        let first = self.first(vec![partition.clone()]).await?;
        let next = self.next(vec![partition.clone()]).await?;
        match (first.get(partition), next.get(partition)) {
            (Some(first), Some(next)) => Ok((*first, *next)),
            _ => Err(StreamError::Transient(format!("no broker says where {partition} ends"))),
        }
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
            let probe = new_client(&config, &common)?;
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
        let asker = Arc::clone(&self.asker);
        let (probe, common) = (self.probe.clone(), Arc::clone(&self.common));
        let timeout = self.timeout;
        let work = move || {
            let Some(client) = lock(&asker).client(&probe, &common)? else {
                return Err(StreamError::Transient("the client is gone".into()));
            };
            let answer = work(&client, timeout);
            if answer.is_ok() {
                lock(&asker).unanswered_since = None;
            }
            answer.map_err(|error| {
                // What the connections said.
                let _ = client.poll(Duration::from_millis(20));
                common.health.explain(&error).into_stream_error()
            })
        };
        // A client that has locked itself up never comes back.
        let answer = tokio::time::timeout(timeout * PATIENCE, tokio::task::spawn_blocking(work));
        let none = || StreamError::Transient("no answer about offsets".to_owned());
        let answer = answer.await.map_err(|_| none())?;
        answer.map_err(|error| StreamError::Transient(error.to_string()))?
    }
}

impl Asker {
    /// The client to ask; another when this one got no answers. `None` when all is over.
    fn client(
        &mut self,
        probe: &ClientConfig,
        common: &Arc<Common>,
    ) -> Result<Option<Arc<Client>>, StreamError> {
        let waited = self.unanswered_since.is_some_and(|since| since.elapsed() > self.patience);
        if waited && self.client.is_some() {
            let new = new_client(probe, common)
                .map_err(|error| StreamError::Transient(error.to_string()))?;
            let old = self.client.replace(Arc::new(new));
            std::thread::spawn(move || drop(old));
            self.unanswered_since = None;
        }
        self.unanswered_since.get_or_insert_with(Instant::now);
        Ok(self.client.clone())
    }
}

fn lock(asker: &Mutex<Asker>) -> std::sync::MutexGuard<'_, Asker> {
    asker.lock().unwrap_or_else(PoisonError::into_inner)
}

fn new_client(config: &ClientConfig, common: &Arc<Common>) -> Result<Client, KafkaError> {
    config.create_with_context(Context::new(Role::Reader, common, Unmanaged))
}

impl Drop for Ends {
    fn drop(&mut self) {
        // A client closes its group, which it has not joined, for a tenth of a second; nobody needs
        // to wait for that.
        if let Some(client) = lock(&self.asker).client.take() {
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
