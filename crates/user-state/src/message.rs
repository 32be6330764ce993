//! The published form of a number's state.

use tollgate_schema::time::proto_from_millis;
use tollgate_schema::v1;

use crate::fold::NumberState;
use crate::keys::Pseudonyms;
use crate::reason::reason;

/// The message for topic user-states. With pseudonyms, numbers and session ids are replaced.
pub(crate) fn user_state(
    number: &str,
    version: i64,
    as_of_ms: i64,
    state: &NumberState,
    pseudonyms: Option<&Pseudonyms>,
) -> v1::UserState {
    let shown = |text: &str| pseudonyms.map_or_else(|| text.to_owned(), |it| it.of(text));
    let calls = state.calls.iter().map(|call| v1::ActiveCall {
        session_id: shown(&call.session_id),
        side: call.side.into(),
        presence: call.presence.into(),
        since: Some(proto_from_millis(call.since_ms)),
        expires_at: call.expires_at_ms.map(proto_from_millis),
    });
    let last_call = state.last_call.as_ref().map(|last| {
        let (group, description) = reason(&last.leg);
        v1::LastCall {
            session_id: shown(&last.session_id),
            side: last.leg.side.into(),
            ended_at: Some(proto_from_millis(last.leg.until_ms)),
            answered: last.leg.was_answered(),
            state_code: last.leg.state_code,
            release_reason: last.leg.release_reason,
            cause: last.leg.cause,
            sip_status: last.leg.sip_status,
            group: group.as_str().to_owned(),
            description,
        }
    });
    v1::UserState {
        number: shown(number),
        version: u64::try_from(version).unwrap_or_default(),
        presence: state.presence.into(),
        since: state.since_ms.map(proto_from_millis),
        calls: calls.collect(),
        last_call,
        as_of: Some(proto_from_millis(as_of_ms)),
    }
}
