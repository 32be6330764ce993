//! Every answer and every refusal is counted, once, and nothing personal is (I10, I12). One
//! test, since a process has one recorder.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use common::raw::head;
use common::{Bench, Held, Mode, Raw, application, bodies, eventually, post};
use tollgate_edge::{Ack, metrics};
use tollgate_runtime::telemetry;
use tollgate_spool::disk::{FaultPlan, FaultyDisk, Injected, Operation};

/// What must have been counted in the end.
const EXPECTED: &[(&str, i64)] = &[
    (r#"tollgate_edge_requests_total{status="200"}"#, 7),
    (r#"tollgate_edge_requests_total{status="400"}"#, 1),
    (r#"tollgate_edge_requests_total{status="403"}"#, 1),
    (r#"tollgate_edge_requests_total{status="404"}"#, 1),
    (r#"tollgate_edge_requests_total{status="405"}"#, 1),
    (r#"tollgate_edge_requests_total{status="408"}"#, 1),
    (r#"tollgate_edge_requests_total{status="413"}"#, 1),
    (r#"tollgate_edge_requests_total{status="503"}"#, 1),
    (r#"tollgate_edge_acknowledged_total{contract="spooled"}"#, 4),
    (r#"tollgate_edge_acknowledged_total{contract="delivered"}"#, 2),
    (r#"tollgate_edge_acknowledged_total{contract="fallback"}"#, 1),
    (r#"tollgate_edge_refused_total{reason="unknown_path"}"#, 1),
    (r#"tollgate_edge_refused_total{reason="malformed_quota"}"#, 1),
    (r#"tollgate_edge_refused_total{reason="not_authenticated"}"#, 1),
    (r#"tollgate_edge_refused_total{reason="method"}"#, 1),
    (r#"tollgate_edge_refused_total{reason="slow_body"}"#, 1),
    (r#"tollgate_edge_refused_total{reason="too_large"}"#, 1),
    (r#"tollgate_edge_refused_total{reason="disk_failing"}"#, 1),
    ("tollgate_edge_aborted_total", 3),
    ("tollgate_edge_ack_seconds_count", 7),
    ("tollgate_edge_body_budget_used_bytes", 0),
    ("tollgate_edge_in_flight_records", 0),
    ("tollgate_edge_fallen_back", 0),
    ("tollgate_edge_topics_ok", 1),
    (r#"tollgate_edge_connections_ended_total{end="no_request"}"#, 1),
    (r#"tollgate_edge_connections_ended_total{end="cut"}"#, 1),
    // The request that fell back is counted once, although it was read twice.
    (r#"tollgate_edge_records_total{application="direct",kind="cdr"}"#, 3),
    (r#"tollgate_edge_records_total{application="direct",kind="quarantined"}"#, 1),
    (r#"tollgate_edge_records_total{application="other",kind="status"}"#, 2),
    (r#"tollgate_edge_quarantined_total{reason="malformed_body"}"#, 1),
    (r#"tollgate_edge_quarantined_total{reason="unknown_object"}"#, 2),
    (r#"tollgate_edge_authenticity_total{result="absent"}"#, 9),
    (r#"tollgate_edge_published_total{topic="call-events"}"#, 2),
    (r#"tollgate_edge_published_total{topic="cdrs"}"#, 3),
    (r#"tollgate_edge_published_total{topic="quarantine"}"#, 3),
];

/// All that was logged.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Every sample of the exposition by its name and labels, in whole numbers.
fn scrape(text: &str) -> BTreeMap<String, i64> {
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse::<f64>().unwrap() as i64)
        })
        .collect()
}

/// An edge that waits for nobody long, with an application that enforces and one that delivers.
async fn impatient(disk: &FaultyDisk) -> Bench {
    let mut bench = Bench::new().await;
    bench.make_small();
    bench.settings.body_deadline_ms = 3000;
    bench.settings.malformed_quota_bytes = 5;
    bench.settings.delivered_deadline_ms = 60_000;
    bench.settings.keep_alive_seconds = 3;
    bench.settings.head_deadline_ms = 3000;
    bench.disk = Arc::new(disk.clone());
    let mut strict = application("strict");
    strict.path_secret = Some("strict-and-long-enough".into());
    strict.app_secret_file = Some(bench.secret("strict", "secret"));
    strict.enforce_authentication = true;
    let mut direct = application("direct");
    direct.path_secret = Some("direct-and-long-enough".into());
    direct.ack = Some(Ack::Delivered);
    bench.applications = vec![strict, direct];
    bench
}

/// I10, I12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_counted_once_by_its_answer_and_its_reason() {
    tracing_subscriber::fmt()
        .with_env_filter("info,tollgate=trace,tollgate_edge=trace,tollgate_spool=trace")
        .with_writer(|| Log)
        .init();
    let handle = telemetry::init_metrics(&[metrics::ALL]).unwrap();
    let counted = || scrape(&handle.render());
    let value = |name: &str| counted().get(name).copied().unwrap_or_default();

    let disk = FaultyDisk::new(1);
    let bench = impatient(&disk).await;
    let node = bench.start();

    // Answered 200, by every way.
    node.give("/status", bodies::status("13800000021")).await;
    node.give("/status", bodies::cdr("key-direct", "13800000022")).await;
    node.give("/status", "no json").await;
    node.give("/direct-and-long-enough/fee", bodies::cdr("key-direct", "13800000023")).await;
    node.give("/direct-and-long-enough/fee", "[]").await;
    node.settled().await;
    bench.stream.set(Mode::Unavailable);
    node.give("/direct-and-long-enough/fee", bodies::cdr("unknown", "13800000024")).await;
    eventually("the publisher has tried", || {
        value(r#"tollgate_edge_retried_total{reason="unavailable"}"#) > 0
    })
    .await;
    bench.stream.set(Mode::Pass);
    node.settled().await;

    // Refused, by every status but the 503 further below. That each reason is counted as it is
    // answered is proved where both are done, in receive.rs.
    assert_eq!(node.post("/none", "{}").await.status, 404);
    assert_eq!(node.post("/status", "{").await.status, 400);
    assert_eq!(node.post("/strict-and-long-enough/status", "{}").await.status, 403);
    let mut raw = Raw::connect(node.address).await;
    raw.write(b"GET /status HTTP/1.1\r\nHost: edge\r\n\r\n").await;
    assert_eq!(raw.answer().await.status, 405);
    raw.write(&head("/status", &[("Content-Length", "70000")])).await;
    assert_eq!(raw.answer().await.status, 413);
    let mut raw = Raw::connect(node.address).await;
    raw.write(&head("/status", &[("Content-Length", "60000")])).await;
    eventually("its budget is shown", || {
        value("tollgate_edge_body_budget_used_bytes") == 60_000 - 16_384
    })
    .await;
    assert_eq!(raw.answer().await.status, 408);
    let mut raw = Raw::connect(node.address).await;
    raw.write(&head("/status", &[("Transfer-Encoding", "chunked")])).await;
    raw.write(b"zz\r\n").await;
    assert_eq!(raw.answer().await.status, 400);

    // So were those chunks, as far as the HTTP library tells. Broken off are also half a body,
    // and a whole one whose answer nobody awaits.
    let mut raw = Raw::connect(node.address).await;
    let taken = node.counts().taken;
    raw.write(&head("/status", &[("Content-Length", "100")])).await;
    eventually("it is begun", || node.counts().taken > taken).await;
    raw.reset();
    eventually("it is counted", || value("tollgate_edge_aborted_total") == 2).await;
    let held = Held::syncs(&disk);
    let mut raw = Raw::connect(node.address).await;
    let taken = node.counts().taken;
    raw.write(&post("/status", bodies::status("13800000025").as_bytes())).await;
    eventually("it is taken", || node.counts().taken > taken).await;
    eventually("it waits for the disk", || disk.syncs_waiting() > 0).await;
    raw.reset();
    eventually("it is counted", || value("tollgate_edge_aborted_total") == 3).await;
    drop(held);
    eventually("it is published", || node.counts().published == 7).await;

    // Connections that never ask, and that stop asking.
    let mut mute = Raw::connect(node.address).await;
    mute.finish().await;
    mute.closed().await;
    let mut slow = Raw::connect(node.address).await;
    slow.write(&post("/status", b"{}")).await;
    assert_eq!(slow.answer().await.status, 200);
    slow.write(b"POST").await;
    slow.closed().await;

    // The disk fails, and is well again.
    disk.arm(FaultPlan::all(Operation::Sync, Injected::Eio));
    assert_eq!(node.post("/status", bodies::status("13800000026")).await.status, 503);
    disk.heal();
    node.settled().await;
    eventually("all have ended", || value("tollgate_edge_connections") == 0).await;

    let counted = counted();
    for (name, expected) in EXPECTED {
        assert_eq!(counted.get(*name).copied().unwrap_or_default(), *expected, "{name}");
    }
    // No name of a metric that is not declared, and nothing personal in any label.
    for name in counted.keys().filter(|name| name.starts_with("tollgate_edge_")) {
        assert!(metrics::ALL.iter().any(|metric| name.starts_with(metric.name)), "{name}");
        assert!(!name.contains("1380000") && !name.contains("long-enough"), "{name}");
    }
    for metric in metrics::ALL {
        assert!(counted.keys().any(|name| name.starts_with(metric.name)), "{}", metric.name);
    }
    node.stop().await;
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    assert!(log.contains("edge has stopped"), "the log is looked at");
    for secret in ["1380000", "long-enough", "8675528000002"] {
        assert!(!log.contains(secret), "{log}");
    }
}
