//! The embedded defaults: `tollgate dev` in one process, killed in the middle.

mod common;
#[path = "common/dev.rs"]
mod dev;

use anyhow::{Result, ensure};
use common::{PATIENCE, get, post};
use dev::{Dev, Platform};
use tollgate_testkit::{TestDir, eventually};

/// I1 and I3 on the embedded defaults: SIGKILL at some moment, start again, and every acknowledged
/// notification is billed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_killed_in_the_middle_loses_nothing_and_bills_once() -> Result<()> {
    let dir = TestDir::new("embedded")?;
    let mut dev = Dev::start(dir.path(), &[]).await?;
    let load = ["--seed", "11", "--calls", "200", "--rate", "40"];
    let platform = Platform::start(&dev, dir.path(), &load);
    for count in [100.0, 150.0] {
        dev.acknowledged(count).await?;
        dev.process.kill();
        dev.process.restart().await?;
    }
    platform.verify(&dev).await?;
    dev.process.stop().await
}

/// What the README shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_look_of_the_readme_works() -> Result<()> {
    let dir = TestDir::new("first-look")?;
    let mut dev = Dev::start(dir.path(), &[]).await?;
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
