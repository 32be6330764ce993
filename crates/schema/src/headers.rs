//! The headers of a record: CloudEvents 1.0 in its Kafka binary binding.
//!
//! They let a reader route, drop repeats and measure delay without decoding the value. None of
//! them names the edge, a session or a number: the same record has the same headers wherever it
//! was received, and headers end up in logs.

use std::borrow::Cow;

use crate::time;
use crate::topics::Topic;

/// Media type of every value.
pub const CONTENT_TYPE: &str = "application/protobuf";
/// `ce_source` of every record. Together with `ce_id` it identifies an event, so it must not
/// depend on which edge took the notification.
pub const SOURCE: &str = "/voicecall/huawei";

/// Header that holds the event's id: equal for every repetition.
pub const CE_ID: &str = "ce_id";
/// Header that holds the version of CloudEvents.
pub const CE_SPECVERSION: &str = "ce_specversion";
/// Header that holds the source.
pub const CE_SOURCE: &str = "ce_source";
/// Header that holds the full name of the protobuf message.
pub const CE_TYPE: &str = "ce_type";
/// Header that holds the instant of the event, RFC 3339 in UTC; absent when unknown.
pub const CE_TIME: &str = "ce_time";
/// Header that holds the media type; the binding takes CloudEvents' `datacontenttype` from it.
pub const CONTENT_TYPE_HEADER: &str = "content-type";

/// The headers of one record.
///
/// `event_id` is what a reader drops repeats by. `time_ms` is when the event happened, in
/// milliseconds since 1970 UTC; an instant outside the years that RFC 3339 can write is left out,
/// as an unknown one is.
pub fn cloud_event(
    topic: &Topic,
    event_id: String,
    time_ms: Option<i64>,
) -> impl Iterator<Item = (&'static str, Cow<'static, str>)> {
    let always = [
        (CE_SPECVERSION, "1.0".into()),
        (CE_ID, event_id.into()),
        (CE_SOURCE, SOURCE.into()),
        (CE_TYPE, topic.message.into()),
        (CONTENT_TYPE_HEADER, CONTENT_TYPE.into()),
    ];
    let time = time_ms.and_then(time::rfc3339).map(|text| (CE_TIME, text.into()));
    always.into_iter().chain(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::CALL_EVENTS;

    #[test]
    fn headers_follow_the_kafka_binary_binding() {
        let headers = cloud_event(&CALL_EVENTS, "00ff".to_owned(), Some(1_548_299_064_000));
        let expected = [
            ("ce_specversion", "1.0"),
            ("ce_id", "00ff"),
            ("ce_source", "/voicecall/huawei"),
            ("ce_type", "tollgate.v1.CallEvent"),
            ("content-type", "application/protobuf"),
            ("ce_time", "2019-01-24T03:04:24Z"),
        ];
        assert_eq!(headers.collect::<Vec<_>>(), expected.map(|(name, text)| (name, text.into())));
    }

    #[test]
    fn a_time_that_is_unknown_or_cannot_be_written_is_left_out() {
        for time in [None, Some(i64::MAX), Some(i64::MIN)] {
            let mut headers = cloud_event(&CALL_EVENTS, "00ff".to_owned(), time);
            assert!(headers.all(|(name, _)| name != CE_TIME), "{time:?}");
        }
    }
}
