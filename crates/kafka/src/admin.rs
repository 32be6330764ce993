//! Topics and identity of the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, NoCustomPartitioner, Producer, ProducerContext};
use rdkafka::types::RDKafkaRespErr;
use tollgate_stream::{StreamError, TopicDescription, TopicSpec};

use crate::context::{Common, Context, Role};
use crate::settings::Settings;
use crate::trouble::Trouble;

/// A client that lives for one question. A lasting one would have to be polled all the time, or
/// what it says about its connections piles up in its queue.
type Probe = BaseProducer<Context<()>>;

impl ProducerContext<NoCustomPartitioner> for Context<()> {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Asks about topics and makes them.
pub struct Admin {
    config: ClientConfig,
    common: Arc<Common>,
    timeout: Duration,
}

/// Partitions and smallest number of copies.
#[derive(Debug)]
struct Shape {
    partitions: i32,
    replication: i32,
    has_leaders: bool,
}

impl Admin {
    /// Brokers need not be reachable.
    pub fn new(base: &ClientConfig, settings: &Settings, common: &Arc<Common>) -> Self {
        let mut config = base.clone();
        config.set("statistics.interval.ms", "0");
        Self {
            config,
            common: Arc::clone(common),
            timeout: Duration::from_millis(settings.operation_timeout_ms.into()),
        }
    }

    /// Asks on a blocking thread. A bare time-out is explained by what the connections said.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Probe, Duration) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, StreamError> {
        let config = self.config.clone();
        let common = Arc::clone(&self.common);
        let timeout = self.timeout;
        let work = move || {
            let probe: Probe = config
                .create_with_context(Context::new(Role::Admin, &common, ()))
                .map_err(|error| StreamError::Fatal(error.to_string()))?;
            match question(&probe, timeout) {
                Ok(answer) => {
                    common.health.clear();
                    Ok(answer)
                }
                Err(error) => {
                    probe.poll(Duration::from_millis(20));
                    Err(common.health.explain(&error).into_stream_error())
                }
            }
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| StreamError::Transient(error.to_string()))?
    }

    fn client(&self) -> Result<AdminClient<Context<()>>, StreamError> {
        self.config
            .create_with_context(Context::new(Role::Admin, &self.common, ()))
            .map_err(|error| StreamError::Fatal(error.to_string()))
    }

    fn failed(&self, error: &KafkaError) -> StreamError {
        self.common.health.explain(error).into_stream_error()
    }

    /// The cluster's identity.
    pub async fn cluster_id(&self) -> Result<String, StreamError> {
        self.ask(|probe, timeout| {
            probe
                .client()
                .fetch_cluster_id(timeout)
                .filter(|id| !id.is_empty())
                .ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure))
        })
        .await
    }

    /// Topics that are there, with their numbers of partitions.
    pub async fn partitions(&self, names: &[&str]) -> Result<Vec<(String, i32)>, StreamError> {
        let shapes = self.shapes(names).await?;
        Ok(shapes.into_iter().map(|(name, shape)| (name, shape.partitions)).collect())
    }

    async fn shapes(&self, names: &[&str]) -> Result<BTreeMap<String, Shape>, StreamError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.ask(move |probe, timeout| {
            let mut shapes = BTreeMap::new();
            for name in names {
                if let Some(shape) = shape(probe, &name, timeout)? {
                    shapes.insert(name, shape);
                }
            }
            Ok(shapes)
        })
        .await
    }

    /// Creates what is missing and waits until every partition has a leader.
    pub async fn create(&self, topics: &[TopicSpec]) -> Result<Vec<String>, StreamError> {
        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|spec| {
                let replication = TopicReplication::Fixed(spec.replication);
                let topic = NewTopic::new(&spec.name, spec.partitions, replication);
                spec.config.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
            })
            .collect();
        let options = AdminOptions::new()
            .request_timeout(Some(self.timeout))
            .operation_timeout(Some(self.timeout));
        // Also says what is wrong with the connection, which the next call would not.
        self.cluster_id().await?;
        let client = self.client()?;
        let results =
            client.create_topics(&new, &options).await.map_err(|error| self.failed(&error))?;
        let mut created = Vec::new();
        for result in results {
            match result {
                Ok(name) => created.push(name),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(not_created(&name, code)),
            }
        }
        let end = Instant::now() + self.timeout;
        let names: Vec<&str> = created.iter().map(String::as_str).collect();
        loop {
            let shapes = self.shapes(&names).await?;
            if shapes.len() == names.len() && shapes.values().all(|shape| shape.has_leaders) {
                break;
            }
            if Instant::now() > end {
                return Err(StreamError::Transient(
                    "topics were created and have no leaders yet".into(),
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(created)
    }

    /// What the cluster says; absent topics are absent.
    pub async fn describe(&self, names: &[&str]) -> Result<Vec<TopicDescription>, StreamError> {
        let shapes = self.shapes(names).await?;
        if shapes.is_empty() {
            return Ok(Vec::new());
        }
        let resources: Vec<ResourceSpecifier<'_>> =
            shapes.keys().map(|name| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(self.timeout));
        let client = self.client()?;
        let answers = client
            .describe_configs(&resources, &options)
            .await
            .map_err(|error| self.failed(&error))?;
        shapes
            .iter()
            .zip(answers)
            .map(|((name, shape), answer)| {
                let resource =
                    answer.map_err(|code| Trouble::new(code, name).into_stream_error())?;
                let config = resource
                    .entries
                    .into_iter()
                    .filter_map(|entry| Some((entry.name, entry.value?)))
                    .collect();
                Ok(TopicDescription {
                    name: name.clone(),
                    partitions: shape.partitions,
                    replication: shape.replication,
                    config,
                })
            })
            .collect()
    }
}

fn shape(probe: &Probe, name: &str, timeout: Duration) -> Result<Option<Shape>, KafkaError> {
    let metadata = probe.client().fetch_metadata(Some(name), timeout)?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return Ok(None);
    };
    match topic.error() {
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => return Ok(None),
        Some(error) => return Err(KafkaError::MetadataFetch(error.into())),
        None => {}
    }
    let partitions = topic.partitions();
    Ok(Some(Shape {
        partitions: partitions.len() as i32,
        replication: partitions.iter().map(|p| p.replicas().len() as i32).min().unwrap_or(0),
        has_leaders: !partitions.is_empty() && partitions.iter().all(|p| p.leader() >= 0),
    }))
}

fn not_created(name: &str, code: RDKafkaErrorCode) -> StreamError {
    match code {
        RDKafkaErrorCode::InvalidReplicationFactor => StreamError::Refused(format!(
            "topic {name} cannot be created: the cluster has fewer brokers in service than copies \
             are asked"
        )),
        RDKafkaErrorCode::InvalidConfig | RDKafkaErrorCode::InvalidTopic => StreamError::Refused(
            format!("topic {name} cannot be created: the cluster refuses its settings ({code})"),
        ),
        code => Trouble::new(code, name).into_stream_error(),
    }
}
