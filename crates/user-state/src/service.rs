//! Options, service, handle: a consumer of two topics, the live feed, and the census.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tollgate_schema::topics::{CALL_EVENTS, CDRS};
use tollgate_store::Database;
use tollgate_stream::consumer::{
    ConsumerError, ConsumerHandle, ConsumerService, ConsumerServiceOptions,
};
use tollgate_stream::settings::ConsumerSettings;
use tollgate_stream::{ConsumerOptions, Stream};

use crate::api::{Api, Feed};
use crate::fold::Presence;
use crate::item::Decoder;
use crate::keys::Pseudonyms;
use crate::store::{Options as StoreOptions, UserStateStore};
use crate::{Settings, UserStateError, metrics};

/// Pause before topics that are not there yet are looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long a count may take; a database that is gone without a word never answers.
const CENSUS: Duration = Duration::from_mins(2);

/// Everything user-state is told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What an operator chose.
    pub settings: Settings,
    /// How the consumer joins, batches, retries and relays.
    pub consumer: ConsumerSettings,
}

/// A member of user-state's consumer group: runs until told to stop.
pub struct UserState {
    stream: Arc<dyn Stream>,
    store: UserStateStore,
    feed: Feed,
    census_interval: Duration,
    consumer: ConsumerService<UserStateStore, Decoder>,
}

/// What can be asked of user-state while it runs.
#[derive(Clone)]
pub struct Handle {
    /// Answers queries, with [`crate::routes`].
    pub api: Arc<Api>,
    /// Asks the consumer what it is doing.
    pub consumer: ConsumerHandle,
}

impl UserState {
    /// Prepares everything; nothing happens until [`UserState::run`]. Succeeds while stream and
    /// database are down: only settings that can never work are an error.
    pub fn new(
        stream: Arc<dyn Stream>,
        database: Database,
        options: Options,
    ) -> Result<Self, UserStateError> {
        let Options { settings, consumer } = options;
        settings.validate().map_err(UserStateError::Settings)?;
        consumer.validate().map_err(UserStateError::Settings)?;
        let pseudonyms =
            settings.pseudonym_key_file.as_deref().map(Pseudonyms::from_file).transpose()?;
        let store = UserStateStore::new(
            database,
            StoreOptions { expiry: settings.expiry(), keep_ms: settings.keep_ms(), pseudonyms },
        );
        let feed = Feed::new(&settings);
        let census_interval = Duration::from_secs(settings.census_interval_seconds.into());
        let consumer = ConsumerService::new(
            Arc::clone(&stream),
            Arc::new(store.clone()),
            Arc::new(Decoder),
            ConsumerServiceOptions {
                consumer: ConsumerOptions {
                    group: settings.group,
                    topics: vec![CALL_EVENTS.name.to_owned(), CDRS.name.to_owned()],
                    instance_id: consumer.instance_id.clone(),
                },
                settings: consumer,
            },
        );
        Ok(Self { stream, store, feed, census_interval, consumer })
    }

    /// What can be asked while it runs.
    pub fn handle(&self) -> Handle {
        Handle {
            api: Arc::new(Api::new(self.store.clone(), self.feed.clone())),
            consumer: self.consumer.handle(),
        }
    }

    /// Consumes until `shutdown`, which ends the live feed as well. Waits for its topics as long as
    /// it takes; ends early only with an error that trying again cannot mend.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ConsumerError> {
        let stop = shutdown.child_token();
        let _stops_with_the_consumer = stop.clone().drop_guard();
        tokio::spawn(self.feed.run(Arc::clone(&self.stream), stop.clone()));
        tokio::spawn(census(self.store.clone(), self.census_interval, stop));
        let Some(partitions) = count_partitions(&*self.stream, &shutdown).await else {
            return Ok(());
        };
        self.store.relay_over(partitions);
        self.consumer.run(shutdown).await
    }
}

/// How many partitions call-events has, as soon as the cluster can say. `None` when told to stop
/// before.
async fn count_partitions(stream: &dyn Stream, shutdown: &CancellationToken) -> Option<i32> {
    loop {
        let described = tokio::select! {
            () = shutdown.cancelled() => return None,
            described = stream.describe_topics(&[CALL_EVENTS.name]) => described,
        };
        match described.as_deref() {
            Ok([topic, ..]) if topic.partitions > 0 => return Some(topic.partitions),
            Ok(_) => tracing::warn!(
                topic = CALL_EVENTS.name,
                "topic does not exist yet; run `tollgate topics create`"
            ),
            Err(error) => tracing::warn!(%error, "topics cannot be looked at yet"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Counts the busy numbers every now and then.
async fn census(store: UserStateStore, interval: Duration, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match timeout(CENSUS, store.census()).await {
            Ok(Ok(census)) => {
                for (presence, name) in [
                    (Presence::Calling, "calling"),
                    (Presence::Ringing, "ringing"),
                    (Presence::InCall, "in_call"),
                ] {
                    let count = census.numbers.iter().find(|(it, _)| *it == presence as i16);
                    ::metrics::gauge!(metrics::NUMBERS.name, "presence" => name)
                        .set(count.map_or(0, |(_, count)| *count) as f64);
                }
                ::metrics::gauge!(metrics::WAITING.name).set(census.unpublished as f64);
            }
            Ok(Err(error)) => tracing::debug!(%error, "numbers cannot be counted for the moment"),
            Err(_) => tracing::debug!("numbers cannot be counted: the database does not answer"),
        }
    }
}
