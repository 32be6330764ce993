//! `tollgate config check|show`.

use std::process::ExitCode;

use crate::cli::{self, Cli};
use crate::config::{Config, Part};
use crate::say::say;

pub fn run(cli: &Cli, command: &cli::Config) -> anyhow::Result<ExitCode> {
    let config = Config::read(cli, serde_json::json!({}))?;
    match command {
        cli::Config::Check => {
            // A file may be for one service only: what is not configured for is not checked.
            let mut parts = vec![Part::Edge, Part::Kafka];
            let database = &config.database;
            if !database.url.is_empty() || database.url_file.is_some() {
                parts.push(Part::Consumer);
            }
            config.validate(&parts)?;
            say!("settings can be used");
        }
        cli::Config::Show => say!("{}", serde_json::to_string_pretty(&config.shown()?)?),
    }
    Ok(ExitCode::SUCCESS)
}
