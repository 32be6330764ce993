//! `tollgate simulate`, and the traffic of `tollgate dev --simulate`.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tollgate_runtime::{shutdown, telemetry};
use tollgate_simulator::{Endless, Evidence, Options, Progress, Sources};

use crate::cli::{Cli, Simulate};
use crate::compose;
use crate::config::{Config, Part};
use crate::say;

pub async fn run(cli: &Cli, arguments: &Simulate) -> anyhow::Result<ExitCode> {
    let config = Config::read(cli, serde_json::json!({}))?;
    telemetry::init_logs(&config.log)?;
    let options = &arguments.options;
    let mut evidence: Option<Box<dyn Evidence>> = None;
    if arguments.kafka {
        config.validate(&[Part::Kafka])?;
        evidence = Some(Box::new(Sources::of(options)?.with_stream(compose::kafka(&config)?)));
    }
    let progress = if options.quiet { Progress::hidden() } else { Progress::bar() };
    let stop = shutdown::on_signal()?;
    let report = tollgate_simulator::run(options, evidence, progress, stop).await?;
    say::result(&report, u8::try_from(report.exit_code()).unwrap_or(1).into())
}

/// Traffic without an end towards one edge.
pub fn endless(url: String, rate: f64, stop: CancellationToken) -> anyhow::Result<Endless> {
    let options = Options { edges: vec![url], rate, ..Options::default() };
    Ok(tollgate_simulator::endless(&options, stop)?)
}
