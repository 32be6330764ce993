//! Questions over HTTP. Listener, tokens and error pages of unknown paths are the runtime's.

mod answers;
pub use answers::amount_text;
mod params;

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, ServiceConfig};
use serde_json::{Value, json};
use tollgate_runtime::listener::get;
use tollgate_runtime::query::{Refusal, read_none};
use tollgate_stream::now_ms;

use crate::error::BillingError;
use crate::store::{BillingStore, Checks};
use answers::{Entries, Ledger, Tariffs, Usage};
use params::{ChargesParams, LedgerParams, UsageQuery};

/// What answers the questions.
#[derive(Debug)]
pub struct Api {
    store: Arc<BillingStore>,
    /// Held while the checks run: they read the whole ledger, and one reader is enough.
    checking: tokio::sync::Mutex<()>,
}

impl Api {
    /// Answers from this ledger.
    pub fn new(store: Arc<BillingStore>) -> Self {
        Self { store, checking: tokio::sync::Mutex::default() }
    }

    /// The ledger underneath, for commands.
    pub const fn store(&self) -> &Arc<BillingStore> {
        &self.store
    }

    async fn usage(&self, query: &str, now_ms: i64) -> Result<Usage, Refusal> {
        let rules = self.store.rules();
        let query = UsageQuery::read(query, &rules.calendar, now_ms)?;
        let rows = self.store.usage(query.groups, query.from_ms, query.to_ms).await?;
        Ok(Usage::of(rows, &query, rules, now_ms))
    }

    async fn charges(&self, query: &str) -> Result<Entries, Refusal> {
        let entries = match ChargesParams::read(query)? {
            ChargesParams::Session(session_id) => {
                self.store.entries_of_session(&session_id).await?
            }
            ChargesParams::Record(record_id) => self.store.entries_of_record(&record_id).await?,
        };
        Ok(Entries::of(&entries, self.store.rules()))
    }

    async fn ledger(&self, query: &str) -> Result<Ledger, Refusal> {
        let (after, limit) = LedgerParams::read(query)?;
        Ok(Ledger::of(&self.store.ledger(after, limit).await?, self.store.rules()))
    }

    async fn checks(&self, query: &str) -> Result<Checks, Refusal> {
        read_none(query)?;
        let _checking = self.checking.try_lock().map_err(|_| {
            let error = "the checks are already running";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error, "ask again when they are done")
        })?;
        Ok(self.store.checks().await?)
    }

    async fn tariffs(&self, query: &str) -> Result<Tariffs, Refusal> {
        read_none(query)?;
        let (tariffs, activations) = self.store.tariffs().await?;
        Ok(Tariffs::of(tariffs, activations))
    }

    async fn jobs(&self, query: &str) -> Result<Value, Refusal> {
        read_none(query)?;
        Ok(json!({ "jobs": self.store.jobs().await? }))
    }
}

/// Texts of the database name SQLSTATE and constraint only, and stay so.
impl From<BillingError> for Refusal {
    fn from(error: BillingError) -> Self {
        match error {
            BillingError::InvalidQuery { what, hint } => Self::invalid(what, hint),
            BillingError::Store(error) => Self::of_database(&error, error.is_transient()),
            error => Self::of_database(&error, false),
        }
    }
}

/// Routes of the query listener.
pub fn routes(api: Arc<Api>) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    move |config| {
        config
            .app_data(Data::from(Arc::clone(&api)))
            .service(get("/v1/usage", usage))
            .service(get("/v1/charges", charges))
            .service(get("/v1/ledger", ledger))
            .service(get("/v1/checks", checks))
            .service(get("/v1/tariffs", tariffs))
            .service(get("/v1/jobs", jobs));
    }
}

async fn usage(api: Data<Api>, request: HttpRequest) -> Result<Json<Usage>, Refusal> {
    api.usage(request.query_string(), now_ms()).await.map(Json)
}

async fn charges(api: Data<Api>, request: HttpRequest) -> Result<Json<Entries>, Refusal> {
    api.charges(request.query_string()).await.map(Json)
}

async fn ledger(api: Data<Api>, request: HttpRequest) -> Result<Json<Ledger>, Refusal> {
    api.ledger(request.query_string()).await.map(Json)
}

async fn checks(api: Data<Api>, request: HttpRequest) -> Result<Json<Checks>, Refusal> {
    api.checks(request.query_string()).await.map(Json)
}

async fn tariffs(api: Data<Api>, request: HttpRequest) -> Result<Json<Tariffs>, Refusal> {
    api.tariffs(request.query_string()).await.map(Json)
}

async fn jobs(api: Data<Api>, request: HttpRequest) -> Result<Json<Value>, Refusal> {
    api.jobs(request.query_string()).await.map(Json)
}
