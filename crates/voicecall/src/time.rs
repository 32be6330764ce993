//! Times as the platform and the relays in front of it write them (P 3).

use std::ops::RangeInclusive;

use jiff::civil::DateTime;
use jiff::tz::Offset;

/// Years that are believed: those that ten digits of epoch seconds can express.
const YEARS: RangeInclusive<i16> = 1970..=2286;

/// Reads a time, without blanks around it, as milliseconds since 1970, UTC. `zone` is that of times
/// which name none.
///
/// Accepted: `yyyy-MM-dd`, then blanks or `T`, then `HH:mm:ss`, with an optional fraction and an
/// optional `Z` or numeric offset; or 10 digits of epoch seconds or 13 of milliseconds. What is
/// finer than a millisecond is cut off. `None` if the text is no time or outside 1970 to 2286.
pub(crate) fn parse(text: &str, zone: Offset) -> Option<i64> {
    epoch(text).or_else(|| civil(text, zone))
}

fn epoch(text: &str) -> Option<i64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match text.len() {
        10 => text.parse::<i64>().ok().map(|seconds| seconds * 1000),
        13 => text.parse().ok(),
        _ => None,
    }
}

fn civil(text: &str, zone: Offset) -> Option<i64> {
    let mut rest = Cursor(text.as_bytes());
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = rest.take()? else { return None };
    rest.separator()?;
    let [h1, h2, b':', i1, i2, b':', s1, s2] = rest.take()? else { return None };
    let millisecond = rest.fraction()?;
    let offset = rest.offset(zone)?;
    let year = number([y1, y2, y3, y4])?;
    let two_digits = |tens, ones| number([tens, ones]).map(|value| value as i8);
    let (month, day) = (two_digits(m1, m2)?, two_digits(d1, d2)?);
    let (hour, minute, second) = (two_digits(h1, h2)?, two_digits(i1, i2)?, two_digits(s1, s2)?);

    if !YEARS.contains(&year) {
        return None;
    }
    // A leap second is shown as the second before it: a call that ends in one has an end.
    let second = if second == 60 { 59 } else { second };
    let nanosecond = i32::from(millisecond) * 1_000_000;
    let wall = DateTime::new(year, month, day, hour, minute, second, nanosecond).ok()?;
    Some(offset.to_timestamp(wall).ok()?.as_millisecond())
}

/// Of digits, which must be digits.
fn number<const N: usize>(digits: [u8; N]) -> Option<i16> {
    let mut value = 0;
    for digit in digits {
        value = value * 10 + i16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    Some(value)
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) -> usize {
        let length = self.0.iter().take_while(|byte| wanted(**byte)).count();
        self.0 = &self.0[length..];
        length
    }

    /// Exactly so many bytes.
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// Between date and time.
    fn separator(&mut self) -> Option<()> {
        if matches!(self.peek()?, b'T' | b't') {
            self.0 = &self.0[1..];
            return Some(());
        }
        (self.blanks() > 0).then_some(())
    }

    fn blanks(&mut self) -> usize {
        self.skip_while(|byte| matches!(byte, b' ' | b'\t'))
    }

    /// Milliseconds of an optional fraction; a point without a digit is an error.
    fn fraction(&mut self) -> Option<i16> {
        if !matches!(self.peek(), Some(b'.' | b',')) {
            return Some(0);
        }
        self.0 = &self.0[1..];
        let digits = self.0;
        let length = self.skip_while(|byte| byte.is_ascii_digit());
        let digit = |index: usize| {
            if index < length { i16::from(digits[index] - b'0') } else { 0 }
        };
        (length > 0).then(|| digit(0) * 100 + digit(1) * 10 + digit(2))
    }

    /// `Z`, a numeric offset, or nothing; nothing may follow.
    fn offset(&mut self, zone: Offset) -> Option<Offset> {
        self.blanks();
        let sign = match self.peek() {
            None => return Some(zone),
            Some(b'Z' | b'z') => return (self.0.len() == 1).then_some(Offset::UTC),
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(_) => return None,
        };
        self.0 = &self.0[1..];
        let hours = number(self.take::<2>()?)?;
        let minutes = match self.peek() {
            None => 0,
            Some(b':') => {
                self.0 = &self.0[1..];
                number(self.take::<2>()?)?
            }
            Some(_) => number(self.take::<2>()?)?,
        };
        let valid = self.0.is_empty() && hours < 24 && minutes < 60;
        let seconds = i32::from(hours) * 3600 + i32::from(minutes) * 60;
        valid.then(|| Offset::from_seconds(sign * seconds).ok())?
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utc(text: &str) -> Option<i64> {
        parse(text, Offset::UTC)
    }

    /// 2024-05-20 03:04:24 UTC.
    const T: i64 = 1_716_174_264_000;

    #[test]
    fn every_accepted_spelling_of_one_instant_reads_the_same() {
        for text in [
            "2024-05-20 03:04:24",
            "2024-05-20  03:04:24",
            "2024-05-20 \t 03:04:24",
            "2024-05-20T03:04:24",
            "2024-05-20t03:04:24z",
            "2024-05-20T03:04:24Z",
            "2024-05-20 03:04:24 Z",
            "2024-05-20 03:04:24.0",
            "2024-05-20 03:04:24.000000000000",
            "2024-05-20 03:04:24,000",
            "2024-05-20 11:04:24+08:00",
            "2024-05-20 11:04:24 +0800",
            "2024-05-20 11:04:24+08",
            "2024-05-19T21:34:24.0-05:30",
            "1716174264",
            "1716174264000",
        ] {
            assert_eq!(utc(text), Some(T), "{text}");
        }
    }

    #[test]
    fn fractions_are_kept_to_the_millisecond_and_cut_off_there() {
        assert_eq!(utc("2024-05-20 03:04:24.5"), Some(T + 500));
        assert_eq!(utc("2024-05-20 03:04:24.1239"), Some(T + 123));
        assert_eq!(utc("2024-05-20 03:04:24.0009"), Some(T));
        assert_eq!(utc("1716174264789"), Some(T + 789));
    }

    #[test]
    fn the_zone_of_the_source_counts_only_where_the_text_names_none() {
        let beijing = Offset::from_seconds(8 * 3600).unwrap();
        assert_eq!(parse("2024-05-20 11:04:24", beijing), Some(T));
        assert_eq!(parse("2024-05-20 03:04:24Z", beijing), Some(T));
        assert_eq!(parse("2024-05-20 11:04:24+08:00", beijing), Some(T));
        assert_eq!(parse("1716174264", beijing), Some(T));
        assert_eq!(parse("1970-01-01 00:00:00", beijing), Some(-8 * 3_600_000));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "-",
            "now",
            "2024-05-20",
            "2024-05-2003:04:24",
            "2024-05-20 03:04",
            "2024-05-20 03:04:24.",
            "2024-05-20 03:04:24 x",
            "2024-05-20 03:04:24Z0",
            "2024-05-20 03:04:24+8",
            "2024-05-20 03:04:24+24:00",
            "2024-05-20 03:04:24+08:60",
            "2024-05-20 03:04:24+08:",
            "2024-05-20 03:04:24+08:00:00",
            "2024-13-20 03:04:24",
            "2024-00-20 03:04:24",
            "2023-02-29 03:04:24",
            "2024-05-20 24:00:00",
            "2024-05-20 03:60:24",
            "2024-05-20 03:04:61",
            "0000-00-00 00:00:00",
            "1969-12-31 23:59:59",
            "2287-01-01 00:00:00",
            "2024/05/20 03:04:24",
            "20240520030424",
            "171617426",
            "17161742640",
            "-1716174264",
            "1716174264.5",
            "２０２４-05-20 03:04:24",
        ] {
            assert_eq!(utc(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_instant_is_read_as_it_was_written(seconds in 0..9_999_999_999_i64) {
            let instant = jiff::Timestamp::from_second(seconds).unwrap();
            prop_assert_eq!(utc(&instant.strftime("%F %T").to_string()), Some(seconds * 1000));
        }

        #[test]
        fn one_wrong_character_makes_no_time(at in 0..19_usize, with in "[^0-9]") {
            let text = "2024-05-20 03:04:24";
            let wrong = format!("{}{with}{}", &text[..at], &text[at + 1..]);
            let blank = at == 10 && matches!(&*with, " " | "\t" | "t" | "T");
            prop_assert_eq!(utc(&wrong).is_some(), blank || wrong == text, "{}", wrong);
        }
    }

    #[test]
    fn leap_days_and_leap_seconds_exist() {
        assert!(utc("2024-02-29 00:00:00").is_some());
        assert_eq!(utc("2016-12-31 23:59:60"), utc("2016-12-31 23:59:59"));
    }
}
