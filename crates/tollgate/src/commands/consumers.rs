//! `tollgate billing` and `tollgate user-state`.

use std::process::ExitCode;
use std::sync::Arc;

use actix_web::web::ServiceConfig;
use tollgate_store::Database;
use tollgate_stream::Stream;

use crate::cli::Cli;
use crate::compose::{self, Process, QueryPort};
use crate::config::{Config, Part};

pub async fn billing(cli: &Cli) -> anyhow::Result<ExitCode> {
    let Around { config, process, query, stream, database } = prepare(cli, Part::OF_BILLING)?;
    let billing = compose::billing(&config, stream, database)?;
    let routes = tollgate_billing::routes(billing.handle().api);
    serve(&process, query, routes, "billing consumes cdrs")?;
    billing.run(process.stop).await?;
    Ok(ExitCode::SUCCESS)
}

pub async fn user_state(cli: &Cli) -> anyhow::Result<ExitCode> {
    let Around { config, process, query, stream, database } = prepare(cli, Part::OF_USER_STATE)?;
    let users = compose::user_state(&config, stream, database)?;
    let routes = tollgate_user_state::routes(users.handle().api);
    serve(&process, query, routes, "user-state consumes call-events and cdrs")?;
    users.run(process.stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// What a consumer works in.
struct Around {
    config: Config,
    process: Process,
    query: QueryPort,
    stream: Arc<dyn Stream>,
    database: Database,
}

fn prepare(cli: &Cli, parts: &[Part]) -> anyhow::Result<Around> {
    let config = Config::read(cli, serde_json::json!({}))?;
    config.validate(parts)?;
    let process = Process::begin(&config)?;
    let query = QueryPort::open(&config)?;
    let stream = compose::kafka(&config)?;
    let database = compose::database(&config.database)?;
    Ok(Around { config, process, query, stream, database })
}

/// Answers queries from now on, and is ready.
fn serve(
    process: &Process,
    query: QueryPort,
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
    what: &str,
) -> anyhow::Result<()> {
    let address = query.address;
    query.serve(routes, process.stop.clone())?;
    process.health.started();
    tracing::info!(queries = %address, health = %process.health_address, "{what}");
    Ok(())
}
