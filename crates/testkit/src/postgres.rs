//! PostgreSQL from Debian's packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::machine::{self, Account};
use crate::ports::free_port;
use crate::process::{Server, copy_dir, dies_with_us};
use crate::run_dir::TestDir;
use crate::wait::blocking_until;

const START: Duration = Duration::from_mins(1);
const STOP: Duration = Duration::from_secs(20);
const OWNER: &str = "tollgate";

/// How to run the server. The default is a server as in production: durable.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    fsync: bool,
    settings: Vec<(String, String)>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { fsync: true, settings: Vec::new() }
    }
}

impl PostgresOptions {
    /// A durable server with its usual settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it waits for the disk. Off is faster; a SIGKILL of the server still loses nothing.
    #[must_use]
    pub fn fsync(mut self, on: bool) -> Self {
        self.fsync = on;
        self
    }

    /// One more setting of `postgresql.conf`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running server. Stopped and removed on drop, or when the test process dies.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    account: Option<Account>,
    options: PostgresOptions,
    port: u16,
    server: Mutex<Option<Server>>,
    databases: AtomicU32,
    dir: TestDir,
}

impl Postgres {
    /// Starts a server and waits until it answers. Blocks for a second or two.
    pub fn start(options: &PostgresOptions) -> Result<Self> {
        let bin = newest_bin()?;
        let account = machine::unprivileged()?;
        let dir = TestDir::new("postgres")?;
        if let Some(account) = &account {
            std::os::unix::fs::chown(dir.path(), Some(account.uid), Some(account.gid))?;
        }
        let template = template(&bin, account.as_ref())?;
        copy_dir(&template, &dir.path().join("data"))?;
        let mut postgres = Self {
            bin,
            account,
            options: options.clone(),
            port: free_port(),
            server: Mutex::new(None),
            databases: AtomicU32::new(0),
            dir,
        };
        for _ in 0..5 {
            match postgres.restart() {
                Err(error) if format!("{error:#}").contains("Address already in use") => {
                    postgres.kill();
                    postgres.port = free_port();
                }
                done => return done.map(|()| postgres),
            }
        }
        anyhow::bail!("cannot find a port for PostgreSQL")
    }

    /// The one server of this test binary, without fsync, started at first use. Make a database
    /// of your own in it, and neither stop nor kill it.
    ///
    /// # Panics
    ///
    /// When it cannot be started, with the reason.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| {
            Self::start(&PostgresOptions::new().fsync(false))
                .unwrap_or_else(|error| panic!("cannot start PostgreSQL: {error:#}"))
        })
    }

    /// URL of the database that is always there.
    pub fn url(&self) -> String {
        self.database_url("postgres")
    }

    /// URL of a database of this server.
    pub fn database_url(&self, database: &str) -> String {
        format!("postgres://{OWNER}@127.0.0.1:{}/{database}", self.port)
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes a new, empty database whose name begins with `name` and returns its URL; two calls
    /// with the same name make two databases.
    pub fn create_database(&self, name: &str) -> Result<String> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let database = format!("{name}_{number}");
        self.sql("postgres", &format!("CREATE DATABASE \"{database}\""))?;
        Ok(self.database_url(&database))
    }

    /// Runs SQL in a database and returns what psql prints, unadorned.
    pub fn sql(&self, database: &str, statement: &str) -> Result<String> {
        machine::run(
            Command::new(self.bin.join("psql"))
                .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", OWNER])
                .args(["-p", &self.port.to_string(), "-d", database, "-c", statement])
                .arg("-h")
                .arg(self.dir.path()),
        )
    }

    /// Runs a file of SQL in a database.
    pub fn run_file(&self, database: &str, file: &Path) -> Result<()> {
        machine::run(
            Command::new(self.bin.join("psql"))
                .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", OWNER, "-d", database])
                .args(["-p", &self.port.to_string(), "-h"])
                .arg(self.dir.path())
                .arg("-f")
                .arg(file),
        )?;
        Ok(())
    }

    /// A database as SQL text that any later release of PostgreSQL can read.
    pub fn dump(&self, database: &str) -> Result<String> {
        let text = machine::run(
            Command::new(self.bin.join("pg_dump"))
                .args(["--inserts", "--no-owner", "--no-privileges", "-U", OWNER, "-d", database])
                .args(["-p", &self.port.to_string(), "-h"])
                .arg(self.dir.path()),
        )?;
        // Commands of psql, which older ones do not know.
        let lines = text.lines().filter(|line| !line.starts_with('\\'));
        Ok(lines.collect::<Vec<_>>().join("\n") + "\n")
    }

    /// Stops it in good order, ending its clients' sessions, and waits until it is gone.
    pub fn stop(&self) {
        if let Some(mut server) = self.server().take() {
            // SIGINT is its fast shutdown; SIGTERM would wait for the clients to leave.
            server.signal(Signal::INT);
            server.signal(Signal::CONT);
            server.wait_or_kill(STOP);
        }
        self.await_no_backends();
    }

    /// Kills it (SIGKILL) and waits until it and its backends are gone.
    pub fn kill(&self) {
        *self.server() = None;
        self.await_no_backends();
    }

    /// Freezes the postmaster (SIGSTOP): no new connection is served, open ones go on.
    pub fn pause(&self) {
        if let Some(server) = self.server().as_ref() {
            server.signal(Signal::STOP);
        }
    }

    /// Lets it go on after [`Postgres::pause`].
    pub fn resume(&self) {
        if let Some(server) = self.server().as_ref() {
            server.signal(Signal::CONT);
        }
    }

    /// Starts it again, if it is not running, on the same port and data, and waits until it
    /// answers.
    pub fn restart(&self) -> Result<()> {
        let mut server = self.server();
        if server.is_some() {
            return Ok(());
        }
        let data = self.dir.path().join("data");
        // A killed server's file says "ready" as well.
        let pid_file = data.join("postmaster.pid");
        if pid_file.exists() {
            fs::remove_file(&pid_file)?;
        }
        let mut started = Server::start(self.command(&data)?, &self.dir.path().join("log"))?;
        started.await_ready("PostgreSQL", START, |_| is_ready(&pid_file))?;
        *server = Some(started);
        Ok(())
    }

    fn command(&self, data: &Path) -> Result<Command> {
        let mut wrapped = dies_with_us(&self.bin.join("postgres"))?.into_iter();
        let program = wrapped.next().unwrap_or_default();
        let mut command = machine::command_as(self.account.as_ref(), program);
        command.args(wrapped).arg("-D").arg(data).current_dir(self.dir.path());
        let fsync = if self.options.fsync { "on" } else { "off" };
        let sockets = self.dir.path().to_str().context("temp dir is not UTF-8")?;
        let ours = [
            ("port", self.port.to_string()),
            ("listen_addresses", "127.0.0.1".into()),
            ("unix_socket_directories", sockets.to_owned()),
            ("fsync", fsync.into()),
            ("max_connections", "200".into()),
            ("shared_buffers", "64MB".into()),
            // Files in the data directory instead of /dev/shm, which a SIGKILL would leave.
            ("dynamic_shared_memory_type", "mmap".into()),
            ("log_min_messages", "warning".into()),
        ];
        let theirs = &self.options.settings;
        let theirs = theirs.iter().map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in ours.into_iter().chain(theirs) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        Ok(command)
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Backends of a killed postmaster notice and end by themselves; until then the shared memory
    /// is in use and a restart is refused. Removes the shared memory when they are gone.
    fn await_no_backends(&self) {
        let Some(id) = shared_memory(&self.dir.path().join("data/postmaster.pid")) else { return };
        blocking_until(STOP, || attached(id).is_none_or(|processes| processes == 0));
        if attached(id) == Some(0) {
            let _ = Command::new("ipcrm").args(["--shmem-id", &id.to_string()]).output();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn newest_bin() -> Result<PathBuf> {
    let version = |path: &Path| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/postgres").is_file())
        .max_by_key(|path| version(path))
        .map(|path| path.join("bin"))
        .context("PostgreSQL is not installed: apt-get install postgresql")
}

/// A freshly made data directory to copy; making one takes longer than copying it.
fn template(bin: &Path, account: Option<&Account>) -> Result<PathBuf> {
    let version = bin
        .parent()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str())
        .context("PostgreSQL's directory has no version")?;
    let owner = account.map_or("self", |account| &account.name);
    let path = machine::target_dir().join(format!("postgres-{version}-{owner}"));
    machine::once(&path, |unfinished| {
        // In the temp dir first: the account may not pass through to target/.
        let dir = TestDir::new("initdb")?;
        if let Some(account) = account {
            std::os::unix::fs::chown(dir.path(), Some(account.uid), Some(account.gid))?;
        }
        let data = dir.path().join("data");
        machine::run(
            machine::command_as(account, bin.join("initdb"))
                .current_dir(dir.path())
                .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"])
                .args(["-U", OWNER, "-D"])
                .arg(&data),
        )?;
        copy_dir(&data, unfinished)
    })?;
    Ok(path)
}

/// The last line of the pid file is the server's state.
fn is_ready(pid_file: &Path) -> bool {
    fs::read_to_string(pid_file)
        .is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "ready"))
}

/// Id of the System V shared memory that a postmaster holds as its lock.
fn shared_memory(pid_file: &Path) -> Option<u32> {
    let text = fs::read_to_string(pid_file).ok()?;
    text.lines().nth(6)?.split_whitespace().nth(1)?.parse().ok()
}

/// How many processes have that shared memory attached; `None` when it is gone.
fn attached(id: u32) -> Option<u32> {
    let table = fs::read_to_string("/proc/sysvipc/shm").ok()?;
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        (fields.nth(1)?.parse::<u32>().ok()? == id).then(|| fields.nth(4)?.parse().ok()).flatten()
    })
}
