//! The machine's clock is set while the system works: a library between the process and the C
//! library (`clock/set.c`) gives it a clock of its own.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Result, ensure};
use common::{PATIENCE, Process, address, metric, post, preloaded};
use tollgate_testkit::{Kafka, KafkaOptions, TestDir, eventually};

/// By how much the clock is set back: longer than anybody is patient.
const AHEAD_SECONDS: i64 = 600;

/// The clock of a process.
struct Clock {
    ahead: File,
    environment: Vec<(&'static str, String)>,
}

impl Clock {
    fn new(dir: &TestDir) -> Result<Self> {
        let (library, ahead) = (preloaded("clock/set.c", dir.path())?, dir.path().join("ahead"));
        let environment = vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("CLOCK_AHEAD", ahead.display().to_string()),
        ];
        let ahead = File::options().create_new(true).write(true).open(ahead)?;
        let clock = Self { ahead, environment };
        clock.set(0)?;
        Ok(clock)
    }

    /// By so many seconds it is ahead of the machine's from now on.
    fn set(&self, seconds: i64) -> Result<()> {
        Ok(self.ahead.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_keeps_nothing_waiting() -> Result<()> {
    let dir = TestDir::new("clock")?;
    let kafka = Kafka::start(&KafkaOptions::new())?;
    let clock = Clock::new(&dir)?;
    clock.set(AHEAD_SECONDS)?;
    let (listen, query) = (address().to_string(), address().to_string());
    let (data, brokers) = (dir.path().join("data").display().to_string(), kafka.bootstrap());
    let arguments = ["dev", "--brokers", &brokers, "--data", &data, "--listen", &listen];
    let arguments = [&arguments[..], &["--query", &query]].concat();
    let mut dev = Process::start("dev", dir.path(), &arguments, &clock.environment).await?;

    let send = async |session: &str| -> Result<()> {
        let body = format!(
            r#"{{"eventType":"answer","statusInfo":{{"sessionId":"{session}","timestamp":"2026-11-23 07:00:00"}}}}"#
        );
        let status = post(&format!("http://{listen}/status"), body).await?;
        ensure!(status == 200, "answered {status}");
        Ok(())
    };
    let applied = async |count: f64| {
        eventually(PATIENCE, async || {
            let page = dev.metrics().await?;
            let applied = metric(&page, "tollgate_consumer_records_applied_total");
            ensure!(applied >= count, "{applied} of {count} applied");
            anyhow::Ok(())
        })
        .await;
    };

    send("before").await?;
    applied(1.0).await;
    let errors =
        async || anyhow::Ok(metric(&dev.metrics().await?, "tollgate_kafka_client_errors_total"));
    let before = errors().await?;
    kafka.kill();
    send("meanwhile").await?;
    eventually(PATIENCE, async || {
        ensure!(errors().await? > before, "the clients do not know that the broker is gone");
        anyhow::Ok(())
    })
    .await;
    clock.set(0)?;
    kafka.restart()?;
    send("after").await?;
    applied(3.0).await;
    dev.stop().await
}
