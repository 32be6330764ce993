//! From the catalogue of `tollgate-schema` to records and topic specifications.

use std::borrow::Cow;

use bytes::Bytes;
use tollgate_schema::headers::{self, cloud_event};
use tollgate_schema::topics::{ALL, Topic};

use crate::{Headers, Name, Outgoing, TopicSpec};

/// Names that are neither copied nor counted.
const HEADERS: [&str; 6] = [
    headers::CE_SPECVERSION,
    headers::CE_ID,
    headers::CE_SOURCE,
    headers::CE_TYPE,
    headers::CONTENT_TYPE_HEADER,
    headers::CE_TIME,
];

/// The name of a header or a topic: the catalogue's own where it has it.
pub fn name(text: &str) -> Name {
    let mut known = HEADERS.into_iter().chain(ALL.iter().map(|topic| topic.name));
    known.find(|it| *it == text).map_or_else(|| text.to_owned().into(), Name::from)
}

impl Outgoing {
    /// A record of the catalogue with its CloudEvents headers. `event_id` is what readers drop
    /// repeats by; `time_ms` is when it happened, milliseconds since 1970.
    pub fn event(
        topic: &Topic,
        key: impl Into<Bytes>,
        event_id: impl Into<String>,
        time_ms: Option<i64>,
        value: impl Into<Bytes>,
    ) -> Self {
        Self {
            topic: topic.name.into(),
            key: key.into(),
            value: Some(value.into()),
            headers: event_headers(topic, event_id, time_ms),
        }
    }

    /// Bytes it takes, near enough for bounds: key, value and headers.
    pub fn size(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len) + headers
    }
}

fn event_headers(topic: &Topic, event_id: impl Into<String>, time_ms: Option<i64>) -> Headers {
    cloud_event(topic, event_id.into(), time_ms)
        .map(|(name, value)| {
            let value = match value {
                Cow::Borrowed(constant) => Bytes::from_static(constant.as_bytes()),
                Cow::Owned(text) => Bytes::from(text),
            };
            (name.into(), value)
        })
        .collect()
}

impl TopicSpec {
    /// The specification of a topic of the catalogue. `replication` overrides the number of
    /// copies, for a single broker on a laptop; `min.insync.replicas` is lowered to fit.
    pub fn of(topic: &Topic, replication: Option<i32>) -> Self {
        let replication = replication.unwrap_or(topic.replication).max(1);
        let fits = |name: &str, value: &str| {
            if name != "min.insync.replicas" {
                return value.to_owned();
            }
            value
                .parse()
                .map_or_else(|_| value.to_owned(), |want: i32| want.min(replication).to_string())
        };
        Self {
            name: topic.name.to_owned(),
            partitions: topic.partitions,
            replication,
            config: topic
                .config
                .iter()
                .map(|(name, value)| ((*name).to_owned(), fits(name, value)))
                .collect(),
        }
    }

    /// The specifications of the whole catalogue.
    pub fn catalogue(replication: Option<i32>) -> Vec<Self> {
        ALL.iter().map(|topic| Self::of(topic, replication)).collect()
    }

    /// One of its settings.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.config.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use tollgate_schema::topics::CDRS;

    use super::*;
    use crate::{Incoming, TopicPartition};

    #[test]
    fn an_event_carries_its_id_in_the_header_that_readers_drop_repeats_by() {
        let event = Outgoing::event(&CDRS, "session", "00ff", Some(0), vec![1, 2]);
        assert_eq!(&*event.topic, "cdrs");
        assert_eq!(event.value.as_deref(), Some(&[1, 2][..]));
        let read = Incoming {
            partition: TopicPartition::new("cdrs", 0),
            offset: 0,
            timestamp_ms: 0,
            key: event.key,
            value: event.value,
            headers: event.headers,
        };
        assert_eq!(read.header("ce_id"), Some("00ff"));
        assert_eq!(read.header("ce_type"), Some("tollgate.v1.CallDetailRecord"));
        assert_eq!(read.header("ce_time"), Some("1970-01-01T00:00:00Z"));
    }

    #[test]
    fn a_single_broker_gets_topics_that_it_can_acknowledge() {
        let spec = TopicSpec::of(&CDRS, Some(1));
        assert_eq!(spec.replication, 1);
        assert_eq!(spec.setting("min.insync.replicas"), Some("1"));
        let spec = TopicSpec::of(&CDRS, None);
        assert_eq!(spec.replication, 3);
        assert_eq!(spec.setting("min.insync.replicas"), Some("2"));
    }
}
