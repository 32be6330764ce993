//! Statements that read the same in both dialects, with plain values in and out.
//!
//! Both drivers take `$1`, and the tables hold only integers, texts and bytes; so what is not
//! done in bulk is written once, against this trait.

use async_trait::async_trait;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Column, Postgres, Row as _, TypeInfo, ValueRef};
use tollgate_store::classify;
use tollgate_store::sqlite::Bound;
use tollgate_stream::StoreError;

/// A value bound to a statement, or read from a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// NULL; only ever read.
    Null,
    /// Any integer.
    Int(i64),
    /// Text of this program's own making.
    Text(String),
    /// Keys, and everything a sender wrote.
    Bytes(Vec<u8>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

impl From<[u8; 16]> for Value {
    fn from(value: [u8; 16]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

/// One row that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(Vec<Value>);

impl Row {
    /// The integer in this column; NULL, as of a sum over nothing, is 0.
    pub fn int(&self, column: usize) -> Result<i64, StoreError> {
        match self.0.get(column) {
            Some(Value::Int(value)) => Ok(*value),
            Some(Value::Null) => Ok(0),
            _ => Err(misfit(column, "an integer")),
        }
    }

    /// The text in this column.
    pub fn text(&self, column: usize) -> Result<&str, StoreError> {
        match self.0.get(column) {
            Some(Value::Text(value)) => Ok(value),
            _ => Err(misfit(column, "a text")),
        }
    }

    /// The bytes in this column; NULL is empty.
    pub fn bytes(&self, column: usize) -> Result<&[u8], StoreError> {
        match self.0.get(column) {
            Some(Value::Bytes(value)) => Ok(value),
            Some(Value::Null) => Ok(&[]),
            _ => Err(misfit(column, "bytes")),
        }
    }

    /// The 16-byte key in this column.
    pub fn key(&self, column: usize) -> Result<[u8; 16], StoreError> {
        self.bytes(column)?.try_into().map_err(|_| misfit(column, "a key of 16 bytes"))
    }

    /// The columns from this one on.
    pub fn ints<const N: usize>(&self, first: usize) -> Result<[i64; N], StoreError> {
        let mut values = [0; N];
        for (offset, value) in values.iter_mut().enumerate() {
            *value = self.int(first + offset)?;
        }
        Ok(values)
    }
}

/// A stored value that this program did not write.
pub fn misfit(column: usize, expected: &str) -> StoreError {
    StoreError::Refused(format!(
        "column {column} of an own table does not hold {expected}; was it changed by hand?"
    ))
}

/// An open transaction of either database.
#[async_trait]
pub trait Sql: Send {
    /// Runs a statement and returns its rows.
    async fn rows(&mut self, sql: &'static str, values: Vec<Value>)
    -> Result<Vec<Row>, StoreError>;

    /// Runs a statement; how many rows it touched.
    async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, StoreError>;

    /// Runs a statement that returns at most one row.
    async fn row(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }
}

#[async_trait]
impl Sql for tollgate_store::postgres::Tx {
    async fn rows(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = bind_postgres(sql, values).fetch_all(&mut **self).await.map_err(classify)?;
        read_all_postgres(&rows)
    }

    async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, StoreError> {
        let done = bind_postgres(sql, values).execute(&mut **self).await.map_err(classify)?;
        Ok(done.rows_affected())
    }
}

#[async_trait]
impl Sql for tollgate_store::sqlite::Tx {
    async fn rows(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = bind_sqlite(sql, values).fetch_all(&mut **self).await.map_err(classify)?;
        read_all_sqlite(&rows)
    }

    async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, StoreError> {
        let done = bind_sqlite(sql, values).execute(&mut **self).await.map_err(classify)?;
        Ok(done.rows_affected())
    }
}

fn bind_postgres(sql: &'static str, values: Vec<Value>) -> Query<'static, Postgres, PgArguments> {
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Null => query.bind(None::<i64>),
        Value::Int(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::Bytes(value) => query.bind(value),
    })
}

fn bind_sqlite(sql: &'static str, values: Vec<Value>) -> Bound {
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Null => query.bind(None::<i64>),
        Value::Int(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::Bytes(value) => query.bind(value),
    })
}

/// Rows of a statement with arrays, which only PostgreSQL has.
pub fn read_all_postgres(rows: &[sqlx::postgres::PgRow]) -> Result<Vec<Row>, StoreError> {
    rows.iter().map(read_postgres).collect::<Result<_, _>>().map_err(classify)
}

fn read_postgres(row: &sqlx::postgres::PgRow) -> Result<Row, sqlx::Error> {
    let value = |column: usize| match row.column(column).type_info().name() {
        _ if row.try_get_raw(column)?.is_null() => Ok(Value::Null),
        "INT8" => row.try_get(column).map(Value::Int),
        // A literal of a statement; no column has this type.
        "INT4" => row.try_get::<i32, _>(column).map(|value| Value::Int(value.into())),
        "BYTEA" => row.try_get(column).map(Value::Bytes),
        _ => row.try_get(column).map(Value::Text),
    };
    (0..row.len()).map(value).collect::<Result<_, _>>().map(Row)
}

/// Rows of a statement that was run for many items, which only SQLite does.
pub fn read_all_sqlite(rows: &[sqlx::sqlite::SqliteRow]) -> Result<Vec<Row>, StoreError> {
    rows.iter().map(read_sqlite).collect::<Result<_, _>>().map_err(classify)
}

fn read_sqlite(row: &sqlx::sqlite::SqliteRow) -> Result<Row, sqlx::Error> {
    let value = |column: usize| {
        let raw = row.try_get_raw(column)?;
        match raw.type_info().name() {
            _ if raw.is_null() => Ok(Value::Null),
            "INTEGER" => row.try_get(column).map(Value::Int),
            "BLOB" => row.try_get(column).map(Value::Bytes),
            _ => row.try_get(column).map(Value::Text),
        }
    };
    (0..row.len()).map(value).collect::<Result<_, _>>().map(Row)
}
