//! Rows for PostgreSQL that cannot be there yet: many by COPY, few by INSERT.
//!
//! PostgreSQL puts copied rows into their pages, and into its log, many at a time; those of an INSERT
//! that selects go one by one. But a COPY is a statement that is parsed each time, takes two round
//! trips, and ends in a packet of its own, which the driver's socket holds back until the rows are
//! acknowledged: for rows that fill no packet that may take 40 ms.
//!
//! Both take the same bytes. A row of COPY's binary form is a count of fields, then each field behind
//! its length; so is an array of them, behind a head of its own.

use bytes::{Buf, BufMut};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Encode, PgConnection, Postgres, Type};
use tollgate_stream::StoreError;

use crate::error::classify;

/// Bytes from which on rows are copied: more than a packet, also of a loopback interface (64 KiB).
const MANY: usize = 128 * 1024;

/// Signature, flags, and the length of an extension that there is not.
const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Where the next row's count of fields would stand.
const END: i16 = -1;
/// The length of a field that is NULL.
const NULL: i32 = -1;

/// A column: its name, and its type with the numbers that PostgreSQL gives it and arrays of it.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    name: &'static str,
    kind: &'static str,
    element: u32,
    array: u32,
}

macro_rules! columns {
    ($($name:ident $kind:literal $element:literal $array:literal)*) => {
        $(
            #[doc = concat!("A column of type `", $kind, "`.")]
            pub const fn $name(name: &'static str) -> Column {
                Column { name, kind: $kind, element: $element, array: $array }
            }
        )*
    };
}
columns! {
    boolean "boolean" 16 1000
    bytea "bytea" 17 1001
    bigint "bigint" 20 1016
    smallint "smallint" 21 1005
    integer "integer" 23 1007
    text "text" 25 1009
    uuid "uuid" 2950 2951
}

/// A value as PostgreSQL sends and takes it: `i16` for `smallint`, `i32` for `integer`, `i64` for
/// `bigint`, `bool`, bytes for `bytea`, 16 of them for `uuid`, text without NUL for `text`, `None` for NULL.
pub trait Field {
    /// Appends length and value.
    fn put(self, buffer: &mut Vec<u8>);
}

impl<T: AsRef<[u8]> + ?Sized> Field for &T {
    fn put(self, buffer: &mut Vec<u8>) {
        let bytes = self.as_ref();
        buffer.put_i32(bytes.len() as i32);
        buffer.put_slice(bytes);
    }
}

impl Field for bool {
    fn put(self, buffer: &mut Vec<u8>) {
        (&[u8::from(self)]).put(buffer);
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {
        $(impl Field for $integer {
            fn put(self, buffer: &mut Vec<u8>) {
                (&self.to_be_bytes()).put(buffer);
            }
        })*
    };
}
integers!(i16, i32, i64);

impl<T: Field> Field for Option<T> {
    fn put(self, buffer: &mut Vec<u8>) {
        match self {
            Some(value) => value.put(buffer),
            None => buffer.put_i32(NULL),
        }
    }
}

/// Rows of one table. Each begins with [`NewRows::row`] and takes a field for each column, in their
/// order.
#[derive(Debug)]
pub struct NewRows<'a> {
    table: &'static str,
    columns: &'a [Column],
    rows: usize,
    buffer: Vec<u8>,
}

impl<'a> NewRows<'a> {
    /// No rows yet, for these columns of a table.
    pub fn of(table: &'static str, columns: &'a [Column]) -> Self {
        Self { table, columns, rows: 0, buffer: HEAD.to_vec() }
    }

    /// Begins a row.
    pub fn row(&mut self) -> &mut Self {
        self.rows += 1;
        self.buffer.put_i16(self.columns.len() as i16);
        self
    }

    /// The next field of the row.
    pub fn field(&mut self, value: impl Field) -> &mut Self {
        value.put(&mut self.buffer);
        self
    }

    /// Writes them. Not to be dropped half way, or the driver takes the answer to a COPY for that to
    /// its next statement: `tollgate-stream` runs transactions in tasks of their own.
    pub async fn write(self, tx: &mut PgConnection) -> Result<(), StoreError> {
        match self.buffer.len() {
            _ if self.rows == 0 => Ok(()),
            MANY.. => self.copy(tx).await,
            _ => self.insert(tx).await,
        }
        .map_err(classify)
    }

    async fn copy(mut self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.buffer.put_i16(END);
        let (table, names) = (self.table, self.names());
        let statement = format!("COPY {table} ({names}) FROM STDIN (FORMAT binary)");
        let mut copy = tx.copy_in_raw(&statement).await?;
        copy.send(self.buffer).await?;
        copy.finish().await?;
        Ok(())
    }

    async fn insert(self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (table, names) = (self.table, self.names());
        let arrays: Vec<String> =
            (1..).zip(self.columns).map(|(n, column)| format!("${n}::{}[]", column.kind)).collect();
        let arrays = arrays.join(", ");
        // Safe: names and types are the program's own.
        let statement =
            AssertSqlSafe(format!("INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays})"));
        let query = sqlx::query(statement);
        let query = self.arrays().into_iter().fold(query, Query::bind);
        query.execute(tx).await?;
        Ok(())
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
        names.join(", ")
    }

    /// The fields again, column by column.
    fn arrays(&self) -> Vec<Array> {
        let array = |column: &Column| Array {
            column: *column,
            length: self.rows,
            has_null: false,
            fields: Vec::with_capacity(self.buffer.len() / self.columns.len().max(1)),
        };
        let mut arrays: Vec<Array> = self.columns.iter().map(array).collect();
        let mut rest = &self.buffer[HEAD.len()..];
        while rest.has_remaining() {
            rest.advance(size_of::<i16>());
            for array in &mut arrays {
                let length = (&mut &*rest).get_i32();
                array.has_null |= length == NULL;
                let (field, behind) = rest.split_at(size_of::<i32>() + length.max(0) as usize);
                array.fields.put_slice(field);
                rest = behind;
            }
        }
        arrays
    }
}

/// The fields of a column, each behind its length.
struct Array {
    column: Column,
    length: usize,
    has_null: bool,
    fields: Vec<u8>,
}

impl Type<Postgres> for Array {
    /// Which one it is, [`Encode::produces`] says.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("anyarray")
    }
}

impl Encode<'_, Postgres> for Array {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let (dimensions, lower_bound) = (1_i32, 1_i32);
        buffer.extend_from_slice(&dimensions.to_be_bytes());
        buffer.extend_from_slice(&i32::from(self.has_null).to_be_bytes());
        buffer.extend_from_slice(&self.column.element.to_be_bytes());
        buffer.extend_from_slice(&(self.length as i32).to_be_bytes());
        buffer.extend_from_slice(&lower_bound.to_be_bytes());
        buffer.extend_from_slice(&self.fields);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.column.array)))
    }
}
