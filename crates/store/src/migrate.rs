//! Schema versions: numbered steps that are applied once, in one transaction, by one process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Executor, PgConnection, PgPool, Row};
use tokio::sync::OnceCell;
use tokio::task::JoinError;
use tokio::time::timeout;
use tollgate_stream::StoreError;

use crate::connect::SqlitePools;
use crate::error::classify_own;
use crate::{Database, sqlite};

/// One step of a domain's schema. Its version is its place in the slice, from 1; a step that was
/// released is never changed, a change is a new step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Statements for PostgreSQL, separated by semicolons.
    pub postgres: &'static str,
    /// Statements for SQLite, separated by semicolons.
    pub sqlite: &'static str,
}

/// What is there of a domain's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// All, as this program knows them.
    Current,
    /// Those of an older release.
    Older,
    /// None.
    Nothing {
        /// The domains that have tables there.
        others: Vec<String>,
    },
}

/// The domain of this crate's own tables.
const STORE: &str = "store";

/// Its steps.
const OWN: &[Migration] = &[Migration {
    postgres: include_str!("../migrations/0001.postgres.sql"),
    sqlite: include_str!("../migrations/0001.sqlite.sql"),
}];

const OWN_TABLES: &[&str] = &["tollgate_fence", "tollgate_outbox"];

/// How often a running process looks whether a newer one has migrated.
const LOOK: Duration = Duration::from_secs(5);

/// How long it waits for what it finds: a database that is gone without a word never answers.
const ANSWER: Duration = Duration::from_mins(1);

/// What was applied of a domain.
const APPLIED: &str =
    "SELECT version, digest FROM tollgate_schema WHERE domain = $1 ORDER BY version";

/// Records a step that was applied.
const RECORD: &str = "INSERT INTO tollgate_schema (domain, version, digest) VALUES ($1, $2, $3)";

/// What was applied of all domains.
const ALL_APPLIED: &str = "SELECT domain, CAST(version AS bigint), digest FROM tollgate_schema
     ORDER BY domain, version";

/// `tollgate` in ASCII; the advisory lock under which schemas are changed.
const LOCK: i64 = 0x746f_6c6c_6761_7465;

/// Its name, its tables and its steps.
type Domain = (&'static str, &'static [&'static str], &'static [Migration]);

/// A domain's schema, brought up to date once per process when it is first needed, so that a
/// consumer can start while the database is down.
#[derive(Debug, Clone)]
pub struct Schema {
    domain: &'static str,
    tables: &'static [&'static str],
    migrations: &'static [Migration],
    done: Arc<OnceCell<()>>,
}

impl Schema {
    /// Names a domain's steps; nothing happens yet. `tables` are its tables in the order in which
    /// its transactions come to them.
    pub fn new(
        domain: &'static str,
        tables: &'static [&'static str],
        migrations: &'static [Migration],
    ) -> Self {
        Self { domain, tables, migrations, done: Arc::default() }
    }

    /// Brings this crate's tables and the domain's up to date, unless it was done already. Call it
    /// before the first fence and the first query. Any number of processes may call this at once.
    /// Refuses a schema that is newer than the program, or that was made by steps that read
    /// otherwise.
    pub async fn ensure(&self, database: &Database) -> Result<(), StoreError> {
        if self.done.initialized() {
            return Ok(());
        }
        let (this, database) = (self.clone(), database.clone());
        let migrate = async move || match &database {
            Database::Postgres(pool) => migrate_postgres(pool, &this).await,
            Database::Sqlite(pools) => migrate_sqlite(pools, &this).await,
        };
        // A task of its own: it may take hours, and who waits for it may give up before.
        let done = Arc::clone(&self.done);
        let migrated = tokio::spawn(async move { done.get_or_try_init(migrate).await.map(drop) });
        let failed = |error: JoinError| Err(StoreError::Transient(error.to_string()));
        migrated.await.unwrap_or_else(failed)
    }

    /// What is there of the domain's tables. Makes and changes nothing; refuses what
    /// [`Schema::ensure`] refuses.
    pub async fn find(&self, database: &Database) -> Result<Found, StoreError> {
        let is_versioned = match database {
            Database::Postgres(_) => {
                "SELECT 1 WHERE to_regclass(
                     current_setting('search_path') || '.tollgate_schema') IS NOT NULL"
            }
            Database::Sqlite(_) => "SELECT 1 FROM sqlite_schema WHERE name = 'tollgate_schema'",
        };
        let mut tx = database.snapshot().await?;
        let sql = tx.sql();
        let mut applied: BTreeMap<String, Vec<(i32, String)>> = BTreeMap::new();
        if sql.row(is_versioned, vec![]).await?.is_some() {
            for row in sql.rows(ALL_APPLIED, vec![]).await? {
                let step = (row.int(1)? as i32, row.text(2)?.to_owned());
                applied.entry(row.text(0)?.to_owned()).or_default().push(step);
            }
        }
        if !applied.contains_key(self.domain) {
            let others = applied.into_keys().filter(|domain| domain != STORE).collect();
            return Ok(Found::Nothing { others });
        }
        for (domain, _, migrations) in self.domains() {
            let step = |migration: &Migration| match database {
                Database::Postgres(_) => migration.postgres,
                Database::Sqlite(_) => migration.sqlite,
            };
            let steps: Vec<_> = migrations.iter().map(step).collect();
            let applied = applied.remove(domain).unwrap_or_default();
            if !missing(domain, &steps, &applied)?.is_empty() {
                return Ok(Found::Older);
            }
        }
        Ok(Found::Current)
    }

    /// What is brought up to date, in this order: the name, the tables and the steps of each.
    fn domains(&self) -> [Domain; 2] {
        [(STORE, OWN_TABLES, OWN), (self.domain, self.tables, self.migrations)]
    }

    /// Waits until a newer release has migrated the schema further than this program knows it; says
    /// what to do.
    pub async fn outgrown(&self, database: &Database) -> String {
        const VERSION: &str =
            "SELECT CAST(count(*) AS bigint) FROM tollgate_schema WHERE domain = $1";
        loop {
            let question = async {
                match database {
                    Database::Postgres(pool) => {
                        sqlx::query_scalar(VERSION).bind(self.domain).fetch_one(pool).await
                    }
                    Database::Sqlite(pools) => {
                        let pool = &pools.readers;
                        sqlx::query_scalar(VERSION).bind(self.domain).fetch_one(pool).await
                    }
                }
            };
            // A database that is away says nothing about it.
            let version = timeout(ANSWER, question).await.ok().and_then(Result::ok);
            match version.map(|version: i64| version as usize) {
                Some(version) if version > self.migrations.len() => {
                    return newer(self.domain, version, self.migrations.len());
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

async fn migrate_postgres(pool: &PgPool, schema: &Schema) -> Result<(), StoreError> {
    let mut tx = pool.begin().await.map_err(classify_own)?;
    prepare_postgres(&mut tx).await.map_err(classify_own)?;
    for (domain, tables, migrations) in schema.domains() {
        let applied = sqlx::query_as(APPLIED).bind(domain).fetch_all(&mut *tx).await;
        let steps: Vec<_> = migrations.iter().map(|migration| migration.postgres).collect();
        let missing = missing(domain, &steps, &applied.map_err(classify_own)?)?;
        if !missing.is_empty() {
            lock(&mut tx, tables).await.map_err(classify_own)?;
        }
        for (version, sql) in missing {
            sqlx::raw_sql(sql).execute(&mut *tx).await.map_err(classify_own)?;
            let record = sqlx::query(RECORD).bind(domain).bind(version).bind(digest(sql));
            record.execute(&mut *tx).await.map_err(classify_own)?;
            tracing::info!(domain, version, "schema migrated");
        }
    }
    tx.commit().await.map_err(classify_own)
}

/// Waits until nobody else migrates, and makes the schema and the table of versions.
async fn prepare_postgres(tx: &mut PgConnection) -> sqlx::Result<()> {
    // Building an index may take as long as it takes; the lock too, while another builds.
    tx.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0").await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
    // Asked first, since CREATE … IF NOT EXISTS needs the permission even when there is nothing
    // to do.
    let row = sqlx::query(
        "SELECT current_setting('search_path') AS name,
                to_regnamespace(current_setting('search_path')) IS NOT NULL AS found,
                to_regclass(current_setting('search_path') || '.tollgate_schema') IS NOT NULL
                    AS versioned",
    )
    .fetch_one(&mut *tx)
    .await?;
    let name: String = row.try_get("name")?;
    let found: bool = row.try_get("found")?;
    let versioned: bool = row.try_get("versioned")?;
    if !found {
        // Safe: the settings allow lower-case letters, digits and underscores only.
        let statement = AssertSqlSafe(format!("CREATE SCHEMA \"{name}\""));
        sqlx::raw_sql(statement).execute(&mut *tx).await?;
    }
    if !versioned {
        tx.execute(
            "CREATE TABLE tollgate_schema (
                 domain text NOT NULL, version integer NOT NULL, digest text NOT NULL,
                 applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (domain, version))",
        )
        .await?;
    }
    Ok(())
}

/// Locks those of the tables that are there, all before anything is changed. Consumers of an older
/// release may be at work: a step that came to the tables in another order than they do would end in
/// a deadlock, perhaps after minutes of work.
async fn lock(tx: &mut PgConnection, tables: &'static [&'static str]) -> sqlx::Result<()> {
    let found: Option<String> = sqlx::query_scalar(
        "SELECT string_agg(name, ', ' ORDER BY place)
         FROM unnest($1::text[]) WITH ORDINALITY AS own (name, place)
         WHERE to_regclass(name) IS NOT NULL",
    )
    .bind(tables)
    .fetch_one(&mut *tx)
    .await?;
    if let Some(tables) = found {
        // Safe: the program's own names.
        let statement = AssertSqlSafe(format!("LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"));
        sqlx::raw_sql(statement).execute(tx).await?;
    }
    Ok(())
}

async fn migrate_sqlite(pools: &SqlitePools, schema: &Schema) -> Result<(), StoreError> {
    let mut tx = sqlite::begin(pools).await?;
    tx.execute(
        "CREATE TABLE IF NOT EXISTS tollgate_schema (
             domain TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL,
             applied_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (domain, version))
             STRICT",
    )
    .await
    .map_err(classify_own)?;
    for (domain, _, migrations) in schema.domains() {
        let applied = sqlx::query_as(APPLIED).bind(domain).fetch_all(&mut *tx).await;
        let steps: Vec<_> = migrations.iter().map(|migration| migration.sqlite).collect();
        for (version, sql) in missing(domain, &steps, &applied.map_err(classify_own)?)? {
            sqlx::raw_sql(sql).execute(&mut *tx).await.map_err(classify_own)?;
            let record = sqlx::query(RECORD).bind(domain).bind(version).bind(digest(sql));
            record.execute(&mut *tx).await.map_err(classify_own)?;
            tracing::info!(domain, version, "schema migrated");
        }
    }
    tx.commit().await.map_err(classify_own)
}

/// The steps to apply, after checking that those applied are the program's own.
fn missing(
    domain: &str,
    steps: &[&'static str],
    applied: &[(i32, String)],
) -> Result<Vec<(i32, &'static str)>, StoreError> {
    if applied.len() > steps.len() {
        return Err(StoreError::Refused(newer(domain, applied.len(), steps.len())));
    }
    for (index, (version, recorded)) in applied.iter().enumerate() {
        if usize::try_from(*version) != Ok(index + 1) || *recorded != digest(steps[index]) {
            return Err(StoreError::Refused(format!(
                "version {version} of the schema of {domain} was made by another step than this \
                 program's; it comes from another release line"
            )));
        }
    }
    Ok(steps.iter().enumerate().skip(applied.len()).map(|(i, sql)| (i as i32 + 1, *sql)).collect())
}

fn newer(domain: &str, version: usize, known: usize) -> String {
    format!(
        "schema of {domain} is at version {version}, newer than this program, which knows {known}; \
         run the newer release, or restore the backup from before the upgrade"
    )
}

fn digest(sql: &str) -> String {
    hex::encode(Sha256::digest(sql.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_steps_are_applied_and_strange_schemas_are_refused() {
        let done = |sql: &[&str]| -> Vec<(i32, String)> {
            sql.iter().enumerate().map(|(i, sql)| (i as i32 + 1, digest(sql))).collect()
        };
        assert_eq!(missing("x", &["a", "b"], &[]), Ok(vec![(1, "a"), (2, "b")]));
        assert_eq!(missing("x", &["a", "b"], &done(&["a"])), Ok(vec![(2, "b")]));
        assert_eq!(missing("x", &["a"], &done(&["a"])), Ok(vec![]));
        let newer = missing("x", &["a"], &done(&["a", "b"])).unwrap_err().to_string();
        assert!(newer.contains("version 2") && newer.contains("newer than this program"));
        assert!(missing("x", &["a"], &done(&["c"])).is_err());
    }
}
