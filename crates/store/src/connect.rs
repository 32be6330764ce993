//! Pools that connect when they are used.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _, PgPool, SqlitePool};
use tollgate_spool::disk::{Disk as _, RealDisk};
use tollgate_stream::{Claim, Fence, Pending, Source, StoreError};

use crate::settings::Target;
use crate::{Settings, Step, error::classify_own, postgres, sqlite};

/// The write-ahead log of SQLite is cut back to this after a checkpoint.
const WAL_LIMIT_BYTES: &str = "67108864";

/// A consumer's database. Cheap to clone; clones share the pools.
#[derive(Debug, Clone)]
pub enum Database {
    /// Production: any number of processes.
    Postgres(PgPool),
    /// Embedded: one file, one writer.
    Sqlite(SqlitePools),
}

/// The connections to one SQLite file.
#[derive(Debug, Clone)]
pub struct SqlitePools {
    /// One connection. Transactions begin with `BEGIN IMMEDIATE`, see [`sqlite::begin`].
    pub writer: SqlitePool,
    /// Connections that can only read; they see the last commit and never wait for the writer.
    pub readers: SqlitePool,
}

impl Database {
    /// Takes a partition over. See [`postgres::fence`].
    pub async fn fence(&self, source: &Source) -> Result<Fence, StoreError> {
        match self {
            Self::Postgres(pool) => postgres::fence(pool, source).await,
            Self::Sqlite(pools) => sqlite::fence(pools, source).await,
        }
    }

    /// The oldest rows of the partition's outbox. See [`postgres::read_outbox`].
    pub async fn read_outbox(
        &self,
        claim: &Claim,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Pending>, StoreError> {
        match self {
            Self::Postgres(pool) => postgres::read_outbox(pool, claim, limit, bytes).await,
            Self::Sqlite(pools) => sqlite::read_outbox(pools, claim, limit, bytes).await,
        }
    }

    /// Removes published rows from the outbox, in a fenced transaction of its own. See
    /// [`postgres::delete_outbox_rows`].
    pub async fn delete_outbox(&self, claim: &Claim, up_to: i64) -> Result<(), StoreError> {
        let mut tx = self.transaction(&Step::Hold(claim)).await?;
        tx.sql().delete_outbox_rows(claim, up_to).await?;
        tx.commit().await
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(pool) => sqlx::query("SELECT 1").execute(pool).await.map(drop),
            Self::Sqlite(pools) => sqlx::query("SELECT 1").execute(&pools.writer).await.map(drop),
        }
        .map_err(classify_own)
    }

    /// Waits for running statements, then closes every connection.
    pub async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::Sqlite(pools) => {
                pools.readers.close().await;
                pools.writer.close().await;
            }
        }
    }
}

/// Makes the pools. No connection is made yet, so this succeeds while the database is down;
/// it fails only with [`StoreError::Refused`], for settings that can never work, a secret that
/// cannot be read, or a directory of a SQLite file that cannot be made.
///
/// Must be called within a tokio runtime.
pub fn connect(settings: &Settings) -> Result<Database, StoreError> {
    settings.validate().map_err(StoreError::Refused)?;
    match settings.target()? {
        Target::Postgres(url) => Ok(Database::Postgres(postgres_pool(settings, &url)?)),
        Target::Sqlite(path) => Ok(Database::Sqlite(sqlite_pools(settings, &path)?)),
    }
}

/// The same for who only reads: a SQLite file that is not there is not made, and there is no
/// database.
pub fn connect_existing(settings: &Settings) -> Result<Option<Database>, StoreError> {
    match settings.target()? {
        Target::Sqlite(path) if !path.exists() => Ok(None),
        _ => connect(settings).map(Some),
    }
}

fn postgres_pool(settings: &Settings, url: &str) -> Result<PgPool, StoreError> {
    // The parser's own message may quote the url, and the url contains the password.
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| StoreError::Refused("url of PostgreSQL cannot be parsed".to_owned()))?
        .application_name(&settings.application_name)
        .disable_statement_logging();
    // Plain settings after login rather than start-up parameters: PgBouncer refuses the latter.
    let session: [(&str, String); 12] = [
        ("default_transaction_isolation", "read committed".to_owned()),
        ("statement_timeout", settings.statement_timeout_ms.to_string()),
        ("lock_timeout", settings.lock_timeout_ms.to_string()),
        (
            "idle_in_transaction_session_timeout",
            settings.idle_in_transaction_timeout_ms.to_string(),
        ),
        // So that the server lets go of what a client held whose host is gone.
        ("tcp_keepalives_idle", "10".to_owned()),
        ("tcp_keepalives_interval", "5".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
        ("client_min_messages", "warning".to_owned()),
        ("synchronous_commit", "on".to_owned()),
        // Everything goes by key. A plan is kept from when its table was new and empty, where a scan
        // is cheapest, until the next ANALYZE; meanwhile each batch would read the whole of it.
        ("enable_seqscan", "off".to_owned()),
        // Where a scan can not be avoided all the same, the planner takes it for so expensive that
        // it would compile the statement first, for tenths of a second.
        ("jit", "off".to_owned()),
        ("search_path", settings.schema.clone()),
    ];
    let (names, values): (Vec<_>, Vec<_>) =
        session.into_iter().map(|(name, value)| (name.to_owned(), value)).unzip();
    let timeout = Duration::from_millis(settings.connect_timeout_ms);
    Ok(PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(timeout)
        // The pool itself would wait for ever for the answer of a host that is gone without a
        // word, and keep the connection's place all the while. A connection to what has become a
        // standby answers, and is of no use.
        .after_release(move |connection, _| {
            Box::pin(async move {
                let question = sqlx::query_scalar("SELECT pg_is_in_recovery()");
                match tokio::time::timeout(timeout, question.fetch_one(connection)).await {
                    Ok(answer) => answer.map(|is_standby: bool| !is_standby),
                    Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
                }
            })
        })
        .after_connect(move |connection, _| {
            let (names, values) = (names.clone(), values.clone());
            Box::pin(async move {
                sqlx::query(
                    "SELECT set_config(name, value, false)
                     FROM unnest($1::text[], $2::text[]) AS session (name, value)",
                )
                .bind(names)
                .bind(values)
                .execute(connection)
                .await?;
                Ok(())
            })
        })
        .connect_lazy_with(options))
}

fn sqlite_pools(settings: &Settings, path: &Path) -> Result<SqlitePools, StoreError> {
    create_private(path).map_err(|error| {
        StoreError::Refused(format!("SQLite file cannot be created: {}", error.kind()))
    })?;
    let timeout = Duration::from_millis(settings.connect_timeout_ms);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_millis(settings.lock_timeout_ms))
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .disable_statement_logging();
    // Connections are kept for ever: closing the last one would checkpoint and remove the
    // write-ahead log, and with it the readers' snapshots.
    let pool = SqlitePoolOptions::new()
        .acquire_timeout(timeout)
        .idle_timeout(None::<Duration>)
        .max_lifetime(None::<Duration>)
        .before_acquire(|connection, _| {
            // After a full disk or a read error SQLite has ended the transaction by itself. The
            // driver thinks that it is open for ever after: a writer would be of no more use, a reader
            // would open one inside it that never ends.
            let in_step = !connection.is_in_transaction();
            Box::pin(async move { Ok(in_step) })
        });
    let writer = pool.clone().max_connections(1).connect_lazy_with(
        options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .pragma("journal_size_limit", WAL_LIMIT_BYTES),
    );
    let readers = pool
        .max_connections(settings.max_connections)
        .connect_lazy_with(options.pragma("query_only", "ON"));
    Ok(SqlitePools { writer, readers })
}

/// Makes the file, readable by its owner only, if it is not there; its name outlives a power cut.
/// SQLite gives its side files the same permissions, and syncs their names itself.
fn create_private(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    RealDisk.create_dir(parent)?;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?;
    RealDisk.sync_dir(parent)
}
