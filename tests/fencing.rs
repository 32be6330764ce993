//! I9 with the real thing: consumers stopped by SIGSTOP past their session's time-out, in the
//! middle of a PostgreSQL transaction and in the middle of a Kafka transaction, and woken after
//! others have taken over.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{PATIENCE, Process, address, metric, post, succeed};
use tollgate_schema::topics::{CALL_EVENTS, CDRS};
use tollgate_testkit::{Kafka, KafkaOptions, Postgres, PostgresOptions, Signal, TestDir};

/// After this silence the group gives a member's partitions away.
const SESSION_MS: &str = "3000";

/// PostgreSQL throws a stopped holder out only after the takeover has begun, which must wait for
/// that and no longer.
const IDLE_IN_TRANSACTION_MS: &str = "9000";
const LOCK_TIMEOUT_MS: &str = "25000";

/// Calls of each step.
const CALLS: usize = 30;

/// What the consumers write, without what a takeover changes: the epoch.
const TABLES: [(&str, &str); 10] = [
    ("tollgate_fence", "group_name, topic, partition, next_offset, outbox_position"),
    ("tollgate_outbox", "*"),
    ("billing_records", "*"),
    ("billing_digests", "*"),
    ("billing_ledger", "*"),
    ("billing_aggregates", "*"),
    ("state_call", "*"),
    ("state_leg", "*"),
    ("state_number", "*"),
    ("state_changed", "*"),
];

/// A service, a table that its batches write after their fence, and nothing else does, and how many
/// partitions it reads.
const SERVICES: [(&str, &str, i32); 2] = [
    ("billing", "billing_digests", CDRS.partitions),
    ("user-state", "state_applied", CDRS.partitions + CALL_EVENTS.partitions),
];

struct System {
    edge: Process,
    edge_url: String,
    environment: Vec<(&'static str, String)>,
    kafka: Kafka,
    postgres: Arc<Postgres>,
    database: String,
    dir: TestDir,
    calls: usize,
}

impl System {
    async fn start(protocol: &str) -> Result<Self> {
        let dir = TestDir::new("fencing")?;
        let (kafka, postgres) = tokio::task::spawn_blocking(|| {
            let options =
                KafkaOptions::new().property("group.consumer.session.timeout.ms", SESSION_MS);
            anyhow::Ok((Kafka::start(&options)?, Postgres::start(&PostgresOptions::new())?))
        })
        .await??;
        let url = postgres.create_database("fencing")?;
        let database = url.rsplit('/').next().context("a url ends with its database")?.to_owned();
        let environment = vec![
            ("TOLLGATE_KAFKA__BROKERS", kafka.bootstrap()),
            ("TOLLGATE_KAFKA__GROUP_PROTOCOL", protocol.to_owned()),
            ("TOLLGATE_KAFKA__SESSION_TIMEOUT_MS", SESSION_MS.to_owned()),
            ("TOLLGATE_DATABASE__URL", url),
            (
                "TOLLGATE_DATABASE__IDLE_IN_TRANSACTION_TIMEOUT_MS",
                IDLE_IN_TRANSACTION_MS.to_owned(),
            ),
            ("TOLLGATE_DATABASE__LOCK_TIMEOUT_MS", LOCK_TIMEOUT_MS.to_owned()),
        ];
        succeed(&["topics", "create", "--replication", "1"], &environment)?;
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../rating/tariffs/sample.toml");
        succeed(&["tariff", "activate", sample, "--from", "beginning"], &environment)?;
        let listen = address();
        let mut of_edge = environment.clone();
        of_edge.extend([
            ("TOLLGATE_EDGE__LISTEN", listen.to_string()),
            ("TOLLGATE_EDGE__ALLOW_WEAK_TOPICS", "true".to_owned()),
            ("TOLLGATE_SPOOL__DIR", dir.path().join("spool").display().to_string()),
        ]);
        let edge = Process::start("edge", dir.path(), &["edge"], &of_edge).await?;
        let edge_url = format!("http://{listen}");
        let postgres = Arc::new(postgres);
        Ok(Self { edge, edge_url, environment, kafka, postgres, database, dir, calls: 0 })
    }

    /// Both services, as members of their groups; PostgreSQL shows their sessions by name.
    async fn members(&self, name: &str) -> Result<Vec<Process>> {
        let mut members = Vec::new();
        for (service, ..) in SERVICES {
            let mut environment = self.environment.clone();
            let name = format!("{service}-{name}");
            environment.extend([
                ("TOLLGATE_LISTENERS__QUERY", address().to_string()),
                ("TOLLGATE_DATABASE__APPLICATION_NAME", name.clone()),
            ]);
            members.push(Process::start(&name, self.dir.path(), &[service], &environment).await?);
        }
        Ok(members)
    }

    fn sql(&self, statement: &str) -> Result<String> {
        let statement = format!("SET search_path = tollgate; {statement}");
        self.postgres.sql(&self.database, &statement)
    }

    fn count(&self, statement: &str) -> Result<usize> {
        let printed = self.sql(statement)?;
        printed.trim().parse().with_context(|| format!("{statement} gives {printed:?}"))
    }

    /// Sends a status and a CDR of some new calls.
    async fn send(&mut self) -> Result<()> {
        for call in self.calls..self.calls + CALLS {
            let number = format!("+86138{call:08}");
            let status = format!(
                r#"{{"eventType":"disconnect","statusInfo":{{"sessionId":"s-{call}","timestamp":"2026-11-01 07:00:00","called":"{number}"}}}}"#
            );
            let fee = format!(
                r#"{{"eventType":"fee","feeLst":[{{"direction":0,"appKey":"app","icid":"i-{call}","sessionId":"s-{call}","bindNum":"+8675528000003","callerNum":"+8675528000002","calleeNum":"{number}","callOutStartTime":"2026-11-01 06:58:00","callOutAnswerTime":"2026-11-01 06:58:10","callEndTime":"2026-11-01 07:00:00","ulFailReason":0}}]}}"#
            );
            ensure!(post(&format!("{}/status", self.edge_url), status).await? == 200);
            ensure!(post(&format!("{}/fee", self.edge_url), fee).await? == 200);
        }
        self.calls += CALLS;
        Ok(())
    }

    async fn wait(&self, what: &str, met: impl AsyncFn() -> Result<bool>) -> Result<()> {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !met().await? {
            ensure!(tokio::time::Instant::now() < end, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Waits until every call sent so far is charged, known, and published.
    async fn wait_for_quiet(&self) -> Result<()> {
        self.wait("every call is charged and known", async || {
            let charged = self.count("SELECT count(*) FROM billing_records")?;
            let events = self.count(
                "SELECT coalesce(sum(next_offset), 0) FROM tollgate_fence
                 WHERE group_name LIKE '%user-state%'",
            )?;
            // A status and a CDR of each.
            Ok(charged == self.calls && events == 2 * self.calls)
        })
        .await?;
        self.wait("everything is published", async || {
            let rows = "SELECT (SELECT count(*) FROM tollgate_outbox)
                             + (SELECT count(*) FROM state_changed)";
            Ok(self.count(rows)? == 0)
        })
        .await
    }

    /// Locks what the services need, from a session that sleeps until it is ended.
    async fn lock_tables(&self) -> Result<JoinHandle<Result<String>>> {
        let tables = SERVICES.map(|(_, table, _)| format!("tollgate.{table}")).join(", ");
        let sql = format!("BEGIN; LOCK TABLE {tables} IN EXCLUSIVE MODE; SELECT pg_sleep(600)");
        let (postgres, database) = (Arc::clone(&self.postgres), self.database.clone());
        let session = std::thread::spawn(move || postgres.sql(&database, &sql));
        self.wait("the tables are locked", async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            Ok(self.count(sql)? == 1)
        })
        .await?;
        Ok(session)
    }

    fn release_tables(&self, session: JoinHandle<Result<String>>) -> Result<()> {
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE wait_event = 'PgSleep'",
        )?;
        // It was ended, which psql calls a failure.
        drop(session.join());
        Ok(())
    }

    /// Waits until each service has a session for which this holds.
    async fn wait_for_sessions(&self, member: &str, condition: &str) -> Result<()> {
        for (service, ..) in SERVICES {
            self.wait(&format!("{service} has a session where {condition}"), async || {
                let sql = format!(
                    "SELECT count(*) FROM pg_stat_activity
                     WHERE application_name = '{service}-{member}' AND {condition}"
                );
                Ok(self.count(&sql)? > 0)
            })
            .await?;
        }
        Ok(())
    }

    /// Everything in the database, and everything that a reader of committed records sees.
    fn snapshot(&self) -> Result<BTreeMap<String, String>> {
        let mut seen = BTreeMap::new();
        for (table, columns) in TABLES {
            let rows = self.sql(&format!("SELECT {columns} FROM {table} ORDER BY 1, 2, 3"))?;
            seen.insert(table.to_owned(), rows);
        }
        for topic in ["rated-cdrs", "user-states", "quarantine"] {
            let read = ["tail", topic, "--from-beginning", "--until-end", "--reveal"];
            let read = succeed(&read, &self.environment)?;
            let mut records: Vec<&str> = read.lines().collect();
            records.sort_unstable();
            seen.insert(topic.to_owned(), records.join("\n"));
        }
        Ok(seen)
    }

    /// With `stopped` asleep, others take over and finish the work; then it wakes, and must not
    /// change a thing.
    async fn take_over_and_wake(
        &self,
        name: &str,
        stopped: &[Process],
        joined: &[f64],
    ) -> Result<Vec<Process>> {
        let successors = self.members(name).await?;
        self.wait_for_quiet().await?;
        let before = self.snapshot()?;
        for (process, joined) in stopped.iter().zip(joined) {
            process.signal(Signal::CONT);
            // It has noticed, and is a member again.
            self.wait("the stopped one is a member again", async || {
                Ok(assigned(process).await? > *joined)
            })
            .await?;
        }
        self.unchanged(&before)?;
        Ok(successors)
    }

    /// Ends members that were zombies and have nothing to do: what they still held back must not
    /// change a thing.
    async fn end_zombies(&self, processes: Vec<Process>) -> Result<()> {
        let before = self.snapshot()?;
        end(processes).await?;
        self.unchanged(&before)
    }

    fn unchanged(&self, before: &BTreeMap<String, String>) -> Result<()> {
        let after = self.snapshot()?;
        for (what, before) in before {
            ensure!(after[what] == *before, "{what} was changed by a zombie");
        }
        Ok(())
    }
}

/// Partitions that this member holds.
async fn held(process: &Process) -> Result<i32> {
    Ok(metric(&process.metrics().await?, "tollgate_consumer_partitions") as i32)
}

/// How often this member was given partitions.
async fn assigned(process: &Process) -> Result<f64> {
    counted(process, "tollgate_kafka_rebalances_total", "change=\"assigned\"").await
}

/// How often this member's Kafka transactions were refused because another had taken over.
async fn thrown_out(process: &Process) -> Result<f64> {
    let name = "tollgate_relay_errors_total";
    let fenced = counted(process, name, "kind=\"fenced\"").await?;
    Ok(fenced + counted(process, name, "kind=\"recreate\"").await?)
}

async fn counted(process: &Process, name: &str, label: &str) -> Result<f64> {
    let page = process.metrics().await?;
    let lines = page.lines().filter(|line| line.contains(label));
    Ok(metric(&lines.collect::<Vec<_>>().join("\n"), name))
}

async fn all_assigned(processes: &[Process]) -> Result<Vec<f64>> {
    let mut counts = Vec::new();
    for process in processes {
        counts.push(assigned(process).await?);
    }
    Ok(counts)
}

async fn a_stopped_consumer_changes_nothing_when_it_wakes(protocol: &str) -> Result<()> {
    let mut system = System::start(protocol).await?;
    let first = system.members("a").await?;
    system.send().await?;
    system.wait_for_quiet().await?;

    // In the middle of a PostgreSQL transaction, which holds its fence.
    let joined = all_assigned(&first).await?;
    let lock = system.lock_tables().await?;
    system.send().await?;
    system.wait_for_sessions("a", "wait_event_type = 'Lock'").await?;
    stop(&first);
    system.release_tables(lock)?;
    system.wait_for_sessions("a", "state = 'idle in transaction'").await?;
    let second = system.take_over_and_wake("b", &first, &joined).await?;
    system.end_zombies(first).await?;
    for (process, (.., all)) in second.iter().zip(SERVICES) {
        system
            .wait("who is left holds all partitions", async || Ok(held(process).await? == all))
            .await?;
    }

    // In the middle of a Kafka transaction: the relay has rows, and the broker is silent.
    let joined = all_assigned(&second).await?;
    let lock = system.lock_tables().await?;
    system.send().await?;
    system.wait_for_sessions("b", "wait_event_type = 'Lock'").await?;
    system.kafka.pause();
    system.release_tables(lock)?;
    for rows in ["tollgate_outbox", "state_changed"] {
        let sql = format!("SELECT count(*) FROM {rows}");
        system.wait("the relay has rows", async || Ok(system.count(&sql)? > 0)).await?;
    }
    // The relay has to have begun by then, of which nothing outside it tells.
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop(&second);
    system.kafka.resume();
    let third = system.take_over_and_wake("c", &second, &joined).await?;
    // It was a transaction that they were stopped in, and that others ended.
    let mut refused = 0.0;
    for process in &second {
        refused += thrown_out(process).await?;
    }
    ensure!(refused >= 1.0, "nobody was stopped in the middle of a Kafka transaction");

    // All of them live on.
    system.send().await?;
    system.wait_for_quiet().await?;
    system.end_zombies(second).await?;
    end(third).await?;
    system.edge.stop().await
}

fn stop(processes: &[Process]) {
    for process in processes {
        process.signal(Signal::STOP);
    }
}

async fn end(processes: Vec<Process>) -> Result<()> {
    for mut process in processes {
        process.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_member_of_a_classic_group_changes_nothing_when_it_wakes() -> Result<()> {
    a_stopped_consumer_changes_nothing_when_it_wakes("classic").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_member_of_a_broker_led_group_changes_nothing_when_it_wakes() -> Result<()> {
    a_stopped_consumer_changes_nothing_when_it_wakes("consumer").await
}
