//! Rows for PostgreSQL's COPY, in its binary form: a count of fields, then each field behind its
//! length. For rows that cannot be there yet: COPY knows no ON CONFLICT.
//!
//! PostgreSQL puts copied rows into their pages, and into its log, many at a time; the rows of an
//! INSERT that selects go one by one.

use bytes::BufMut;
use sqlx::PgConnection;
use tollgate_stream::StoreError;

use crate::error::classify;

/// Signature, flags, and the length of an extension that there is not.
const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Where the next row's count of fields would stand.
const END: i16 = -1;
/// The length of a field that is NULL.
const NULL: i32 = -1;

/// Rows of one table. Each begins with [`CopyRows::row`] and takes a field for each column, in
/// their order.
#[derive(Debug)]
pub struct CopyRows {
    statement: String,
    columns: i16,
    rows: usize,
    buffer: Vec<u8>,
}

impl CopyRows {
    /// No rows yet, for these columns of a table.
    pub fn into(table: &str, columns: &[&str]) -> Self {
        Self {
            statement: format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", columns.join(", ")),
            columns: columns.len() as i16,
            rows: 0,
            buffer: HEAD.to_vec(),
        }
    }

    /// Begins a row.
    pub fn row(&mut self) -> &mut Self {
        self.rows += 1;
        self.buffer.put_i16(self.columns);
        self
    }

    /// A `bigint`.
    pub fn bigint(&mut self, value: i64) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    /// A `bytea`.
    pub fn bytea(&mut self, value: &[u8]) -> &mut Self {
        self.field(value)
    }

    /// A `text`. PostgreSQL takes none that contains a NUL.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.field(value.as_bytes())
    }

    /// A `bytea`, or NULL.
    pub fn bytea_or_null(&mut self, value: Option<&[u8]>) -> &mut Self {
        if let Some(value) = value {
            return self.field(value);
        }
        self.buffer.put_i32(NULL);
        self
    }

    fn field(&mut self, value: &[u8]) -> &mut Self {
        self.buffer.put_i32(value.len() as i32);
        self.buffer.put_slice(value);
        self
    }

    /// Writes them; without rows it does nothing. Not to be dropped half way, or the driver takes the
    /// answer to this for that to its next statement: `tollgate-stream` runs transactions in tasks
    /// of their own.
    pub async fn write(mut self, tx: &mut PgConnection) -> Result<(), StoreError> {
        if self.rows == 0 {
            return Ok(());
        }
        self.buffer.put_i16(END);
        let mut copy = tx.copy_in_raw(&self.statement).await.map_err(classify)?;
        copy.send(self.buffer).await.map_err(classify)?;
        copy.finish().await.map_err(classify)?;
        Ok(())
    }
}
