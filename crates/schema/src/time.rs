//! Instants between jiff, protobuf and milliseconds.

use jiff::Timestamp;

const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// An instant that the other side cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("instant is out of range: expected one between the years 1 and 9999")]
pub struct OutOfRange;

/// First instant of the year 1: the earliest that protobuf's Timestamp and RFC 3339 allow.
const EARLIEST_MS: i64 = -62_135_596_800_000;
/// First millisecond of the year 10000.
const END_MS: i64 = 253_402_300_800_000;

/// The protobuf form. Instants before 1970 have a negative second and, as protobuf demands, a
/// fraction that counts forward.
pub fn to_proto(instant: Timestamp) -> prost_types::Timestamp {
    let (mut seconds, mut nanos) = (instant.as_second(), instant.subsec_nanosecond());
    if nanos < 0 {
        seconds -= 1;
        nanos += NANOS_PER_SECOND;
    }
    prost_types::Timestamp { seconds, nanos }
}

/// Reads the protobuf form. A fraction outside of [0, 1) second, or a year outside of 1 to 9999,
/// is an error: it is not a Timestamp by protobuf's definition.
pub fn from_proto(instant: &prost_types::Timestamp) -> Result<Timestamp, OutOfRange> {
    let valid = (0..NANOS_PER_SECOND).contains(&instant.nanos)
        && (EARLIEST_MS / 1000..END_MS / 1000).contains(&instant.seconds);
    if !valid {
        return Err(OutOfRange);
    }
    Timestamp::new(instant.seconds, instant.nanos).map_err(|_| OutOfRange)
}

/// The protobuf form of milliseconds since 1970 UTC.
pub fn proto_from_millis(millis: i64) -> prost_types::Timestamp {
    // The remainder of 1000 times a million stays below 10^9.
    let nanos = (millis.rem_euclid(1000) * 1_000_000) as i32;
    prost_types::Timestamp { seconds: millis.div_euclid(1000), nanos }
}

/// Milliseconds since 1970 UTC, finer fractions cut off towards the past. `None` where they do
/// not fit.
pub fn proto_to_millis(instant: &prost_types::Timestamp) -> Option<i64> {
    instant.seconds.checked_mul(1000)?.checked_add(i64::from(instant.nanos.div_euclid(1_000_000)))
}

/// RFC 3339 in UTC, such as `2019-01-24T03:04:24Z`. `None` outside of the years 1 to 9999.
pub fn rfc3339(millis: i64) -> Option<String> {
    if !(EARLIEST_MS..END_MS).contains(&millis) {
        return None;
    }
    Timestamp::from_millisecond(millis).ok().map(|instant| instant.to_string())
}

/// Milliseconds since 1970 UTC, finer fractions cut off towards the past.
pub fn to_millis(instant: Timestamp) -> i64 {
    let millis = instant.as_nanosecond().div_euclid(1_000_000);
    // jiff's range is the years -9999 to 9999, which is far inside an i64 of milliseconds.
    millis as i64
}
