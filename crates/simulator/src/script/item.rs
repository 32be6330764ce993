//! CDRs as they are sent (P 5).

use serde_json::Value;

use super::call::Call;
use super::style::{Object, write};
use super::words;
use crate::Service;

/// Most records in one message.
pub(crate) const MERGED_AT_MOST: usize = 50;

/// The body that carries these records.
pub(crate) fn message<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let mut body = String::from(r#"{"eventType":"fee","feeLst":["#);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(item);
    }
    body.push_str("]}");
    body
}

impl Call {
    /// Its record.
    pub fn item(&self) -> String {
        write(&self.record(), self.style)
    }

    /// A record that nobody can read: a text field holds an object. The rest looks like a record
    /// of this call, and must not be taken for one.
    pub fn malformed_item(&self) -> Option<String> {
        if !self.has_malformed_neighbour {
            return None;
        }
        let mut record = self.record();
        record["sessionId"] = serde_json::json!({"id": self.index, "run": self.tag});
        Some(write(&record, self.style))
    }

    fn record(&self) -> Value {
        let course = &self.course;
        let codes = course.ending.codes();
        let at = |offset: i64| self.begins_at + offset;
        let ends = at(course.ends);
        let mut item = Object::new(self.style);
        item.integer("direction", 0);
        item.text("spId", words::ACCOUNT);
        item.text("appKey", &self.app_key);
        item.optional_text("icid", self.icid.as_deref());
        item.text("bindNum", words::BUSINESS);
        item.text("sessionId", &self.session_id);
        item.text("callerNum", words::SHOWN_TO_A);
        item.text("calleeNum", &self.number_a);
        if let (Some(leg), Some(number)) = (&course.b, &self.number_b) {
            item.text("fwdDisplayNum", words::SHOWN_TO_B);
            item.text("fwdDstNum", number);
            item.time("fwdStartTime", at(leg.started));
            item.optional_time("fwdAlertingTime", leg.alerting.map(at));
            item.optional_time("fwdAnswerTime", leg.answered.map(at));
        } else if self.style.empty_for_absent {
            item.text("fwdDstNum", "");
            item.text("fwdAnswerTime", "");
        }
        // A call that was refused before dialling has a time of failure and no other.
        item.optional_time("callEndTime", course.a.is_some().then_some(ends));
        item.integer("fwdUnaswRsn", codes.cause_b);
        item.integer("ulFailReason", codes.release);
        item.integer("sipStatusCode", codes.sip);
        if let Some(leg) = &course.a {
            item.time("callOutStartTime", at(leg.started));
            item.optional_time("callOutAlertingTime", leg.alerting.map(at));
            item.optional_time("callOutAnswerTime", leg.answered.map(at));
        }
        item.integer("callOutUnaswRsn", codes.cause_a);
        item.integer("recordFlag", i32::from(self.is_recorded));
        item.integer("ttsPlayTimes", self.tts.0);
        item.integer("ttsTransDuration", self.tts.1);
        item.text("serviceType", self.service_type());
        item.text("hostName", words::HOST);
        if self.is_recorded {
            item.optional_time("recordStartTime", self.recording_starts_at());
            item.text("recordObjectName", &self.recording_name());
            item.text("recordBucketName", BUCKET);
            item.text("recordDomain", STORAGE);
            item.text("recordFileDownloadUrl", "");
        }
        if !course.keys.is_empty() {
            item.optional_time("dynIVRStartTime", self.dialogue_starts_at());
            item.text("dynIVRPath", &self.key_path());
        }
        if course.ending.is_failure() {
            item.time("failTime", ends);
        }
        item.optional_text("userData", self.user_data.as_deref());
        item.unknown_fields();
        item.value()
    }

    pub fn service_type(&self) -> &'static str {
        if self.service == Service::Callback { "002" } else { "001" }
    }

    /// Seconds since 1970.
    pub fn recording_starts_at(&self) -> Option<i64> {
        self.course.b.and_then(|leg| leg.answered).map(|at| self.begins_at + at)
    }

    pub fn recording_name(&self) -> String {
        format!("{}{:011}.wav", words::digits_beijing(self.begins_at), self.index)
    }

    /// Seconds since 1970.
    pub fn dialogue_starts_at(&self) -> Option<i64> {
        self.course.a.and_then(|leg| leg.answered).map(|at| self.begins_at + at + 1)
    }

    /// The keys of all dialogues, joined by `-`.
    pub fn key_path(&self) -> String {
        let keys: Vec<_> = self.course.keys.iter().map(|(_, keys)| keys.as_str()).collect();
        keys.join("-")
    }
}

/// Where recordings are.
pub(crate) const BUCKET: &str = "sp-acme-voice-01";
/// Where recordings are.
pub(crate) const STORAGE: &str = "ostor.huawei.com";
