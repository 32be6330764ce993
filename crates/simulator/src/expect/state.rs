//! What a number's state must be, from the notifications of its calls that arrived.

use tollgate_schema::v1::LegSide;

use crate::script::{Call, Kind, Leg};

/// A number is taken to be idle so long after the last event of a call that nobody answered and
/// whose end is not known, seconds; less here than there, so that nothing is judged in between.
const UNANSWERED_SECONDS: i64 = 280;

/// What a phone is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Presence {
    Idle,
    Calling,
    Ringing,
    InCall,
}

impl Presence {
    /// As in query answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Calling => "calling",
            Self::Ringing => "ringing",
            Self::InCall => "in_call",
        }
    }
}

/// As in query answers.
pub(crate) const fn side_name(side: LegSide) -> &'static str {
    match side {
        LegSide::A => "A",
        LegSide::B => "B",
        LegSide::Unspecified => "",
    }
}

/// A call and what of it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Known<'a> {
    pub call: &'a Call,
    /// Per status, in the order of the call's statuses.
    pub statuses: Vec<bool>,
    pub cdr: bool,
}

/// What must be answered for a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub presence: Presence,
    /// The call that ended last; several if they ended in one second, and any of them will do.
    pub last_calls: Vec<LastCall>,
}

/// How a call ended for a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastCall {
    pub session_id: String,
    pub side: LegSide,
    /// Seconds since 1970.
    pub ended_at: i64,
    pub answered: bool,
    pub state_code: Option<i32>,
    pub release_reason: Option<i32>,
    pub cause: Option<i32>,
    pub sip_status: Option<i32>,
}

/// What must be answered for a number as of an instant, in seconds since 1970; `None` where what
/// arrived leaves room for more than one answer.
pub(crate) fn state(number: &str, calls: &[Known<'_>], as_of: i64) -> Option<State> {
    let mut presence = Presence::Idle;
    let mut ended: Vec<LastCall> = Vec::new();
    for known in calls {
        match leg_of(number, known) {
            Told::Nothing => {}
            Told::Unclear => return None,
            Told::Ended(last) => ended.push(last),
            Told::Going(going, last_event) => {
                let answered = going == Presence::InCall;
                if !answered && as_of > last_event + UNANSWERED_SECONDS {
                    return None;
                }
                presence = presence.max(going);
            }
        }
    }
    let last = ended.iter().map(|last| last.ended_at).max();
    ended.retain(|call| Some(call.ended_at) == last);
    Some(State { presence, last_calls: ended })
}

/// What arrived of a call tells this of a number.
enum Told {
    Nothing,
    /// More than one answer would be right.
    Unclear,
    Ended(LastCall),
    /// What it is doing, and the call's last event, seconds since 1970.
    Going(Presence, i64),
}

fn leg_of(number: &str, known: &Known<'_>) -> Told {
    let call = known.call;
    let side = if call.number_a == number { LegSide::A } else { LegSide::B };
    let arrived: Vec<_> = call
        .statuses
        .iter()
        .zip(&known.statuses)
        .filter_map(|(status, arrived)| arrived.then_some(status))
        .collect();
    let disconnect = arrived.iter().find(|it| it.kind == Kind::Disconnect);
    let state_code = disconnect.and_then(|it| it.state_code);
    if known.cdr {
        return with_cdr(call, side, state_code);
    }
    // Without the record, statuses must be all there and carry their numbers to be sure.
    let is_mine = |called: Option<&str>| called == Some(number);
    let is_bare = |it: &&crate::script::Status| {
        it.called.is_none() && matches!(it.kind, Kind::Callout | Kind::Alerting | Kind::Answer)
    };
    let has_hole = known.statuses.iter().any(|arrived| !arrived);
    if arrived.is_empty() {
        return Told::Nothing;
    }
    if has_hole || arrived.iter().any(is_bare) {
        return Told::Unclear;
    }
    let mine: Vec<_> = arrived
        .iter()
        .filter(|it| {
            is_mine(it.called.as_deref())
                || (side == LegSide::A && matches!(it.kind, Kind::CollectInfo(_)))
        })
        .collect();
    if mine.is_empty() {
        return Told::Nothing;
    }
    let answered = mine.iter().any(|it| matches!(it.kind, Kind::Answer | Kind::CollectInfo(_)));
    if let Some(disconnect) = disconnect {
        return Told::Ended(LastCall {
            session_id: call.session_id.clone(),
            side,
            ended_at: disconnect.at,
            answered,
            state_code,
            release_reason: None,
            cause: None,
            sip_status: None,
        });
    }
    let presence = if answered {
        Presence::InCall
    } else if mine.iter().any(|it| it.kind == Kind::Alerting) {
        Presence::Ringing
    } else if mine.iter().any(|it| it.kind == Kind::Callout) {
        Presence::Calling
    } else {
        return Told::Unclear;
    };
    Told::Going(presence, arrived.iter().map(|it| it.at).max().unwrap_or_default())
}

/// The record settles everything but the code of the disconnect.
fn with_cdr(call: &Call, side: LegSide, state_code: Option<i32>) -> Told {
    let codes = call.course.ending.codes();
    let (leg, cause): (Option<&Leg>, i32) = match side {
        LegSide::A => (call.course.a.as_ref(), codes.cause_a),
        _ => (call.course.b.as_ref(), codes.cause_b),
    };
    if side == LegSide::B && leg.is_none() {
        return Told::Nothing;
    }
    Told::Ended(LastCall {
        session_id: call.session_id.clone(),
        side,
        ended_at: call.begins_at + call.course.ends,
        answered: leg.is_some_and(|leg| leg.answered.is_some()),
        state_code,
        release_reason: Some(codes.release),
        cause: Some(cause),
        sip_status: Some(codes.sip),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Faults;
    use crate::script::Ending;
    use crate::script::tests::plan;

    fn talked() -> Call {
        let plan = plan(Faults::none());
        (0..500)
            .map(|index| plan.call(index))
            .find(|call| {
                let codes = call.statuses.last().and_then(|status| status.state_code);
                matches!(call.course.ending, Ending::HungUp(_))
                    && call.number_b.is_some()
                    && codes.is_some()
            })
            .unwrap()
    }

    fn known(call: &Call, statuses: usize, cdr: bool) -> Known<'_> {
        let statuses = (0..call.statuses.len()).map(|index| index < statuses).collect();
        Known { call, statuses, cdr }
    }

    #[test]
    fn the_record_ends_a_call_whatever_else_is_missing() {
        let call = talked();
        let known = known(&call, 0, true);
        let state = state(&call.number_a, &[known], i64::MAX / 2).unwrap();
        assert_eq!(state.presence, Presence::Idle);
        assert!(state.last_calls[0].answered);
        assert_eq!(state.last_calls[0].release_reason, Some(0));
        assert_eq!(state.last_calls[0].state_code, None);
    }

    #[test]
    fn a_call_of_which_statuses_are_missing_is_not_judged_without_its_record() {
        let call = talked();
        let known = known(&call, 3, false);
        assert_eq!(state(&call.number_a, &[known], call.begins_at), None);
    }

    #[test]
    fn a_call_whose_statuses_are_all_there_ends_by_its_disconnect() {
        let call = talked();
        let known = known(&call, call.statuses.len(), false);
        let b = call.number_b.clone().unwrap();
        let state = state(&b, &[known], call.begins_at + 1000).unwrap();
        assert_eq!(state.last_calls[0].side, LegSide::B);
        assert_eq!(state.last_calls[0].ended_at, call.begins_at + call.course.ends);
        assert_eq!(state.last_calls[0].state_code, Some(0));
    }

    #[test]
    fn of_two_calls_the_one_that_ended_later_is_the_last() {
        let call = talked();
        let mut later = call.clone();
        later.session_id.push('x');
        later.begins_at += 1;
        let calls = [known(&later, 0, true), known(&call, 0, true)];
        let state = state(&call.number_a, &calls, call.begins_at).unwrap();
        assert_eq!(state.last_calls.len(), 1);
        assert_eq!(state.last_calls[0].session_id, later.session_id);
    }
}
