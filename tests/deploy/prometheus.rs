//! Rules and dashboard held against Prometheus itself: `promtool` for the rules, a server that
//! scrapes the whole system at work for the rest.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value as Json;
use serde_yaml_ng::Value;
use tollgate_testkit::{Server, TestDir, dies_with_us, eventually, program, run};

use crate::common::{PATIENCE, Process, address, get};
use crate::files::{list, root, text_of, yaml};
use crate::metrics::{labels, literals, panels, rules};
use crate::promql::{self, Query};

/// Debian's package with `prometheus` and `promtool`.
const PACKAGE: &str = "prometheus";
const TESTS: &str = "deploy/prometheus/alerts.test.yml";

/// What has nothing to show as long as nothing goes wrong, Kafka is not used and nobody listens.
const QUIET: [&str; 15] = [
    "tollgate_billing_reversed_micros_total",
    "tollgate_consumer_poison_total",
    "tollgate_consumer_store_errors_total",
    "tollgate_consumer_stream_errors_total",
    "tollgate_edge_aborted_total",
    "tollgate_edge_quarantined_total",
    "tollgate_edge_refused_total",
    "tollgate_edge_retried_total",
    "tollgate_relay_errors_total",
    "tollgate_spool_damaged_records_total",
    "tollgate_spool_disk_failures_total",
    "tollgate_state_changes_clients_dropped_total",
    "tollgate_state_late_events_total",
    "tollgate_state_rejected_total",
    "tollgate_kafka_",
];

#[test]
fn every_rule_fires_when_it_should_and_only_then() -> Result<()> {
    let promtool = program("promtool", PACKAGE)?;
    let configuration = root().join("deploy/prometheus/prometheus.yml");
    run(Command::new(&promtool).args(["check", "config"]).arg(configuration))?;
    run(Command::new(&promtool).args(["test", "rules"]).arg(root().join(TESTS)))?;

    let literals = literals()?;
    let mut fired = BTreeSet::new();
    for test in list(&yaml(TESTS)?["tests"])? {
        let name = text_of(&test["name"])?;
        let alert = name.split(',').next().unwrap_or_default().to_owned();
        for series in list(&test["input_series"])? {
            check_series(&text_of(&series["series"])?, &literals).with_context(|| name.clone())?;
        }
        for expected in list(&test["promql_expr_test"])? {
            let is_about_it =
                text_of(&expected["expr"])?.contains(&format!("alertname=\"{alert}\""));
            if is_about_it && expected["exp_samples"].is_sequence() {
                fired.insert(alert.clone());
            }
        }
    }
    let names = rules()?.iter().map(|rule| text_of(&rule["alert"])).collect::<Result<_>>()?;
    ensure!(
        fired == names,
        "rules that do not fire in a test, tests of no rule: {:?}",
        names.symmetric_difference(&fired)
    );
    Ok(())
}

/// Checks that a series of a test is one that the program can have.
fn check_series(series: &str, literals: &HashSet<String>) -> Result<()> {
    let query = Query::parse(series)?;
    let selector = query.selectors.first().context("no series")?;
    let own = labels(promql::name(selector))?;
    for matcher in promql::matchers(selector) {
        let (name, value) = (&matcher.name, &matcher.value);
        ensure!(own.contains(name), "{series}: there is no label {name}");
        let is_free = ["instance", "job", "application", "le"].contains(&name.as_str());
        ensure!(is_free || literals.contains(value), "{series}: nothing gives {name} this value");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_has_something_to_show_and_nothing_to_alarm_about() -> Result<()> {
    let dir = TestDir::new("prometheus")?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (listen, query) = (address().to_string(), address().to_string());
    let data = path("data");
    let arguments = ["dev", "--simulate", "--rate", "20", "--data", &data, "--listen", &listen];
    let arguments = [&arguments[..], &["--query", &query]].concat();
    let dev = Process::start("dev", dir.path(), &arguments, &[]).await?;
    let prometheus = Prometheus::start(dir.path(), dev.health())?;

    let (_, panels) = panels()?;
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        for target in panel["targets"].as_array().context("a panel without targets")? {
            let shown = target["expr"].as_str().context("a target without an expression")?;
            let expression = shown
                .replace("$__rate_interval", "5s")
                .replace("$instance", ".*")
                .replace("$group", ".*");
            let is_quiet = QUIET.iter().any(|metric| expression.contains(metric));
            eventually(PATIENCE, async || {
                let samples = prometheus.samples(&expression).await?;
                ensure!(
                    is_quiet || !samples.is_empty(),
                    "{} shows nothing: {shown}",
                    panel["title"]
                );
                ensure!(samples.iter().all(|it| it != "NaN"), "{}: {shown}", panel["title"]);
                anyhow::Ok(())
            })
            .await;
        }
    }

    // Partitions are attended to soon, not at once.
    eventually(PATIENCE, async || prometheus.is_content().await).await;
    Ok(())
}

/// A Prometheus as it is deployed, but for its targets and its pace.
struct Prometheus {
    url: String,
    _server: Server,
}

impl Prometheus {
    fn start(dir: &Path, target: SocketAddr) -> Result<Self> {
        let mut configuration = yaml("deploy/prometheus/prometheus.yml")?;
        for interval in ["scrape_interval", "evaluation_interval"] {
            configuration["global"][interval] = "1s".into();
        }
        let rules = root().join("deploy/prometheus/alerts.yml").display().to_string();
        configuration["rule_files"] = Value::Sequence(vec![rules.into()]);
        configuration["scrape_configs"][0]["static_configs"][0]["targets"] =
            Value::Sequence(vec![target.to_string().into()]);
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, serde_yaml_ng::to_string(&configuration)?)?;

        let listen = address();
        let line = dies_with_us(&program("prometheus", PACKAGE)?)?;
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg("--config.file").arg(file);
        command.arg("--storage.tsdb.path").arg(dir.join("tsdb"));
        command.arg(format!("--web.listen-address={listen}"));
        let server = Server::start(command, &dir.join("prometheus.log"))?;
        Ok(Self { url: format!("http://{listen}/api/v1"), _server: server })
    }

    async fn ask(&self, what: &str, parameters: &[(&str, &str)]) -> Result<Json> {
        let url = reqwest::Url::parse_with_params(&format!("{}/{what}", self.url), parameters)?;
        Ok(get(url.as_str()).await?["data"].clone())
    }

    /// Fails unless every rule is evaluated, and none has anything to say but perhaps that the
    /// machine is slow.
    async fn is_content(&self) -> Result<()> {
        let groups = self.ask("rules", &[]).await?["groups"].clone();
        let groups = groups.as_array().context("no groups")?;
        let evaluated: Vec<_> =
            groups.iter().filter_map(|group| group["rules"].as_array()).flatten().collect();
        ensure!(evaluated.len() == rules()?.len(), "{} rules are evaluated", evaluated.len());
        for rule in evaluated {
            ensure!(rule["health"] == "ok", "{rule:#}");
            let is_content = rule["state"] == "inactive" || rule["name"] == "TollgateSlowAnswers";
            ensure!(is_content, "{rule:#}");
        }
        Ok(())
    }

    /// Values of an instant query.
    async fn samples(&self, expression: &str) -> Result<Vec<String>> {
        let data = self.ask("query", &[("query", expression)]).await?;
        let series = data["result"].as_array().context("no result")?;
        Ok(series.iter().filter_map(|it| Some(it["value"][1].as_str()?.to_owned())).collect())
    }
}
