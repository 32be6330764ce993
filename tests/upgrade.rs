//! What the first version left behind is opened, drained and continued.
//!
//! `tests/fixtures/v1` holds what a `tollgate dev` wrote that was killed with requests in the
//! spool, records in the embedded log and rows in the outbox: once over SQLite, once over
//! PostgreSQL. It was made by `UPDATE_FIXTURES=1 cargo test -p tollgate --test upgrade`, which is
//! never to be run again for a version that was released: a new format gets a new directory.

mod common;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use common::{PATIENCE, Process, address, get, post, succeed};
use serde_json::Value;
use tollgate_testkit::{Postgres, TestDir, eventually};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/v1");

/// Small files, and a position that is not written before the process is killed.
const SETTINGS: [(&str, &str); 5] = [
    ("TOLLGATE_EDGE__MAX_BODY_BYTES", "32768"),
    ("TOLLGATE_SPOOL__SEGMENT_BYTES", "262144"),
    ("TOLLGATE_SPOOL__GROUP_BYTES", "262144"),
    ("TOLLGATE_SPOOL__POSITION_INTERVAL_MS", "60000"),
    ("TOLLGATE_EMBEDDED__SEGMENT_BYTES", "8388608"),
];

/// A `tollgate dev` over a directory, and a database if it has one.
struct Dev {
    process: Process,
    edge: String,
    query: String,
}

impl Dev {
    async fn start(dir: &Path, database: Option<&str>) -> Result<Self> {
        let (listen, query) = (address(), address());
        let data = dir.join("data").display().to_string();
        let (listen_text, query_text) = (listen.to_string(), query.to_string());
        let mut arguments =
            vec!["dev", "--quiet", "--data", &data, "--listen", &listen_text, "--query"];
        arguments.push(&query_text);
        arguments.extend(database.iter().flat_map(|url| ["--database", url]));
        let settings = SETTINGS.map(|(name, value)| (name, value.to_owned()));
        let process = Process::start("dev", dir, &arguments, &settings).await?;
        let (edge, query) = (format!("http://{listen}"), format!("http://{query}"));
        Ok(Self { process, edge, query })
    }

    /// Sends a CDR of this session; whether it was answered 200.
    async fn send(&self, session: &str) -> bool {
        let number = number_of(session);
        let body = format!(
            r#"{{"eventType":"fee","feeLst":[{{"direction":0,"appKey":"app","icid":"{session}","sessionId":"{session}","bindNum":"+8675528000003","callerNum":"+8675528000002","calleeNum":"{number}","callOutStartTime":"2026-11-01 06:58:00","callOutAnswerTime":"2026-11-01 06:58:10","callEndTime":"2026-11-01 07:00:00","ulFailReason":0}}]}}"#
        );
        post(&format!("{}/fee", self.edge), body).await.is_ok_and(|status| status == 200)
    }

    /// Waits until the session is charged, once, and its number known.
    async fn wait_for(&self, session: &str) {
        let charges = format!("{}/v1/charges?session_id={session}", self.query);
        let number = number_of(session).replace('+', "%2B");
        let number = format!("{}/v1/numbers/{number}", self.query);
        eventually(PATIENCE, async || {
            let entries = get(&charges).await?["entries"].as_array().map_or(0, Vec::len);
            ensure!(entries == 1, "{session} has {entries} entries");
            ensure!(get(&number).await?["known"] == true, "the number of {session} is not known");
            Ok(())
        })
        .await;
    }
}

fn number_of(session: &str) -> String {
    let digits: String = session.chars().filter(char::is_ascii_digit).collect();
    format!("+86138{digits:0>8}")
}

/// Requests that the spool still holds.
fn unconfirmed(dir: &Path) -> Result<u64> {
    let spool = dir.join("data/spool").display().to_string();
    let report: Value =
        serde_json::from_str(&succeed(&["spool", "verify", "--dir", &spool], &[])?)?;
    report["inspection"]["unconfirmed"].as_u64().context("a number of requests")
}

fn tar(arguments: &[&str], dir: &Path) -> Result<()> {
    let status = Command::new("tar").arg("-C").arg(dir).args(arguments).status()?;
    ensure!(status.success(), "tar ended with {status}");
    Ok(())
}

/// What the first version left over this kind of database.
fn unpack(kind: &str) -> Result<TestDir> {
    let dir = TestDir::new("upgrade")?;
    tar(&["-xzf", &format!("{FIXTURES}/{kind}.tar.gz")], dir.path())?;
    ensure!(unconfirmed(dir.path())? > 0, "the fixture has nothing in flight");
    Ok(dir)
}

/// Everything that was answered 200 must be found, and then some more taken.
async fn is_drained_and_continued(
    dir: &Path,
    url: Option<&str>,
    is_drained: impl AsyncFn() -> Result<()>,
) -> Result<()> {
    let mut dev = Dev::start(dir, url).await?;
    for session in std::fs::read_to_string(dir.join("acknowledged"))?.lines() {
        dev.wait_for(session).await;
    }
    ensure!(dev.send("new-900001").await, "nothing new is taken");
    dev.wait_for("new-900001").await;
    eventually(PATIENCE, is_drained).await;
    let checks = get(&format!("{}/v1/checks", dev.query)).await?;
    ensure!(checks["consistent"] == true, "ledger and aggregates differ: {checks}");
    dev.process.stop().await?;
    ensure!(unconfirmed(dir)? == 0, "the spool is not drained");
    Ok(())
}

fn outbox(postgres: &Postgres, database: &str) -> Result<u64> {
    let rows = postgres.sql(
        database,
        "SELECT (SELECT count(*) FROM tollgate.tollgate_outbox)
              + (SELECT count(*) FROM tollgate.state_changed)",
    )?;
    Ok(rows.trim().parse()?)
}

/// I1, I3: what an older version answered 200 is billed once by this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_the_first_version_is_drained_and_continued() -> Result<()> {
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        make("sqlite", None).await?;
    }
    let dir = unpack("sqlite")?;
    is_drained_and_continued(dir.path(), None, async || Ok(())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_the_first_version_is_drained_and_continued() -> Result<()> {
    let postgres = tokio::task::spawn_blocking(Postgres::shared).await?;
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        make("postgres", Some(postgres)).await?;
    }
    let dir = unpack("postgres")?;
    let (url, database) = create(postgres)?;
    postgres.run_file(&database, &dir.path().join("postgres.sql"))?;
    ensure!(outbox(postgres, &database)? > 0, "the fixture has nothing in its outbox");
    is_drained_and_continued(dir.path(), Some(&url), async || {
        ensure!(outbox(postgres, &database)? == 0, "the outbox is not drained");
        Ok(())
    })
    .await
}

/// Whose database a newer release has migrated gives up: it could write nothing more, and would keep
/// its partitions from those that can. So does one that is started then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_gives_up_when_a_newer_release_has_migrated() -> Result<()> {
    let postgres = tokio::task::spawn_blocking(Postgres::shared).await?;
    for domain in ["billing", "user-state"] {
        let dir = TestDir::new("outgrown")?;
        let (url, database) = create(postgres)?;
        let mut dev = Dev::start(dir.path(), Some(&url)).await?;
        ensure!(dev.send("s-1").await, "nothing is taken");
        dev.wait_for("s-1").await;
        postgres.sql(
            &database,
            &format!(
                "INSERT INTO tollgate.tollgate_schema (domain, version, digest)
                 SELECT domain, max(version) + 1, '' FROM tollgate.tollgate_schema
                 WHERE domain = '{domain}' GROUP BY domain"
            ),
        )?;
        let message = format!("schema of {domain} is at version");
        for start in ["running", "started"] {
            if start == "started" {
                dev.process.restart_unready()?;
            }
            dev.process.failed().await?;
            let output = dev.process.output();
            ensure!(
                output.contains(&message) && output.contains("newer than this program"),
                "{start}: {output}"
            );
        }
    }
    Ok(())
}

fn create(postgres: &Postgres) -> Result<(String, String)> {
    let url = postgres.create_database("upgrade")?;
    let name = url.rsplit('/').next().context("a url ends with its database")?.to_owned();
    Ok((url, name))
}

/// Runs a `tollgate dev`, kills it under load, and keeps what it left, if enough was in flight.
async fn make(kind: &str, postgres: Option<&Postgres>) -> Result<()> {
    for _ in 0..50 {
        let dir = TestDir::new("fixture")?;
        let created = postgres.map(create).transpose()?;
        let url = created.as_ref().map(|(url, _)| url.as_str());
        let mut dev = Dev::start(dir.path(), url).await?;
        let mut acknowledged = Vec::new();
        for group in 0..8 {
            let sessions: Vec<_> =
                (0..8).map(|call| format!("s-{}", 100 + 8 * group + call)).collect();
            let sends = sessions.iter().map(|session| dev.send(session));
            let taken = futures_util::future::join_all(sends).await;
            acknowledged.extend(sessions.into_iter().zip(taken).filter(|it| it.1).map(|it| it.0));
            // Those that follow are in flight when it is killed.
            if group == 2 {
                dev.wait_for(&acknowledged[0]).await;
            }
        }
        dev.process.kill();
        if unconfirmed(dir.path())? == 0 {
            continue;
        }
        let mut kept = vec!["data", "acknowledged"];
        if let (Some(postgres), Some((_, database))) = (postgres, &created) {
            if outbox(postgres, database)? == 0 {
                continue;
            }
            std::fs::write(dir.path().join("postgres.sql"), postgres.dump(database)?)?;
            kept.push("postgres.sql");
        }
        std::fs::write(dir.path().join("acknowledged"), acknowledged.join("\n") + "\n")?;
        let archive = format!("{FIXTURES}/{kind}.tar.gz");
        let arguments = ["-czf", &archive].into_iter().chain(kept).collect::<Vec<_>>();
        return tar(&arguments, dir.path());
    }
    bail!("nothing was in flight in any of fifty tries")
}
