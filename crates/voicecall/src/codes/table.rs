//! The tables, parsed once.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

const RELEASE_CODES: &str = include_str!("../../tables/release-codes.csv");

/// Codes of one kind: exact rows first, then ranges.
#[derive(Debug, Default)]
struct Table {
    exact: HashMap<i32, String>,
    ranges: Vec<(RangeInclusive<i32>, String)>,
}

impl Table {
    fn meaning(&self, code: i32) -> Option<&str> {
        let range = || self.ranges.iter().find(|(range, _)| range.contains(&code));
        let meaning = self.exact.get(&code).or_else(|| range().map(|(_, meaning)| meaning));
        meaning.map(String::as_str)
    }

    fn add(&mut self, code: &str, meaning: String) -> Option<()> {
        match code.split_once('-') {
            Some((first, last)) => {
                self.ranges.push((first.parse().ok()?..=last.parse().ok()?, meaning));
            }
            None => {
                self.exact.insert(code.parse().ok()?, meaning);
            }
        }
        Some(())
    }
}

static RELEASE: LazyLock<HashMap<String, Table>> = LazyLock::new(|| {
    let mut tables: HashMap<String, Table> = HashMap::new();
    let rows = csv::Reader::from_reader(RELEASE_CODES.as_bytes()).into_deserialize();
    // Every row of the committed file parses; a test counts them.
    for [kind, code, meaning] in rows.filter_map(Result::<[String; 3], _>::ok) {
        let _ = tables.entry(kind).or_default().add(&code, meaning);
    }
    tables
});

fn meaning(kind: &str, code: i32) -> Option<&'static str> {
    RELEASE.get(kind)?.meaning(code)
}

/// A Q.850 cause (fwdUnaswRsn, callOutUnaswRsn) in English.
pub fn q850(cause: i32) -> Option<&'static str> {
    meaning("q850", cause)
}

/// A release point (ulFailReason) in English: exact rows first; otherwise 400 to 699 is a SIP
/// status, 2901 to 2914 a failed recording.
pub fn release_reason(code: i32) -> Option<&'static str> {
    meaning("ul_fail_reason", code)
}

/// A hang-up cause (stateCode) in English.
pub fn state_code(code: i32) -> Option<&'static str> {
    meaning("state_code", code)
}

/// Whether a release point has a row of its own, rather than being a SIP status by its range.
pub(super) fn is_exact_release_reason(code: i32) -> bool {
    RELEASE.get("ul_fail_reason").is_some_and(|table| table.exact.contains_key(&code))
}

/// The name of a SIP status that ends a call (RFC 3261 and extensions).
pub fn sip_status(code: i32) -> Option<&'static str> {
    Some(match code {
        400 => "bad request",
        401 => "unauthorised",
        403 => "forbidden",
        404 => "not found",
        405 => "method not allowed",
        406 | 606 => "not acceptable",
        407 => "proxy authentication required",
        408 => "request timed out",
        410 => "gone",
        415 => "unsupported media type",
        420 => "bad extension",
        422 => "session interval too small",
        433 => "anonymity disallowed",
        480 => "temporarily unavailable",
        481 => "call does not exist",
        482 => "loop detected",
        483 => "too many hops",
        484 => "address incomplete",
        485 => "ambiguous",
        486 => "busy here",
        487 => "request terminated",
        488 => "not acceptable here",
        500 => "server internal error",
        501 => "not implemented",
        502 => "bad gateway",
        503 => "service unavailable",
        504 => "server timed out",
        513 => "message too large",
        580 => "precondition failure",
        600 => "busy everywhere",
        603 => "decline",
        604 => "does not exist anywhere",
        607 => "unwanted",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_files_is_in_a_table() {
        let count = |kind: &str| RELEASE[kind].exact.len() + RELEASE[kind].ranges.len();
        assert_eq!((count("q850"), count("ul_fail_reason"), count("state_code")), (70, 141, 60));
        assert_eq!(RELEASE.len(), 3);
        assert_eq!(RELEASE_CODES.lines().count() - 1, 70 + 141 + 60);
    }

    #[test]
    fn meanings_are_found_by_kind() {
        assert_eq!(q850(17), Some("user busy"));
        assert_eq!(release_reason(0), Some("hung up normally after the call was connected"));
        assert_eq!(state_code(8104), Some("callee powered off (off, flight mode or no network)"));
        assert_eq!(state_code(8003), Some("ringing timed out"));
        assert_eq!(state_code(514), None);
        assert_eq!(q850(9999), None);
    }

    #[test]
    fn exact_rows_come_before_the_range_they_lie_in() {
        assert_eq!(release_reason(513), Some("call timed out"));
        assert!(release_reason(404).unwrap().contains("SIP status"));
        assert!(release_reason(511).unwrap().contains("SIP status"));
        assert!(release_reason(699).is_some());
        assert_eq!(release_reason(700), None);
        assert_eq!(release_reason(399), None);
        assert_eq!(release_reason(2901), Some("recording failed"));
        assert_eq!(release_reason(2914), Some("recording failed"));
        assert_eq!(release_reason(2915), None);
    }
}
