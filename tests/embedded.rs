//! The embedded defaults: `tollgate dev` in one process, killed in the middle.

mod common;

use std::time::Duration;

use anyhow::{Result, ensure};
use common::{PATIENCE, Process, address, get, metric, post, tollgate};
use tollgate_testkit::{TestDir, eventually};

struct Dev {
    process: Process,
    edge: String,
    query: String,
    dir: TestDir,
}

impl Dev {
    async fn start(name: &str) -> Result<Self> {
        let dir = TestDir::new(name)?;
        let (listen, query) = (address(), address());
        let data = dir.path().join("data");
        let arguments = [
            "dev",
            "--data",
            &data.display().to_string(),
            "--listen",
            &listen.to_string(),
            "--query",
            &query.to_string(),
        ];
        let process = Process::start("dev", dir.path(), &arguments, &[]).await?;
        Ok(Self {
            process,
            edge: format!("http://{listen}"),
            query: format!("http://{query}"),
            dir,
        })
    }
}

/// I1 and I3 on the embedded defaults: SIGKILL at some moment, start again, and every acknowledged
/// notification is billed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_killed_in_the_middle_loses_nothing_and_bills_once() -> Result<()> {
    let mut dev = Dev::start("embedded").await?;
    let journal = dev.dir.path().join("journal.jsonl").display().to_string();
    let undelivered = dev.dir.path().join("undelivered.jsonl").display().to_string();
    let simulate = |more: &[&str]| -> Vec<String> {
        let base = [
            "simulate",
            "--quiet",
            "--edge",
            &dev.edge,
            "--query",
            &dev.query,
            "--journal",
            &journal,
            "--undelivered",
            &undelivered,
            "--seed",
            "11",
            "--faults",
            "all",
            "--repeat-after",
            "2",
            "--calls",
            "200",
            "--rate",
            "40",
        ];
        base.iter().chain(more).map(ToString::to_string).collect()
    };
    let sending = simulate(&["--no-verify"]);
    let verifying = simulate(&["--verify-only", "--settle", "90"]);
    let run = |arguments: Vec<String>| {
        tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            tollgate(&arguments, &[])
        })
    };
    let sender = run(sending);
    for kill_after in [100.0, 150.0] {
        wait_for_acknowledged(&dev.process, kill_after).await?;
        dev.process.kill();
        dev.process.restart().await?;
    }
    let sent = sender.await??;
    ensure!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let verified = run(verifying).await??;
    ensure!(
        verified.status.success(),
        "the verifier found something:\n{}{}\n--- dev\n{}",
        String::from_utf8_lossy(&verified.stdout),
        String::from_utf8_lossy(&verified.stderr),
        dev.process.log(),
    );
    let checks = get(&format!("{}/v1/checks", dev.query)).await?;
    ensure!(checks["consistent"] == true, "ledger and aggregates differ: {checks}");
    dev.process.stop().await
}

/// What the README shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_look_of_the_readme_works() -> Result<()> {
    let mut dev = Dev::start("first-look").await?;
    let now = jiff::Timestamp::now();
    let at = |seconds: i64| {
        let time = now - jiff::SignedDuration::from_secs(seconds);
        time.strftime("%Y-%m-%d %H:%M:%S").to_string()
    };
    let body = serde_json::json!({"eventType": "fee", "feeLst": [{
        "direction": 0, "spId": "me", "appKey": "demo", "icid": "first-1",
        "bindNum": "+8675528000003", "sessionId": "first-call", "callerNum": "+8675528000002",
        "calleeNum": "+8613800000021", "serviceType": "001", "callOutStartTime": at(90),
        "callOutAnswerTime": at(80), "callEndTime": at(10), "ulFailReason": 0,
    }]});
    ensure!(post(&format!("{}/fee", dev.edge), body.to_string()).await? == 200);

    let charges = format!("{}/v1/charges?session_id=first-call", dev.query);
    let entry = eventually(PATIENCE, async || {
        let answer = get(&charges).await?;
        let entry = answer["entries"][0].clone();
        ensure!(entry.is_object(), "no entry yet: {answer}");
        Ok(entry)
    })
    .await;
    ensure!(entry["amount_micros"] == 360_000 && entry["status"] == "rated", "{entry}");

    let number = format!("{}/v1/numbers/%2B8613800000021", dev.query);
    let state = eventually(PATIENCE, async || {
        let state = get(&number).await?;
        ensure!(state["known"] == true, "not known yet: {state}");
        Ok(state)
    })
    .await;
    ensure!(state["presence"] == "idle" && state["last_call"]["answered"] == true, "{state}");

    let ringing = serde_json::json!({"eventType": "alerting", "statusInfo": {
        "sessionId": "second-call", "timestamp": at(0), "caller": "+8675528000002",
        "called": "+8613800000021",
    }});
    ensure!(post(&format!("{}/status", dev.edge), ringing.to_string()).await? == 200);
    eventually(PATIENCE, async || {
        let state = get(&number).await?;
        ensure!(state["presence"] == "ringing", "{state}");
        Ok(())
    })
    .await;

    let tailed = common::succeed(
        &["tail", "cdrs", "--from-beginning", "--until-end", "--dev", &dev.query],
        &[],
    )?;
    ensure!(tailed.contains("first-1") && !tailed.contains("13800000021"), "{tailed}");
    dev.process.stop().await
}

async fn wait_for_acknowledged(process: &Process, count: f64) -> Result<()> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let page = process.metrics().await.unwrap_or_default();
        if metric(&page, "tollgate_edge_acknowledged_total") >= count {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < end, "fewer than {count} were acknowledged");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
