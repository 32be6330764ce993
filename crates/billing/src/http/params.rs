//! Questions as they are asked.

use jiff::Timestamp;
use serde::Deserialize;
use tollgate_runtime::query::{Refusal, read};
use tollgate_schema::ids::RecordId;
use tollgate_schema::time;

use crate::calendar::Calendar;
use crate::store::{Cursor, Groups, Span};

/// Longest range asked for by the hour, in days: 31 days of hours are some thousand rows.
const MAX_HOURS_DAYS: i64 = 93;
const DAY_MS: i64 = 24 * 3_600_000;
/// Most entries of one page of the ledger.
const MAX_PAGE: usize = 10_000;
const DEFAULT_PAGE: usize = 1_000;

const USAGE_HINT: &str = "GET /v1/usage takes from and to (RFC 3339, such as \
    2026-11-23T00:00:00Z) and group_by: hour, day or month, then any of application, service, \
    status, separated by commas";
const CHARGES_HINT: &str = "GET /v1/charges takes session_id or record_id";
const LEDGER_HINT: &str = "GET /v1/ledger takes after (a cursor) and limit (1 to 10000)";

/// A question about usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageQuery {
    /// Start of the first hour, milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// End of the last hour.
    pub to_ms: i64,
    /// What rows are told apart by.
    pub groups: Groups,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageParams {
    from: Option<String>,
    to: Option<String>,
    group_by: Option<String>,
}

impl UsageQuery {
    /// Reads the question; without a range it is today, in the billing time zone. A range that
    /// cuts an hour is widened to the whole of it.
    pub fn read(query: &str, calendar: &Calendar, now_ms: i64) -> Result<Self, Refusal> {
        let params: UsageParams = read(query, USAGE_HINT)?;
        let odd = |what: &str| Refusal::invalid(what, USAGE_HINT);
        let today = || calendar.day_around(now_ms).ok_or_else(|| odd("today is out of range"));
        let from_ms = match &params.from {
            Some(text) => instant(text).ok_or_else(|| odd("from is not an RFC 3339 instant"))?,
            None => today()?.0,
        };
        let to_ms = match &params.to {
            Some(text) => instant(text).ok_or_else(|| odd("to is not an RFC 3339 instant"))?,
            None => today()?.1,
        };
        if from_ms >= to_ms {
            return Err(odd(match (&params.from, &params.to) {
                (None, _) => {
                    "to is not after the beginning of today in billing.time_zone, which is from \
                     where none is given; give from as well"
                }
                (_, None) => {
                    "from is not before the end of today in billing.time_zone, which is to where \
                     none is given; give to as well"
                }
                (Some(_), Some(_)) => "from is not before to",
            }));
        }
        let (from_ms, to_ms) = calendar
            .whole_hours(from_ms, to_ms)
            .ok_or_else(|| odd("from or to is out of the calendar's range"))?;
        let mut groups =
            Groups { span: Span::Day, by_application: false, by_service: false, by_status: false };
        for (index, word) in params.group_by.as_deref().unwrap_or("day").split(',').enumerate() {
            match (index, word) {
                (0, "hour") => groups.span = Span::Hour,
                (0, "day") => groups.span = Span::Day,
                (0, "month") => groups.span = Span::Month,
                (0, _) => return Err(odd("group_by does not begin with hour, day or month")),
                (_, "application") => groups.by_application = true,
                (_, "service") => groups.by_service = true,
                (_, "status") => groups.by_status = true,
                _ => return Err(odd("group_by has a word that is not known")),
            }
        }
        if groups.span == Span::Hour && to_ms.saturating_sub(from_ms) > MAX_HOURS_DAYS * DAY_MS {
            return Err(Refusal::invalid(
                "more than 93 days by the hour",
                "group by day or month instead",
            ));
        }
        Ok(Self { from_ms, to_ms, groups })
    }
}

/// A question about charges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargesParams {
    /// Of a session.
    Session(String),
    /// Of a record.
    Record(RecordId),
}

impl ChargesParams {
    /// Reads the question: exactly one of the two.
    pub fn read(query: &str) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Params {
            session_id: Option<String>,
            record_id: Option<String>,
        }
        let params: Params = read(query, CHARGES_HINT)?;
        match (params.session_id, params.record_id) {
            (Some(session_id), None) if !session_id.is_empty() => Ok(Self::Session(session_id)),
            (None, Some(text)) => RecordId::from_hex(&text).map(Self::Record).map_err(|_| {
                Refusal::invalid(
                    "record_id is not 32 lower-case hexadecimal digits",
                    "take it from a CallDetailRecord, a RatedCdr or the ledger",
                )
            }),
            _ => Err(Refusal::invalid("give one of session_id and record_id", CHARGES_HINT)),
        }
    }
}

/// A question for a page of the ledger.
pub struct LedgerParams;

impl LedgerParams {
    /// Reads the question: where to go on, and how many entries.
    pub fn read(query: &str) -> Result<(Option<Cursor>, usize), Refusal> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Params {
            after: Option<String>,
            limit: Option<usize>,
        }
        let params: Params = read(query, LEDGER_HINT)?;
        let after = params.after.filter(|after| !after.is_empty());
        let after = after.map(|after| after.parse()).transpose()?;
        let limit = params.limit.unwrap_or(DEFAULT_PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Refusal::invalid("limit is not between 1 and 10000", LEDGER_HINT));
        }
        Ok((after, limit))
    }
}

fn instant(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(time::to_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(query: &str) -> Result<UsageQuery, Refusal> {
        let calendar = Calendar::new("Asia/Shanghai").expect("zone");
        let now = instant("2026-11-23T10:00:00Z").expect("instant");
        UsageQuery::read(query, &calendar, now)
    }

    #[test]
    fn usage_defaults_to_today_by_day() {
        let query = usage("").expect("valid");
        assert_eq!(Some(query.from_ms), instant("2026-11-22T16:00:00Z"));
        assert_eq!(Some(query.to_ms), instant("2026-11-23T16:00:00Z"));
        let by_day =
            Groups { span: Span::Day, by_application: false, by_service: false, by_status: false };
        assert_eq!(query.groups, by_day);
    }

    #[test]
    fn a_range_with_an_offset_and_groups_is_read_also_with_a_bare_plus() {
        for plus in ["+", "%2B"] {
            let query = usage(&format!(
                "from=2026-11-01T00:00:00{plus}08:00&to=2026-11-02T00:00:00{plus}08:00\
                 &group_by=hour,application,status"
            ))
            .expect("valid");
            assert_eq!(Some(query.from_ms), instant("2026-10-31T16:00:00Z"));
            let groups = Groups {
                span: Span::Hour,
                by_application: true,
                by_service: false,
                by_status: true,
            };
            assert_eq!(query.groups, groups);
        }
    }

    #[test]
    fn odd_questions_are_refused_with_the_name_of_the_parameter() {
        for (query, word) in [
            ("from=yesterday", "from"),
            ("to=2026-11-23", "to"),
            ("from=2026-11-24T00:00:00Z&to=2026-11-23T00:00:00Z", "from"),
            ("group_by=week", "group_by"),
            ("group_by=application", "group_by"),
            ("group_by=day,number", "group_by"),
            ("form=x", "parameter"),
            ("from=2025-01-01T00:00:00Z&group_by=hour", "hour"),
        ] {
            let error = usage(query).expect_err("refused").to_string();
            assert!(error.contains(word), "{query}: {error}");
        }
    }

    #[test]
    fn a_range_of_which_one_end_is_today_names_the_end_to_give() {
        let today = "today in billing.time_zone";
        let error = usage("to=2026-11-22T16:00:00Z").expect_err("refused").to_string();
        assert!(error.contains(today) && error.contains("give from as well"), "{error}");
        let error = usage("from=2026-11-23T16:00:00Z").expect_err("refused").to_string();
        assert!(error.contains(today) && error.contains("give to as well"), "{error}");
        assert!(usage("to=2026-11-22T16:00:01Z").is_ok());
        assert!(usage("from=2026-11-23T15:59:59Z").is_ok());
    }

    #[test]
    fn one_of_session_and_record_is_needed_and_a_plus_stays_a_plus() {
        assert_eq!(
            ChargesParams::read("session_id=+8613_+8614@host"),
            Ok(ChargesParams::Session("+8613_+8614@host".to_owned()))
        );
        assert_eq!(
            ChargesParams::read("session_id=a%2Bb%00"),
            Ok(ChargesParams::Session("a+b\0".to_owned()))
        );
        assert!(ChargesParams::read("").is_err());
        assert!(ChargesParams::read("session_id=").is_err());
        assert!(ChargesParams::read("session_id=a&record_id=b").is_err());
    }

    #[test]
    fn a_page_has_a_cursor_and_a_bounded_size() {
        let cursor = Cursor { source: [0xab; 16], position: 17 };
        let query = format!("after={cursor}&limit=5");
        assert_eq!(LedgerParams::read(&query), Ok((Some(cursor), 5)));
        assert_eq!(LedgerParams::read(""), Ok((None, DEFAULT_PAGE)));
        for odd in ["limit=0", "limit=10001", "after=x", "after=abc-1", "limit=-1"] {
            assert!(LedgerParams::read(odd).is_err(), "{odd}");
        }
    }
}
