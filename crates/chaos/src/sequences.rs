//! What the topics hold, as a reader of committed records sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use tollgate_schema::v1;
use tollgate_stream::{Incoming, ReadFrom, Stream};

const AT_ONCE: usize = 1000;
const WAIT: Duration = Duration::from_millis(200);

/// Everything that a topic holds now.
async fn read(stream: &Arc<dyn Stream>, topic: &str) -> Result<Vec<Incoming>> {
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
                _ => v1::Quarantined::decode(value)?.provenance,
            };
            // Not through a spool, or not through an edge: nothing to count.
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
    let ledger: BTreeSet<&str> =
        ledger.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
    let mut topic = BTreeSet::new();
    for record in read(stream, "rated-cdrs").await? {
        let rated = v1::RatedCdr::decode(record.value.context("a rated CDR has no value")?)?;
        topic.insert(format!("{} {} {}", rated.record_id, rated.revision, rated.kind));
    }
    let unpublished: Vec<_> = ledger.iter().filter(|entry| !topic.contains(**entry)).collect();
    ensure!(unpublished.is_empty(), "in the ledger and not on its topic: {unpublished:?}");
    let unbooked: Vec<_> = topic.iter().filter(|it| !ledger.contains(it.as_str())).collect();
    ensure!(unbooked.is_empty(), "on the topic rated-cdrs and not in the ledger: {unbooked:?}");
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
