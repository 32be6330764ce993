//! One handle over both dialects, so that one suite tests both.

#![allow(dead_code, reason = "each test binary uses a part")]

use bytes::Bytes;
use tollgate_store::{Advance, Database, Migration, Schema, Settings, Step, Transaction, connect};
use tollgate_stream::{Claim, Fence, Mark, Outgoing, Source, StoreError, TopicPartition};

/// A table as a domain would have it.
pub const DOMAIN: &[Migration] = &[Migration {
    postgres: "CREATE TABLE result (id bytea PRIMARY KEY, note text, n bigint);
               CREATE INDEX result_note ON result (note);",
    sqlite: "CREATE TABLE result (id BLOB PRIMARY KEY, note TEXT, n INTEGER) STRICT;
             CREATE INDEX result_note ON result (note);",
}];

/// A database with the tables made.
pub struct Fixture {
    pub database: Database,
    pub settings: Settings,
}

impl Fixture {
    pub async fn new(settings: Settings) -> anyhow::Result<Self> {
        let database = connect(&settings)?;
        Schema::new("test", &[], DOMAIN).ensure(&database).await?;
        Ok(Self { database, settings })
    }

    /// One that is impatient, but not while it makes its tables: a pause of the machine would end
    /// that.
    pub async fn hasty(
        mut settings: Settings,
        make_hasty: impl FnOnce(&mut Settings),
    ) -> anyhow::Result<Self> {
        Self::new(settings.clone()).await?.database.close().await;
        make_hasty(&mut settings);
        Ok(Self { database: connect(&settings)?, settings })
    }

    /// Another process, as far as the database can tell.
    pub fn another(&self) -> anyhow::Result<Self> {
        Ok(Self { database: connect(&self.settings)?, settings: self.settings.clone() })
    }

    pub async fn transaction(&self, step: &Step<'_>) -> Result<Tx, StoreError> {
        self.database.transaction(step).await.map(Tx)
    }

    /// Applies one record: a row, and what is given for the outbox.
    pub async fn apply(
        &self,
        claim: &Claim,
        from: i64,
        outbox: &[Outgoing],
    ) -> Result<(), StoreError> {
        let mark = mark(from);
        let mut tx = self.transaction(&step(claim, from, &mark)).await?;
        tx.insert(&from.to_be_bytes(), "x").await?;
        tx.append(claim, outbox).await?;
        tx.commit().await
    }

    pub async fn results(&self) -> Result<i64, StoreError> {
        Tx(self.database.snapshot().await?).count().await
    }

    pub async fn positions_in_outbox(&self, claim: &Claim) -> Result<Vec<i64>, StoreError> {
        let rows = self.database.read_outbox(claim, 1000, usize::MAX).await?;
        Ok(rows.iter().map(|row| row.position).collect())
    }
}

pub struct Tx(pub Transaction);

impl Tx {
    pub async fn insert(&mut self, id: &[u8], note: &str) -> Result<(), StoreError> {
        let statement = "INSERT INTO result (id, note) VALUES ($1, $2)";
        self.0.sql().execute(statement, vec![id.into(), note.into()]).await.map(drop)
    }

    pub async fn run(&mut self, sql: &'static str) -> Result<(), StoreError> {
        self.0.sql().execute(sql, vec![]).await.map(drop)
    }

    /// How many results there are.
    pub async fn count(&mut self) -> Result<i64, StoreError> {
        let row = self.0.sql().row("SELECT count(*) FROM result", vec![]).await?;
        row.map_or(Ok(0), |row| row.int(0))
    }

    pub async fn append(&mut self, claim: &Claim, records: &[Outgoing]) -> Result<(), StoreError> {
        self.0.sql().append_outbox(&[(claim, records.to_vec())]).await
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        self.0.commit().await
    }
}

pub fn source(partition: i32) -> Source {
    Source {
        group: "group".to_owned(),
        cluster_id: "cluster".to_owned(),
        partition: TopicPartition::new("cdrs", partition),
    }
}

pub fn claim(source: &Source, fence: &Fence) -> Claim {
    Claim { source: source.clone(), epoch: fence.epoch, partitions: 12 }
}

pub fn mark(offset: i64) -> Mark {
    Mark { offset, timestamp_ms: 1_000 + offset, event_id: format!("event-{offset}") }
}

pub fn outgoing(name: &str) -> Outgoing {
    Outgoing {
        topic: "rated-cdrs".into(),
        key: Bytes::copy_from_slice(name.as_bytes()),
        value: Some(Bytes::from_static(b"\0\xff")),
        headers: vec![("ce_id".into(), Bytes::copy_from_slice(name.as_bytes()))],
    }
}

/// One record further.
pub fn step<'a>(claim: &'a Claim, from: i64, mark: &'a Mark) -> Step<'a> {
    Step::Advance(vec![Advance { claim, from, to: from + 1, mark }])
}

/// The error of a call that must fail.
pub fn failure<T>(result: Result<T, StoreError>) -> StoreError {
    result.err().expect("this call must fail")
}
