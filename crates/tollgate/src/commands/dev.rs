//! `tollgate dev`: the whole system in one process.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tollgate_billing::Billing;
use tollgate_edge::Running;
use tollgate_rating::SAMPLE_TARIFF;
use tollgate_schema::topics::ALL;
use tollgate_simulator::Endless;
use tollgate_spool::disk::{Disk as _, RealDisk};
use tollgate_stream::consumer::ConsumerError;
use tollgate_stream::embedded::{EmbeddedOptions, EmbeddedStream};
use tollgate_stream::{Stream, StreamError, topics};

use super::Refused;
use crate::cli::{Cli, Dev};
use crate::compose::{self, Process, QueryPort, patiently};
use crate::config::{Config, Part, set};
use crate::dev_api::{self, Readings};
use crate::live_line::{LiveLine, Sources};
use crate::say;

pub async fn run(cli: &Cli, arguments: &Dev) -> anyhow::Result<ExitCode> {
    let mut config = Config::read(cli, overrides(arguments))?;
    let urls = database_urls(&config, arguments)?;
    config.database =
        tollgate_store::Settings { url: urls.billing, url_file: None, ..config.database };
    config.validate(&parts(arguments))?;
    let live_line = LiveLine::wanted(arguments.quiet);
    // Whoever takes a first look wants the line, not the thirty-six partitions.
    if cli.log.is_none() && config.log.filter == "info" {
        config.log.filter = "warn".into();
    }
    let process = Process::begin(&config)?;
    let query = QueryPort::open(&config)?;
    let query_address = query.address;

    let stream = stream(&config, arguments).await?;
    if arguments.database.is_none() {
        create(arguments.data())?;
    }
    let billing_database = compose::database(&config.database)?;
    let user_database = compose::database(&tollgate_store::Settings {
        url: urls.user_state,
        ..config.database.clone()
    })?;
    let stop_consumers = CancellationToken::new();
    let billing = compose::billing(&config, Arc::clone(&stream), billing_database)?;
    activate_sample(&billing).await?;
    let billing_handle = billing.handle();
    let users = compose::user_state(&config, Arc::clone(&stream), user_database)?;
    let users_handle = users.handle();
    let edge = compose::edge(&config, Arc::clone(&stream), &process, process.stop.clone())?;
    let billing_routes = tollgate_billing::routes(Arc::clone(&billing_handle.api));
    let user_routes = tollgate_user_state::routes(Arc::clone(&users_handle.api));
    let topic_routes = dev_api::routes(Readings::new(stream));
    query.serve(
        move |config| {
            billing_routes(config);
            user_routes(config);
            topic_routes(config);
        },
        stop_consumers.clone(),
    )?;

    process.health.started();
    say::progress(&banner(arguments, &edge, query_address, &process));
    let simulation = simulate(arguments, &edge, &process.stop)?;
    let line = tokio::spawn(
        LiveLine::new(Sources {
            edge: edge.watch(),
            billing: billing_handle.consumer,
            users: users_handle.consumer,
            simulation,
        })
        .run(live_line, arguments.quiet, process.stop.clone()),
    );

    let billing = supervise(billing.run(stop_consumers.clone()), &process.stop);
    let users = supervise(users.run(stop_consumers.clone()), &process.stop);
    let result = edge.stopped().await;
    // The consumers stop last, so that what the edge has published on its way out is not left
    // behind longer than it must be. Whatever is: nothing is lost, the next start goes on.
    stop_consumers.cancel();
    process.stop.cancel();
    line.await?;
    result?;
    billing.await?.context("billing")?;
    users.await?.context("user-state")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a consumer. One that cannot go on takes the others with it.
fn supervise(
    consumer: impl Future<Output = Result<(), ConsumerError>> + Send + 'static,
    stop: &CancellationToken,
) -> JoinHandle<Result<(), ConsumerError>> {
    let guard = stop.clone().drop_guard();
    tokio::spawn(async move {
        let _guard = guard;
        consumer.await
    })
}

/// Flags over settings: everything under one directory, a laptop's weak topics accepted.
fn overrides(arguments: &Dev) -> Value {
    let mut overrides = json!({});
    // Not where the settings say: that may be the spool of an edge, whose notifications belong to
    // another cluster.
    set(&mut overrides, "spool.dir", json!(arguments.data().join("spool")));
    if let Some(data) = &arguments.data {
        set(&mut overrides, "embedded.dir", json!(data.join("stream")));
    }
    set(&mut overrides, "edge.allow_weak_topics", json!(true));
    for (name, address) in [
        ("edge.listen", arguments.listen),
        ("listeners.query", arguments.query),
        ("listeners.health", arguments.health),
    ] {
        if let Some(address) = address {
            set(&mut overrides, name, json!(address));
        }
    }
    if let Some(brokers) = &arguments.brokers {
        set(&mut overrides, "kafka.brokers", json!(brokers));
    }
    overrides
}

fn parts(arguments: &Dev) -> Vec<Part> {
    let stream = if arguments.brokers.is_some() { Part::Kafka } else { Part::Embedded };
    vec![Part::Edge, stream, Part::Database, Part::Query, Part::Billing, Part::UserState]
}

async fn stream(config: &Config, arguments: &Dev) -> anyhow::Result<Arc<dyn Stream>> {
    if arguments.brokers.is_none() {
        let stream = EmbeddedStream::open(EmbeddedOptions::new(config.embedded.clone()))?;
        topics::create(stream.as_ref(), ALL, Some(1)).await?;
        let groups = [config.billing.group.clone(), config.user_state.group.clone()];
        tokio::spawn(forget_other_groups(Arc::clone(&stream), groups));
        return Ok(stream);
    }
    let stream = compose::kafka(config)?;
    // As the catalogue asks where the cluster has the brokers for it, with one copy otherwise.
    let create =
        async |copies| patiently(async || topics::create(stream.as_ref(), ALL, copies).await).await;
    let created = match create(None).await {
        Err(StreamError::Refused(_)) => create(Some(1)).await,
        created => created,
    };
    created.context("topics cannot be created")?;
    Ok(stream)
}

/// A group that has another name now reads nothing any more, and a full log would wait for it for
/// ever.
async fn forget_other_groups(stream: Arc<EmbeddedStream>, groups: [String; 2]) {
    match stream.keep_groups(&groups.each_ref().map(String::as_str)).await {
        Ok(forgotten) => {
            for group in forgotten {
                tracing::warn!(
                    group,
                    "no setting names this consumer group any more; the embedded log keeps nothing for it"
                );
            }
        }
        Err(error) => tracing::warn!(%error, "consumer groups of before cannot be forgotten"),
    }
}

/// Where the consumers' databases are.
struct DatabaseUrls {
    billing: String,
    user_state: String,
}

/// One PostgreSQL database for both, or a SQLite file each. A database of the settings is not taken
/// silently: it may be the one of production.
fn database_urls(config: &Config, arguments: &Dev) -> Result<DatabaseUrls, Refused> {
    if let Some(url) = &arguments.database {
        return Ok(DatabaseUrls { billing: url.clone(), user_state: url.clone() });
    }
    if !config.database.url.is_empty() || config.database.url_file.is_some() {
        return Err(Refused(
            "settings are refused:\n  database: url or url_file is set, and dev takes its database \
             from --database only; give it there, or leave the setting out to use SQLite"
                .into(),
        ));
    }
    let file = |name: &str| format!("sqlite:{}", arguments.data().join(name).display());
    Ok(DatabaseUrls { billing: file("billing.sqlite"), user_state: file("user-state.sqlite") })
}

fn create(dir: &Path) -> anyhow::Result<()> {
    RealDisk.create_dir(dir).with_context(|| format!("{} cannot be created", dir.display()))
}

/// A first look needs prices. Whoever has activated a tariff keeps it.
async fn activate_sample(billing: &Billing) -> anyhow::Result<()> {
    let api = billing.handle().api;
    let store = api.store();
    store.ready().await.context("billing's database")?;
    let (_, activations) = store.tariffs().await?;
    if activations.is_empty() {
        let now = Timestamp::now().as_millisecond();
        let version = store.register_tariff(SAMPLE_TARIFF, now).await?;
        store.activate_tariff(&version, i64::MIN, now).await?;
    }
    Ok(())
}

fn banner(
    arguments: &Dev,
    edge: &Running,
    query: std::net::SocketAddr,
    process: &Process,
) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let (notifications, health) = (edge.address, process.health_address);
    let data = arguments.data().display();
    let stream = arguments.brokers.as_deref().unwrap_or("embedded log");
    let database = if arguments.database.is_some() { "PostgreSQL" } else { "SQLite" };
    let sample = sample();
    format!(
        "tollgate {version} is running: {stream}, {database}, data in {data}

  notifications  http://{notifications}/status  http://{notifications}/fee
  usage          http://{query}/v1/usage?group_by=hour
  ledger         http://{query}/v1/ledger
  presence       http://{query}/v1/numbers/%2B8613800000021
  changes        http://{query}/v1/changes
  metrics        http://{health}/metrics

  try: curl -i http://{notifications}/status -d '{sample}'
       curl http://{query}/v1/numbers/%2B8613800000021
"
    )
}

/// A status of this moment, so that the number it names is seen ringing.
fn sample() -> String {
    let now = Timestamp::now().strftime("%Y-%m-%d %H:%M:%S");
    format!(
        r#"{{"eventType":"alerting","statusInfo":{{"sessionId":"first-look","timestamp":"{now}","caller":"+8675528000002","called":"+8613800000021"}}}}"#
    )
}

fn simulate(
    arguments: &Dev,
    edge: &Running,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Endless>> {
    if !arguments.simulate {
        return Ok(None);
    }
    let url = format!("http://{}", edge.address);
    super::simulate::endless(url, arguments.rate, stop.clone()).map(Some)
}
