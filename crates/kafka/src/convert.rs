//! Records to and from librdkafka.

use bytes::Bytes;
use rdkafka::TopicPartitionList;
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::topic_partition_list::Offset;
use tollgate_stream::{Headers, Incoming, Outgoing, TopicPartition};

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

/// A record that was read, copied out of librdkafka's memory.
pub fn incoming(message: &BorrowedMessage<'_>, partition: TopicPartition) -> Incoming {
    let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
    let headers: Headers = message.headers().map_or_else(Headers::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned().into(), copy(header.value).unwrap_or_default()))
            .collect()
    });
    Incoming {
        partition,
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: copy(message.key()).unwrap_or_default(),
        value: copy(message.payload()),
        headers,
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
