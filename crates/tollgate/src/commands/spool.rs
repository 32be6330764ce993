//! `tollgate spool`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use tollgate_edge::Applications;
use tollgate_spool::disk::{Disk, RealDisk};
use tollgate_spool::{DeadLetter, dead_letters, inspect, read_damaged, verify};

use super::FOUND;
use crate::cli::{self, Cli};
use crate::compose;
use crate::config::{Config, Part};
use crate::mask;
use crate::say::{self, say};

pub async fn run(cli: &Cli, command: &cli::Spool) -> anyhow::Result<ExitCode> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    match command {
        cli::Spool::Inspect { dir } => {
            let inspection = inspect(dir, &disk).with_context(|| about(dir))?;
            say!("{}", serde_json::to_string_pretty(&inspection)?);
            Ok(ExitCode::SUCCESS)
        }
        cli::Spool::Verify { dir } => {
            let verification = verify(dir, &disk).with_context(|| about(dir))?;
            let code = if verification.is_complete() { 0 } else { FOUND };
            say::result(&serde_json::to_string_pretty(&verification)?, code.into())
        }
        cli::Spool::DeadLetters { dir, reveal } => {
            let found = dead_letters::list(&*disk, dir).with_context(|| about(dir))?;
            for letter in &found.letters {
                say!("{}", shown(letter, *reveal));
            }
            if found.damaged > 0 {
                say!("{} stretches cannot be read", found.damaged);
            }
            Ok(ExitCode::SUCCESS)
        }
        cli::Spool::Salvage { file, reveal } => {
            let readable = read_damaged(file, &*disk)?;
            let text = String::from_utf8_lossy(&readable);
            say!("{}", if *reveal { text.into_owned() } else { mask::hide_digits(&text) });
            Ok(ExitCode::SUCCESS)
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
    let spool = tollgate_spool::Settings { dir: dir.into(), ..config.spool.clone() };
    let replayed =
        tollgate_edge::replay(&spool, disk, stream.as_ref(), applications, progress).await?;
    bar.finish_and_clear();
    let mut text = format!("{} requests published and confirmed", replayed.requests);
    for finding in &replayed.findings {
        text = format!("{text}\n{}", serde_json::to_string(finding)?);
    }
    if replayed.dead_letters > 0 {
        text = format!(
            "{text}\n{} records are refused by their topics for good and kept as dead letters: keep the directory, and see `tollgate spool dead-letters --dir {}`",
            replayed.dead_letters,
            dir.display()
        );
    }
    let lost = replayed.findings.iter().any(tollgate_spool::Finding::is_loss);
    let code = if lost || replayed.dead_letters > 0 { FOUND } else { 0 };
    say::result(&text, code.into())
}

fn about(dir: &Path) -> String {
    format!("spool directory {}", dir.display())
}

fn shown(letter: &DeadLetter, reveal: bool) -> serde_json::Value {
    let mut shown = serde_json::json!({
        "topic": letter.topic,
        "reason": letter.reason,
        "position": letter.position,
        "refused_at": tollgate_schema::time::rfc3339(letter.refused_at_ms),
        "bytes": letter.value.as_deref().map_or(0, <[u8]>::len),
    });
    if reveal {
        shown["key"] = String::from_utf8_lossy(&letter.key).into();
        shown["event"] = letter
            .value
            .as_ref()
            .and_then(|value| {
                let topic = tollgate_schema::topics::Topic::named(&letter.topic)?;
                tollgate_schema::json::to_json(topic.message, value).ok()
            })
            .unwrap_or_default();
    }
    shown
}
