//! Queries over HTTP.
//!
//! ```text
//!  GET  /v1/numbers/{number}[?at=]   what one number is doing
//!  POST /v1/numbers/query            what up to a thousand are doing
//!  GET  /v1/calls?session_id=[&at=]  one call's whole timeline
//!  GET  /v1/changes[?number=]        changes as they happen (server-sent events)
//! ```
//!
//! Any instance answers everything: queries are read from the database, changes from topic
//! user-states. Listener and authentication are not this module's.

mod answer;
mod changes;
mod feed;
mod handlers;
mod timeline;

use std::sync::Arc;

use actix_web::web;
use tollgate_runtime::listener::{get, post};

use crate::store::UserStateStore;

pub use answer::{ActiveCallAnswer, Freshness, LastCallAnswer, NumberAnswer};
pub use feed::Feed;
pub use timeline::{CallAnswer, CdrAnswer, EndAnswer, EventAnswer, LegAnswer};

/// Answers queries.
pub struct Api {
    store: UserStateStore,
    feed: Feed,
}

impl Api {
    /// Reads from this store, and hears of changes from this feed.
    pub fn new(store: UserStateStore, feed: Feed) -> Self {
        Self { store, feed }
    }

    /// The live feed.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }
}

/// The routes, to be configured into a listener.
pub fn routes(api: Arc<Api>) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    move |config| {
        config
            .app_data(web::Data::from(Arc::clone(&api)))
            .service(post("/v1/numbers/query", handlers::numbers))
            .service(get("/v1/numbers/{number}", handlers::number))
            .service(get("/v1/calls", handlers::call))
            .service(get("/v1/changes", changes::changes));
    }
}
