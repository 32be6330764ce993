//! The database of a consumer, as the bench looks into it.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, PgPool, SqlitePool};
use tollgate_testkit::{Postgres, PostgresOptions};

use crate::machine;

/// Memory for PostgreSQL's pages, unless another size is asked for.
pub const BUFFERS: &str = "1GB";

/// PostgreSQL as the tests start it, durable, with memory for what is measured. By default it
/// would take huge pages wherever there are some, and figures of two machines would differ by that.
pub fn start_postgres(buffers: &str, huge_pages: bool) -> Result<Postgres> {
    Postgres::start(
        &PostgresOptions::new()
            .setting("shared_buffers", buffers)
            .setting("huge_pages", if huge_pages { "on" } else { "off" })
            .setting("max_wal_size", "8GB")
            .setting("checkpoint_timeout", "15min"),
    )
}

pub enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

/// A database and who may ask it.
pub struct Db {
    pub url: String,
    pub runtime: tokio::runtime::Runtime,
    pub pool: Pool,
    /// Of the server.
    pid: Option<u32>,
}

impl Db {
    /// A new, empty database of this server.
    pub fn postgres(server: &Postgres) -> Result<Self> {
        let url = server.create_database("bench")?;
        let options: PgConnectOptions = url.parse()?;
        let runtime = runtime()?;
        let pool = {
            let _inside = runtime.enter();
            PgPoolOptions::new()
                .max_connections(16)
                .acquire_timeout(Duration::from_secs(30))
                .connect_lazy_with(options.options([("search_path", "tollgate")]))
        };
        let mut db = Self { url, runtime, pool: Pool::Postgres(pool), pid: None };
        let pid = db.text("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)")?;
        db.pid = Some(pid.trim().parse()?);
        Ok(db)
    }

    /// A SQLite file that need not exist yet.
    pub fn sqlite(path: &Path) -> Result<Self> {
        let runtime = runtime()?;
        let pool = {
            let _inside = runtime.enter();
            let options = SqliteConnectOptions::new().filename(path).read_only(true);
            SqlitePoolOptions::new().connect_lazy_with(options)
        };
        let url = format!("sqlite:{}", path.display());
        Ok(Self { url, runtime, pool: Pool::Sqlite(pool), pid: None })
    }

    pub fn pg(&self) -> Result<&PgPool> {
        match &self.pool {
            Pool::Postgres(pool) => Ok(pool),
            Pool::Sqlite(_) => anyhow::bail!("PostgreSQL only"),
        }
    }

    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// One integer.
    pub fn int(&self, sql: &str) -> Result<i64> {
        let sql = AssertSqlSafe(sql);
        Ok(match &self.pool {
            Pool::Postgres(pool) => self.wait(sqlx::query_scalar(sql).fetch_one(pool))?,
            Pool::Sqlite(pool) => self.wait(sqlx::query_scalar(sql).fetch_one(pool))?,
        })
    }

    fn text(&self, sql: &str) -> Result<String> {
        let sql = AssertSqlSafe(sql);
        Ok(self.wait(sqlx::query_scalar(sql).fetch_one(self.pg()?))?)
    }

    /// Runs statements of PostgreSQL.
    pub fn run(&self, sql: &str) -> Result<()> {
        let done = self.wait(sqlx::raw_sql(AssertSqlSafe(sql)).execute(self.pg()?));
        done.map(drop).with_context(|| format!("cannot run: {sql}"))
    }

    /// CPU seconds of the server so far; a SQLite file has none.
    pub fn cpu(&self) -> Result<f64> {
        self.pid.map_or(Ok(0.0), machine::cpu_of_family)
    }
}

/// Two threads: the one that waits, and one for what goes on beside.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}
