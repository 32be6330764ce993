//! Questions over HTTP. Listener, tokens and error pages of unknown paths are the runtime's.

mod answers;
pub use answers::amount_text;
mod params;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::json;
use tollgate_schema::ids::RecordId;
use tollgate_stream::StoreError;

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

    async fn usage(&self, query: &str, now_ms: i64) -> Result<Usage, BillingError> {
        let rules = self.store.rules();
        let query = UsageQuery::read(query, &rules.calendar, now_ms)?;
        let rows = self.store.usage(query.groups, query.from_ms, query.to_ms).await?;
        Ok(Usage::of(rows, &query, rules, now_ms))
    }

    async fn charges(&self, query: &str) -> Result<Entries, BillingError> {
        let entries = match ChargesParams::read(query)? {
            ChargesParams::Session(session_id) => {
                self.store.entries_of_session(&session_id).await?
            }
            ChargesParams::Record(text) => {
                let record_id =
                    RecordId::from_hex(&text).map_err(|_| BillingError::InvalidQuery {
                        what: "record_id is not 32 lower-case hexadecimal digits".to_owned(),
                        hint: "take it from a CallDetailRecord, a RatedCdr or the ledger",
                    })?;
                self.store.entries_of_record(&record_id).await?
            }
        };
        Ok(Entries::of(&entries, self.store.rules()))
    }

    async fn ledger(&self, query: &str) -> Result<Ledger, BillingError> {
        let (after, limit) = LedgerParams::read(query)?;
        Ok(Ledger::of(&self.store.ledger(after, limit).await?, self.store.rules()))
    }

    async fn checks(&self) -> Result<Checks, BillingError> {
        let _checking = self.checking.try_lock().map_err(|_| BillingError::Busy)?;
        self.store.checks().await
    }

    async fn tariffs(&self) -> Result<Tariffs, BillingError> {
        let (tariffs, activations) = self.store.tariffs().await?;
        Ok(Tariffs::of(tariffs, activations))
    }
}

/// Routes of the query listener.
pub fn routes(api: Arc<Api>) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    move |config| {
        config
            .app_data(web::Data::from(Arc::clone(&api)))
            .route("/v1/usage", web::get().to(usage))
            .route("/v1/charges", web::get().to(charges))
            .route("/v1/ledger", web::get().to(ledger))
            .route("/v1/checks", web::get().to(checks))
            .route("/v1/tariffs", web::get().to(tariffs))
            .route("/v1/jobs", web::get().to(jobs));
    }
}

async fn usage(api: web::Data<Api>, request: HttpRequest) -> HttpResponse {
    answer(api.usage(request.query_string(), now_ms()).await)
}

async fn charges(api: web::Data<Api>, request: HttpRequest) -> HttpResponse {
    answer(api.charges(request.query_string()).await)
}

async fn ledger(api: web::Data<Api>, request: HttpRequest) -> HttpResponse {
    answer(api.ledger(request.query_string()).await)
}

async fn checks(api: web::Data<Api>) -> HttpResponse {
    answer(api.checks().await)
}

async fn tariffs(api: web::Data<Api>) -> HttpResponse {
    answer(api.tariffs().await)
}

async fn jobs(api: web::Data<Api>) -> HttpResponse {
    answer(api.store.jobs().await.map(|jobs| json!({ "jobs": jobs })))
}

fn answer<T: Serialize>(result: Result<T, BillingError>) -> HttpResponse {
    match result {
        Ok(body) => HttpResponse::Ok().json(body),
        Err(error) => refuse(&error),
    }
}

/// A refusal in words. Texts of the database name SQLSTATE and constraint only, and stay so.
fn refuse(error: &BillingError) -> HttpResponse {
    let (status, hint) = match error {
        BillingError::InvalidQuery { hint, .. } => (StatusCode::BAD_REQUEST, *hint),
        BillingError::InvalidTariff(_) => (StatusCode::BAD_REQUEST, "mend the tariff"),
        BillingError::UnknownTariff(_) => (StatusCode::NOT_FOUND, "GET /v1/tariffs lists them"),
        BillingError::Busy | BillingError::Store(StoreError::Transient(_)) => {
            (StatusCode::SERVICE_UNAVAILABLE, "ask again in a few seconds")
        }
        BillingError::Settings(_) | BillingError::Store(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "an operator has to look at the database")
        }
    };
    HttpResponse::build(status).json(json!({ "error": error.to_string(), "hint": hint }))
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
