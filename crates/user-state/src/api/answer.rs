//! What is answered about numbers.

use serde::Serialize;
use tollgate_schema::time::{proto_to_millis, rfc3339};
use tollgate_schema::v1;

use crate::fold::{LegSide, Presence};
use crate::store::Applied;

/// What a number is doing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NumberAnswer {
    /// The number; in the live feed its pseudonym, where the deployment asks for one.
    pub number: String,
    /// Whether it was ever seen.
    pub known: bool,
    /// Raised by every change; 0 for a number never seen.
    pub version: u64,
    /// `idle`, `calling`, `ringing` or `in_call`.
    pub presence: &'static str,
    /// Since when, RFC 3339 in UTC.
    pub since: Option<String>,
    /// Calls that are not over.
    pub calls: Vec<ActiveCallAnswer>,
    /// The call that ended last.
    pub last_call: Option<LastCallAnswer>,
    /// The instant this was derived for.
    pub as_of: Option<String>,
    /// How fresh it is; left out where many answers share one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freshness: Option<Freshness>,
}

/// A call that a number is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActiveCallAnswer {
    /// The session.
    pub session_id: String,
    /// `a` or `b`.
    pub side: Option<&'static str>,
    /// `calling`, `ringing` or `in_call`.
    pub presence: &'static str,
    /// Since when.
    pub since: Option<String>,
    /// When it expires if nothing is heard.
    pub expires_at: Option<String>,
}

/// How the last call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastCallAnswer {
    /// The session.
    pub session_id: String,
    /// `a` or `b`.
    pub side: Option<&'static str>,
    /// When.
    pub ended_at: Option<String>,
    /// Whether this number answered.
    pub answered: bool,
    /// stateCode of the disconnect.
    pub state_code: Option<i32>,
    /// ulFailReason of the CDR.
    pub release_reason: Option<i32>,
    /// Q.850 cause of this number's leg.
    pub cause: Option<i32>,
    /// SIP status of the failure.
    pub sip_status: Option<i32>,
    /// Group for reports.
    pub group: String,
    /// In English.
    pub description: String,
}

/// How fresh an answer is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Freshness {
    /// Time of the newest event that was applied, by any instance.
    pub newest_event_at: Option<String>,
    /// When the newest record that was applied was written to its topic.
    pub newest_record_at: Option<String>,
    /// When a batch was applied last.
    pub applied_at: Option<String>,
    /// Longest time that the last record of a partition had waited when it was applied; of
    /// partitions that something was applied from within the last day.
    pub delay_seconds: Option<f64>,
}

impl Freshness {
    /// From what was applied, if anything was.
    pub(super) fn of(applied: Option<Applied>) -> Self {
        Self {
            newest_event_at: applied.and_then(|it| it.event_ms).and_then(rfc3339),
            newest_record_at: applied.and_then(|it| rfc3339(it.record_ms)),
            applied_at: applied.and_then(|it| rfc3339(it.applied_ms)),
            delay_seconds: applied.map(|it| it.delay_ms.max(0) as f64 / 1000.0),
        }
    }
}

impl NumberAnswer {
    /// Of a number never seen.
    pub(super) fn unknown(number: String, as_of_ms: i64) -> Self {
        Self {
            number,
            known: false,
            version: 0,
            presence: presence(Presence::Idle),
            since: None,
            calls: Vec::new(),
            last_call: None,
            as_of: rfc3339(as_of_ms),
            freshness: None,
        }
    }
}

impl From<v1::UserState> for NumberAnswer {
    fn from(state: v1::UserState) -> Self {
        let calls = state.calls.iter().map(|call| ActiveCallAnswer {
            session_id: call.session_id.clone(),
            side: side(call.side()),
            presence: presence(call.presence()),
            since: instant(call.since.as_ref()),
            expires_at: instant(call.expires_at.as_ref()),
        });
        let calls = calls.collect();
        let presence = presence(state.presence());
        let last_call = state.last_call.map(|last| LastCallAnswer {
            side: side(last.side()),
            session_id: last.session_id,
            ended_at: instant(last.ended_at.as_ref()),
            answered: last.answered,
            state_code: last.state_code,
            release_reason: last.release_reason,
            cause: last.cause,
            sip_status: last.sip_status,
            group: last.group,
            description: last.description,
        });
        Self {
            number: state.number,
            known: true,
            version: state.version,
            presence,
            since: instant(state.since.as_ref()),
            calls,
            last_call,
            as_of: instant(state.as_of.as_ref()),
            freshness: None,
        }
    }
}

fn instant(timestamp: Option<&prost_types::Timestamp>) -> Option<String> {
    timestamp.and_then(proto_to_millis).and_then(rfc3339)
}

/// The name of a presence.
pub(super) fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Unspecified | Presence::Idle => "idle",
        Presence::Calling => "calling",
        Presence::Ringing => "ringing",
        Presence::InCall => "in_call",
    }
}

/// The name of a side.
pub(super) fn side(side: LegSide) -> Option<&'static str> {
    match side {
        LegSide::Unspecified => None,
        LegSide::A => Some("a"),
        LegSide::B => Some("b"),
    }
}
