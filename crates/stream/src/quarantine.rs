//! What a consumer cannot apply, and what a topic will not take, as messages for the topic
//! `quarantine`.

use prost::Message;
use tollgate_schema::ids::quarantine_id;
use tollgate_schema::topics::QUARANTINE;
use tollgate_schema::v1::{QuarantineReason, Quarantined, SourcePosition};

use crate::{Claim, Incoming, Outgoing};

/// Content that certainly fits a topic that refused the whole.
const CUT: usize = 256 * 1024;
/// Largest content of a message that is not cut from the start: leaves room for the other fields
/// within the catalogue's 4 MiB.
const WHOLE: usize = tollgate_schema::topics::MAX_MESSAGE_BYTES - 16 * 1024;

/// A record that the pure step or the database refuses. `detail` names fields and types only.
pub(crate) fn poison(
    claim: &Claim,
    record: &Incoming,
    reason: QuarantineReason,
    detail: &str,
) -> Outgoing {
    let content = record.value.as_deref().unwrap_or_default();
    let source = SourcePosition {
        cluster_id: claim.source.cluster_id.clone(),
        topic: record.partition.topic.to_string(),
        partition: record.partition.partition,
        offset: record.offset,
    };
    let found = Found { claim, source, reason, time_ms: Some(record.timestamp_ms) };
    found.message(content, WHOLE, detail)
}

/// A row of the outbox that its topic refuses for good. `attempt` is 1 for the first message
/// about it and 2 when that one was refused, too.
pub(crate) fn refused(claim: &Claim, row: &Outgoing, reason: &str, attempt: u8) -> Outgoing {
    let source = SourcePosition {
        cluster_id: claim.source.cluster_id.clone(),
        topic: row.topic.to_string(),
        partition: -1,
        offset: -1,
    };
    let found = Found { claim, source, reason: QuarantineReason::RefusedByTopic, time_ms: None };
    let content = row.value.as_deref().unwrap_or_default();
    found.message(
        content,
        if attempt <= 1 { CUT } else { 0 },
        &format!("topic refuses it: {reason}"),
    )
}

struct Found<'a> {
    claim: &'a Claim,
    source: SourcePosition,
    reason: QuarantineReason,
    time_ms: Option<i64>,
}

impl Found<'_> {
    fn message(self, content: &[u8], limit: usize, detail: &str) -> Outgoing {
        // Of the whole, so that the id is the same however much of it is kept.
        let id = quarantine_id(content).to_string();
        let kept = &content[..content.len().min(limit)];
        let detail = if kept.len() < content.len() {
            format!("{detail}; cut to {} of {} bytes", kept.len(), content.len())
        } else {
            detail.to_owned()
        };
        let message = Quarantined {
            quarantine_id: id.clone(),
            content: kept.to_vec(),
            reason: self.reason.into(),
            detail,
            source: Some(self.source),
            found_by: self.claim.source.group.clone(),
            content_length: if kept.len() < content.len() { content.len() as u64 } else { 0 },
            ..Quarantined::default()
        };
        Outgoing::event(&QUARANTINE, id.clone(), &id, self.time_ms, message.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, TopicPartition};

    fn claim() -> Claim {
        let source = Source {
            group: "billing".to_owned(),
            cluster_id: "c1".to_owned(),
            partition: TopicPartition::new("cdrs", 3),
        };
        Claim { source, epoch: 1, partitions: 12 }
    }

    fn record(value: Vec<u8>) -> Incoming {
        Incoming {
            partition: TopicPartition::new("cdrs", 3),
            offset: 17,
            timestamp_ms: 5,
            key: "k".into(),
            value: Some(value.into()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_poison_message_carries_the_bytes_and_where_they_stood() {
        let out = poison(&claim(), &record(vec![1, 2, 3]), QuarantineReason::UndecodableEvent, "d");
        let message = Quarantined::decode(out.value.unwrap()).unwrap();
        assert_eq!(message.content, [1, 2, 3]);
        assert_eq!(message.found_by, "billing");
        assert_eq!(message.reason(), QuarantineReason::UndecodableEvent);
        let source = message.source.unwrap();
        assert_eq!((source.topic.as_str(), source.partition, source.offset), ("cdrs", 3, 17));
        assert_eq!(out.key, message.quarantine_id.as_bytes());
        assert_eq!(&*out.topic, "quarantine");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_says_so_under_the_same_id() {
        let large = vec![7; 4 * 1024 * 1024];
        let whole = quarantine_id(&large).to_string();
        let out = poison(&claim(), &record(large.clone()), QuarantineReason::UndecodableEvent, "d");
        assert!(out.size() <= tollgate_schema::topics::MAX_MESSAGE_BYTES - 1024);
        assert_eq!(out.key, whole.as_bytes());
        let mut row = out;
        row.value = Some(large.into());
        let first = refused(&claim(), &row, "too large", 1);
        let second = refused(&claim(), &row, "too large", 2);
        assert!(first.size() < 512 * 1024 && second.size() < 2048);
        assert_eq!((&first.key, &second.key), (&row.key, &row.key));
        let first = Quarantined::decode(first.value.unwrap()).unwrap();
        assert_eq!(first.content_length, 4 * 1024 * 1024);
    }
}
