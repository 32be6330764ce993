//! Records to and from librdkafka.

use bytes::BytesMut;
use rdkafka::TopicPartitionList;
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::topic_partition_list::Offset;
use tollgate_stream::{Incoming, Outgoing, TopicPartition, name};

/// A record for librdkafka, with the number that comes back with its fate.
pub fn outgoing(record: &Outgoing, opaque: usize) -> BaseRecord<'_, [u8], [u8], usize> {
    let mut out = BaseRecord::with_opaque_to(&record.topic, opaque).key(&*record.key);
    if let Some(value) = &record.value {
        out = out.payload(&**value);
    }
    if !record.headers.is_empty() {
        let empty = OwnedHeaders::new_with_capacity(record.headers.len());
        let headers = record.headers.iter().fold(empty, |headers, (key, value)| {
            headers.insert(Header { key, value: Some(&**value) })
        });
        out = out.headers(headers);
    }
    out
}

/// A record that was read, copied out of librdkafka's memory: into one piece, since another thread
/// gives it back.
pub fn incoming(message: &BorrowedMessage<'_>, partition: TopicPartition) -> Incoming {
    let key = message.key().unwrap_or_default();
    let value = message.payload();
    let headers = || message.headers().into_iter().flat_map(|headers| headers.iter());
    let of_headers = headers().map(|header| header.value.map_or(0, <[u8]>::len)).sum::<usize>();
    let mut copy = BytesMut::with_capacity(key.len() + value.map_or(0, <[u8]>::len) + of_headers);
    copy.extend_from_slice(key);
    copy.extend_from_slice(value.unwrap_or_default());
    for header in headers() {
        copy.extend_from_slice(header.value.unwrap_or_default());
    }
    let mut copy = copy.freeze();
    let mut take = |bytes: &[u8]| copy.split_to(bytes.len());
    Incoming {
        partition,
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: take(key),
        value: value.map(&mut take),
        headers: headers()
            .map(|header| (name(header.key), take(header.value.unwrap_or_default())))
            .collect(),
    }
}

/// Partitions with offsets as librdkafka wants them.
pub fn list<'a>(
    partitions: impl IntoIterator<Item = (&'a TopicPartition, i64)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(offset))?;
    }
    Ok(list)
}

/// Partitions without offsets.
pub fn bare_list<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}

/// The partitions of librdkafka's list.
pub fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .map(|element| TopicPartition::new(element.topic(), element.partition()))
        .collect()
}
