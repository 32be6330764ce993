//! Instants between jiff, protobuf and milliseconds.

use std::ops::Range;

use jiff::Timestamp;
use jiff::tz::Offset;

const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// An instant that the other side cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("instant is out of range: expected one from 0001-01-01 to 9999-12-30T22:00:00Z")]
pub struct OutOfRange;

/// First instant of the year 1: the earliest that protobuf's Timestamp and RFC 3339 allow.
const EARLIEST_MS: i64 = -62_135_596_800_000;
/// The end of what jiff holds, which leaves room in the year 9999 for every UTC offset.
const END_MS: i64 = 253_402_207_200_000;

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

/// Reads the protobuf form. A fraction outside of [0, 1) second is an error, and so is an instant
/// before the year 1 or in the last hours of the year 9999.
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
    let millis = i128::from(instant.seconds) * 1000;
    let fraction = i128::from(instant.nanos.div_euclid(1_000_000));
    i64::try_from(millis + fraction).ok()
}

/// RFC 3339 in UTC, such as `2019-01-24T03:04:24Z`, with as much of a fraction as there is. `None`
/// before the year 1 and in the last hours of the year 9999.
///
/// Every record has such a header; jiff's printer, which can do more, takes twice as long.
pub fn rfc3339(millis: i64) -> Option<String> {
    if !(EARLIEST_MS..END_MS).contains(&millis) {
        return None;
    }
    let instant = Offset::UTC.to_datetime(Timestamp::from_millisecond(millis).ok()?);
    let mut text = *b"YYYY-MM-DDThh:mm:ss.fffZ";
    let mut put = |place: Range<usize>, mut number: i16| {
        for digit in text[place].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    put(0..4, instant.year());
    put(5..7, instant.month().into());
    put(8..10, instant.day().into());
    put(11..13, instant.hour().into());
    put(14..16, instant.minute().into());
    put(17..19, instant.second().into());
    put(20..23, instant.millisecond());
    let end = match instant.millisecond() {
        0 => 19,
        fraction if fraction % 100 == 0 => 21,
        fraction if fraction % 10 == 0 => 22,
        _ => 23,
    };
    text[end] = b'Z';
    std::str::from_utf8(&text[..=end]).ok().map(str::to_owned)
}

/// Milliseconds since 1970 UTC, finer fractions cut off towards the past.
pub fn to_millis(instant: Timestamp) -> i64 {
    let millis = instant.as_nanosecond().div_euclid(1_000_000);
    // jiff's range is the years -9999 to 9999, which is far inside an i64 of milliseconds.
    millis as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_instant_survives_protobuf(
            seconds in EARLIEST_MS / 1000..END_MS / 1000,
            nanos in 0..NANOS_PER_SECOND,
        ) {
            let proto = prost_types::Timestamp { seconds, nanos };
            let instant = from_proto(&proto).unwrap();
            prop_assert_eq!(to_proto(instant), proto);
            prop_assert_eq!(Some(to_millis(instant)), proto_to_millis(&proto));
        }

        #[test]
        fn milliseconds_survive_protobuf(millis in any::<i64>()) {
            let proto = proto_from_millis(millis);
            prop_assert!((0..NANOS_PER_SECOND).contains(&proto.nanos));
            prop_assert_eq!(proto_to_millis(&proto), Some(millis));
        }

        #[test]
        fn the_text_of_an_instant_is_read_back_as_the_same_instant(
            millis in EARLIEST_MS..END_MS,
        ) {
            for millis in [millis, millis - millis % 10, millis - millis % 100, millis - millis % 1000] {
                let text = rfc3339(millis).unwrap();
                prop_assert_eq!(to_millis(text.parse().unwrap()), millis);
                prop_assert_eq!(text, Timestamp::from_millisecond(millis).unwrap().to_string());
            }
        }
    }

    #[test]
    fn fractions_before_1970_count_forward() {
        let proto = to_proto(Timestamp::new(-1, -500_000_000).unwrap());
        assert_eq!((proto.seconds, proto.nanos), (-2, 500_000_000));
        assert_eq!(proto_to_millis(&proto), Some(-1500));
        assert_eq!(rfc3339(-1500).as_deref(), Some("1969-12-31T23:59:58.5Z"));
    }

    #[test]
    fn instants_that_protobuf_does_not_allow_are_refused() {
        for (seconds, nanos) in [(0, -1), (0, NANOS_PER_SECOND), (END_MS / 1000, 0), (i64::MIN, 0)]
        {
            let proto = prost_types::Timestamp { seconds, nanos };
            assert_eq!(from_proto(&proto), Err(OutOfRange), "{seconds} {nanos}");
        }
        assert_eq!(proto_to_millis(&prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), None);
    }

    #[test]
    fn years_that_rfc_3339_cannot_write_have_no_text() {
        assert_eq!(rfc3339(EARLIEST_MS).as_deref(), Some("0001-01-01T00:00:00Z"));
        assert_eq!(rfc3339(EARLIEST_MS - 1), None);
        assert_eq!(rfc3339(END_MS - 1).as_deref(), Some("9999-12-30T21:59:59.999Z"));
        assert_eq!(rfc3339(END_MS), None);
    }
}
