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

/// A value as PostgreSQL sends and takes it: `i16` for `smallint`, `i32` for `integer`, `i64` for
/// `bigint`, `bool`, bytes for `bytea`, text without NUL for `text`, `None` for NULL.
pub trait CopyField {
    /// Appends length and value.
    fn put(self, buffer: &mut Vec<u8>);
}

impl<T: AsRef<[u8]> + ?Sized> CopyField for &T {
    fn put(self, buffer: &mut Vec<u8>) {
        let bytes = self.as_ref();
        buffer.put_i32(bytes.len() as i32);
        buffer.put_slice(bytes);
    }
}

impl CopyField for bool {
    fn put(self, buffer: &mut Vec<u8>) {
        (&[u8::from(self)]).put(buffer);
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {
        $(impl CopyField for $integer {
            fn put(self, buffer: &mut Vec<u8>) {
                (&self.to_be_bytes()).put(buffer);
            }
        })*
    };
}
integers!(i16, i32, i64);

impl<T: CopyField> CopyField for Option<T> {
    fn put(self, buffer: &mut Vec<u8>) {
        match self {
            Some(value) => value.put(buffer),
            None => buffer.put_i32(NULL),
        }
    }
}

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

    /// The next field of the row.
    pub fn field(&mut self, value: impl CopyField) -> &mut Self {
        value.put(&mut self.buffer);
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
