//! Entry points for fuzzing: plain functions over bytes, which must neither panic nor hang.

use tollgate_schema::topics::{CALL_EVENTS, CDRS};
use tollgate_stream::{Decode as _, Incoming, TopicPartition};

use crate::fold::{EventSet, Expiry, fold};
use crate::item::Decoder;

/// Takes the bytes as values of records of both topics, each as long as the byte before it says,
/// times four, and makes one call of them.
///
/// # Panics
///
/// When an event does not come back from the database.
pub fn call(data: &[u8]) {
    let mut set = EventSet::default();
    let mut rest = data;
    while let Some((len, behind)) = rest.split_first() {
        let (value, behind) = behind.split_at(behind.len().min(usize::from(*len) * 4));
        rest = behind;
        for topic in [CALL_EVENTS.name, CDRS.name] {
            let record = Incoming {
                partition: TopicPartition::new(topic, 0),
                offset: 0,
                timestamp_ms: 0,
                key: Vec::new().into(),
                value: Some(value.to_vec().into()),
                headers: Vec::new(),
            };
            if let Ok(item) = Decoder.decode(&record) {
                set.insert(item.event);
            }
        }
    }
    let expiry = Expiry { unanswered_ms: 300_000, answered_ms: 86_400_000 };
    let stored = set.clone().encode();
    assert!(EventSet::decode(&stored).is_ok_and(|again| again.encode() == stored));
    let _ = fold(&set, &expiry);
}
