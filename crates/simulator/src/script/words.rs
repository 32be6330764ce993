//! Texts in the shapes that the platform and its customers use (P 3).

use jiff::Timestamp;
use jiff::tz::Offset;
use rand::Rng;
use rand::seq::IndexedRandom as _;

/// Host of session ids and records.
pub(crate) const HOST: &str = "callenabler245.huaweicaas.com";

/// Number shown to A.
pub(crate) const SHOWN_TO_A: &str = "+8675528000002";
/// Number shown to B.
pub(crate) const SHOWN_TO_B: &str = "+8675528000008";
/// Business number.
pub(crate) const BUSINESS: &str = "+8675528000003";
/// The customer's account.
pub(crate) const ACCOUNT: &str = "acme_voice_01";

/// A mobile number of the pool, 0 to 99999.
pub(crate) fn mobile(index: u32) -> String {
    format!("+86138000{:05}", index % 100_000)
}

/// `yyyy-MM-dd HH:mm:ss` in UTC, with one blank or two.
pub(crate) fn time(seconds: i64, double_blank: bool) -> String {
    let blanks = if double_blank { "  " } else { " " };
    let at = wall(seconds, Offset::UTC);
    format!("{}{blanks}{}", at.strftime("%Y-%m-%d"), at.strftime("%H:%M:%S"))
}

/// 14 digits of UTC, as in session ids.
pub(crate) fn digits_utc(seconds: i64) -> String {
    wall(seconds, Offset::UTC).strftime("%Y%m%d%H%M%S").to_string()
}

/// 14 digits of Beijing time, as in record ids.
pub(crate) fn digits_beijing(seconds: i64) -> String {
    wall(seconds, Offset::constant(8)).strftime("%Y%m%d%H%M%S").to_string()
}

/// `yyyy-MM-ddTHH:mm:ssZ`, in UTC or in Beijing time in spite of its `Z` (P 2.2).
pub(crate) fn created(seconds: i64, beijing: bool) -> String {
    let offset = if beijing { Offset::constant(8) } else { Offset::UTC };
    wall(seconds, offset).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn wall(seconds: i64, offset: Offset) -> jiff::civil::DateTime {
    offset.to_datetime(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// What customers send along with a call: at times the number that they call.
pub(crate) fn user_data(index: u64, number: &str, rng: &mut impl Rng) -> Option<String> {
    let variants = [
        None,
        Some(format!("order-20261123-{index:04}")),
        Some(format!("订单{index}：已发货")),
        Some(format!("回访🙂📞 {index}")),
        Some(format!("%E8%AE%A2%E5%8D%95-{index}+1%20a")),
        Some(format!(r#"{{"order":{index},"tags":["a/b","\"c\""],"note":"第一\n第二"}}"#)),
        Some(format!(" {index}\tend ")),
        Some(format!("{number}, {}", number.trim_start_matches('+'))),
    ];
    variants.choose(rng).cloned().flatten()
}
