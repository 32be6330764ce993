//! `tollgate billing` and `tollgate user-state`.

use std::process::ExitCode;

use crate::cli::Cli;
use crate::compose::{self, Process, QueryPort};
use crate::config::{Config, Part};

pub async fn billing(cli: &Cli) -> anyhow::Result<ExitCode> {
    let config = Config::read(cli, serde_json::json!({}))?;
    config.validate(Part::OF_BILLING)?;
    let process = Process::begin(&config)?;
    let query = QueryPort::open(&config)?;
    let address = query.address;
    let stream = compose::kafka(&config)?;
    let database = compose::database(&config.database)?;
    let billing = compose::billing(&config, stream, database)?;
    query.serve(tollgate_billing::routes(billing.handle().api), process.stop.clone())?;
    process.health.started();
    tracing::info!(queries = %address, health = %process.health_address, "billing consumes cdrs");
    billing.run(process.stop).await?;
    Ok(ExitCode::SUCCESS)
}

pub async fn user_state(cli: &Cli) -> anyhow::Result<ExitCode> {
    let config = Config::read(cli, serde_json::json!({}))?;
    config.validate(Part::OF_USER_STATE)?;
    let process = Process::begin(&config)?;
    let query = QueryPort::open(&config)?;
    let address = query.address;
    let stream = compose::kafka(&config)?;
    let database = compose::database(&config.database)?;
    let options = compose::user_state_options(&config, stream, database);
    let handle = tollgate_user_state::start(options, process.stop.clone())?;
    query.serve(tollgate_user_state::routes(handle.api.clone()), process.stop.clone())?;
    process.health.started();
    tracing::info!(queries = %address, health = %process.health_address, "user-state consumes call-events and cdrs");
    handle.join().await?;
    Ok(ExitCode::SUCCESS)
}
