//! `tollgate edge`.

use std::process::ExitCode;

use crate::cli::Cli;
use crate::compose::{self, Process};
use crate::config::{Config, Part};

pub async fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let config = Config::read(cli, serde_json::json!({}))?;
    config.validate(Part::OF_EDGE)?;
    let process = Process::begin(&config)?;
    let edge = compose::edge(&config, compose::kafka(&config)?, &process, process.stop.clone())?;
    process.health.started();
    tracing::info!(notifications = %edge.address, health = %process.health_address, edge_id = config.edge.edge_id, "edge takes notifications");
    edge.stopped().await?;
    Ok(ExitCode::SUCCESS)
}
