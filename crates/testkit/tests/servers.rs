//! The servers start, die and come back, and leave nothing.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use tollgate_testkit::{Kafka, KafkaOptions, Postgres, PostgresOptions, blocking_until, free_port};

#[test]
fn a_killed_postgres_comes_back_with_its_data() -> Result<()> {
    let postgres = Postgres::start(&PostgresOptions::new())?;
    let url = postgres.create_database("kill")?;
    assert!(url.ends_with("/kill_0"), "{url}");
    postgres.sql("kill_0", "CREATE TABLE t (n int); INSERT INTO t VALUES (42)")?;

    postgres.kill();
    assert!(TcpStream::connect(("127.0.0.1", postgres.port())).is_err());

    postgres.restart()?;
    assert_eq!(postgres.sql("kill_0", "SELECT n FROM t")?.trim(), "42");

    postgres.stop();
    postgres.restart()?;
    assert_eq!(postgres.sql("kill_0", "SHOW fsync")?.trim(), "on");
    Ok(())
}

#[test]
fn databases_of_the_same_name_are_separate() -> Result<()> {
    let postgres = Postgres::shared();
    assert_ne!(postgres.create_database("twin")?, postgres.create_database("twin")?);
    Ok(())
}

#[test]
fn a_killed_broker_comes_back_on_its_ports() -> Result<()> {
    let kafka = Kafka::start(&KafkaOptions::new())?;
    let address = kafka.bootstrap();
    assert!(TcpStream::connect(&address).is_ok());
    kafka.kill();
    assert!(TcpStream::connect(&address).is_err());
    kafka.restart()?;
    assert_eq!(kafka.bootstrap(), address);
    assert!(TcpStream::connect(&address).is_ok());
    kafka.stop();
    assert!(TcpStream::connect(&address).is_err());
    Ok(())
}

#[test]
fn a_secured_cluster_starts_with_its_authority() -> Result<()> {
    let kafka = Kafka::start(&KafkaOptions::new().sasl_ssl())?;
    assert!(std::fs::read_to_string(kafka.ca_file())?.contains("BEGIN CERTIFICATE"));
    assert!(TcpStream::connect(kafka.bootstrap()).is_ok());
    Ok(())
}

#[test]
fn a_failed_start_shows_the_log() {
    let options = KafkaOptions::new().property("broker.heartbeat.interval.ms", "many");
    let error = format!("{:#}", Kafka::start(&options).unwrap_err());
    assert!(error.contains("broker.heartbeat.interval.ms"), "{error}");
}

#[test]
fn free_ports_are_never_given_twice() {
    let mut ports: Vec<u16> = (0..50).map(|_| free_port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 50);
}

/// Not a test of its own: what the next one runs in a process that it kills.
#[test]
fn a_victim_starts_both_servers_and_waits() -> Result<()> {
    if std::env::var_os("TESTKIT_VICTIM").is_none() {
        return Ok(());
    }
    let kafka = Kafka::shared();
    let postgres = Postgres::shared();
    std::fs::write(
        std::env::var("TESTKIT_VICTIM")?,
        format!("{} {}", kafka.bootstrap(), postgres.port()),
    )?;
    loop {
        std::thread::park();
    }
}

#[test]
fn a_sigkilled_test_process_leaves_neither_process_nor_file_nor_shared_memory() -> Result<()> {
    let dir = tollgate_testkit::TestDir::new("victim")?;
    let note = dir.path().join("note");
    // Its output is nobody's: were it left behind, who reads ours would wait for it.
    let mut victim = Victim(
        Command::new(std::env::current_exe()?)
            .args(["--exact", "a_victim_starts_both_servers_and_waits"])
            .env("TESTKIT_VICTIM", &note)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?,
    );
    let own_dir = std::env::temp_dir().join(format!("tollgate-test-{}", victim.0.id()));
    wait_for("the servers", || note.exists());
    assert!(own_dir.exists());
    let servers = processes_below(&own_dir);
    assert!(servers >= 2, "{servers} servers");

    victim.kill()?;

    wait_for("the processes to go", || processes_below(&own_dir) == 0);
    wait_for("the directory to go", || !own_dir.exists());
    Ok(())
}

/// Killed when it is dropped, also by a failure.
struct Victim(Child);

impl Victim {
    fn kill(&mut self) -> std::io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    assert!(blocking_until(Duration::from_mins(5), condition), "waited in vain for {what}");
}

/// Number of processes that name the directory in their command line, watchers left aside.
fn processes_below(dir: &std::path::Path) -> usize {
    let wanted = dir.to_string_lossy().into_owned();
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .filter(|line| line.contains(&wanted) && !line.contains("tollgate-test-watcher"))
        .count()
}
