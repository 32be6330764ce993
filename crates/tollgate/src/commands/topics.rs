//! `tollgate topics create|check`.

use std::process::ExitCode;

use anyhow::Context;
use tollgate_kafka::KafkaStream;
use tollgate_schema::topics::ALL;
use tollgate_stream::topics;

use super::FOUND;
use crate::cli::{self, Cli};
use crate::compose::{self, patiently};
use crate::config::{Config, Part};
use crate::say::{self, say};

pub async fn run(cli: &Cli, command: &cli::Topics) -> anyhow::Result<ExitCode> {
    let config = Config::read(cli, serde_json::json!({}))?;
    config.validate(&[Part::Kafka])?;
    let stream = KafkaStream::connect(&config.kafka)?;
    let cluster = || compose::cluster(&config);
    match command {
        cli::Topics::Create { replication } => {
            let created =
                patiently(async || topics::create(stream.as_ref(), ALL, *replication).await)
                    .await
                    .with_context(cluster)?;
            for name in &created {
                say!("created {name}");
            }
            say!("{} of {} topics were there already", ALL.len() - created.len(), ALL.len());
            Ok(ExitCode::SUCCESS)
        }
        cli::Topics::Check => {
            let findings = patiently(async || topics::check(stream.as_ref(), ALL, None).await)
                .await
                .with_context(cluster)?;
            if findings.is_empty() {
                say!("all {} topics are as the catalogue asks", ALL.len());
                return Ok(ExitCode::SUCCESS);
            }
            let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            say::result(&lines.join("\n"), FOUND.into())
        }
    }
}
