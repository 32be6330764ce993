//! COPY of what a consumer has written, into tables with the same indexes, so many transactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection, PgPool};

use super::rows::{Rows, part, rows_of};
use crate::db::Db;
use crate::service::Consumer;

/// Signature, flags and length of the extension of COPY's binary form.
const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TAIL: &[u8] = &[0xff, 0xff];

/// What a baseline took.
#[derive(Debug, Clone, Copy)]
pub struct Copied {
    pub seconds: f64,
    pub database_cpu_seconds: f64,
}

/// Rows of one table in COPY's binary form.
struct Exported {
    table: &'static str,
    bytes: Vec<u8>,
    /// Where each row begins, and where the last one ends.
    starts: Vec<usize>,
}

/// Rows as a consumer left them, ready to be copied.
pub struct Copy {
    tables: Arc<Vec<Exported>>,
    transactions: usize,
}

impl Copy {
    /// Reads the rows.
    pub fn read(db: &Db, consumer: Consumer, transactions: u64) -> Result<Self> {
        let tables = rows_of(consumer).iter().map(|rows| db.wait(export(db.pg()?, rows)));
        let tables = tables.collect::<Result<Vec<_>>>()?;
        Ok(Self { tables: Arc::new(tables), transactions: transactions.max(1) as usize })
    }

    /// Copies them over so many connections.
    pub fn run(&self, db: &Db, connections: usize) -> Result<Copied> {
        db.run("DROP SCHEMA IF EXISTS twin CASCADE; CREATE SCHEMA twin")?;
        for Exported { table, .. } in &*self.tables {
            db.run(&format!("CREATE TABLE twin.{table} (LIKE tollgate.{table} INCLUDING ALL)"))?;
        }
        db.run("CHECKPOINT")?;
        let cpu = db.cpu()?;
        let seconds = db.wait(self.copy(db, connections))?;
        for Exported { table, starts, .. } in &*self.tables {
            let rows = db.int(&format!("SELECT count(*) FROM twin.{table}"))?;
            ensure!(rows as usize == starts.len() - 1, "{rows} rows in the twin of {table}");
        }
        let database_cpu_seconds = db.cpu()? - cpu;
        db.run("DROP SCHEMA twin CASCADE")?;
        Ok(Copied { seconds, database_cpu_seconds })
    }

    async fn copy(&self, db: &Db, connections: usize) -> Result<f64> {
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(PgConnection::connect(&db.url).await?);
        }
        let next = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        let workers: Vec<_> = open
            .into_iter()
            .map(|connection| {
                let (tables, next) = (Arc::clone(&self.tables), Arc::clone(&next));
                db.runtime.spawn(work(connection, tables, next, self.transactions))
            })
            .collect();
        for worker in workers {
            worker.await??;
        }
        Ok(began.elapsed().as_secs_f64())
    }
}

async fn work(
    mut connection: PgConnection,
    tables: Arc<Vec<Exported>>,
    next: Arc<AtomicUsize>,
    transactions: usize,
) -> Result<()> {
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= transactions {
            return Ok(connection.close().await?);
        }
        let mut tx = connection.begin().await?;
        for Exported { table, bytes, starts } in &*tables {
            let rows = part(starts.len() - 1, index, transactions);
            if rows.is_empty() {
                continue;
            }
            let statement = format!("COPY twin.{table} FROM STDIN (FORMAT binary)");
            let mut copy = tx.copy_in_raw(&statement).await?;
            let rows = &bytes[starts[rows.start]..starts[rows.end]];
            copy.send([HEAD, rows, TAIL].concat()).await?;
            copy.finish().await?;
        }
        tx.commit().await?;
    }
}

async fn export(pool: &PgPool, rows: &Rows) -> Result<Exported> {
    let mut connection = pool.acquire().await?;
    let statement = format!("COPY ({}) TO STDOUT (FORMAT binary)", rows.postgres);
    let mut bytes = Vec::new();
    let mut stream = connection.copy_out_raw(&statement).await?;
    while let Some(chunk) = stream.try_next().await? {
        bytes.extend_from_slice(&chunk);
    }
    let starts = starts(&bytes).context("unexpected binary form of COPY")?;
    Ok(Exported { table: rows.table, bytes, starts })
}

/// A row is the count of its fields and each field behind its length; -1 is NULL, and the end.
fn starts(bytes: &[u8]) -> Option<Vec<usize>> {
    let mut at = HEAD.len();
    let mut starts = vec![at];
    loop {
        let fields = i16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?);
        if fields < 0 {
            return Some(starts);
        }
        at += 2;
        for _ in 0..fields {
            let length = i32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
            at += 4 + length.max(0) as usize;
        }
        starts.push(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_between_head_and_tail() {
        let row = |field: &[u8]| {
            let length = (field.len() as i32).to_be_bytes();
            [&[0, 2], &length[..], field, &[0xff; 4]].concat()
        };
        let bytes = [HEAD, &row(b"ab"), &row(b""), TAIL].concat();
        assert_eq!(starts(&bytes), Some(vec![19, 31, 41]));
        assert_eq!(starts(&bytes[..30]), None);
        assert_eq!(part(10, 0, 3), 0..3);
        assert_eq!(part(10, 2, 3), 6..10);
    }
}
