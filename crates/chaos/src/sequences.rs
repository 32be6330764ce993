//! What the topics hold, as a reader of committed records sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use tollgate_schema::v1::{self, Quarantined};
use tollgate_stream::{Incoming, ReadFrom, Stream};

const AT_ONCE: usize = 1000;
const WAIT: Duration = Duration::from_millis(200);

/// Everything that a topic holds now.
pub async fn read(stream: &Arc<dyn Stream>, topic: &str) -> Result<Vec<Incoming>> {
    let mut reader = stream.reader(&[topic], ReadFrom::Earliest).await?;
    let mut records = Vec::new();
    loop {
        let some = reader.next(AT_ONCE, WAIT).await?;
        let is_last = some.is_empty();
        records.extend(some);
        if is_last && reader.caught_up().await? {
            return Ok(records);
        }
    }
}

/// Sequences by edge and epoch.
pub type Sequences = BTreeMap<(String, u64), BTreeSet<u64>>;

/// The spool sequences of everything that was published.
pub async fn sequences(stream: &Arc<dyn Stream>) -> Result<Sequences> {
    let mut sequences = Sequences::new();
    for topic in ["call-events", "cdrs", "quarantine"] {
        for record in read(stream, topic).await? {
            let value = record.value.unwrap_or_default();
            let provenance = match topic {
                "call-events" => v1::CallEvent::decode(value)?.provenance,
                "cdrs" => v1::CallDetailRecord::decode(value)?.provenance,
                _ => {
                    let found = Quarantined::decode(value)?;
                    let Quarantined { quarantine_id, found_by, detail, .. } = &found;
                    ensure!(found_by.is_empty(), "{found_by} gave up {quarantine_id}: {detail}");
                    found.provenance
                }
            };
            // Not through a spool: nothing to count.
            let Some(provenance) = provenance.filter(|it| it.spool_epoch > 0) else { continue };
            let epoch = (provenance.edge_id, provenance.spool_epoch);
            sequences.entry(epoch).or_default().insert(provenance.spool_sequence);
        }
    }
    Ok(sequences)
}

/// Sequences below the last published one of their epoch that were never published.
pub fn gaps(sequences: &Sequences) -> Vec<(String, u64, u64)> {
    let mut gaps = Vec::new();
    for ((edge, epoch), published) in sequences {
        let last = published.last().copied().unwrap_or(0);
        let missing = (1..last).filter(|sequence| !published.contains(sequence));
        gaps.extend(missing.map(|sequence| (edge.clone(), *epoch, sequence)));
    }
    gaps
}

/// Fails unless the topic `rated-cdrs` holds the entries of the ledger, and nothing else.
pub async fn ledger_is_topic(stream: &Arc<dyn Stream>, ledger: &str) -> Result<()> {
    let mut topic = BTreeSet::new();
    for record in read(stream, "rated-cdrs").await? {
        let rated = v1::RatedCdr::decode(record.value.context("a rated CDR has no value")?)?;
        topic.insert(format!("{} {} {}", rated.record_id, rated.revision, rated.kind));
    }
    same("rated-cdrs", &topic, ledger)
}

/// Fails unless a topic holds the rows of the database, and nothing else.
pub fn same(name: &str, topic: &BTreeSet<String>, rows: &str) -> Result<()> {
    let rows: BTreeSet<&str> = rows.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
    let unpublished: Vec<_> = rows.iter().filter(|row| !topic.contains(**row)).collect();
    ensure!(unpublished.is_empty(), "in the database and not on topic {name}: {unpublished:?}");
    let foreign: Vec<_> = topic.iter().filter(|it| !rows.contains(it.as_str())).collect();
    ensure!(foreign.is_empty(), "on topic {name} and not in the database: {foreign:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_what_lies_below_the_last_published() {
        let mut sequences = Sequences::new();
        sequences.insert(("edge-1".into(), 3), BTreeSet::from([1, 2, 5]));
        sequences.insert(("edge-1".into(), 4), BTreeSet::from([1, 2, 3]));
        assert_eq!(gaps(&sequences), [("edge-1".into(), 3, 3), ("edge-1".into(), 3, 4)]);
    }
}
