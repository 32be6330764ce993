//! Tariffs in the database: registered under the hash of their content, activated by a command.
//!
//! Why two consumers cannot disagree: a batch holds the activations (a lock shared with every
//! other batch) before it reads them, and an activation needs that lock for itself. So it waits
//! for the batches that run, and is seen by every one that begins later: there is one instant
//! before which everything is rated by the old tariffs and after which by the new.

use std::sync::Arc;

use serde::Serialize;
use tollgate_rating::Tariff;
use tollgate_store::sql::{Row, Sql};
use tollgate_stream::StoreError;

use super::tables::tables;
use super::{BillingStore, jobs};
use crate::error::BillingError;
use crate::store::JobKind;

/// A registered tariff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TariffRow {
    /// Hash of its content.
    pub version: String,
    /// When it was registered, milliseconds since 1970 UTC.
    pub registered_ms: i64,
    /// As it was given.
    pub content: String,
}

/// A tariff that applies from an instant on. Where two apply, the one with the greater number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActivationRow {
    /// In the order of the commands, from 1.
    pub number: i64,
    /// Which tariff.
    pub version: String,
    /// The first instant of billing it covers, milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// When the command was given, milliseconds since 1970 UTC.
    pub activated_ms: i64,
}

/// The activations, oldest first.
pub(super) async fn activations(sql: &mut dyn Sql) -> Result<Vec<ActivationRow>, StoreError> {
    let rows = sql
        .rows(
            "SELECT number, from_ms, activated_ms, version FROM billing_activations
             ORDER BY number",
            vec![],
        )
        .await?;
    let activation = |row: &Row| {
        let [number, from_ms, activated_ms] = row.ints(0)?;
        Ok(ActivationRow { number, version: row.text(3)?.to_owned(), from_ms, activated_ms })
    };
    rows.iter().map(activation).collect()
}

/// The tariff of a version that is activated, and therefore registered.
pub(super) async fn load(sql: &mut dyn Sql, version: &str) -> Result<Arc<Tariff>, StoreError> {
    let row = sql
        .row("SELECT content FROM billing_tariffs WHERE version = $1", vec![version.into()])
        .await?;
    let unreadable = || {
        StoreError::Refused(format!(
            "tariff {version} is active and cannot be read by this release; run the release that \
             registered it"
        ))
    };
    let row = row.ok_or_else(unreadable)?;
    let content = std::str::from_utf8(row.bytes(0)?).map_err(|_| unreadable())?;
    let tariff = Tariff::parse(content).map_err(|_| unreadable())?;
    if tariff.version().to_string() != version {
        return Err(unreadable());
    }
    Ok(Arc::new(tariff))
}

impl BillingStore {
    /// Registers a tariff and returns its version. Registering it again changes nothing.
    pub async fn register_tariff(
        &self,
        content: &str,
        now_ms: i64,
    ) -> Result<String, BillingError> {
        let tariff = Tariff::parse(content)
            .map_err(|error| BillingError::InvalidTariff(error.to_string()))?;
        let version = tariff.version().to_string();
        self.ready().await?;
        let mut tx = self.database.begin().await?;
        tx.sql()
            .execute(
                "INSERT INTO billing_tariffs (version, content, registered_ms)
                 VALUES ($1, $2, $3) ON CONFLICT (version) DO NOTHING",
                vec![version.as_str().into(), content.as_bytes().into(), now_ms.into()],
            )
            .await?;
        tx.commit().await?;
        Ok(version)
    }

    /// Lets a registered tariff apply to what is billed from `from_ms` on (milliseconds since
    /// 1970 UTC; `i64::MIN` for everything), and asks the partitions' owners to rate what no
    /// tariff covered. What is charged already stays as it is: for that there is
    /// [`BillingStore::rerate`].
    ///
    /// Activating what was activated last, from the same instant, changes nothing.
    pub async fn activate_tariff(
        &self,
        version: &str,
        from_ms: i64,
        now_ms: i64,
    ) -> Result<ActivationRow, BillingError> {
        self.ready().await?;
        let mut tx = self.database.begin().await?;
        let tables = tables(&mut tx);
        tables.stop_rating().await?;
        let registered = tables
            .row("SELECT 1 FROM billing_tariffs WHERE version = $1", vec![version.into()])
            .await?;
        if registered.is_none() {
            return Err(BillingError::UnknownTariff(version.to_owned()));
        }
        let last = activations(tables).await?.pop();
        if let Some(last) = &last
            && last.version == version
            && last.from_ms == from_ms
        {
            return Ok(last.clone());
        }
        let activation = ActivationRow {
            number: last.map_or(0, |last| last.number) + 1,
            version: version.to_owned(),
            from_ms,
            activated_ms: now_ms,
        };
        tables
            .execute(
                "INSERT INTO billing_activations (number, version, from_ms, activated_ms)
                 VALUES ($1, $2, $3, $4)",
                vec![activation.number.into(), version.into(), from_ms.into(), now_ms.into()],
            )
            .await?;
        jobs::add(tables, JobKind::RateUnrated, from_ms, i64::MAX, now_ms).await?;
        tx.commit().await?;
        tracing::info!(version, number = activation.number, "tariff activated");
        Ok(activation)
    }

    /// Every registered tariff and every activation, oldest first, from one snapshot.
    pub async fn tariffs(&self) -> Result<(Vec<TariffRow>, Vec<ActivationRow>), BillingError> {
        self.ready().await?;
        self.tariffs_there().await
    }

    /// The same of tables that are there already: makes and changes nothing.
    pub async fn tariffs_there(
        &self,
    ) -> Result<(Vec<TariffRow>, Vec<ActivationRow>), BillingError> {
        let mut tx = self.database.snapshot().await?;
        let sql = tx.sql();
        let rows = sql
            .rows(
                "SELECT version, registered_ms, content FROM billing_tariffs
                 ORDER BY registered_ms, version",
                vec![],
            )
            .await?;
        let tariff = |row: &Row| {
            Ok(TariffRow {
                version: row.text(0)?.to_owned(),
                registered_ms: row.int(1)?,
                content: String::from_utf8_lossy(row.bytes(2)?).into_owned(),
            })
        };
        let tariffs = rows.iter().map(tariff).collect::<Result<_, StoreError>>()?;
        Ok((tariffs, activations(sql).await?))
    }
}
