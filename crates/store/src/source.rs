//! Names of fence rows, and the two ways to begin a transaction.

use sha2::{Digest, Sha256};
use tollgate_stream::{Batch, Claim, Mark, Source};

/// How a fenced transaction begins.
#[derive(Debug)]
pub enum Step<'a> {
    /// Moves the offsets of partitions on, together with what is written for them.
    Advance(Vec<Advance<'a>>),
    /// Holds one partition and leaves its offset where it is: work that time or another table
    /// asks for.
    Hold(&'a Claim),
}

/// A partition's offset before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance<'a> {
    /// Which partition, and by what right.
    pub claim: &'a Claim,
    /// `next_offset` as it must stand before.
    pub from: i64,
    /// `next_offset` after.
    pub to: i64,
    /// The last record applied.
    pub mark: &'a Mark,
}

impl<'a> Step<'a> {
    /// The step of these batches.
    pub fn advance<I>(batches: &[Batch<'a, I>]) -> Self {
        let advance = |it: &Batch<'a, I>| Advance {
            claim: it.claim,
            from: it.from,
            to: it.to,
            mark: it.mark,
        };
        Self::Advance(batches.iter().map(advance).collect())
    }
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
