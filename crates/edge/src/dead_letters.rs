//! Where records go that no topic takes.

use tollgate_spool::{DeadLetter, DeadLetters, Position, SpoolError};
use tollgate_stream::{Outgoing, now_ms};

/// Keeps a record that no topic will ever take. Blocks on the disk.
pub fn keep(
    letters: &DeadLetters,
    record: Outgoing,
    position: Position,
    reason: String,
) -> Result<(), SpoolError> {
    letters.append(&DeadLetter {
        topic: record.topic.to_string(),
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|(name, value)| (name.to_string(), value))
            .collect(),
        reason,
        position,
        refused_at_ms: now_ms(),
    })
}
