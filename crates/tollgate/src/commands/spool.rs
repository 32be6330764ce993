//! `tollgate spool inspect|verify|replay`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use tollgate_edge::Applications;
use tollgate_spool::disk::{Disk, RealDisk};
use tollgate_spool::{inspect, verify};

use super::FOUND;
use crate::cli::{self, Cli};
use crate::compose;
use crate::config::{Config, Part};

pub async fn run(cli: &Cli, command: &cli::Spool) -> anyhow::Result<ExitCode> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    match command {
        cli::Spool::Inspect { dir } => {
            let inspection = inspect(dir, &disk).with_context(|| about(dir))?;
            println!("{}", serde_json::to_string_pretty(&inspection)?);
            Ok(ExitCode::SUCCESS)
        }
        cli::Spool::Verify { dir } => {
            let verification = verify(dir, &disk).with_context(|| about(dir))?;
            println!("{}", serde_json::to_string_pretty(&verification)?);
            Ok(if verification.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
        }
        cli::Spool::Replay { dir } => replay(cli, dir, disk).await,
    }
}

async fn replay(cli: &Cli, dir: &Path, disk: Arc<dyn Disk>) -> anyhow::Result<ExitCode> {
    let config = Config::read(cli, serde_json::json!({}))?;
    config.validate(&[Part::Kafka])?;
    tollgate_runtime::telemetry::init_logs(&config.log)?;
    let unconfirmed = inspect(dir, &disk).with_context(|| about(dir))?.unconfirmed;
    let stream = compose::kafka(&config)?;
    let applications =
        Arc::new(Applications::new(&config.applications, config.edge.public_url.as_deref())?);
    let bar = ProgressBar::new(unconfirmed).with_style(ProgressStyle::with_template(
        "replaying {bar:40} {pos}/{len} requests, {eta} left",
    )?);
    let progress = |done| bar.set_position(done);
    let replayed =
        tollgate_edge::replay(dir, disk, stream.as_ref(), applications, progress).await?;
    bar.finish_and_clear();
    println!("{} requests published and confirmed", replayed.requests);
    for finding in &replayed.findings {
        println!("{}", serde_json::to_string(finding)?);
    }
    let lost = replayed.findings.iter().any(tollgate_spool::Finding::is_loss);
    Ok(if lost { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

fn about(dir: &Path) -> String {
    format!("spool directory {}", dir.display())
}
