//! What every long-running command begins and ends with.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::ServiceConfig;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tollgate_billing::Billing;
use tollgate_edge::{Edge, Running};
use tollgate_kafka::KafkaStream;
use tollgate_runtime::listener::{Access, bind, serve};
use tollgate_runtime::{Health, health, shutdown, telemetry};
use tollgate_spool::disk::RealDisk;
use tollgate_store::Database;
use tollgate_stream::{Stream, StreamError};
use tollgate_telemetry::Metric;
use tollgate_user_state::UserState;

use crate::commands::Refused;
use crate::config::Config;

/// Connections waiting to be accepted by the listeners besides ingest.
const BACKLOG: i32 = 128;

/// Logs, metrics, readiness and the word to stop.
pub struct Process {
    /// Cancelled by SIGTERM and SIGINT.
    pub stop: CancellationToken,
    /// What makes it ready.
    pub health: Health,
    /// The address of health and metrics.
    pub health_address: SocketAddr,
}

/// Every metric of the program, by crate.
pub const METRICS: &[&[Metric]] = &[
    tollgate_edge::metrics::ALL,
    tollgate_spool::metrics::ALL,
    tollgate_stream::metrics::ALL,
    tollgate_kafka::metrics::ALL,
    tollgate_store::metrics::ALL,
    tollgate_billing::metrics::ALL,
    tollgate_user_state::metrics::ALL,
    tollgate_runtime::metrics::ALL,
];

impl Process {
    /// Starts logging, measuring, and the listener of health and metrics.
    pub fn begin(config: &Config) -> anyhow::Result<Self> {
        telemetry::init_logs(&config.log)?;
        let recorder = telemetry::init_metrics(METRICS)?;
        metrics::gauge!(tollgate_runtime::metrics::BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION"))
            .set(1.0);
        let stop = shutdown::on_signal()?;
        let health = Health::default();
        let health_address = Self::serve_health(config, &health, recorder)?;
        Ok(Self { stop, health, health_address })
    }

    /// Health is answered to the very end, so that everybody can see the drain: it is not stopped
    /// by the signal but ends with the process.
    fn serve_health(
        config: &Config,
        health: &Health,
        recorder: PrometheusHandle,
    ) -> anyhow::Result<SocketAddr> {
        let listener = bind("health and metrics", config.listeners.health, BACKLOG)?;
        let address = listener.local_addr()?;
        let routes = health::routes(health.clone(), recorder.clone());
        tokio::spawn(serve(listener, Access::Open, routes, CancellationToken::new())?);
        tokio::spawn(telemetry::upkeep(recorder));
        Ok(address)
    }
}

/// The query API's port, opened before anything else starts, so that a taken port is found first.
pub struct QueryPort {
    listener: TcpListener,
    access: Access,
    /// Its address.
    pub address: SocketAddr,
}

impl QueryPort {
    /// Opens the port and reads the token.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let token = config.listeners.query_token()?;
        let listener = bind("queries", config.listeners.query, BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, access: Access::Token(token.map(Arc::from)), address })
    }

    /// Answers queries until told to stop.
    pub fn serve(
        self,
        routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        tokio::spawn(serve(self.listener, self.access, routes, stop)?);
        Ok(())
    }
}

/// The Kafka cluster of the settings. Does not wait for it.
pub fn kafka(config: &Config) -> anyhow::Result<Arc<dyn Stream>> {
    let stream: Arc<dyn Stream> = KafkaStream::connect(&config.kafka)?;
    Ok(stream)
}

/// Starts an edge on this stream.
pub fn edge(
    config: &Config,
    stream: Arc<dyn Stream>,
    process: &Process,
    stop: CancellationToken,
) -> anyhow::Result<Running> {
    let edge = Edge {
        settings: config.edge.clone(),
        spool: config.spool.clone(),
        applications: config.applications.clone(),
        stream,
        disk: Arc::new(RealDisk),
        health: process.health.clone(),
    };
    Ok(edge.start(stop)?)
}

/// The database of the settings. Does not wait for it: what it says is about the settings.
pub fn database(settings: &tollgate_store::Settings) -> Result<Database, Refused> {
    tollgate_store::connect(settings).map_err(|error| Refused(error.to_string()))
}

/// Billing on this stream and database.
pub fn billing(
    config: &Config,
    stream: Arc<dyn Stream>,
    database: Database,
) -> anyhow::Result<Billing> {
    let options = tollgate_billing::Options {
        settings: config.billing.clone(),
        consumer: config.consumer.clone(),
        applications: billing_applications(config),
    };
    Ok(Billing::new(stream, database, options)?)
}

/// The configured applications as billing wants them.
pub fn billing_applications(config: &Config) -> Vec<tollgate_billing::Application> {
    config.applications.iter().map(billing_application).collect()
}

fn billing_application(application: &tollgate_edge::Application) -> tollgate_billing::Application {
    tollgate_billing::Application {
        app_key: application.app_key.clone(),
        name: application.name.clone(),
        service: application.service.map(rating_service),
    }
}

fn rating_service(service: tollgate_edge::Service) -> tollgate_rating::Service {
    match service {
        tollgate_edge::Service::Callback => tollgate_rating::Service::Callback,
        tollgate_edge::Service::Notification => tollgate_rating::Service::Notification,
        tollgate_edge::Service::Verification => tollgate_rating::Service::Verification,
        tollgate_edge::Service::PrivateAx => tollgate_rating::Service::PrivateAx,
        tollgate_edge::Service::PrivateAxb => tollgate_rating::Service::PrivateAxb,
    }
}

/// User-state on this stream and database.
pub fn user_state(
    config: &Config,
    stream: Arc<dyn Stream>,
    database: Database,
) -> anyhow::Result<UserState> {
    let options = tollgate_user_state::Options {
        settings: config.user_state.clone(),
        consumer: config.consumer.clone(),
    };
    Ok(UserState::new(stream, database, options)?)
}

/// Which cluster it is, for what a command says of it.
pub fn cluster(config: &Config) -> String {
    format!("Kafka at {} (kafka.brokers)", config.kafka.brokers)
}

/// How long a command waits for a cluster that does not answer, or whose topics have no leader yet.
const PATIENCE: Duration = Duration::from_secs(20);

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// Tries again what passes by itself, for as long as somebody at a terminal is willing to wait.
pub async fn patiently<T>(
    mut call: impl AsyncFnMut() -> Result<T, StreamError>,
) -> Result<T, StreamError> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        match call().await {
            Err(StreamError::Transient(_)) if tokio::time::Instant::now() < end => {
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}
