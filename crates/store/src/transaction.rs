//! Transactions of either database.

use tollgate_stream::StoreError;

use crate::sql::Sql;
use crate::{Database, Step, postgres, sqlite};

/// An open transaction of either database. Dropped, it changes nothing.
#[derive(Debug)]
pub enum Transaction {
    /// Of PostgreSQL.
    Postgres(postgres::Tx),
    /// Of SQLite.
    Sqlite(sqlite::Tx),
}

impl Transaction {
    /// For statements that read the same in both dialects.
    pub fn sql(&mut self) -> &mut dyn Sql {
        match self {
            Self::Postgres(tx) => tx,
            Self::Sqlite(tx) => tx,
        }
    }

    /// Commits. See [`postgres::commit`].
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(tx) => postgres::commit(tx).await,
            Self::Sqlite(tx) => sqlite::commit(tx).await,
        }
    }
}

impl Database {
    /// Begins a transaction without a fence. See [`postgres::begin`].
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        Ok(match self {
            Self::Postgres(pool) => Transaction::Postgres(postgres::begin(pool).await?),
            Self::Sqlite(pools) => Transaction::Sqlite(sqlite::begin(pools).await?),
        })
    }

    /// Begins a transaction that holds its partitions. See [`postgres::transaction`].
    pub async fn transaction(&self, step: &Step<'_>) -> Result<Transaction, StoreError> {
        Ok(match self {
            Self::Postgres(pool) => Transaction::Postgres(postgres::transaction(pool, step).await?),
            Self::Sqlite(pools) => Transaction::Sqlite(sqlite::transaction(pools, step).await?),
        })
    }

    /// Begins a reading transaction in which every statement sees the same rows.
    pub async fn snapshot(&self) -> Result<Transaction, StoreError> {
        Ok(match self {
            Self::Postgres(pool) => Transaction::Postgres(postgres::snapshot(pool).await?),
            Self::Sqlite(pools) => Transaction::Sqlite(sqlite::snapshot(pools).await?),
        })
    }
}
