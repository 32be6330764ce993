//! Entry points for fuzzing: plain functions over bytes, which must neither panic nor hang.

use tollgate_schema::topics::CDRS;
use tollgate_stream::{Decode as _, Incoming, TopicPartition};

use crate::item::{CdrDecoder, Content};

/// Takes the bytes as the value of a record of topic `cdrs`.
///
/// # Panics
///
/// When what is kept of a CDR does not come back from the database.
pub fn cdr(data: &[u8]) {
    let record = Incoming {
        partition: TopicPartition::new(CDRS.name, 0),
        offset: 0,
        timestamp_ms: 0,
        key: Vec::new().into(),
        value: Some(data.to_vec().into()),
        headers: Vec::new(),
    };
    let Ok(item) = CdrDecoder.decode(&record) else { return };
    let kept = Content::decode(&item.content.encode());
    assert_eq!(kept.as_ref(), Ok(&*item.content));
    let _ = item.content.end_ms();
}
