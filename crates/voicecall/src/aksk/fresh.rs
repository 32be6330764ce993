//! How old a signature is.

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

/// Beijing time, which newer platforms write with a `Z` behind it (P 2.2).
const BEIJING_SECONDS: i32 = 8 * 3600;

/// Whether `created` is within `tolerance` of `now`, before or after, read as UTC or as the wall
/// clock of Beijing. Text that is no time is not fresh.
pub fn created_is_fresh(created: &str, now: Timestamp, tolerance: SignedDuration) -> bool {
    let created = created.trim();
    let Ok(wall) = created.strip_suffix(['Z', 'z']).unwrap_or(created).parse::<DateTime>() else {
        return false;
    };
    let near = |offset: Offset| {
        offset
            .to_timestamp(wall)
            .is_ok_and(|instant| now.duration_since(instant).abs() <= tolerance)
    };
    near(Offset::UTC) || Offset::from_seconds(BEIJING_SECONDS).is_ok_and(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_counts_as_utc_and_as_beijing_time_and_as_nothing_else() {
        let now: Timestamp = "2026-01-27T04:00:00Z".parse().unwrap();
        let fresh = |text| created_is_fresh(text, now, SignedDuration::from_mins(5));
        assert!(fresh("2026-01-27T04:00:00Z"));
        assert!(fresh("2026-01-27T03:55:00Z"));
        assert!(fresh("2026-01-27T04:05:00Z"));
        assert!(fresh("2026-01-27T12:00:00Z"));
        assert!(fresh(" 2026-01-27T12:05:00 "));
        for text in [
            "2026-01-27T03:54:59Z",
            "2026-01-27T12:05:01Z",
            "2026-01-27T08:00:00Z",
            "2026-01-26T20:00:00Z",
            "2026-01-28T04:00:00Z",
            "9999-12-31T23:59:59Z",
            "yesterday",
            "",
            "Z",
        ] {
            assert!(!fresh(text), "{text}");
        }
    }
}
