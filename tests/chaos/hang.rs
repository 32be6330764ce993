//! A client that locks itself up, in a whole process.

use std::time::Duration;

use anyhow::{Result, ensure};
use tollgate_testkit::{Kafka, KafkaOptions, TestDir, eventually};

use crate::common::{PATIENCE, Process, address, metric, preloaded, succeed};

/// Two minutes of silence, perhaps twice, and the end of the process.
const UNTIL_IT_ENDS: Duration = Duration::from_mins(6);

/// Beside the schedules, since it takes minutes and does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_client_locks_itself_up_ends_and_goes_on_when_started_again() -> Result<()>
{
    let dir = TestDir::new("hang")?;
    let kafka = tokio::task::spawn_blocking(|| Kafka::start(&KafkaOptions::new())).await??;
    let hang = dir.path().join("now");
    let environment = [
        ("TOLLGATE_KAFKA__BROKERS", kafka.bootstrap()),
        ("TOLLGATE_DATABASE__URL", format!("sqlite:{}", dir.path().join("db").display())),
        ("TOLLGATE_LISTENERS__QUERY", address().to_string()),
        ("LD_PRELOAD", preloaded("chaos/hang.c", dir.path())?.display().to_string()),
        ("HANG", hang.display().to_string()),
    ];
    succeed(&["topics", "create", "--replication", "1"], &environment[..1])?;
    let mut billing = Process::start("billing", dir.path(), &["billing"], &environment).await?;
    runs(&billing).await;
    std::fs::write(&hang, "")?;
    eventually(UNTIL_IT_ENDS, async || {
        ensure!(billing.output().contains("start this process again"), "it goes on");
        anyhow::Ok(())
    })
    .await;
    billing.failed().await?;
    std::fs::remove_file(&hang)?;
    billing.restart().await?;
    runs(&billing).await;
    billing.stop().await
}

async fn runs(billing: &Process) {
    eventually(3 * PATIENCE, async || {
        let page = billing.metrics().await?;
        let running = page.lines().filter(|line| line.contains(r#"state="running""#));
        let running: f64 = running.map(|line| metric(line, "tollgate_consumer_partitions")).sum();
        ensure!(running >= 12.0, "{running} partitions are running");
        anyhow::Ok(())
    })
    .await;
}
