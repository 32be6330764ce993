//! Hours, days and months of the billing time zone. Computed here and never in SQL, so that both
//! databases and every session setting agree.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit, Zoned, ZonedRound};

const HOUR_MS: i64 = 3_600_000;

/// The billing time zone.
#[derive(Debug, Clone)]
pub struct Calendar {
    zone: TimeZone,
}

/// The hour, day and month an instant belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// Start of the hour, milliseconds since 1970 UTC.
    pub hour_ms: i64,
    /// `2026-11-23`
    pub day: String,
    /// `2026-11`
    pub month: String,
}

impl Calendar {
    /// By IANA name, such as `Asia/Shanghai`.
    pub fn new(name: &str) -> Result<Self, String> {
        TimeZone::get(name).map(|zone| Self { zone }).map_err(|_| {
            format!("time_zone {name:?} is not known; use an IANA name such as Asia/Shanghai")
        })
    }

    /// The period of an instant; `None` outside of what a calendar can write.
    pub fn period(&self, instant_ms: i64) -> Option<Period> {
        let zoned = self.zoned(instant_ms)?;
        let hour = zoned
            .round(ZonedRound::new().smallest(Unit::Hour).mode(jiff::RoundMode::Trunc))
            .ok()?;
        Some(Period {
            hour_ms: hour.timestamp().as_millisecond(),
            day: zoned.strftime("%Y-%m-%d").to_string(),
            month: zoned.strftime("%Y-%m").to_string(),
        })
    }

    /// An hour as people read it: `2026-11-23T14:00:00+08:00`.
    pub fn hour_text(&self, hour_ms: i64) -> String {
        self.zoned(hour_ms)
            .map_or_else(|| hour_ms.to_string(), |zoned| zoned.strftime("%FT%T%:z").to_string())
    }

    /// Start of the day that holds `now_ms`, and of the next.
    pub fn day_around(&self, now_ms: i64) -> Option<(i64, i64)> {
        let start = self.zoned(now_ms)?.start_of_day().ok()?;
        let end = start.tomorrow().ok()?;
        Some((start.timestamp().as_millisecond(), end.timestamp().as_millisecond()))
    }

    /// The whole hours that a range touches: start moved back, end moved on to a full hour.
    pub fn whole_hours(&self, from_ms: i64, to_ms: i64) -> Option<(i64, i64)> {
        let from = self.period(from_ms)?.hour_ms;
        let to = match self.period(to_ms)?.hour_ms {
            hour if hour == to_ms => hour,
            hour => self.hour_after(hour)?,
        };
        Some((from, to))
    }

    /// The hour that comes after another one. Not the next on the clock's face: in autumn the same
    /// comes twice, and where the clock goes back by less an hour is longer than sixty minutes.
    fn hour_after(&self, hour_ms: i64) -> Option<i64> {
        let instants = (1..=2).filter_map(|hours| self.period(hour_ms + hours * HOUR_MS));
        instants.map(|period| period.hour_ms).find(|next| *next > hour_ms)
    }

    fn zoned(&self, instant_ms: i64) -> Option<Zoned> {
        let instant = Timestamp::from_millisecond(instant_ms).ok()?;
        Some(instant.to_zoned(self.zone.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("instant").as_millisecond()
    }

    #[test]
    fn hour_day_and_month_are_those_of_the_billing_time_zone() {
        let shanghai = Calendar::new("Asia/Shanghai").expect("zone");
        let period = shanghai.period(ms("2026-11-30T16:00:00.999Z")).expect("period");
        assert_eq!(period.hour_ms, ms("2026-11-30T16:00:00Z"));
        assert_eq!((period.day.as_str(), period.month.as_str()), ("2026-12-01", "2026-12"));
        assert_eq!(shanghai.hour_text(period.hour_ms), "2026-12-01T00:00:00+08:00");
        let before = shanghai.period(ms("2026-11-30T15:59:59.999Z")).expect("period");
        assert_eq!(before.month, "2026-11");
    }

    #[test]
    fn a_zone_with_half_hours_has_its_own_full_hours() {
        let kolkata = Calendar::new("Asia/Kolkata").expect("zone");
        let period = kolkata.period(ms("2026-11-23T10:29:59Z")).expect("period");
        assert_eq!(kolkata.hour_text(period.hour_ms), "2026-11-23T15:00:00+05:30");
    }

    #[test]
    fn a_range_is_widened_to_whole_hours_and_full_hours_stay() {
        let shanghai = Calendar::new("Asia/Shanghai").expect("zone");
        let hours = shanghai.whole_hours(ms("2026-11-23T10:01:00Z"), ms("2026-11-23T11:00:01Z"));
        assert_eq!(hours, Some((ms("2026-11-23T10:00:00Z"), ms("2026-11-23T12:00:00Z"))));
        let full = (ms("2026-11-23T10:00:00Z"), ms("2026-11-23T11:00:00Z"));
        assert_eq!(shanghai.whole_hours(full.0, full.1), Some(full));
    }

    #[test]
    fn a_day_with_a_change_of_the_clock_has_its_real_length() {
        let berlin = Calendar::new("Europe/Berlin").expect("zone");
        let (start, end) = berlin.day_around(ms("2026-10-25T12:00:00Z")).expect("day");
        assert_eq!(end - start, 25 * 3_600_000);
    }

    #[test]
    fn a_range_that_ends_where_the_clock_changes_is_widened_to_that_hour_alone() {
        for (zone, to, end) in [
            // Two o'clock comes twice.
            ("Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"),
            ("Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"),
            // There is no two o'clock.
            ("Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"),
            // By half an hour: one o'clock takes ninety minutes, two o'clock thirty.
            ("Australia/Lord_Howe", "2026-04-04T14:10:00Z", "2026-04-04T15:30:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T15:20:00Z", "2026-04-04T15:30:00Z"),
            ("Australia/Lord_Howe", "2026-10-03T15:40:00Z", "2026-10-03T16:00:00Z"),
        ] {
            let calendar = Calendar::new(zone).expect("zone");
            let hours = calendar.whole_hours(ms("2026-01-01T00:00:00Z"), ms(to)).expect("hours");
            assert_eq!(hours.1, ms(end), "{zone}, {to}");
        }
    }

    #[test]
    fn an_unknown_zone_is_refused_by_name() {
        assert!(Calendar::new("Mars/Olympus").expect_err("unknown").contains("time_zone"));
    }
}
