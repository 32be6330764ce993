//! Where a partition is continued, decided from what the database and the cluster say. Pure.

use std::fmt;

use crate::{Fence, Incoming, Mark};

/// Why a partition does not go on by itself, and what a person can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// The record that was applied last is not the one at its offset.
    MarkMismatch {
        /// Its offset.
        offset: i64,
    },
    /// The database is ahead of the topic.
    BeyondEnd {
        /// Offset to apply next.
        next: i64,
        /// End of the partition.
        end: i64,
    },
    /// Records went out of retention before they were applied.
    Expired {
        /// Offset to apply next.
        next: i64,
        /// First offset still there.
        first: i64,
    },
    /// Too many records are poison.
    Poison(String),
}

impl StopReason {
    /// A short word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::MarkMismatch { .. } => "mark_mismatch",
            Self::BeyondEnd { .. } => "beyond_end",
            Self::Expired { .. } => "expired",
            Self::Poison(_) => "poison",
        }
    }

    /// Whether only this partition stops, and not the whole consumer.
    pub(super) fn spares_the_consumer(&self) -> bool {
        matches!(self, Self::Poison(_))
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MarkMismatch { offset } => write!(
                f,
                "the record at offset {offset} is not the one that was applied last, so the topic \
                 was recreated or the database belongs to another cluster; bring the two that \
                 belong together back, or give the consumer a fresh database.schema; see \
                 docs/operations.md, offsets"
            ),
            Self::BeyondEnd { next, end } => write!(
                f,
                "offset {next} is to be applied next and the partition ends at {end}, so the topic \
                 was recreated or has lost records, or the database belongs to another cluster; \
                 bring the two that belong together back, or give the consumer a fresh \
                 database.schema; see docs/operations.md, offsets"
            ),
            Self::Expired { next, first } => write!(
                f,
                "offset {next} is to be applied next and retention has removed everything before \
                 {first}; restore the missing records from a backup of the topic, or accept the \
                 loss by setting next_offset of this partition to {first} and its mark to null in \
                 the database; then lengthen retention.ms"
            ),
            Self::Poison(limit) => write!(
                f,
                "{limit} could not be decoded or were refused by the database, which points to a \
                 defect or a wrong version and not to bad records; look at topic quarantine, mend \
                 the cause and restart"
            ),
        }
    }
}

/// What to do with a partition that was just fenced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Deliver from `offset`; if a mark is expected, the first record must be it.
    Start { offset: i64, expect: Option<Mark> },
    /// Do not start.
    Stop(StopReason),
}

/// `first` is the first offset retained, `end` the one after the last.
pub(super) fn plan(fence: &Fence, first: i64, end: i64) -> Plan {
    let next = fence.next_offset;
    let Some(mark) = &fence.mark else {
        if next == 0 {
            // Nothing was ever applied: from the beginning, wherever that is by now.
            return Plan::Start { offset: first, expect: None };
        }
        return within(next, first, end)
            .map_or(Plan::Start { offset: next, expect: None }, Plan::Stop);
    };
    if let Some(reason) = within(next, first, end) {
        return Plan::Stop(reason);
    }
    if mark.offset < first {
        // Retention has just passed it: nothing is lost, and nothing is left to compare. A
        // recreated topic does not look like this, because it begins at 0.
        return Plan::Start { offset: next, expect: None };
    }
    Plan::Start { offset: mark.offset, expect: Some(mark.clone()) }
}

fn within(next: i64, first: i64, end: i64) -> Option<StopReason> {
    if next > end {
        return Some(StopReason::BeyondEnd { next, end });
    }
    (next < first).then_some(StopReason::Expired { next, first })
}

/// What the first record delivered from the mark's offset on says of the one applied last.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First {
    /// It is that one.
    Marked,
    /// That one is not there any more, and nothing stands in its place.
    Behind,
    /// Another one stands in its place.
    Another,
}

/// A record was read at the mark's offset. Where none stands there now, retention or damage took
/// it, and what comes behind it is still to be applied. A topic that was recreated has one there:
/// its offsets begin at 0 and have hardly any gaps: what is consumed is not compacted, and only a
/// replay of the quarantine writes it in transactions, whose ends take an offset each. What is older
/// than the mark does not continue it.
pub(super) fn compare(first: &Incoming, mark: &Mark) -> First {
    if mark_of(first) == *mark {
        return First::Marked;
    }
    let behind = first.offset > mark.offset && first.timestamp_ms >= mark.timestamp_ms;
    if behind { First::Behind } else { First::Another }
}

/// The mark of a record.
pub(super) fn mark_of(record: &Incoming) -> Mark {
    Mark {
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        event_id: record.header("ce_id").unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fence(next_offset: i64, mark: Option<i64>) -> Fence {
        let mark = mark.map(|offset| Mark { offset, timestamp_ms: 1, event_id: "e".to_owned() });
        Fence { epoch: 1, next_offset, mark }
    }

    #[test]
    fn a_first_start_is_at_the_earliest_record() {
        assert_eq!(plan(&fence(0, None), 0, 0), Plan::Start { offset: 0, expect: None });
        assert_eq!(plan(&fence(0, None), 40, 50), Plan::Start { offset: 40, expect: None });
    }

    #[test]
    fn a_mark_that_is_retained_is_read_again() {
        let expected = fence(10, Some(9)).mark;
        assert_eq!(plan(&fence(10, Some(9)), 0, 10), Plan::Start { offset: 9, expect: expected });
    }

    #[test]
    fn a_mark_that_just_expired_costs_nothing() {
        assert_eq!(plan(&fence(10, Some(9)), 10, 10), Plan::Start { offset: 10, expect: None });
        assert_eq!(plan(&fence(10, Some(9)), 10, 30), Plan::Start { offset: 10, expect: None });
    }

    #[test]
    fn an_offset_beyond_the_end_stops() {
        let reason = StopReason::BeyondEnd { next: 10, end: 3 };
        assert_eq!(plan(&fence(10, Some(9)), 0, 3), Plan::Stop(reason.clone()));
        assert_eq!(plan(&fence(10, None), 0, 3), Plan::Stop(reason));
    }

    #[test]
    fn records_that_expired_unapplied_stop() {
        let reason = StopReason::Expired { next: 10, first: 11 };
        assert_eq!(plan(&fence(10, Some(9)), 11, 30), Plan::Stop(reason));
    }

    #[test]
    fn a_mark_whose_record_is_gone_is_no_other_record() {
        let record = |offset, timestamp_ms, id: &'static str| Incoming {
            partition: crate::TopicPartition::new("t", 0),
            offset,
            timestamp_ms,
            key: bytes::Bytes::new(),
            value: None,
            headers: vec![("ce_id".into(), bytes::Bytes::from_static(id.as_bytes()))],
        };
        let mark = mark_of(&record(9, 100, "e"));
        assert_eq!(compare(&record(9, 100, "e"), &mark), First::Marked);
        for another in [record(9, 100, "f"), record(9, 101, "e"), record(8, 100, "e")] {
            assert_eq!(compare(&another, &mark), First::Another);
        }
        for (offset, timestamp_ms) in [(10, 100), (10, 101), (900, 200)] {
            assert_eq!(compare(&record(offset, timestamp_ms, "f"), &mark), First::Behind);
        }
        assert_eq!(compare(&record(10, 99, "f"), &mark), First::Another, "it is older");
    }

    #[test]
    fn every_reason_says_what_to_do() {
        for reason in [
            StopReason::MarkMismatch { offset: 3 },
            StopReason::BeyondEnd { next: 3, end: 1 },
            StopReason::Expired { next: 3, first: 4 },
            StopReason::Poison("100 records in a row".to_owned()),
        ] {
            let text = reason.to_string();
            assert!(text.contains("; "), "{text}");
            assert!(!reason.label().is_empty());
        }
    }

    proptest! {
        /// Whatever the three say, a start neither skips a record that was not applied nor
        /// reads outside of what there is.
        #[test]
        fn a_start_never_skips(next in 1i64..100, first in 0i64..100, len in 0i64..100) {
            let end = first + len;
            match plan(&fence(next, Some(next - 1)), first, end) {
                Plan::Start { offset, expect } => {
                    prop_assert!(offset <= next && offset >= first && offset <= end);
                    prop_assert_eq!(expect.is_some(), offset == next - 1);
                }
                Plan::Stop(_) => prop_assert!(next < first || next > end),
            }
        }
    }
}
