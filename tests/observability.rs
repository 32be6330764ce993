//! What an operator sees: metrics that are scraped are those that are documented, and the edge
//! does without Kafka.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use common::{PATIENCE, Process, TOLLGATE, address, get, metric, post, succeed};
use tollgate_testkit::{Server, TestDir, dies_with_us, eventually, noise};

const METRICS_PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");

/// Name and kind of every documented metric.
fn documented() -> Result<BTreeSet<(String, String)>> {
    let page = std::fs::read_to_string(METRICS_PAGE)?;
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.trim().to_owned()))
    });
    Ok(rows.collect())
}

/// Name and kind of every metric of ours on a scraped page.
fn scraped(page: &str) -> BTreeSet<(String, String)> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE tollgate_"));
    types
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| (format!("tollgate_{name}"), kind.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_scraped_is_what_is_documented() -> Result<()> {
    let dir = TestDir::new("scrape")?;
    let (listen, query) = (address(), address());
    let (data, listen_text, query_text) =
        (dir.path().join("data").display().to_string(), listen.to_string(), query.to_string());
    let arguments = ["dev", "--data", &data, "--listen", &listen_text, "--query", &query_text];
    let mut process = Process::start("dev", dir.path(), &arguments, &[]).await?;

    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../voicecall/tests/samples");
    let mut count = 0.0;
    for sample in std::fs::read_dir(samples)? {
        let path = sample?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let status = post(&format!("http://{listen}/status"), std::fs::read(&path)?).await?;
            ensure!(status == 200, "{} was answered {status}", path.display());
            count += 1.0;
        }
    }
    ensure!(post(&format!("http://{listen}/nowhere"), "x").await? == 404);
    ensure!(post(&format!("http://{listen}/status"), "no json").await? == 200);
    let endless = r#"{"eventType":"fee","feeLst":[{"sessionId":"endless","icid":"endless","serviceType":"001",
        "callOutAnswerTime":"2026-11-23 07:00:00"}]}"#;
    ensure!(post(&format!("http://{listen}/fee"), endless).await? == 200);
    count += 1.0;

    let page = eventually(PATIENCE, async || {
        let page = process.metrics().await?;
        let applied = metric(&page, "tollgate_consumer_records_applied_total");
        ensure!(applied > count, "{applied} records applied so far");
        ensure!(metric(&page, "tollgate_billing_entries_total") > 0.0, "nothing billed yet");
        let endless = metric(&page, "tollgate_billing_flagged_charges_total{flag=\"no_end\"}");
        ensure!(endless > 0.0, "the call without an end is not billed yet");
        ensure!(metric(&page, "tollgate_edge_quarantined_total") > 0.0, "nothing quarantined yet");
        for name in [
            "tollgate_edge_requests_total",
            "tollgate_edge_acknowledged_total",
            "tollgate_edge_refused_total",
            "tollgate_edge_quarantined_total",
            "tollgate_edge_ack_seconds",
            "tollgate_edge_publish_seconds",
            "tollgate_edge_last_notification_timestamp_seconds",
            "tollgate_spool_depth_records",
            "tollgate_spool_bytes",
            "tollgate_consumer_lag_records",
            "tollgate_consumer_batch_records",
            "tollgate_consumer_commit_seconds",
            "tollgate_consumer_freshness_seconds",
            "tollgate_billing_entries_total",
            "tollgate_state_numbers",
            "process_resident_memory_bytes",
        ] {
            ensure!(page.contains(&format!("# TYPE {name} ")), "{name} is not on the page");
        }
        anyhow::Ok(page)
    })
    .await;
    let (documented, scraped) = (documented()?, scraped(&page));
    let unknown: Vec<_> = scraped.difference(&documented).collect();
    ensure!(unknown.is_empty(), "scraped and not documented: {unknown:?}");
    ensure!((metric(&page, "tollgate_edge_acknowledged_total") - count - 1.0).abs() < 0.5);
    ensure!(!page.contains("+86"), "a phone number is in the metrics");
    process.stop().await
}

/// I2: no broker at all, and still ready and answering.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_without_any_broker_is_ready_and_answers_200_until_its_spool_is_full() -> Result<()>
{
    let dir = TestDir::new("no-broker")?;
    let listen = address();
    let environment = [
        ("TOLLGATE_KAFKA__BROKERS", address().to_string()),
        ("TOLLGATE_EDGE__LISTEN", listen.to_string()),
        ("TOLLGATE_SPOOL__DIR", dir.path().join("spool").display().to_string()),
        ("TOLLGATE_SPOOL__MAX_BYTES", (8 * 1024 * 1024).to_string()),
        ("TOLLGATE_SPOOL__SEGMENT_BYTES", (2 * 1024 * 1024).to_string()),
        ("TOLLGATE_SPOOL__TAIL_BYTES", (1024 * 1024).to_string()),
        ("TOLLGATE_SPOOL__GROUP_BYTES", (1024 * 1024).to_string()),
    ];
    let mut edge = Process::start("edge", dir.path(), &["edge"], &environment).await?;
    let status = format!("http://{listen}/status");
    let fee = format!("http://{listen}/fee");
    let filler = serde_json::json!({"eventType": "answer", "statusInfo": {
        "sessionId": "s", "timestamp": "2026-11-23 07:00:00", "userData": noise(8000),
    }})
    .to_string();
    let cdr =
        r#"{"eventType":"fee","feeLst":[{"sessionId":"s","callEndTime":"2026-11-23 07:00:00"}]}"#;
    ensure!(post(&fee, cdr).await? == 200);

    // CDRs are refused first, statuses only at the bound.
    let mut refused_cdr = false;
    let mut taken_after = 0;
    let answer = loop {
        if !refused_cdr && post(&fee, cdr).await? == 503 {
            refused_cdr = true;
        }
        let answer = reqwest::Client::new().post(&status).body(filler.clone()).send().await?;
        if answer.status() != 200 {
            break answer;
        }
        taken_after += u32::from(refused_cdr);
        ensure!(taken_after < 10_000, "the bound is never reached");
    };
    ensure!(refused_cdr && taken_after > 0, "statuses were not taken after CDRs were refused");
    ensure!(answer.status() == 503 && answer.headers().contains_key("retry-after"), "{answer:?}");
    let page = edge.metrics().await?;
    ensure!(metric(&page, "tollgate_edge_refused_total") >= 2.0, "refusals are not counted");
    edge.stop().await?;
    let report = succeed(&["spool", "inspect", "--dir", &environment[2].1], &[])?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    ensure!(report["unconfirmed"].as_u64().is_some_and(|it| it > 100), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_query_api_wants_its_token() -> Result<()> {
    let dir = TestDir::new("token")?;
    let token = dir.path().join("token");
    std::fs::write(&token, "open-sesame\n")?;
    let (listen, query) = (address().to_string(), address());
    let (data, query_text) = (dir.path().join("data").display().to_string(), query.to_string());
    let arguments = ["dev", "--data", &data, "--listen", &listen, "--query", &query_text];
    let environment = [("TOLLGATE_LISTENERS__QUERY_TOKEN_FILE", token.display().to_string())];
    let mut process = Process::start("dev", dir.path(), &arguments, &environment).await?;
    ensure!(get(&format!("http://{query}/v1/usage")).await.is_err());
    let answer = reqwest::Client::new()
        .get(format!("http://{query}/v1/usage"))
        .bearer_auth("open-sesame")
        .send()
        .await?;
    ensure!(answer.status() == 200, "{}", answer.status());
    process.stop().await
}

/// I1. The disk below the log is full, or whoever reads it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_whose_log_cannot_be_written_goes_on_without_it() -> Result<()> {
    let dir = TestDir::new("mute")?;
    let (listen, health) = (address(), address());
    let mut line = dies_with_us(Path::new("sh"))?;
    line.extend(["-c", r#"exec "$0" edge 2>/dev/full"#, TOLLGATE].map(str::to_owned));
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]);
    // Brokers that are not there, of whom there is much to say.
    command.env("TOLLGATE_KAFKA__BROKERS", address().to_string());
    command.env("TOLLGATE_EDGE__LISTEN", listen.to_string());
    command.env("TOLLGATE_LISTENERS__HEALTH", health.to_string());
    command.env("TOLLGATE_SPOOL__DIR", dir.path().join("spool"));
    let mut edge = Server::start(command, &dir.path().join("edge.log"))?;
    eventually(PATIENCE, async || {
        let errors = metric(&common::metrics(health).await?, "tollgate_kafka_client_errors_total");
        ensure!(errors > 0.0, "nothing was to be said yet");
        anyhow::Ok(())
    })
    .await;
    ensure!(post(&format!("http://{listen}/status"), "{}").await? == 200);
    ensure!(edge.exited().is_none(), "it has ended");
    edge.kill();
    Ok(())
}
