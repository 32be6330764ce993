//! Multi-row inserts of what a consumer has written into a SQLite file with the same indexes.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection, TypeInfo, ValueRef};

use super::rows::{part, rows_of};
use crate::service::Consumer;

/// SQLite's bound on the values of one statement.
const MAX_VALUES: usize = 32_766;

enum Value {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

struct Table {
    name: &'static str,
    columns: usize,
    rows: Vec<Vec<Value>>,
}

/// Seconds that it takes to insert the rows of the file `from` into a new file, in so many
/// transactions.
pub async fn insert(consumer: Consumer, from: &Path, transactions: u64) -> Result<f64> {
    let mut source = SqliteConnectOptions::new().filename(from).read_only(true).connect().await?;
    let path = from.with_extension("twin");
    let _ = std::fs::remove_file(&path);
    // As the consumers open theirs, but for foreign keys: what they point to is not copied.
    let mut twin = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(false)
        .connect()
        .await?;
    let mut tables = Vec::new();
    for wanted in rows_of(consumer) {
        let rows = sqlx::query(wanted.sqlite).fetch_all(&mut source).await?;
        let columns = rows.first().map_or(0, Row::len);
        let rows = rows.iter().map(read).collect::<Result<_, _>>()?;
        create(&mut source, &mut twin, wanted.table).await?;
        tables.push(Table { name: wanted.table, columns, rows });
    }
    let count = transactions.max(1) as usize;
    let began = Instant::now();
    for index in 0..count {
        let mut tx = twin.begin_with("BEGIN IMMEDIATE").await?;
        for table in &tables {
            let rows = &table.rows[part(table.rows.len(), index, count)];
            for rows in rows.chunks((MAX_VALUES / table.columns.max(1)).max(1)) {
                insert_rows(&mut tx, table, rows).await?;
            }
        }
        tx.commit().await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    twin.close().await?;
    std::fs::remove_file(&path)?;
    Ok(seconds)
}

/// The same table with the same indexes.
async fn create(
    source: &mut SqliteConnection,
    twin: &mut SqliteConnection,
    table: &str,
) -> Result<()> {
    let statements: Vec<String> = sqlx::query_scalar(
        "SELECT sql FROM sqlite_master WHERE tbl_name = $1 AND sql IS NOT NULL ORDER BY type DESC",
    )
    .bind(table)
    .fetch_all(source)
    .await?;
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *twin).await?;
    }
    Ok(())
}

fn read(row: &SqliteRow) -> Result<Vec<Value>, sqlx::Error> {
    let value = |column: usize| {
        let raw = row.try_get_raw(column)?;
        match raw.type_info().name() {
            _ if raw.is_null() => Ok(Value::Null),
            "INTEGER" => row.try_get(column).map(Value::Int),
            "BLOB" => row.try_get(column).map(Value::Bytes),
            _ => row.try_get_unchecked(column).map(Value::Text),
        }
    };
    (0..row.len()).map(value).collect()
}

async fn insert_rows(tx: &mut SqliteConnection, table: &Table, rows: &[Vec<Value>]) -> Result<()> {
    let places = format!("({})", vec!["?"; table.columns].join(","));
    let places = vec![places; rows.len()].join(",");
    let statement = format!("INSERT INTO {} VALUES {places}", table.name);
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for value in rows.iter().flatten() {
        query = match value {
            Value::Null => query.bind(None::<i64>),
            Value::Int(value) => query.bind(*value),
            Value::Text(value) => query.bind(value.as_str()),
            Value::Bytes(value) => query.bind(value.as_slice()),
        };
    }
    query.execute(tx).await?;
    Ok(())
}
