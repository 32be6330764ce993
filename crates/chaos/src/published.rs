//! What readers of `rated-cdrs` see while everything fails: nothing that is not in the ledger.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tollgate_schema::v1;
use tollgate_stream::{Incoming, ReadFrom, Stream, TopicReader};
use tollgate_testkit::Postgres;

/// Few enough for one statement.
const AT_ONCE: usize = 500;
const WAIT: Duration = Duration::from_millis(200);

/// Compares each record with the ledger as soon as it is there.
pub struct Published {
    stop: DropGuard,
    task: JoinHandle<Result<u64>>,
}

impl Published {
    /// Begins.
    pub fn begin(stream: Arc<dyn Stream>, postgres: Arc<Postgres>, database: String) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut compared = 0;
            let mut reader = None;
            while !stopped.is_cancelled() {
                // A cluster that is down shows nothing; what was read before is then read again.
                let Ok(records) = next(&stream, &mut reader).await else {
                    reader = None;
                    let _ = stopped.run_until_cancelled(sleep(WAIT)).await;
                    continue;
                };
                let Some(statement) = unbooked(&records)? else { continue };
                let found = loop {
                    let (postgres, database) = (Arc::clone(&postgres), database.clone());
                    let statement = statement.clone();
                    let ask = move || postgres.sql(&database, &statement);
                    // The ledger only grows: a database that is down may be asked later.
                    match tokio::task::spawn_blocking(ask).await? {
                        Ok(found) => break found,
                        Err(_) if stopped.is_cancelled() => return Ok(compared),
                        Err(_) => sleep(WAIT).await,
                    }
                };
                let found = found.trim();
                ensure!(found.is_empty(), "published and not in the ledger at that time: {found}");
                compared += records.len() as u64;
            }
            Ok(compared)
        });
        Self { stop: stop.drop_guard(), task }
    }

    /// Ends; how many records were compared. Fails with the first that was ahead of the ledger.
    pub async fn end(self) -> Result<u64> {
        drop(self.stop);
        self.task.await?
    }
}

async fn next(
    stream: &Arc<dyn Stream>,
    reader: &mut Option<Box<dyn TopicReader>>,
) -> Result<Vec<Incoming>> {
    if reader.is_none() {
        *reader = Some(stream.reader(&["rated-cdrs"], ReadFrom::Earliest).await?);
    }
    let reader = reader.as_mut().context("it was just opened")?;
    Ok(reader.next(AT_ONCE, WAIT).await?)
}

/// Asks which of these are not in the ledger.
fn unbooked(records: &[Incoming]) -> Result<Option<String>> {
    let mut rows = Vec::new();
    for record in records {
        let value = record.value.clone().context("a rated CDR has no value")?;
        let rated = v1::RatedCdr::decode(value)?;
        rows.push(format!("('{}', {}, {})", rated.record_id, rated.revision, rated.kind));
    }
    if rows.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "SELECT record_id, revision, kind FROM (VALUES {}) AS seen (record_id, revision, kind)
         WHERE NOT EXISTS (
             SELECT 1 FROM tollgate.billing_ledger AS entry
             WHERE entry.record_id = decode(seen.record_id, 'hex')
               AND entry.revision = seen.revision AND entry.kind = seen.kind)",
        rows.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use tollgate_stream::TopicPartition;

    use super::*;

    fn record(record_id: &str, revision: u32, kind: v1::EntryKind) -> Incoming {
        let kind = kind.into();
        let record_id = record_id.to_owned();
        let rated = v1::RatedCdr { record_id, revision, kind, ..v1::RatedCdr::default() };
        Incoming {
            partition: TopicPartition::new("rated-cdrs", 0),
            offset: 0,
            timestamp_ms: 0,
            key: Vec::new().into(),
            value: Some(rated.encode_to_vec().into()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn what_is_published_and_not_in_the_ledger_is_named() -> Result<()> {
        use v1::EntryKind::{Charge, Reversal};
        let postgres = Postgres::shared();
        let url = postgres.create_database("published")?;
        let database = url.rsplit('/').next().unwrap_or_default();
        postgres.sql(
            database,
            "CREATE SCHEMA tollgate;
             CREATE TABLE tollgate.billing_ledger (record_id bytea, revision bigint, kind bigint);
             INSERT INTO tollgate.billing_ledger VALUES ('\\x0a', 1, 1), ('\\x0a', 1, 2)",
        )?;
        let seen = [
            record("0a", 1, Charge),
            record("0a", 1, Reversal),
            record("0a", 2, Charge),
            record("0b", 1, Charge),
        ];
        let ask = |seen| postgres.sql(database, &unbooked(seen)?.context("nothing to ask")?);
        assert_eq!(ask(&seen[..2])?.trim(), "");
        assert_eq!(ask(&seen)?.trim(), "0a|2|1\n0b|1|1");
        assert_eq!(unbooked(&[])?, None);
        Ok(())
    }
}
