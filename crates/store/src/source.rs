//! Names of fence rows, and the two ways to begin a transaction.

use sha2::{Digest, Sha256};
use tollgate_stream::{Batch, Mark, Source};

/// What a fenced transaction does to the partition's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// Moves it on together with the results of a batch; needs `next_offset = from`.
    Advance {
        /// `next_offset` before.
        from: i64,
        /// `next_offset` after.
        to: i64,
        /// The last record applied.
        mark: &'a Mark,
    },
    /// Leaves it where it is: work that time or another table asks for.
    Hold,
}

impl<'a> Step<'a> {
    /// The step of a batch.
    pub fn advance<I>(batch: &Batch<'a, I>) -> Self {
        Self::Advance { from: batch.from, to: batch.to, mark: batch.mark }
    }
}

/// Where a consumer group stands in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Which partition of which group.
    pub source: Source,
    /// Epoch in force.
    pub epoch: i64,
    /// Offset to apply next.
    pub next_offset: i64,
    /// Rows waiting in its outbox.
    pub outbox_rows: i64,
}

/// The fixed-length key of a partition's rows: 128 bits over group, cluster, topic and partition,
/// each with its length before it, so that no two sources share one.
pub fn source_id(source: &Source) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(b"tollgate-source-1");
    for text in [&*source.group, &*source.cluster_id, &*source.partition.topic] {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(source.partition.partition.to_be_bytes());
    let digest = hash.finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_stream::TopicPartition;

    fn source(group: &str, cluster: &str, topic: &str, partition: i32) -> Source {
        Source {
            group: group.to_owned(),
            cluster_id: cluster.to_owned(),
            partition: TopicPartition::new(topic, partition),
        }
    }

    #[test]
    fn every_part_of_a_source_counts_and_boundaries_do_too() {
        let ids = [
            source("g", "c", "t", 0),
            source("g", "c", "t", 1),
            source("g2", "c", "t", 0),
            source("g", "c2", "t", 0),
            source("g", "c", "t2", 0),
            source("gc", "", "t", 0),
            source("", "gc", "t", 0),
        ]
        .map(|s| source_id(&s));
        for (i, a) in ids.iter().enumerate() {
            assert!(ids[i + 1..].iter().all(|b| a != b), "{i}");
        }
    }

    #[test]
    fn the_id_of_a_source_never_changes() {
        assert_eq!(
            hex::encode(source_id(&source("billing", "cluster", "cdrs", 7))),
            "6d850ee30703ec9f2d98f6066d887852"
        );
    }
}
