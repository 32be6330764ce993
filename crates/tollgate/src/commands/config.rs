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
                None => return check_all(&config),
            }
            say!("settings can be used");
        }
        cli::Config::Show => say!("{}", serde_json::to_string_pretty(&config.shown()?)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// A file may be for edges only: a database that is not set is not missed, but its lack is said.
fn check_all(config: &Config) -> anyhow::Result<ExitCode> {
    if config.database.url.is_empty() && config.database.url_file.is_none() {
        let mut parts = Part::ALL.to_vec();
        parts.retain(|part| *part != Part::Database);
        config.validate(&parts)?;
        say!(
            "settings can be used; not checked: the database, of which none is set (database.url, database.url_file): billing and user-state could not start"
        );
    } else {
        config.validate(Part::ALL)?;
        say!("settings can be used");
    }
    Ok(ExitCode::SUCCESS)
}
