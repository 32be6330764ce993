//! Options, service, handle: how the binary runs billing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tollgate_schema::topics;
use tollgate_store::Database;
use tollgate_stream::consumer::{
    ConsumerError, ConsumerHandle, ConsumerService, ConsumerServiceOptions,
};
use tollgate_stream::settings::ConsumerSettings;
use tollgate_stream::{ConsumerOptions, Stream};

use crate::applications::Application;
use crate::error::BillingError;
use crate::http::Api;
use crate::item::CdrDecoder;
use crate::metrics;
use crate::settings::Settings;
use crate::store::BillingStore;

/// How often the waiting records are counted.
const COUNT_EVERY: Duration = Duration::from_secs(30);

/// How long a count may take; a database that is gone without a word never answers.
const COUNTED: Duration = Duration::from_mins(2);

/// Everything billing is told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Billing's own settings.
    pub settings: Settings,
    /// Settings of the consumer runtime.
    pub consumer: ConsumerSettings,
    /// The configured applications; empty takes every one as it comes.
    pub applications: Vec<Application>,
}

/// A member of billing's consumer group: runs until told to stop.
pub struct Billing {
    store: Arc<BillingStore>,
    consumer: ConsumerService<BillingStore, CdrDecoder>,
}

/// What can be asked of billing while it runs.
#[derive(Clone)]
pub struct Handle {
    /// Answers questions over HTTP; see [`crate::routes`].
    pub api: Arc<Api>,
    /// State of the consumer.
    pub consumer: ConsumerHandle,
}

impl BillingStore {
    /// The ledger as these settings see it: for commands, and for queries without a consumer.
    pub fn open(
        database: Database,
        settings: &Settings,
        applications: Vec<Application>,
    ) -> Result<Self, BillingError> {
        settings.validate().map_err(BillingError::Settings)?;
        let rules = settings.rules(applications).map_err(BillingError::Settings)?;
        Ok(Self::new(database, rules, &settings.time_zone))
    }
}

impl Billing {
    /// Prepares everything; nothing happens until [`Billing::run`]. Succeeds while stream and
    /// database are down.
    pub fn new(
        stream: Arc<dyn Stream>,
        database: Database,
        options: Options,
    ) -> Result<Self, BillingError> {
        options.consumer.validate().map_err(BillingError::Settings)?;
        let store =
            Arc::new(BillingStore::open(database, &options.settings, options.applications)?);
        let consumer = ConsumerService::new(
            stream,
            Arc::clone(&store),
            Arc::new(CdrDecoder),
            ConsumerServiceOptions {
                consumer: ConsumerOptions {
                    group: options.settings.group,
                    topics: vec![topics::CDRS.name.to_owned()],
                    instance_id: options.consumer.instance_id.clone(),
                },
                settings: options.consumer,
            },
        );
        Ok(Self { store, consumer })
    }

    /// What can be asked while it runs.
    pub fn handle(&self) -> Handle {
        Handle {
            api: Arc::new(Api::new(Arc::clone(&self.store))),
            consumer: self.consumer.handle(),
        }
    }

    /// Consumes until `shutdown`. Ends early only with an error that trying again cannot mend.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ConsumerError> {
        let store = Arc::clone(&self.store);
        tokio::select! {
            result = self.consumer.run(shutdown) => result,
            never = count_unrated(&store) => match never {},
        }
    }
}

/// Keeps the gauge of waiting records. What goes wrong here goes wrong, and is reported, in the
/// consumer as well.
async fn count_unrated(store: &BillingStore) -> std::convert::Infallible {
    loop {
        if let Ok(Ok(records)) = timeout(COUNTED, store.unrated()).await {
            metrics::unrated(records);
        }
        tokio::time::sleep(COUNT_EVERY).await;
    }
}
