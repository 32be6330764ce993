//! Alert rules and dashboard: that what they name is measured, and what they say is explained.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value as Json;
use serde_yaml_ng::Value;
use tollgate_schema::topics::{CALL_EVENTS, CDRS};
use tollgate_telemetry::{Kind, Metric};

use crate::files::{list, read, sources, text_of, yaml};
use crate::pages;
use crate::promql::{self, Query};

/// The scrape job that every target belongs to.
pub const JOB: &str = "tollgate";
/// Uid of the datasource.
pub const DATASOURCE: &str = "prometheus";

const MEASURED: &[&[Metric]] = &[
    tollgate_billing::metrics::ALL,
    tollgate_edge::metrics::ALL,
    tollgate_kafka::metrics::ALL,
    tollgate_runtime::metrics::ALL,
    tollgate_spool::metrics::ALL,
    tollgate_store::metrics::ALL,
    tollgate_stream::metrics::ALL,
    tollgate_user_state::metrics::ALL,
];
/// From Prometheus itself and from the collector of process figures.
const OTHERS: [&str; 4] =
    ["up", "process_start_time_seconds", "process_resident_memory_bytes", "process_open_fds"];
/// Put on every series by the scrape.
const SCRAPED: [&str; 2] = ["instance", "job"];

/// Labels of a metric as Prometheus has them; an error when there is no such metric.
pub fn labels(name: &str) -> Result<Vec<String>> {
    let scraped = SCRAPED.iter().map(ToString::to_string);
    if OTHERS.contains(&name) {
        return Ok(scraped.collect());
    }
    let named = |name: &str| MEASURED.iter().copied().flatten().find(|it| it.name == name);
    let parts = ["_bucket", "_sum", "_count"];
    let histogram = parts.iter().find_map(|part| {
        let metric = named(name.strip_suffix(part)?)?;
        (metric.kind == Kind::Histogram).then_some((metric, *part == "_bucket"))
    });
    let (metric, buckets) = match (named(name), histogram) {
        (Some(metric), _) if metric.kind == Kind::Histogram => {
            bail!("{name} is a histogram: _bucket, _sum or _count")
        }
        (Some(metric), _) => (metric, false),
        (None, Some(found)) => found,
        (None, None) => bail!("there is no metric {name}"),
    };
    let own = metric.labels.iter().map(ToString::to_string);
    Ok(own.chain(buckets.then(|| "le".to_owned())).chain(scraped).collect())
}

/// Checks metrics, labels and label values of an expression; returns the labels of its result.
fn check(text: &str, literals: &HashSet<String>) -> Result<Vec<String>> {
    let query = Query::parse(text)?;
    ensure!(!query.selectors.is_empty(), "names no metric");
    let mut known = BTreeSet::new();
    for selector in &query.selectors {
        let metric = promql::name(selector);
        let own = labels(metric)?;
        for matcher in promql::matchers(selector) {
            let label = &matcher.name;
            ensure!(own.contains(label), "{metric} has no label {label}");
            for value in matcher.value.split('|').filter(|value| !value.starts_with('$')) {
                let is_known = match label.as_str() {
                    "job" => value == JOB,
                    _ => literals.contains(value),
                };
                ensure!(is_known, "{metric}: nothing gives {label} the value {value}");
            }
        }
        known.extend(own);
    }
    for label in &query.grouping {
        ensure!(known.contains(label), "no metric here has a label {label}");
    }
    Ok(query.result_labels(&|name| labels(name).unwrap_or_default()))
}

/// Every text between quotes in the code: what can be a label's value.
pub fn literals() -> Result<HashSet<String>> {
    let mut found = HashSet::new();
    for source in sources()? {
        found.extend(source.split('"').map(str::to_owned));
    }
    Ok(found)
}

/// Names after `start` in templates: `{{ $labels.reason }}`, `{{reason}}`.
fn named_in(text: &str, start: &str) -> Vec<String> {
    let pieces = text.split(start).skip(1);
    let name = |piece: &str| {
        let piece = piece.trim_start();
        let end = piece.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        piece[..end.unwrap_or(piece.len())].to_owned()
    };
    pieces.map(name).collect()
}

/// All alert rules.
pub fn rules() -> Result<Vec<Value>> {
    let file = yaml("deploy/prometheus/alerts.yml")?;
    let mut rules = Vec::new();
    for group in list(&file["groups"])? {
        ensure!(group["name"].is_string(), "a group without a name");
        rules.extend(list(&group["rules"])?.iter().cloned());
    }
    Ok(rules)
}

#[test]
fn alerts_name_only_what_is_measured() -> Result<()> {
    let literals = literals()?;
    for rule in rules()? {
        let name = text_of(&rule["alert"])?;
        let visible = check(&text_of(&rule["expr"])?, &literals).with_context(|| name.clone())?;
        for text in ["summary", "description"] {
            let text = text_of(&rule["annotations"][text])?;
            for label in named_in(&text, "$labels.") {
                ensure!(visible.contains(&label), "{name}: its result has no label {label}");
            }
        }
    }
    Ok(())
}

#[test]
fn every_alert_is_complete_and_has_its_section_for_those_on_call() -> Result<()> {
    let page = read("docs/operations.md")?;
    let sections = pages::headings(&page);
    let mut names = BTreeSet::new();
    for rule in rules()? {
        let name = text_of(&rule["alert"])?;
        let keys = rule.as_mapping().into_iter().flatten().filter_map(|(key, _)| key.as_str());
        for key in keys {
            let known = ["alert", "expr", "for", "labels", "annotations"].contains(&key);
            ensure!(known, "{name}: {key}");
        }
        let severity = text_of(&rule["labels"]["severity"])?;
        ensure!(["critical", "warning"].contains(&severity.as_str()), "{name}: {severity}");
        for text in ["summary", "description"] {
            ensure!(text_of(&rule["annotations"][text])?.len() > 20, "{name} has no {text}");
        }
        if let Some(time) = rule["for"].as_str() {
            let minutes = time.strip_suffix('m').map(str::parse::<u32>);
            ensure!(matches!(minutes, Some(Ok(_))), "{name}: for {time}");
        }
        let anchor = name.to_lowercase();
        let runbook = text_of(&rule["annotations"]["runbook_url"])?;
        ensure!(runbook == format!("docs/operations.md#{anchor}"), "{name}: {runbook}");
        ensure!(sections.contains(&name), "docs/operations.md has no section {name}");
        ensure!(names.insert(name.clone()), "{name} is there twice");
    }
    let documented = sections.iter().filter(|it| it.starts_with("Tollgate")).cloned();
    let documented: BTreeSet<_> = documented.collect();
    ensure!(documented == names, "{:?}", documented.symmetric_difference(&names));
    Ok(())
}

#[test]
fn the_rule_about_unattended_partitions_knows_how_many_there_are() -> Result<()> {
    let is_it = |rule: &Value| rule["alert"].as_str() == Some("TollgatePartitionsUnattended");
    let rule = rules()?.into_iter().find(is_it).context("no such rule")?;
    let expression = text_of(&rule["expr"])?;
    for topic in [CALL_EVENTS, CDRS] {
        let limit = format!("< {}", topic.partitions);
        ensure!(expression.ends_with(&limit), "{} has {} partitions", topic.name, topic.partitions);
    }
    Ok(())
}

/// The dashboard, and its panels.
pub fn panels() -> Result<(Json, Vec<Json>)> {
    let board: Json = serde_json::from_str(&read("deploy/grafana/dashboards/tollgate.json")?)?;
    let panels = board["panels"].as_array().context("no panels")?.clone();
    Ok((board, panels))
}

#[test]
fn the_dashboard_shows_only_what_is_measured() -> Result<()> {
    let literals = literals()?;
    let (board, panels) = panels()?;
    let variables: HashSet<_> = board["templating"]["list"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|variable| variable["name"].as_str().map(str::to_owned))
        .collect();
    let mut count = 0;
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = &panel["title"];
        let targets = panel["targets"].as_array().context("a panel without targets")?;
        ensure!(!targets.is_empty(), "{title} shows nothing");
        for target in targets {
            let text = target["expr"].as_str().context("a target without an expression")?;
            let visible = check(text, &literals).with_context(|| format!("{title}: {text}"))?;
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            for label in named_in(legend, "{{") {
                ensure!(visible.contains(&label), "{title}: the result has no label {label}");
            }
            for name in named_in(text, "$").iter().filter(|name| !name.starts_with("__")) {
                ensure!(variables.contains(name), "{title}: no variable {name}");
            }
            count += 1;
        }
    }
    ensure!(count > 50, "only {count} expressions were found");
    for variable in board["templating"]["list"].as_array().into_iter().flatten() {
        let text = variable["query"]["query"].as_str().context("a variable without a query")?;
        let inner = text.strip_prefix("label_values(").and_then(|it| it.strip_suffix(')'));
        let (metric, label) = inner.and_then(|it| it.rsplit_once(", ")).context("label_values")?;
        let visible = check(metric, &literals)?;
        ensure!(visible.iter().any(|it| it == label), "{metric} has no label {label}");
    }
    Ok(())
}

#[test]
fn the_dashboard_is_one_that_grafana_can_lay_out() -> Result<()> {
    let (board, panels) = panels()?;
    ensure!(board["uid"] == "tollgate" && board["schemaVersion"].as_u64() >= Some(41));
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    let mut taken: BTreeMap<(u64, u64), String> = BTreeMap::new();
    for panel in &panels {
        let title = panel["title"].as_str().unwrap_or_default().to_owned();
        ensure!(!title.is_empty() && titles.insert(title.clone()), "title {title} is there twice");
        ensure!(ids.insert(panel["id"].as_u64().context("no id")?), "{title}: its id is taken");
        let place = |name: &str| panel["gridPos"][name].as_u64().context("no place");
        let (x, y, w, h) = (place("x")?, place("y")?, place("w")?, place("h")?);
        ensure!(w > 0 && h > 0 && x + w <= 24, "{title} is beside the page");
        for cell in (y..y + h).flat_map(|row| (x..x + w).map(move |column| (row, column))) {
            if let Some(other) = taken.insert(cell, title.clone()) {
                bail!("{title} lies over {other}");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        ensure!(panel["datasource"]["uid"] == DATASOURCE, "{title}: its datasource");
        ensure!(
            panel["description"].as_str().is_some_and(|it| it.len() > 10),
            "{title}: what is it?"
        );
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
        ensure!(!unit.is_empty(), "{title} has no unit");
        let mut references = BTreeSet::new();
        for target in panel["targets"].as_array().into_iter().flatten() {
            ensure!(target["datasource"]["uid"] == DATASOURCE, "{title}: a target's datasource");
            ensure!(references.insert(target["refId"].as_str()), "{title}: refId is there twice");
        }
    }
    Ok(())
}

#[test]
fn an_expression_about_what_is_not_measured_is_found() -> Result<()> {
    let literals = literals()?;
    check(
        r#"sum by (reason) (rate(tollgate_edge_refused_total{reason="spool_full"}[5m]))"#,
        &literals,
    )?;
    for wrong in [
        "rate(tollgate_edge_refusals_total[5m])",
        "rate(tollgate_edge_ack_seconds[5m])",
        "rate(tollgate_edge_refused_total_bucket[5m])",
        r#"tollgate_edge_refused_total{cause="spool_full"}"#,
        r#"tollgate_edge_refused_total{reason="spool_is_full"}"#,
        "sum by (application) (tollgate_edge_refused_total)",
        r#"up{job="other"}"#,
    ] {
        assert!(check(wrong, &literals).is_err(), "{wrong}");
    }
    Ok(())
}
