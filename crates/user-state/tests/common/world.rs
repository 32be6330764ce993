//! The whole service: a stream, a database, an instance that consumes, and clients.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{Record, at};
use actix_web::{App, HttpServer};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tollgate_schema::topics;
use tollgate_store::{Settings as DatabaseSettings, connect};
use tollgate_stream::consumer::ConsumerError;
use tollgate_stream::embedded::{EmbeddedOptions, EmbeddedStream};
use tollgate_stream::settings::{ConsumerSettings, EmbeddedSettings};
use tollgate_stream::{Deliveries, DeliveryError, Position, Producer, ProducerKind, Stream, Token};
use tollgate_testkit::{TestDir, eventually, eventually_true};
use tollgate_user_state::api::Feed;
use tollgate_user_state::store::{Options as StoreOptions, UserStateStore};
use tollgate_user_state::{Api, Options, Settings, UserState, routes};

pub const SOON: Duration = Duration::from_secs(20);

#[derive(Default)]
pub struct Confirmed(AtomicUsize);

impl Deliveries for Confirmed {
    fn delivered(&self, _token: Token, outcome: Result<Position, DeliveryError>) {
        assert!(outcome.is_ok());
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// A stream, a database, one consuming instance and one that only answers.
pub struct World {
    pub stream: Arc<dyn Stream>,
    pub producer: Arc<dyn Producer>,
    pub confirmed: Arc<Confirmed>,
    pub sent: AtomicUsize,
    pub database: String,
    pub stop: CancellationToken,
    pub running: JoinHandle<Result<(), ConsumerError>>,
    pub address: SocketAddr,
    _dir: TestDir,
}

impl World {
    pub async fn new(database: Option<String>, settings: Settings) -> anyhow::Result<Self> {
        let dir = TestDir::new("user-state-service")?;
        let database =
            database.unwrap_or_else(|| format!("sqlite:{}", dir.path().join("state.db").display()));
        let log = EmbeddedSettings {
            dir: dir.path().join("stream"),
            segment_bytes: 1024 * 1024,
            max_bytes: 64 * 1024 * 1024,
        };
        let stream: Arc<dyn Stream> = EmbeddedStream::open(EmbeddedOptions::new(log))?;
        tollgate_stream::topics::create(&*stream, topics::ALL, Some(1)).await?;
        let confirmed = Arc::new(Confirmed::default());
        let producer = stream.producer(ProducerKind::Spooled, Arc::clone(&confirmed) as _)?;
        let stop = CancellationToken::new();
        let consumer = ConsumerSettings { tick_interval_ms: 50, ..ConsumerSettings::default() };
        let users = UserState::new(
            Arc::clone(&stream),
            connect(&DatabaseSettings::for_url(database.as_str()))?,
            Options { settings, consumer },
        )?;
        let api = users.handle().api;
        let running = tokio::spawn(users.run(stop.clone()));
        let address = serve(Arc::clone(&api), stop.clone())?;
        let feed = api.feed();
        eventually_true("the feed listens", SOON, async || feed.is_listening()).await;
        let sent = AtomicUsize::new(0);
        Ok(Self { stream, producer, confirmed, sent, database, stop, running, address, _dir: dir })
    }

    /// Another instance that consumes nothing, and so owns no number.
    pub async fn bystander(&self, settings: &Settings) -> anyhow::Result<(SocketAddr, Feed)> {
        let database = connect(&DatabaseSettings::for_url(self.database.as_str()))?;
        let options = StoreOptions { expiry: settings.expiry(), keep_ms: None, pseudonyms: None };
        let store = UserStateStore::new(database, options);
        let feed = Feed::new(settings);
        tokio::spawn(feed.clone().run(Arc::clone(&self.stream), self.stop.clone()));
        // It hears of what is sent from then on.
        eventually_true("the feed listens", SOON, async || feed.is_listening()).await;
        let address = serve(Arc::new(Api::new(store, feed.clone())), self.stop.clone())?;
        Ok((address, feed))
    }

    pub async fn send(&self, records: &[Record]) -> anyhow::Result<()> {
        for record in records {
            let token = self.sent.fetch_add(1, Ordering::AcqRel);
            self.producer.send(&record.outgoing(), token as Token)?;
        }
        self.producer.flush(SOON).await?;
        assert_eq!(self.confirmed.0.load(Ordering::Acquire), self.sent.load(Ordering::Acquire));
        Ok(())
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        get(self.address, path).await
    }

    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(SOON, async || match self.get(path).await {
            Ok((200, value)) if wanted(&value) => Ok(value),
            Ok((status, value)) => Err(format!("{status} {value}")),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    pub async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.running.await??;
        Ok(())
    }
}

pub fn serve(api: Arc<Api>, stop: CancellationToken) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let routes = routes(api);
    let server = HttpServer::new(move || App::new().configure(routes.clone()))
        .workers(1)
        .disable_signals()
        .shutdown_timeout(5)
        .shutdown_signal(async move { stop.cancelled().await })
        .listen(listener)?
        .run();
    tokio::spawn(server);
    Ok(address)
}

pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, Value)> {
    let response = reqwest::get(format!("http://{address}{path}")).await?;
    let status = response.status().as_u16();
    Ok((status, response.json().await?))
}

pub const A: &str = "+8613800000021";
pub const B: &str = "+8613800007021";

/// Seconds from the instant that the records count from until now.
pub fn jiff_now_seconds() -> i64 {
    let now = jiff::Timestamp::now().as_millisecond();
    (now - at(0)) / 1000
}
