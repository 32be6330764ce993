//! What the log's frames contain.
//!
//! ```text
//!  segment file:  HEAD frame │ GROUP frame │ GROUP frame │ ... │ zeros (reserved)
//!  GROUP payload: length of head │ GroupHead │ block │ block │ ...
//!  block:         records of one partition, one after the other, each after its length
//! ```
//!
//! One group is one frame, so it is there whole or not at all: that is what makes a transaction
//! atomic. A block has a checksum of its own, so that a reader fetches only what it wants.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use prost::Message;

use crate::{Headers, Incoming, Outgoing, TopicPartition};

/// Kind of the first frame of a segment.
pub(super) const HEAD: u8 = 1;
/// Kind of every other frame.
pub(super) const GROUP: u8 = 2;

/// Version of everything here. Raised by a change that this code would misread.
pub(super) const FORMAT: u32 = 1;

/// What a segment begins with: the log's whole state but the records, as it was after group
/// `after`. So every segment explains itself when those before it are gone.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SegmentHead {
    #[prost(string, tag = "1")]
    pub(super) cluster_id: String,
    #[prost(uint64, tag = "2")]
    pub(super) after: u64,
    #[prost(message, repeated, tag = "3")]
    pub(super) topics: Vec<StoredTopic>,
    #[prost(message, repeated, tag = "4")]
    pub(super) groups: Vec<StoredGroup>,
    /// The writer's [`FORMAT`]; 0 was written before the field was there, and is 1.
    #[prost(uint32, tag = "5")]
    pub(super) format: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredTopic {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(int32, tag = "2")]
    pub(super) partitions: i32,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(super) config: BTreeMap<String, String>,
    /// Of each partition; empty where a group creates the topic.
    #[prost(int64, repeated, tag = "4")]
    pub(super) next_offsets: Vec<i64>,
}

/// A registered consumer group: what it has not applied is not removed.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredGroup {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) topics: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub(super) progress: Vec<StoredProgress>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredProgress {
    #[prost(string, tag = "1")]
    pub(super) topic: String,
    #[prost(int32, tag = "2")]
    pub(super) partition: i32,
    #[prost(int64, tag = "3")]
    pub(super) next_offset: i64,
}

/// What a group contains.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GroupHead {
    #[prost(message, repeated, tag = "1")]
    pub(super) blocks: Vec<BlockHead>,
    /// Topics created; in a group without records all topics, with the ends of their partitions.
    #[prost(message, repeated, tag = "2")]
    pub(super) topics: Vec<StoredTopic>,
    /// Groups registered, and progress.
    #[prost(message, repeated, tag = "3")]
    pub(super) groups: Vec<StoredGroup>,
    /// Groups forgotten.
    #[prost(string, repeated, tag = "4")]
    pub(super) forgotten: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BlockHead {
    #[prost(string, tag = "1")]
    pub(super) topic: String,
    #[prost(int32, tag = "2")]
    pub(super) partition: i32,
    #[prost(int64, tag = "3")]
    pub(super) base_offset: i64,
    #[prost(uint32, tag = "4")]
    pub(super) count: u32,
    #[prost(uint32, tag = "5")]
    pub(super) len: u32,
    #[prost(fixed32, tag = "6")]
    pub(super) crc: u32,
}

#[derive(Clone, PartialEq, Message)]
struct StoredRecord {
    #[prost(sint64, tag = "1")]
    timestamp_ms: i64,
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    #[prost(bytes = "bytes", optional, tag = "3")]
    value: Option<Bytes>,
    #[prost(message, repeated, tag = "4")]
    headers: Vec<StoredHeader>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredHeader {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// A group as written: the head, and where its blocks begin within the payload.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub(super) head: GroupHead,
    /// Offset of the first block within the payload.
    pub(super) blocks_at: u64,
}

/// Appends one record to a block.
pub(super) fn put_record(block: &mut Vec<u8>, record: &Outgoing, timestamp_ms: i64) {
    let headers = record
        .headers
        .iter()
        .map(|(name, value)| StoredHeader { name: name.to_string(), value: value.clone() });
    let stored = StoredRecord {
        timestamp_ms,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: headers.collect(),
    };
    block.extend_from_slice(&stored.encode_length_delimited_to_vec());
}

/// The records of a block, or `None` when the bytes are not what was written.
pub(super) fn read_block(
    bytes: Bytes,
    crc: u32,
    partition: &TopicPartition,
    base_offset: i64,
    count: u32,
) -> Option<Vec<Incoming>> {
    if crc32c::crc32c(&bytes) != crc {
        return None;
    }
    base_offset.checked_add(i64::from(count))?;
    // Each record takes a byte at least.
    let mut records = Vec::with_capacity(bytes.len().min(count as usize));
    let mut rest = bytes;
    for index in 0..i64::from(count) {
        let stored = StoredRecord::decode_length_delimited(&mut rest).ok()?;
        let headers: Headers =
            stored.headers.into_iter().map(|header| (header.name.into(), header.value)).collect();
        records.push(Incoming {
            partition: partition.clone(),
            offset: base_offset + index,
            timestamp_ms: stored.timestamp_ms,
            key: stored.key,
            value: stored.value,
            headers,
        });
    }
    (!rest.has_remaining()).then_some(records)
}

/// Appends the payload of a group; returns where its blocks begin.
pub(super) fn put_group(out: &mut Vec<u8>, head: &GroupHead, blocks: &[&[u8]]) -> u64 {
    let start = out.len();
    out.extend_from_slice(&(head.encoded_len() as u32).to_le_bytes());
    out.extend_from_slice(&head.encode_to_vec());
    let blocks_at = (out.len() - start) as u64;
    for block in blocks {
        out.extend_from_slice(block);
    }
    blocks_at
}

/// Reads the head of a group's payload.
pub(super) fn read_group(payload: &[u8]) -> Option<Group> {
    let (len, rest) = payload.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    let head = GroupHead::decode(rest.get(..len)?).ok()?;
    let blocks: u64 = head.blocks.iter().map(|block| u64::from(block.len)).sum();
    let blocks_at = 4 + len as u64;
    (blocks_at + blocks == payload.len() as u64).then_some(Group { head, blocks_at })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Outgoing> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let headers = prop::collection::vec((".{0,8}", bytes()), 0..4);
        (bytes(), prop::option::of(bytes()), headers).prop_map(|(key, value, headers)| Outgoing {
            topic: "t".into(),
            key,
            value,
            headers: headers.into_iter().map(|(name, value)| (name.into(), value)).collect(),
        })
    }

    proptest! {
        #[test]
        fn what_is_put_into_a_group_is_read_from_it(
            records in prop::collection::vec(record(), 1..10),
            time in any::<i64>(),
        ) {
            let mut block = Vec::new();
            for record in &records {
                put_record(&mut block, record, time);
            }
            let crc = crc32c::crc32c(&block);
            let head = GroupHead {
                blocks: vec![BlockHead {
                    topic: "t".to_owned(),
                    partition: 0,
                    base_offset: 5,
                    count: records.len() as u32,
                    len: block.len() as u32,
                    crc,
                }],
                ..GroupHead::default()
            };
            let mut payload = Vec::new();
            let blocks_at = put_group(&mut payload, &head, &[&block]);
            let group = read_group(&payload).expect("a group");
            prop_assert_eq!(&group, &Group { head, blocks_at });
            let partition = TopicPartition::new("t", 0);
            let bytes = Bytes::from(payload).slice(blocks_at as usize..);
            let read = read_block(bytes, crc, &partition, 5, records.len() as u32).expect("a block");
            for (index, (read, sent)) in read.into_iter().zip(&records).enumerate() {
                prop_assert_eq!(read.offset, 5 + index as i64);
                prop_assert_eq!(read.timestamp_ms, time);
                prop_assert_eq!(&read.key, &sent.key);
                prop_assert_eq!(&read.value, &sent.value);
                prop_assert_eq!(&read.headers, &sent.headers);
            }
        }

        #[test]
        fn bytes_that_are_no_group_are_refused_without_harm(bytes: Vec<u8>) {
            if let Some(group) = read_group(&bytes) {
                prop_assert!(group.blocks_at <= bytes.len() as u64);
            }
        }
    }
}
