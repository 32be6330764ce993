//! Requests with a number of their own each, without building each anew.

/// What is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// One call-status notification
    Status,
    /// One message with 50 CDRs
    Cdrs,
}

/// Digits that make a record unlike any other.
const DIGITS: usize = 14;
const PLACE: &str = "00000000000000";
/// Records of a batch, as many as the platform sends at most.
const BATCH: u64 = 50;

/// A whole HTTP request whose numbers are written over in place.
pub struct Template {
    bytes: Vec<u8>,
    /// Where a record's number stands, and which record of the request it is.
    places: Vec<(usize, u64)>,
    records: u64,
}

impl Template {
    pub fn new(kind: Kind, keep_alive: bool) -> Self {
        let (path, body, records) = match kind {
            Kind::Status => ("/status", status(), 1),
            Kind::Cdrs => ("/fee", cdrs(), BATCH),
        };
        let close = if keep_alive { "" } else { "Connection: close\r\n" };
        let length = body.len();
        let text = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json;charset=UTF-8\r\n{close}Content-Length: {length}\r\n\r\n{body}"
        );
        let per_record = text.matches(PLACE).count() as u64 / records;
        let places = text.match_indices(PLACE).zip(0..);
        let places = places.map(|((at, _), index)| (at, index / per_record)).collect();
        Self { bytes: text.into_bytes(), places, records }
    }

    /// The request of this number.
    pub fn request(&mut self, number: u64) -> &[u8] {
        for (at, index) in &self.places {
            let mut rest = number * self.records + index;
            for digit in self.bytes[*at..*at + DIGITS].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        &self.bytes
    }
}

fn status() -> String {
    format!(
        r#"{{"eventType":"answer","statusInfo":{{"sessionId":"1201_{PLACE}_4294967295_20260520030424@callenabler245.huaweicaas.com","timestamp":"2026-05-20 03:04:31","caller":"+8675528000002","called":"+8613800000021","userData":"order-20260520-0001"}}}}"#
    )
}

fn cdrs() -> String {
    let cdr = format!(
        r#"{{"direction":0,"spId":"acme_voice_01","appKey":"ka4kESI5demoCallbackYnEm2aaa","icid":"CAE-20260520160000-{PLACE}","bindNum":"+8675528000003","sessionId":"1201_{PLACE}_4294967295_20260520080000@callenabler245.huaweicaas.com","callerNum":"+8675528000002","calleeNum":"+8613800000021","fwdDisplayNum":"+8675528000008","fwdDstNum":"+8613800007021","callInTime":"2026-05-20 08:00:00","fwdStartTime":"2026-05-20 08:00:08","fwdAlertingTime":"2026-05-20 08:00:11","fwdAnswerTime":"2026-05-20 08:00:15","callEndTime":"2026-05-20 08:01:03","fwdUnaswRsn":0,"failTime":"","ivrStartTime":"","ivrAnswerTime":"","ivrEndTime":"","ulFailReason":0,"sipStatusCode":0,"callOutStartTime":"2026-05-20 08:00:00","callOutAlertingTime":"2026-05-20 08:00:03","callOutAnswerTime":"2026-05-20 08:00:07","callOutUnaswRsn":0,"recordFlag":0,"ttsPlayTimes":0,"ttsTransDuration":0,"serviceType":"002","hostName":"callenabler245.huaweicaas.com","userData":"order-20260520-0001"}}"#
    );
    let cdrs = vec![cdr; BATCH as usize].join(",");
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
        let mut template = Template::new(Kind::Cdrs, true);
        for number in 0..3 {
            for cdr in body(template.request(number))["feeLst"].as_array().unwrap() {
                assert!(sessions.insert(cdr["sessionId"].to_string()));
            }
        }
        assert_eq!(sessions.len(), 150);
        let mut template = Template::new(Kind::Status, false);
        let first = body(template.request(1));
        assert_ne!(first, body(template.request(2)));
    }
}
