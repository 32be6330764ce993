//! `tollgate config check|show`.

use std::process::ExitCode;

use tollgate_runtime::telemetry;

use crate::cli::{self, Cli};
use crate::config::{Config, Part};
use crate::say::say;

pub fn run(cli: &Cli, command: &cli::Config) -> anyhow::Result<ExitCode> {
    let config = Config::read(cli, serde_json::json!({}))?;
    match command {
        cli::Config::Check => {
            telemetry::init_logs(&config.log)?;
            // A file may be for one service only: a database that is not set is not missed.
            let database = &config.database;
            let without = database.url.is_empty() && database.url_file.is_none();
            let mut parts = Part::ALL.to_vec();
            parts.retain(|part| !(without && *part == Part::Database));
            config.validate(&parts)?;
            say!("settings can be used");
        }
        cli::Config::Show => say!("{}", serde_json::to_string_pretty(&config.shown()?)?),
    }
    Ok(ExitCode::SUCCESS)
}
