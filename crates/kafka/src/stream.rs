//! [`KafkaStream`]: the trait, put together.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use tollgate_stream::{
    Consumer, ConsumerOptions, Deliveries, Producer, ProducerKind, ReadFrom, Relay, Stream,
    StreamError, TopicDescription, TopicPartition, TopicReader, TopicSpec,
};

use crate::admin::Admin;
use crate::config;
use crate::consumer::{KafkaConsumer, Options};
use crate::context::Common;
use crate::ends::Ends;
use crate::producer::KafkaProducer;
use crate::reader::KafkaReader;
use crate::relay::KafkaRelay;
use crate::settings::Settings;

/// A Kafka cluster.
pub struct KafkaStream {
    settings: Settings,
    /// Holds secrets: never shown.
    base: ClientConfig,
    common: Arc<Common>,
    admin: Admin,
    /// Made when it is asked first.
    ends: OnceLock<Ends>,
}

/// librdkafka's configuration of the producer that publishes from the spool, or of the one whose
/// confirmations are waited for until a deadline, for those who want to compare. Holds secrets if
/// the settings name any.
pub fn producer_config(
    settings: &Settings,
    deadline: Option<Duration>,
) -> Result<ClientConfig, StreamError> {
    Ok(config::producer(&config::base(settings)?, settings, deadline))
}

impl fmt::Debug for KafkaStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaStream").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl KafkaStream {
    /// Prepares to use a cluster. Connects to nothing yet, so it succeeds with every broker down.
    ///
    /// Fails only with [`StreamError::Fatal`], when the settings contradict each other or a file
    /// they name cannot be read.
    pub fn connect(settings: &Settings) -> Result<Arc<Self>, StreamError> {
        settings.validate().map_err(StreamError::Fatal)?;
        let base = config::base(settings)?;
        let common = Arc::new(Common::default());
        let admin = Admin::new(&base, settings, &common);
        Ok(Arc::new(Self {
            settings: settings.clone(),
            base,
            common,
            admin,
            ends: OnceLock::new(),
        }))
    }

    fn ends(&self) -> Result<&Ends, StreamError> {
        if let Some(ends) = self.ends.get() {
            return Ok(ends);
        }
        let ends = Ends::new(&self.base, &self.settings, &self.common)?;
        Ok(self.ends.get_or_init(|| ends))
    }

    /// What has been wrong with the cluster, or with our access to it, within the last half
    /// minute, and what to do about it; `None` when nothing has or something has worked since.
    pub fn trouble(&self) -> Option<String> {
        self.common.health.current().map(|trouble| trouble.message)
    }
}

#[async_trait]
impl Stream for KafkaStream {
    async fn cluster_id(&self) -> Result<String, StreamError> {
        self.admin.cluster_id().await
    }

    fn producer(
        &self,
        kind: ProducerKind,
        deliveries: Arc<dyn Deliveries>,
    ) -> Result<Arc<dyn Producer>, StreamError> {
        let producer =
            KafkaProducer::start(&self.base, &self.settings, &self.common, kind, deliveries)?;
        Ok(Arc::new(producer))
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Box<dyn Consumer>, StreamError> {
        let timeout = |ms: u32| Duration::from_millis(ms.into());
        let options = Options {
            config: config::consumer(&self.base, &self.settings, &options),
            common: Arc::clone(&self.common),
            topics: options.topics.into_iter().map(Arc::from).collect(),
            protocol: self.settings.group_protocol,
            operation_timeout: timeout(self.settings.operation_timeout_ms),
            statistics_interval: timeout(self.settings.statistics_interval_ms),
            rejoin_after: timeout(self.settings.session_timeout_ms),
            close_timeout: timeout(self.settings.close_timeout_ms),
        };
        Ok(Box::new(KafkaConsumer::join(options)?))
    }

    async fn relay(&self, id: &str) -> Result<Box<dyn Relay>, StreamError> {
        let relay = KafkaRelay::take_over(&self.base, &self.settings, &self.common, id).await?;
        Ok(Box::new(relay))
    }

    async fn reader(
        &self,
        topics: &[&str],
        from: ReadFrom,
    ) -> Result<Box<dyn TopicReader>, StreamError> {
        let found = self.admin.partitions(topics).await?;
        if let Some(missing) =
            topics.iter().find(|topic| !found.iter().any(|(name, _)| name == *topic))
        {
            return Err(StreamError::Refused(format!(
                "topic {missing} is not there: run `tollgate topics create`"
            )));
        }
        let partitions = found
            .iter()
            .flat_map(|(topic, count)| {
                let topic: Arc<str> = topic.as_str().into();
                (0..*count).map(move |number| TopicPartition::new(Arc::clone(&topic), number))
            })
            .collect();
        let reader =
            KafkaReader::open(&self.base, &self.settings, &self.common, partitions, from).await?;
        Ok(Box::new(reader))
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), StreamError> {
        self.ends()?.of(partition).await
    }

    async fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<String>, StreamError> {
        self.admin.create(topics).await
    }

    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>, StreamError> {
        self.admin.describe(names).await
    }
}
