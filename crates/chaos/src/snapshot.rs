//! The ledger beside its sums, over and over while everything fails: one statement, one snapshot.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tollgate_testkit::Postgres;

const PAUSE: Duration = Duration::from_millis(700);

/// What of the ledger must hold at every instant.
const STATEMENT: &str = "
WITH figures AS (
    SELECT source, hour_ms, currency, application_key, service, status, attempts, answered,
           seconds, talk_seconds, billed_minutes, amount_micros, pdd_ms, pdd_samples, 1 AS sign
    FROM tollgate.billing_ledger
    UNION ALL
    SELECT source, hour_ms, currency, application_key, service, status, attempts, answered,
           seconds, talk_seconds, billed_minutes, amount_micros, pdd_ms, pdd_samples, -1
    FROM tollgate.billing_aggregates
), differing AS (
    SELECT 1 FROM figures
    GROUP BY source, hour_ms, currency, application_key, service, status
    HAVING sum(sign * attempts) <> 0 OR sum(sign * answered) <> 0 OR sum(sign * seconds) <> 0
        OR sum(sign * talk_seconds) <> 0 OR sum(sign * billed_minutes) <> 0
        OR sum(sign * amount_micros) <> 0 OR sum(sign * pdd_ms) <> 0
        OR sum(sign * pdd_samples) <> 0
), counted AS (
    SELECT source, count(*) AS entries, max(position) AS last
    FROM tollgate.billing_ledger GROUP BY source
), in_force AS (
    SELECT record_id, sum(CASE kind WHEN 1 THEN 1 ELSE -1 END) AS charges
    FROM tollgate.billing_ledger GROUP BY record_id
)
SELECT json_build_object(
    'entries', (SELECT count(*) FROM tollgate.billing_ledger),
    'differing', (SELECT count(*) FROM differing),
    'gaps', (SELECT count(*) FROM counted WHERE entries <> last),
    'miscounted', (SELECT count(*) FROM counted c FULL JOIN tollgate.billing_sources s USING (source)
                   WHERE c.entries IS DISTINCT FROM nullif(s.entries, 0)),
    'not_once', (SELECT count(*) FROM in_force WHERE charges <> 1),
    'unknown', (SELECT count(*) FROM tollgate.billing_records r
                FULL JOIN in_force f USING (record_id)
                WHERE r.record_id IS NULL OR f.record_id IS NULL),
    'foreign', (SELECT count(*) FROM tollgate.tollgate_outbox o
                WHERE o.topic = 'rated-cdrs' AND NOT EXISTS (
                    SELECT 1 FROM tollgate.billing_ledger l WHERE l.message = o.value)),
    'waiting', (SELECT count(*) FROM tollgate.tollgate_outbox),
    'unpublished', (SELECT count(*) FROM tollgate.state_changed))";

/// One look at the database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Snapshot {
    /// Entries of the ledger.
    pub entries: u64,
    /// Sums that are not those of their entries.
    differing: u64,
    /// Partitions whose entries are not numbered without a gap.
    gaps: u64,
    /// Partitions that counted another number of entries.
    miscounted: u64,
    /// Records with no charge in force, or with several.
    not_once: u64,
    /// Records without entries, and entries without a record.
    unknown: u64,
    /// Waiting messages that no entry of the ledger has.
    foreign: u64,
    /// Messages that wait to be published.
    pub waiting: u64,
    /// States that wait to be published.
    pub unpublished: u64,
}

impl Snapshot {
    /// Looks.
    pub fn take(postgres: &Postgres, database: &str) -> Result<Self> {
        Ok(serde_json::from_str(postgres.sql(database, STATEMENT)?.trim())?)
    }

    /// Fails when the ledger contradicts itself.
    pub fn check(&self) -> Result<()> {
        let Self { differing, gaps, miscounted, not_once, unknown, foreign, .. } = self;
        let wrong = differing + gaps + miscounted + not_once + unknown + foreign;
        ensure!(wrong == 0, "the ledger contradicts itself in a snapshot: {self:?}");
        Ok(())
    }
}

/// Snapshots while something else goes on.
pub struct Snapshots {
    stop: DropGuard,
    task: JoinHandle<Result<u64>>,
}

impl Snapshots {
    /// Begins.
    pub fn begin(postgres: Arc<Postgres>, database: String) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut taken = 0;
            while !stopped.is_cancelled() {
                let (postgres, database) = (Arc::clone(&postgres), database.clone());
                let look = move || Snapshot::take(&postgres, &database);
                // A database that is down answers nothing, which is no contradiction.
                if let Ok(snapshot) = tokio::task::spawn_blocking(look).await? {
                    snapshot.check()?;
                    taken += 1;
                }
                let _ = stopped.run_until_cancelled(sleep(PAUSE)).await;
            }
            Ok(taken)
        });
        Self { stop: stop.drop_guard(), task }
    }

    /// Ends; how many there were. Fails with the first that contradicted itself.
    pub async fn end(self) -> Result<u64> {
        drop(self.stop);
        self.task.await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_contradicts_itself_anywhere_fails_and_one_that_is_only_busy_does_not() {
        let busy = r#"{"entries":3,"waiting":2,"unpublished":1,"differing":0,"gaps":0,
            "miscounted":0,"not_once":0,"unknown":0,"foreign":0}"#;
        let check = |text: &str| serde_json::from_str::<Snapshot>(text).unwrap().check();
        check(busy).unwrap();
        for name in ["differing", "gaps", "miscounted", "not_once", "unknown", "foreign"] {
            let wrong = busy.replace(&format!("\"{name}\":0"), &format!("\"{name}\":1"));
            assert!(check(&wrong).is_err(), "{name}");
        }
    }
}
