//! The commands: each reads the settings it needs, composes, and says how it ended.

mod config;
mod consumers;
mod dev;
mod edge;
mod explain;
mod quarantine;
mod simulate;
mod spool;
mod tail;
mod tariff;
mod topics;

use std::process::ExitCode;

use tollgate_billing::BillingError;
use tollgate_edge::EdgeError;
use tollgate_runtime::SettingsError;
use tollgate_user_state::UserStateError;

use crate::cli::{Cli, Command};

/// A check found something.
pub const FOUND: u8 = 3;

/// Carries out one command.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Dev(arguments) => dev::run(&cli, arguments).await,
        Command::Edge => edge::run(&cli).await,
        Command::Billing => consumers::billing(&cli).await,
        Command::UserState => consumers::user_state(&cli).await,
        Command::Simulate(arguments) => simulate::run(&cli, arguments).await,
        Command::Topics(command) => topics::run(&cli, command).await,
        Command::Spool(command) => spool::run(&cli, command).await,
        Command::Quarantine(command) => quarantine::run(&cli, command).await,
        Command::Tariff(command) => tariff::run(&cli, command).await,
        Command::Tail(arguments) => tail::run(&cli, arguments).await,
        Command::Config(command) => config::run(&cli, command),
        Command::Explain(arguments) => explain::run(&cli, arguments),
    }
}

/// 2 for settings, secrets and usage, 1 for everything else.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(if error.chain().any(is_about_settings) { 2 } else { 1 })
}

fn is_about_settings(cause: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(error) = cause.downcast_ref() {
        return matches!(
            error,
            EdgeError::Inconsistent(_) | EdgeError::Settings(_) | EdgeError::Tls(_)
        );
    }
    if let Some(error) = cause.downcast_ref() {
        return matches!(error, BillingError::Settings(_));
    }
    cause.is::<SettingsError>() || cause.is::<UserStateError>() || cause.is::<Refused>()
}

/// Settings that contradict each other, or an argument that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);
