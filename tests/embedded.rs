//! The embedded defaults: `tollgate dev` in one process, killed in the middle, and started with
//! settings.

mod common;
#[path = "common/dev.rs"]
mod dev;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use common::{PATIENCE, Process, TOLLGATE, address, get, post};
use dev::{Dev, Platform};
use tollgate_testkit::{Postgres, Server, Signal, TestDir, blocking_until, eventually};

/// I1 and I3 on the embedded defaults: SIGKILL at some moment, start again, and every acknowledged
/// notification is billed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_killed_in_the_middle_loses_nothing_and_bills_once() -> Result<()> {
    let dir = TestDir::new("embedded")?;
    let mut dev = Dev::start(dir.path(), &[], &[]).await?;
    let load = ["--seed", "11", "--calls", "400", "--rate", "40"];
    let platform = Platform::start(&dev, dir.path(), &load);
    for count in [100.0, 150.0] {
        platform.acknowledged(&dev, count).await?;
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
    let mut dev = Dev::start(dir.path(), &[], &[]).await?;
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

/// Starts `tollgate dev` within a directory by a line of a shell, in which it is `"$@"`, and waits
/// until it is ready.
async fn dev_by_shell(line: &str, dir: &Path, settings: &[(&str, String)]) -> Result<Server> {
    let health = address();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "sh", "-c", line, "sh", TOLLGATE, "dev"]);
    for (flag, address) in [("--listen", address()), ("--query", address()), ("--health", health)] {
        command.arg(flag).arg(address.to_string());
    }
    command.current_dir(dir).envs(settings.iter().map(|(name, value)| (name, value)));
    let mut server = Server::start(command, &dir.join("dev.log"))?;
    let url = format!("http://{health}/readyz");
    eventually(PATIENCE, async || {
        assert!(server.exited().is_none(), "it has ended:\n{}", server.output());
        anyhow::Ok(reqwest::get(&url).await?.error_for_status()?)
    })
    .await;
    Ok(server)
}

fn stop(mut server: Server) -> Result<()> {
    server.signal(Signal::TERM);
    ensure!(blocking_until(PATIENCE, || server.exited().is_some()), "it does not stop");
    let status = server.exited();
    ensure!(status.is_some_and(|it| it.success()), "ended with {status:?}:\n{}", server.output());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_goes_on_where_its_progress_cannot_be_printed() -> Result<()> {
    let dir = TestDir::new("full-output")?;
    let server = dev_by_shell(r#"exec "$@" >/dev/full"#, dir.path(), &[]).await?;
    eventually(PATIENCE, async || {
        let output = server.output();
        ensure!(output.contains("standard output cannot be written"), "{output}");
        Ok(())
    })
    .await;
    tokio::task::spawn_blocking(|| stop(server)).await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_keeps_its_log_where_the_settings_say_and_leaves_their_spool_alone() -> Result<()> {
    let dir = TestDir::new("elsewhere")?;
    let at = |name: &str| dir.path().join(name);
    let settings = [
        ("TOLLGATE_SPOOL__DIR", at("fast/spool").display().to_string()),
        ("TOLLGATE_EMBEDDED__DIR", at("large/log").display().to_string()),
    ];
    let server = dev_by_shell(r#"exec "$@""#, dir.path(), &settings).await?;
    for (name, there) in [
        ("fast/spool", false),
        ("large/log", true),
        ("data/billing.sqlite", true),
        ("data/spool", true),
        ("data/stream", false),
    ] {
        ensure!(at(name).exists() == there, "{name} should be there: {there}");
    }
    tokio::task::spawn_blocking(|| stop(server)).await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_uses_a_database_with_the_settings_for_it() -> Result<()> {
    let dir = TestDir::new("trial")?;
    let postgres = tokio::task::spawn_blocking(Postgres::shared).await?;
    let url = postgres.create_database("dev_trial")?;
    let (listen, query) = (address().to_string(), address().to_string());
    let data = dir.path().join("data").display().to_string();
    let flags =
        ["dev", "--data", &data, "--listen", &listen, "--query", &query, "--database", &url];
    let schema = [("TOLLGATE_DATABASE__SCHEMA", "trial".to_owned())];
    let mut process = Process::start("dev", dir.path(), &flags, &schema).await?;
    process.stop().await?;
    let database = url.rsplit('/').next().unwrap_or_default();
    let schemas = postgres.sql(database, "SELECT nspname FROM pg_namespace")?;
    ensure!(schemas.contains("trial") && !schemas.contains("tollgate"), "{schemas}");
    Ok(())
}

/// Or a log that is full would wait for it for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_forgets_a_consumer_group_that_has_another_name_now() -> Result<()> {
    let dir = TestDir::new("renamed")?;
    let named = |name: &str| [("TOLLGATE_BILLING__GROUP", name.to_owned())];
    let mut dev = Dev::start(dir.path(), &[], &named("first-name")).await?;
    eventually(PATIENCE, async || {
        let page = dev.process.metrics().await?;
        let assigned = |line: &str| {
            line.starts_with("tollgate_consumer_partitions")
                && line.contains("first-name")
                && !line.ends_with(" 0")
        };
        ensure!(page.lines().any(assigned), "its group has no partitions yet");
        Ok(())
    })
    .await;
    dev.process.stop().await?;
    let mut dev = Dev::start(dir.path(), &[], &named("second-name")).await?;
    eventually(PATIENCE, async || {
        let output = dev.process.output();
        ensure!(output.contains("first-name"), "{output}");
        Ok(())
    })
    .await;
    dev.process.stop().await
}
