//! The running service: a consumer of two topics, the live feed, and the census.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tollgate_schema::topics::{CALL_EVENTS, CDRS};
use tollgate_store::Database;
use tollgate_stream::consumer::{ConsumerHandle, ConsumerService, ConsumerServiceOptions};
use tollgate_stream::settings::ConsumerSettings;
use tollgate_stream::{ConsumerOptions, Stream};

use crate::api::{Api, Feed};
use crate::fold::Presence;
use crate::item::Decoder;
use crate::keys::Pseudonyms;
use crate::store::{Options as StoreOptions, UserStateStore};
use crate::{Error, Settings, metrics};

/// Pause before topics that are not there yet are looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long a count may take; a database that is gone without a word never answers.
const CENSUS: Duration = Duration::from_mins(2);

/// What the service is made of.
pub struct Options {
    /// Where the events come from and the states go to.
    pub stream: Arc<dyn Stream>,
    /// Where calls, legs and numbers are kept.
    pub database: Database,
    /// What an operator chose.
    pub settings: Settings,
    /// How the consumer joins, batches, retries and relays.
    pub consumer: ConsumerSettings,
}

/// A service that was started.
pub struct Handle {
    /// Answers queries, with [`crate::routes`].
    pub api: Arc<Api>,
    /// Asks the consumer what it is doing.
    pub consumer: ConsumerHandle,
    running: JoinHandle<Result<(), Error>>,
}

impl Handle {
    /// Waits until the service has stopped: after the shutdown it was started with, or earlier
    /// with an error that trying again cannot mend.
    pub async fn join(self) -> Result<(), Error> {
        match self.running.await {
            Ok(result) => result,
            Err(_) => Err(Error::Consumer("its task has panicked; see the log".to_owned())),
        }
    }
}

/// Starts the service within the current tokio runtime. It waits for its database, its topics
/// and its cluster as long as it takes; only settings that can never work are an error.
pub fn start(options: Options, shutdown: CancellationToken) -> Result<Handle, Error> {
    let Options { stream, database, settings, consumer } = options;
    settings.validate().map_err(Error::Settings)?;
    consumer.validate().map_err(Error::Settings)?;
    let pseudonyms =
        settings.pseudonym_key_file.as_deref().map(Pseudonyms::from_file).transpose()?;
    let store = UserStateStore::new(
        database,
        StoreOptions { expiry: settings.expiry(), keep_ms: settings.keep_ms(), pseudonyms },
    );
    let feed = Feed::new(&settings, shutdown.clone());
    let api = Arc::new(Api::new(store.clone(), feed.clone()));
    let service = ConsumerService::new(
        Arc::clone(&stream),
        Arc::new(store.clone()),
        Arc::new(Decoder),
        ConsumerServiceOptions {
            consumer: ConsumerOptions {
                group: settings.group.clone(),
                topics: vec![CALL_EVENTS.name.to_owned(), CDRS.name.to_owned()],
                instance_id: consumer.instance_id.clone(),
            },
            settings: consumer,
        },
    );
    let handle = service.handle();
    let interval = Duration::from_secs(settings.census_interval_seconds.into());
    let running = tokio::spawn(async move {
        let side_tasks = CancellationToken::new();
        let _stops_with_the_consumer = side_tasks.clone().drop_guard();
        tokio::spawn(feed.run(Arc::clone(&stream), side_tasks.clone()));
        tokio::spawn(census(store.clone(), interval, side_tasks));
        let Some(partitions) = count_partitions(&*stream, &shutdown).await else {
            return Ok(());
        };
        store.relay_over(partitions);
        service.run(shutdown).await.map_err(|error| Error::Consumer(error.to_string()))
    });
    Ok(Handle { api, consumer: handle, running })
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
