//! Reads topics of a cluster.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tollgate_stream::{Incoming, ReadFrom, Stream, StreamError, TopicReader};

use super::{EvidenceError, TopicRecord};

/// Most records of one read.
const AT_ONCE: usize = 1000;
/// How long new records are waited for.
const WAIT: Duration = Duration::from_millis(100);
/// Records returned at most before the verifier may look at them.
const AT_MOST: usize = 20_000;

/// Topics of a cluster, a reader each, from the oldest record on.
pub(super) struct Cluster {
    stream: Arc<dyn Stream>,
    readers: HashMap<&'static str, Box<dyn TopicReader>>,
}

impl Cluster {
    pub fn new(stream: Arc<dyn Stream>) -> Self {
        Self { stream, readers: HashMap::new() }
    }

    pub async fn read(&mut self, name: &'static str) -> Result<Vec<TopicRecord>, EvidenceError> {
        let failed = |error: StreamError| EvidenceError {
            what: format!("topic {name}"),
            reason: error.to_string(),
        };
        let reader = match self.readers.entry(name) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let reader =
                    self.stream.reader(&[name], ReadFrom::Earliest).await.map_err(failed)?;
                entry.insert(reader)
            }
        };
        let mut records = Vec::new();
        while records.len() < AT_MOST {
            let step = match reader.next(AT_ONCE, WAIT).await {
                Ok(read) => {
                    let is_last = read.len() < AT_ONCE;
                    records.extend(read.iter().filter_map(record));
                    if is_last { reader.caught_up().await } else { Ok(false) }
                }
                Err(error) => Err(error),
            };
            match step {
                Ok(false) => {}
                Ok(true) => break,
                // The reader will not give again what it has given: that goes first.
                Err(_) if !records.is_empty() => break,
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(records)
    }
}

fn record(incoming: &Incoming) -> Option<TopicRecord> {
    Some(TopicRecord {
        ce_id: incoming.header("ce_id").unwrap_or_default().to_owned(),
        key: incoming.key.clone(),
        value: incoming.value.clone()?,
    })
}
