//! `tollgate config check|show`.

use std::process::ExitCode;

use tollgate_runtime::telemetry;

use crate::cli::{self, Cli, Service};
use crate::config::{Config, Part};
use crate::say::say;

pub fn run(cli: &Cli, command: &cli::Config) -> anyhow::Result<ExitCode> {
    let config = Config::read(cli, serde_json::json!({}))?;
    match command {
        cli::Config::Check { service } => {
            telemetry::init_logs(&config.log)?;
            match service {
                Some(Service::Edge) => config.validate(Part::OF_EDGE)?,
                Some(Service::Billing) => config.validate(Part::OF_BILLING)?,
                Some(Service::UserState) => config.validate(Part::OF_USER_STATE)?,
                None => check_all(&config)?,
            }
            say!("settings can be used");
        }
        cli::Config::Show => say!("{}", serde_json::to_string_pretty(&config.shown()?)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// A file may be for one service only: a database that is not set is not missed.
fn check_all(config: &Config) -> anyhow::Result<()> {
    let database = &config.database;
    let without = database.url.is_empty() && database.url_file.is_none();
    let mut parts = Part::ALL.to_vec();
    parts.retain(|part| !(without && *part == Part::Database));
    config.validate(&parts)
}
