//! What a call came to, read in the order of P 5.4.

use tollgate_schema::v1::{CallDetailRecord, Leg, LegSide, ServiceType};

use super::{Group, q850, release_reason, sip_status, state_code};

/// Release points that point to the Q.850 cause of a leg.
const SEE_CAUSE_OF_B: i32 = 518;
const SEE_CAUSE_OF_A: [i32; 3] = [519, 520, 551];

/// How far one leg came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegOutcome {
    /// There is no such leg.
    Absent,
    /// It came in to the platform (PrivateNumber); it is not answered by anybody.
    Inbound,
    /// It was tried and has no answer time, the only reliable sign of an answer.
    Unanswered,
    /// It was answered.
    Answered,
}

/// The code that says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// ulFailReason.
    Release(i32),
    /// Q.850 cause of a leg.
    Cause(LegSide, i32),
    /// sipStatusCode.
    Sip(i32),
    /// stateCode of the disconnect event.
    State(i32),
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The leg called first, or the inbound one.
    pub a_leg: LegOutcome,
    /// The second leg.
    pub b_leg: LegOutcome,
    /// The most telling code; `None` if there is none at all.
    pub reason: Option<Reason>,
    /// Group for reports.
    pub group: Group,
    /// In English; an unknown code is named by its number. Contains no number of a party.
    pub description: String,
}

/// Reads the outcome from a CDR and, where it is known, the stateCode of the disconnect event.
pub fn outcome(cdr: &CallDetailRecord, state: Option<i32>) -> Outcome {
    let a_leg = if is_private(cdr) { inbound(cdr.a_leg.as_ref()) } else { leg(cdr.a_leg.as_ref()) };
    let b_leg = leg(cdr.b_leg.as_ref());
    let cause_of = |side| {
        let leg = if side == LegSide::B { cdr.b_leg.as_ref() } else { cdr.a_leg.as_ref() };
        let cause = leg.and_then(|leg| leg.cause).filter(|cause| tells(*cause));
        cause.map(|cause| Reason::Cause(side, cause))
    };
    let failed_side = match (a_leg, b_leg) {
        (LegOutcome::Unanswered, _) => Some(LegSide::A),
        (_, LegOutcome::Unanswered) => Some(LegSide::B),
        _ => None,
    };
    let sip = || cdr.sip_status.filter(|status| *status != 0).map(Reason::Sip);

    let (reason, detail) = match cdr.release_reason {
        // These three only say which leg failed; its cause says why, or else its SIP status.
        Some(code) if code == SEE_CAUSE_OF_B => {
            (Some(Reason::Release(code)), cause_of(LegSide::B).or_else(sip))
        }
        Some(code) if SEE_CAUSE_OF_A.contains(&code) => {
            (Some(Reason::Release(code)), cause_of(LegSide::A).or_else(sip))
        }
        Some(code) => (Some(Reason::Release(code)), None),
        None => {
            let reason = failed_side.and_then(cause_of).or_else(sip);
            (reason.or_else(|| state.map(Reason::State)), None)
        }
    };
    let answered = a_leg == LegOutcome::Answered || b_leg == LegOutcome::Answered;
    let group = group(reason, detail, answered && failed_side.is_none());
    Outcome { a_leg, b_leg, reason, group, description: description(reason, detail, answered) }
}

fn group(reason: Option<Reason>, detail: Option<Reason>, connected: bool) -> Group {
    let by_detail = detail.map_or(Group::Unknown, Reason::group);
    if by_detail != Group::Unknown {
        return by_detail;
    }
    match reason {
        Some(reason) => reason.group(),
        None if connected => Group::Success,
        None => Group::Unknown,
    }
}

fn description(reason: Option<Reason>, detail: Option<Reason>, answered: bool) -> String {
    match (reason, detail) {
        (Some(reason), Some(detail)) => {
            let reason = reason.description();
            // The row sends its reader to the cause, which follows here.
            let reason = reason.trim_end_matches("; see the Q.850 cause");
            format!("{reason}: {}", detail.description())
        }
        (Some(reason), None) => reason.description(),
        (None, _) if answered => "answered, no reason given".to_owned(),
        (None, _) => "no reason given".to_owned(),
    }
}

impl Reason {
    /// Group for reports.
    pub fn group(self) -> Group {
        match self {
            Self::Release(code) => Group::of_release_reason(code),
            Self::Cause(_, cause) => Group::of_cause(cause),
            Self::Sip(status) => Group::of_sip_status(status),
            Self::State(code) => Group::of_state_code(code),
        }
    }

    /// In English; an unknown code is named by its number.
    pub fn description(self) -> String {
        let (meaning, kind, code) = match self {
            Self::Release(code) => (release_reason(code), "release reason", code),
            Self::Cause(_, code) => (q850(code), "Q.850 cause", code),
            Self::Sip(code) => (sip_status(code), "SIP status", code),
            Self::State(code) => (state_code(code), "state code", code),
        };
        match (self, meaning) {
            // The range's row explains what the number is; the name of the status says more.
            (Self::Release(code), Some(_)) if is_sip(code) => Self::Sip(code).description(),
            (Self::Sip(code), Some(meaning)) => format!("{kind} {code} ({meaning})"),
            (_, Some(meaning)) => meaning.to_owned(),
            (_, None) => format!("{kind} {code}"),
        }
    }
}

fn is_sip(code: i32) -> bool {
    (400..=699).contains(&code) && !super::table::is_exact_release_reason(code)
}

/// Whether a cause says why a leg failed: 0 is none, 16 and 31 are normal.
fn tells(cause: i32) -> bool {
    !matches!(cause, 0 | 16 | 31)
}

fn is_private(cdr: &CallDetailRecord) -> bool {
    let by_type = matches!(cdr.service_type(), ServiceType::PrivateAx | ServiceType::PrivateAxb);
    by_type || cdr.dialled_number.is_some()
}

fn inbound(leg: Option<&Leg>) -> LegOutcome {
    leg.map_or(LegOutcome::Absent, |_| LegOutcome::Inbound)
}

fn leg(leg: Option<&Leg>) -> LegOutcome {
    match leg {
        None => LegOutcome::Absent,
        Some(leg) if leg.answered_at.is_some() => LegOutcome::Answered,
        Some(_) => LegOutcome::Unanswered,
    }
}

#[cfg(test)]
mod tests {
    use tollgate_schema::time::proto_from_millis;

    use super::*;

    fn leg(answered: bool, cause: i32) -> Leg {
        let answered_at = answered.then(|| proto_from_millis(1_716_174_264_000));
        Leg { answered_at, cause: Some(cause), ..Leg::default() }
    }

    fn callback(
        a_leg: Leg,
        b_leg: impl Into<Option<Leg>>,
        release_reason: impl Into<Option<i32>>,
    ) -> CallDetailRecord {
        CallDetailRecord {
            a_leg: Some(a_leg),
            b_leg: b_leg.into(),
            release_reason: release_reason.into(),
            ..CallDetailRecord::default()
        }
    }

    #[test]
    fn an_answered_call_with_release_reason_0_succeeded() {
        let found = outcome(&callback(leg(true, 0), leg(true, 0), 0), None);
        assert_eq!((found.a_leg, found.b_leg), (LegOutcome::Answered, LegOutcome::Answered));
        assert_eq!(found.group, Group::Success);
        assert_eq!(found.reason, Some(Reason::Release(0)));
    }

    #[test]
    fn for_518_the_cause_of_b_decides() {
        let mut cdr = callback(leg(true, 0), leg(false, 17), 518);
        let found = outcome(&cdr, None);
        assert_eq!(found.group, Group::CalledParty);
        assert_eq!(found.description, "call to the far-end (B) user failed: user busy");
        cdr.b_leg = Some(leg(false, 34));
        assert_eq!(outcome(&cdr, None).group, Group::Routing);
    }

    #[test]
    fn for_518_without_a_telling_cause_the_sip_status_decides() {
        let mut cdr = callback(leg(true, 0), leg(false, 0), 518);
        cdr.sip_status = Some(503);
        assert_eq!(outcome(&cdr, None).group, Group::Routing);
        cdr.sip_status = Some(0);
        let found = outcome(&cdr, None);
        assert_eq!(found.group, Group::CalledParty);
        assert_eq!(found.reason, Some(Reason::Release(518)));
    }

    #[test]
    fn for_519_and_520_the_cause_of_a_decides() {
        for release in [519, 520] {
            let found = outcome(&callback(leg(false, 41), leg(false, 17), release), None);
            assert_eq!(found.group, Group::Routing, "{release}");
        }
    }

    #[test]
    fn a_telling_release_reason_comes_before_cause_sip_and_state() {
        let mut cdr = callback(leg(false, 17), None, 514);
        cdr.sip_status = Some(480);
        let found = outcome(&cdr, Some(8104));
        assert_eq!(found.reason, Some(Reason::Release(514)));
        assert_eq!(found.group, Group::Routing);
        assert_eq!(found.description, "ringing timed out");
    }

    #[test]
    fn without_a_release_reason_cause_then_sip_then_state_is_read() {
        let mut cdr = callback(leg(true, 16), leg(false, 19), None);
        cdr.sip_status = Some(486);
        assert_eq!(outcome(&cdr, Some(8101)).reason, Some(Reason::Cause(LegSide::B, 19)));
        cdr.b_leg = Some(leg(false, 31));
        assert_eq!(outcome(&cdr, Some(8101)).reason, Some(Reason::Sip(486)));
        cdr.sip_status = None;
        let found = outcome(&cdr, Some(8101));
        assert_eq!((found.reason, found.group), (Some(Reason::State(8101)), Group::CalledParty));
        assert_eq!(outcome(&cdr, None).group, Group::Unknown);
    }

    #[test]
    fn the_cause_read_is_that_of_the_leg_that_failed_first() {
        let found = outcome(&callback(leg(false, 20), leg(false, 17), None), None);
        assert_eq!(found.reason, Some(Reason::Cause(LegSide::A, 20)));
        let found = outcome(&callback(leg(true, 20), leg(true, 17), None), None);
        assert_eq!((found.reason, found.group), (None, Group::Success));
    }

    #[test]
    fn an_answered_call_without_any_code_succeeded() {
        let found = outcome(&callback(leg(true, 31), None, None), None);
        assert_eq!((found.reason, found.group), (None, Group::Success));
    }

    #[test]
    fn the_inbound_leg_of_private_number_is_not_the_one_that_failed() {
        let mut cdr = callback(leg(false, 0), leg(false, 17), None);
        cdr.set_service_type(ServiceType::PrivateAx);
        let found = outcome(&cdr, None);
        assert_eq!(found.a_leg, LegOutcome::Inbound);
        assert_eq!(found.reason, Some(Reason::Cause(LegSide::B, 17)));
    }

    #[test]
    fn unknown_codes_pass_through_as_numbers() {
        let found = outcome(&callback(leg(true, 0), None, 77_777), None);
        assert_eq!(found.group, Group::Unknown);
        assert_eq!(found.description, "release reason 77777");
    }

    #[test]
    fn a_sip_status_as_release_reason_is_named_as_one() {
        let found = outcome(&callback(leg(false, 0), None, 404), None);
        assert_eq!(found.description, "SIP status 404 (not found)");
        let found = outcome(&callback(leg(false, 0), None, 499), None);
        assert_eq!(found.description, "SIP status 499");
    }
}
