//! How a call ended, in a word and a sentence.

use tollgate_voicecall::codes::{Group, Reason};

use crate::fold::{Leg, LegSide};

/// Release points that say which leg failed and not why.
const POINTS_TO_A_LEG: [i32; 4] = [518, 519, 520, 551];

/// The group and the meaning of how a leg ended.
///
/// The call's end, that is: when B is busy, A's leg says so too, and `answered` says that A was
/// not the one. The release reason comes first (P 5.4). Where it only points to a leg, or says
/// that all went well while the disconnect says otherwise, the disconnect's state code is more
/// telling ("callee powered off"), then the leg's cause, then the SIP status.
pub(crate) fn reason(leg: &Leg) -> (Group, String) {
    if !leg.ended {
        return (Group::Expired, "no end was heard of; the state expired".to_owned());
    }
    let side = if leg.side == LegSide::B { LegSide::B } else { LegSide::A };
    let state = leg.state_code.map(Reason::State);
    let failure = leg.state_code.filter(|code| *code != 0).map(Reason::State);
    let cause =
        leg.cause.filter(|cause| !matches!(cause, 0 | 16 | 31)).map(|it| Reason::Cause(side, it));
    let sip = leg.sip_status.filter(|status| *status != 0).map(Reason::Sip);
    match leg.release_reason {
        Some(0) if failure.is_some() => told(failure, None),
        Some(code) if POINTS_TO_A_LEG.contains(&code) => {
            let known = failure.filter(|reason| reason.group() != Group::Unknown);
            told(Some(Reason::Release(code)), known.or(cause).or(sip).or(failure))
        }
        Some(code) => told(Some(Reason::Release(code)), None),
        None => match state.or(cause).or(sip) {
            Some(reason) => told(Some(reason), None),
            None if leg.answered_ms.is_some() => {
                (Group::Success, "answered, no reason given".to_owned())
            }
            None => (Group::Unknown, "no reason given".to_owned()),
        },
    }
}

fn told(reason: Option<Reason>, detail: Option<Reason>) -> (Group, String) {
    let group = detail
        .map(Reason::group)
        .filter(|group| *group != Group::Unknown)
        .or(reason.map(Reason::group))
        .unwrap_or(Group::Unknown);
    let texts: Vec<String> =
        [reason, detail].into_iter().flatten().map(Reason::description).collect();
    (group, texts.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(release: Option<i32>, state: Option<i32>, cause: Option<i32>) -> Leg {
        Leg {
            side: LegSide::B,
            number: None,
            started_ms: Some(0),
            alerting_ms: None,
            answered_ms: None,
            ended: true,
            until_ms: 1,
            state_code: state,
            release_reason: release,
            cause,
            sip_status: None,
        }
    }

    #[test]
    fn a_phone_that_is_off_is_told_from_one_that_is_busy() {
        let (group, text) = reason(&leg(Some(518), Some(8104), Some(20)));
        assert_eq!(group, Group::CalledParty);
        assert!(text.contains("powered off"), "{text}");
        let (group, text) = reason(&leg(Some(518), None, Some(17)));
        assert_eq!(group, Group::CalledParty);
        assert!(text.contains("user busy"), "{text}");
    }

    #[test]
    fn the_release_reason_comes_first_and_absence_is_not_success() {
        assert_eq!(reason(&leg(Some(7004), Some(8001), None)).0, Group::Policy);
        assert_eq!(reason(&leg(Some(0), Some(0), Some(31))).0, Group::Success);
        assert_eq!(reason(&leg(Some(0), Some(8017), None)).0, Group::EndedByCustomer);
        assert_eq!(reason(&leg(None, None, None)).0, Group::Unknown);
        assert_eq!(reason(&leg(None, Some(0), None)).0, Group::Success);
    }

    #[test]
    fn a_leg_whose_end_was_never_heard_of_expired() {
        let open = Leg { ended: false, ..leg(None, None, None) };
        assert_eq!(reason(&open).0, Group::Expired);
    }
}
