//! What stands on the topics.

use std::collections::HashSet;
use std::time::Duration;

use prost::Message;
use tollgate_schema::v1::{CallDetailRecord, CallEvent, Provenance, Quarantined};
use tollgate_stream::{Incoming, ReadFrom, Stream};

/// Everything that was published, decoded; of each topic in the order of its partitions.
#[derive(Default)]
pub struct Topics {
    pub events: Vec<CallEvent>,
    pub cdrs: Vec<CallDetailRecord>,
    pub quarantine: Vec<Quarantined>,
    pub records: Vec<Incoming>,
}

impl Topics {
    pub async fn read(stream: &dyn Stream) -> Self {
        let mut topics = Self::default();
        let names = ["call-events", "cdrs", "quarantine"];
        let mut reader = stream.reader(&names, ReadFrom::Earliest).await.unwrap();
        while !reader.caught_up().await.unwrap() {
            for record in reader.next(1000, Duration::from_millis(10)).await.unwrap() {
                let value = record.value.clone().unwrap();
                match &*record.partition.topic {
                    "call-events" => topics.events.push(CallEvent::decode(value).unwrap()),
                    "cdrs" => topics.cdrs.push(CallDetailRecord::decode(value).unwrap()),
                    _ => topics.quarantine.push(Quarantined::decode(value).unwrap()),
                }
                topics.records.push(record);
            }
        }
        topics
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Sessions of the status notifications.
    pub fn sessions(&self) -> HashSet<String> {
        self.events.iter().map(|event| event.session_id.clone()).collect()
    }

    /// Sessions of the CDRs.
    pub fn charged_sessions(&self) -> HashSet<String> {
        self.cdrs.iter().map(|cdr| cdr.session_id.clone()).collect()
    }

    pub fn provenances(&self) -> Vec<Provenance> {
        let events = self.events.iter().map(|event| event.provenance.clone());
        let cdrs = self.cdrs.iter().map(|cdr| cdr.provenance.clone());
        let quarantine = self.quarantine.iter().map(|it| it.provenance.clone());
        events.chain(cdrs).chain(quarantine).map(Option::unwrap).collect()
    }
}
