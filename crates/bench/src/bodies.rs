//! Requests with a number of their own each, without building each anew.

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};

/// What is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// One call-status notification, each of another call
    Status,
    /// One message with 50 CDRs
    Cdrs,
    /// The four statuses of each call, one a message
    Calls,
    /// The four statuses of each call and its CDR, one a message
    Whole,
}

impl Kind {
    /// As the command line says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Cdrs => "cdrs",
            Self::Calls => "calls",
            Self::Whole => "whole",
        }
    }
}

/// Digits that make a call unlike any other.
const SESSION: &str = "00000000000000";
/// Digits of the party that is called first, and of the one that is called then.
const CALLER: &str = "11111111";
const CALLED: &str = "22222222";
/// How many of each there are: agents of some companies, and whom they call.
const CALLERS: u64 = 20_000;
const CALLEES: u64 = 1_000_000;
/// Records of a batch, as many as the platform sends at most.
pub const BATCH: u64 = 50;
/// As many calls begin before the second message of the first one comes.
pub const CALLS_AT_A_TIME: u64 = 1000;

/// Whole HTTP requests whose numbers are written over in place, one for each stage of a call.
pub struct Template {
    stages: Vec<Request>,
}

struct Request {
    bytes: Vec<u8>,
    /// Where digits stand, which they are, and which record of the request they are of.
    places: Vec<(usize, Digits, u64)>,
    records: u64,
}

#[derive(Clone, Copy)]
enum Digits {
    Session,
    Caller,
    Called,
}

impl Template {
    /// Calls begin at this time, the later stages of each a second apart.
    pub fn new(kind: Kind, keep_alive: bool, begin: Timestamp) -> Self {
        let stages = bodies(kind, begin).into_iter();
        let stages = stages.map(|(path, body)| Request::new(path, &body, keep_alive)).collect();
        Self { stages }
    }

    /// The request of this number.
    pub fn request(&mut self, number: u64) -> &[u8] {
        let (stage, call) = stage_of(number, self.stages.len() as u64);
        let request = &mut self.stages[stage as usize];
        for (at, digits, index) in &request.places {
            let call = call * request.records + index;
            let (mut rest, length) = match digits {
                Digits::Session => (call, SESSION.len()),
                Digits::Caller => (scatter(call) % CALLERS, CALLER.len()),
                Digits::Called => (scatter(call + 1) % CALLEES, CALLED.len()),
            };
            for digit in request.bytes[*at..*at + length].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        &request.bytes
    }
}

impl Request {
    fn new(path: &str, body: &str, keep_alive: bool) -> Self {
        let close = if keep_alive { "" } else { "Connection: close\r\n" };
        let length = body.len();
        let text = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json;charset=UTF-8\r\n{close}Content-Length: {length}\r\n\r\n{body}"
        );
        let records = text.matches("sessionId").count() as u64;
        let mut places = Vec::new();
        for (pattern, digits) in
            [(SESSION, Digits::Session), (CALLER, Digits::Caller), (CALLED, Digits::Called)]
        {
            let per_record = (text.matches(pattern).count() as u64 / records).max(1);
            let found = text.match_indices(pattern).zip(0..);
            places.extend(found.map(|((at, _), index)| (at, digits, index / per_record)));
        }
        Self { bytes: text.into_bytes(), places, records }
    }
}

/// Which stage of which call a request is: calls go on together, a thousand at a time.
pub fn stage_of(number: u64, stages: u64) -> (u64, u64) {
    let group = CALLS_AT_A_TIME * stages;
    let (block, within) = (number / group, number % group);
    (within / CALLS_AT_A_TIME, block * CALLS_AT_A_TIME + within % CALLS_AT_A_TIME)
}

/// The session id of a call.
pub fn session_of(call: u64) -> String {
    format!("1201_{call:014}_4294967295_20260520030424@callenabler245.huaweicaas.com")
}

/// The number of the call in a session id.
pub fn call_of(session: &str) -> Option<u64> {
    session.split('_').nth(1)?.parse().ok()
}

/// Spreads neighbours over the whole range: the finalizer of SplitMix64.
fn scatter(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Path and body of each stage.
pub fn bodies(kind: Kind, begin: Timestamp) -> Vec<(&'static str, String)> {
    let stages = ["callout", "alerting", "answer", "disconnect"];
    let statuses =
        || (0..).zip(stages).map(|(at, event)| ("/status", status(event, &clock(begin, at))));
    match kind {
        Kind::Status => vec![("/status", status("answer", &clock(begin, 0)))],
        Kind::Cdrs => vec![("/fee", cdrs(BATCH, begin))],
        Kind::Calls => statuses().collect(),
        Kind::Whole => statuses().chain([("/fee", cdrs(1, begin))]).collect(),
    }
}

/// A clock text, so many seconds later; UTC, whole seconds.
fn clock(begin: Timestamp, seconds: i64) -> String {
    let instant = begin + SignedDuration::from_secs(seconds);
    instant.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn status(event: &str, time: &str) -> String {
    let mut more = String::new();
    if event == "disconnect" {
        // Writing to a string cannot fail.
        let _ = write!(more, r#","stateCode":0,"stateDesc":"The user releases the call.""#);
    }
    let session = session_of(0);
    format!(
        r#"{{"eventType":"{event}","statusInfo":{{"sessionId":"{session}","timestamp":"{time}","caller":"+86755{CALLER}","called":"+86138{CALLED}","userData":"order-20260520-0001"{more}}}}}"#
    )
}

fn cdrs(records: u64, end: Timestamp) -> String {
    let session = session_of(0);
    let [call_in, out_ring, out_answer, forward, ring, answer, end] =
        [-63, -60, -56, -55, -52, -48, 0].map(|seconds| clock(end, seconds));
    let cdr = format!(
        r#"{{"direction":0,"spId":"acme_voice_01","appKey":"ka4kESI5demoCallbackYnEm2aaa","icid":"CAE-20260520160000-{SESSION}","bindNum":"+8675528000003","sessionId":"{session}","callerNum":"+86755{CALLER}","calleeNum":"+86138{CALLED}","fwdDisplayNum":"+8675528000008","fwdDstNum":"+86138{CALLED}","callInTime":"{call_in}","fwdStartTime":"{forward}","fwdAlertingTime":"{ring}","fwdAnswerTime":"{answer}","callEndTime":"{end}","fwdUnaswRsn":0,"failTime":"","ivrStartTime":"","ivrAnswerTime":"","ivrEndTime":"","ulFailReason":0,"sipStatusCode":0,"callOutStartTime":"{call_in}","callOutAlertingTime":"{out_ring}","callOutAnswerTime":"{out_answer}","callOutUnaswRsn":0,"recordFlag":0,"ttsPlayTimes":0,"ttsTransDuration":0,"serviceType":"002","hostName":"callenabler245.huaweicaas.com","userData":"order-20260520-0001"}}"#
    );
    let cdrs = vec![cdr; records as usize].join(",");
    format!(r#"{{"eventType":"fee","feeLst":[{cdrs}]}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(request: &[u8]) -> serde_json::Value {
        let text = std::str::from_utf8(request).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn every_record_of_every_request_has_a_session_of_its_own() {
        let mut sessions = std::collections::HashSet::new();
        let mut template = Template::new(Kind::Cdrs, true, Timestamp::UNIX_EPOCH);
        for number in 0..3 {
            for cdr in body(template.request(number))["feeLst"].as_array().unwrap() {
                assert!(sessions.insert(cdr["sessionId"].to_string()));
                assert_eq!(cdr["calleeNum"], cdr["fwdDstNum"]);
            }
        }
        assert_eq!(sessions.len(), 150);
        let mut template = Template::new(Kind::Status, false, Timestamp::UNIX_EPOCH);
        let first = body(template.request(1));
        assert_ne!(first, body(template.request(2)));
    }

    #[test]
    fn the_messages_of_a_call_name_the_same_session_and_parties() {
        let mut template = Template::new(Kind::Whole, true, Timestamp::UNIX_EPOCH);
        let mut message = |stage: u64| body(template.request(CALLS_AT_A_TIME * stage + 7));
        let first = message(0)["statusInfo"].clone();
        assert_eq!(first["sessionId"], session_of(7));
        assert_eq!(call_of(&session_of(7)), Some(7));
        for stage in 1..4 {
            let status = message(stage)["statusInfo"].clone();
            assert_eq!(status["sessionId"], first["sessionId"]);
            assert_eq!(status["called"], first["called"]);
            assert_ne!(status["timestamp"], first["timestamp"]);
        }
        let cdr = message(4)["feeLst"][0].clone();
        assert_eq!(cdr["sessionId"], first["sessionId"]);
        assert_eq!(cdr["callerNum"], first["caller"]);
        assert_eq!(stage_of(CALLS_AT_A_TIME * 5 + 1, 5), (0, CALLS_AT_A_TIME + 1));
    }
}
