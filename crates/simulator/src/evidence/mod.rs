//! Where the verifier reads what became of the notifications.

mod http;
mod sources;
mod stream;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;

pub use sources::Sources;

/// Evidence cannot be read. Tried again while results may still come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {what}: {reason}")]
pub struct EvidenceError {
    /// Topic, ledger or states.
    pub what: String,
    /// Why not; never an answer's content.
    pub reason: String,
}

/// A message of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRecord {
    /// Header `ce_id`.
    pub ce_id: String,
    /// Its key.
    pub key: Bytes,
    /// The protobuf message.
    pub value: Bytes,
}

/// A ledger entry, as the usage API tells it. What is not compared is left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LedgerEntry {
    /// Identity of the entry.
    pub entry_id: String,
    /// Which record.
    pub record_id: String,
    /// Which content of it.
    pub event_id: String,
    /// `charge` or `reversal`.
    pub kind: String,
    /// Counts a record's charges.
    pub revision: u32,
    /// `rated`, or why not.
    pub status: String,
    /// The legs that were rated.
    #[serde(default)]
    pub legs: Vec<LedgerLeg>,
    /// ISO 4217.
    #[serde(default)]
    pub currency: String,
    /// Micro-units of the currency.
    pub amount_micros: i64,
    /// The platform's name of the application.
    #[serde(default)]
    pub app_key: String,
    /// The call.
    #[serde(default)]
    pub session_id: String,
}

/// A leg of a ledger entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LedgerLeg {
    /// `A` or `B`.
    pub side: String,
    /// Answer to end.
    pub seconds: i64,
    /// Started minutes.
    pub billed_minutes: i64,
    /// Micro-units of the currency.
    pub amount_micros: i64,
}

/// What a number is doing, as the query API tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NumberState {
    /// The number.
    pub number: String,
    /// `idle`, `calling`, `ringing` or `in_call`.
    pub presence: String,
    /// Calls that are not over.
    #[serde(default)]
    pub calls: Vec<NumberCall>,
    /// The call that ended last.
    #[serde(default)]
    pub last_call: Option<NumberLastCall>,
}

/// A call that a number is in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NumberCall {
    /// The call.
    pub session_id: String,
}

/// How a number's last call ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NumberLastCall {
    /// The call.
    pub session_id: String,
    /// Which leg.
    #[serde(default)]
    pub side: Option<String>,
    /// RFC 3339.
    #[serde(default)]
    pub ended_at: Option<jiff::Timestamp>,
    /// Whether this number answered.
    #[serde(default)]
    pub answered: bool,
    /// stateCode of the disconnect.
    #[serde(default)]
    pub state_code: Option<i32>,
    /// ulFailReason of the CDR.
    #[serde(default)]
    pub release_reason: Option<i32>,
    /// Q.850 cause of the leg.
    #[serde(default)]
    pub cause: Option<i32>,
    /// SIP status of the failure.
    #[serde(default)]
    pub sip_status: Option<i32>,
}

/// What user-state has heard of a call, as the query API tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Timeline {
    /// The call.
    pub session_id: String,
    /// Everything heard.
    pub events: Vec<TimelineEvent>,
}

/// One event of a call, or its CDR.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TimelineEvent {
    /// Identity of its content.
    pub event_id: String,
}

/// Where results are read. `None` says that there is no such source: that part is not verified.
#[async_trait]
pub trait Evidence: Send {
    /// Messages of a topic that were not returned before, from the oldest on; empty when there
    /// are none at the moment.
    async fn topic(
        &mut self,
        name: &'static str,
    ) -> Result<Option<Vec<TopicRecord>>, EvidenceError>;

    /// Ledger entries; those returned before may come again.
    async fn ledger(&mut self) -> Result<Option<Vec<LedgerEntry>>, EvidenceError>;

    /// What these numbers are doing now.
    async fn states(
        &mut self,
        numbers: &[String],
    ) -> Result<Option<Vec<NumberState>>, EvidenceError>;

    /// What was heard of these calls; those of which nothing was are left out.
    async fn timelines(
        &mut self,
        sessions: &[String],
    ) -> Result<Option<Vec<Timeline>>, EvidenceError>;

    /// Something is missing: begin again where a position may have passed it by. What was
    /// returned before need not come again.
    fn rewind(&mut self) {}
}

#[cfg(test)]
mod tests;
