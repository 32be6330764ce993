//! Statements that read the same in both dialects, and rows of either database.
//!
//! Both drivers take `$1`; so what is not done in bulk is written once, against [`Sql`]. What is
//! done in bulk is written per dialect, and its rows are read alike as [`Row`].

use std::fmt::Debug;

use async_trait::async_trait;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Uuid;
use sqlx::{ColumnIndex, Decode, Postgres, Row as _, Sqlite, Type};
use tollgate_stream::{Claim, Outgoing, StoreError};

use crate::error::classify;
use crate::sqlite::Bound;
use crate::{postgres, sqlite};

/// A value bound to a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Any integer.
    Int(i64),
    /// Text of this program's own making.
    Text(String),
    /// Keys, and everything a sender wrote.
    Bytes(Vec<u8>),
    /// A key whose column is of type `uuid` in PostgreSQL; bytes in SQLite.
    Uuid([u8; 16]),
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

/// What a column is read as, in both databases alike.
pub trait Stored<'r>:
    Decode<'r, Postgres> + Type<Postgres> + Decode<'r, Sqlite> + Type<Sqlite>
{
}

impl<'r, T> Stored<'r> for T where
    T: Decode<'r, Postgres> + Type<Postgres> + Decode<'r, Sqlite> + Type<Sqlite>
{
}

/// The name of a column, or its place from 0 on.
pub trait Name: ColumnIndex<PgRow> + ColumnIndex<SqliteRow> + Copy {}

impl<T: ColumnIndex<PgRow> + ColumnIndex<SqliteRow> + Copy> Name for T {}

/// One row that was read.
#[derive(Debug)]
pub enum Row {
    /// From PostgreSQL.
    Postgres(PgRow),
    /// From SQLite.
    Sqlite(SqliteRow),
}

impl From<PgRow> for Row {
    fn from(row: PgRow) -> Self {
        Self::Postgres(row)
    }
}

impl From<SqliteRow> for Row {
    fn from(row: SqliteRow) -> Self {
        Self::Sqlite(row)
    }
}

impl Row {
    /// The rows of a driver.
    pub fn all(rows: Vec<impl Into<Self>>) -> Vec<Self> {
        rows.into_iter().map(Into::into).collect()
    }

    /// The value in this column, of the type that the column has in PostgreSQL; an `Option` where
    /// it may be NULL.
    pub fn get<'r, T: Stored<'r>>(&'r self, column: impl Name) -> Result<T, StoreError> {
        match self {
            Self::Postgres(row) => row.try_get(column),
            Self::Sqlite(row) => row.try_get(column),
        }
        .map_err(classify)
    }

    /// The 16-byte key in this column.
    pub fn key(&self, column: impl Name) -> Result<[u8; 16], StoreError> {
        // Unchecked: PostgreSQL sends a uuid as it sends a bytea.
        let bytes: &[u8] = match self {
            Self::Postgres(row) => row.try_get_unchecked(column),
            Self::Sqlite(row) => row.try_get(column),
        }
        .map_err(classify)?;
        bytes.try_into().map_err(|_| misfit(column, "a key of 16 bytes"))
    }

    /// The integer in this column; NULL, as of a sum over nothing, is 0.
    pub fn int(&self, column: usize) -> Result<i64, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.unwrap_or_default())
    }

    /// The text in this column.
    pub fn text(&self, column: usize) -> Result<&str, StoreError> {
        self.get::<Option<&str>>(column)?.ok_or_else(|| misfit(column, "a text"))
    }

    /// The bytes in this column; NULL is empty.
    pub fn bytes(&self, column: usize) -> Result<&[u8], StoreError> {
        Ok(self.get::<Option<&[u8]>>(column)?.unwrap_or_default())
    }

    /// The integers in the columns from this one on.
    pub fn ints<const N: usize>(&self, first: usize) -> Result<[i64; N], StoreError> {
        let mut values = [0; N];
        for (offset, value) in values.iter_mut().enumerate() {
            *value = self.int(first + offset)?;
        }
        Ok(values)
    }
}

/// A stored value that this program did not write.
pub fn misfit(column: impl Debug, expected: &str) -> StoreError {
    StoreError::Refused(format!(
        "column {column:?} of an own table does not hold {expected}; was it changed by hand?"
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

    /// Appends records to the outboxes of partitions. See [`postgres::append_outbox`].
    async fn append_outbox(
        &mut self,
        outboxes: &[(&Claim, Vec<Outgoing>)],
    ) -> Result<(), StoreError>;

    /// Removes published rows from the outbox. See [`postgres::delete_outbox_rows`].
    async fn delete_outbox_rows(&mut self, claim: &Claim, up_to: i64) -> Result<(), StoreError>;
}

#[async_trait]
impl Sql for postgres::Tx {
    async fn rows(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = bind_postgres(sql, values).fetch_all(&mut **self).await.map_err(classify)?;
        Ok(Row::all(rows))
    }

    async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, StoreError> {
        let done = bind_postgres(sql, values).execute(&mut **self).await.map_err(classify)?;
        Ok(done.rows_affected())
    }

    async fn append_outbox(
        &mut self,
        outboxes: &[(&Claim, Vec<Outgoing>)],
    ) -> Result<(), StoreError> {
        postgres::append_outbox(self, outboxes).await
    }

    async fn delete_outbox_rows(&mut self, claim: &Claim, up_to: i64) -> Result<(), StoreError> {
        postgres::delete_outbox_rows(self, claim, up_to).await
    }
}

#[async_trait]
impl Sql for sqlite::Tx {
    async fn rows(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = bind_sqlite(sql, values).fetch_all(&mut **self).await.map_err(classify)?;
        Ok(Row::all(rows))
    }

    async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, StoreError> {
        let done = bind_sqlite(sql, values).execute(&mut **self).await.map_err(classify)?;
        Ok(done.rows_affected())
    }

    async fn append_outbox(
        &mut self,
        outboxes: &[(&Claim, Vec<Outgoing>)],
    ) -> Result<(), StoreError> {
        sqlite::append_outbox(self, outboxes).await
    }

    async fn delete_outbox_rows(&mut self, claim: &Claim, up_to: i64) -> Result<(), StoreError> {
        sqlite::delete_outbox_rows(self, claim, up_to).await
    }
}

fn bind_postgres(sql: &'static str, values: Vec<Value>) -> Query<'static, Postgres, PgArguments> {
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Int(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::Bytes(value) => query.bind(value),
        Value::Uuid(value) => query.bind(Uuid::from_bytes(value)),
    })
}

fn bind_sqlite(sql: &'static str, values: Vec<Value>) -> Bound {
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Int(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::Bytes(value) => query.bind(value),
        Value::Uuid(value) => query.bind(value.to_vec()),
    })
}
