//! What happens in a call, and when.

use rand::Rng;
use rand::seq::IndexedRandom as _;

use crate::Service;

/// Talk times at which minutes are counted wrongly first, in seconds.
const EDGES: [i64; 8] = [0, 1, 59, 60, 61, 119, 120, 121];

/// What happens in a call. All times in seconds from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Course {
    /// `None` if the platform refused the call before dialling.
    pub a: Option<Leg>,
    pub b: Option<Leg>,
    /// Keys collected; empty text means that nothing was pressed in time.
    pub keys: Vec<(i64, String)>,
    pub ends: i64,
    pub ending: Ending,
}

/// One connection, of a party that was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leg {
    pub started: i64,
    pub alerting: Option<i64>,
    pub answered: Option<i64>,
}

/// Who hung up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    Caller,
    Callee,
    Platform,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    HungUp(Party),
    /// As [`Ending::HungUp`], the causes saying "normal, unspecified" (P 5.2).
    HungUpWithCauses(Party),
    MaximumDuration,
    NoKeyPressed,
    ANoAnswer,
    ABusy,
    ARejected,
    AOff,
    BNoAnswer,
    /// As [`Ending::BNoAnswer`], with a cause of 0 on the leg that failed (P 5.2).
    BUnreachable,
    BBusy,
    BRejected,
    /// Refused before dialling.
    Barred,
}

/// What the platform reports of an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Codes {
    /// stateCode.
    pub state: i32,
    /// stateDesc.
    pub description: &'static str,
    /// ulFailReason.
    pub release: i32,
    /// callOutUnaswRsn.
    pub cause_a: i32,
    /// fwdUnaswRsn.
    pub cause_b: i32,
    /// sipStatusCode.
    pub sip: i32,
}

impl Ending {
    pub const fn codes(self) -> Codes {
        let (state, description, release, cause_a, cause_b, sip) = match self {
            Self::HungUp(_) => (0, "The user releases the call.", 0, 0, 0, 0),
            Self::HungUpWithCauses(_) => (0, "The user releases the call.", 0, 31, 31, 0),
            Self::MaximumDuration => (8010, "The maximum duration is reached.", 8010, 0, 0, 0),
            Self::NoKeyPressed => (8008, "Failed to play and collect digits.", 100, 0, 0, 0),
            Self::ANoAnswer => (8003, "Ringing timeout.", 514, 19, 0, 480),
            Self::ABusy => (8102, "The callee is busy.", 519, 17, 0, 486),
            Self::ARejected => (8004, "The user rejects the call.", 520, 21, 0, 603),
            Self::AOff => (8104, "The callee is powered off.", 519, 20, 0, 480),
            Self::BNoAnswer => (8101, "The callee does not answer.", 518, 0, 19, 480),
            Self::BUnreachable => (8103, "The callee is unreachable.", 518, 0, 0, 480),
            Self::BBusy => (8102, "The callee is busy.", 518, 0, 17, 486),
            Self::BRejected => (8105, "The callee hangs up.", 518, 0, 21, 603),
            Self::Barred => (7003, "The display number is restricted.", 7003, 0, 0, 0),
        };
        Codes { state, description, release, cause_a, cause_b, sip }
    }

    /// Whether some leg was never answered; such records carry a time of failure.
    pub const fn is_failure(self) -> bool {
        !matches!(
            self,
            Self::HungUp(_)
                | Self::HungUpWithCauses(_)
                | Self::MaximumDuration
                | Self::NoKeyPressed
        )
    }

    /// Who hung up, where somebody did after the connection.
    pub const fn party(self) -> Party {
        match self {
            Self::HungUp(party) | Self::HungUpWithCauses(party) => party,
            Self::BBusy | Self::BRejected | Self::ARejected => Party::Callee,
            _ => Party::Platform,
        }
    }
}

pub(super) fn course(service: Service, rng: &mut impl Rng) -> Course {
    let ending = ending(service, rng);
    let mut clock = 0;
    if ending == Ending::Barred {
        return Course { a: None, b: None, keys: Vec::new(), ends: 0, ending };
    }
    let a = leg(&mut clock, answer_of_a(ending), rng);
    let mut b = None;
    let mut keys = Vec::new();
    match (service, a.answered) {
        (_, None) => {}
        (Service::Callback, Some(_)) => {
            clock += 1;
            let leg = leg(&mut clock, answer_of_b(ending), rng);
            if leg.answered.is_some() {
                clock += talk(ending, rng);
            }
            b = Some(leg);
        }
        (Service::Notification, Some(_)) => announce(ending, &mut clock, &mut keys, rng),
        (Service::VerificationCode, Some(_)) => clock += talk(ending, rng).min(60),
    }
    Course { a: Some(a), b, keys, ends: clock, ending }
}

/// A notification's announcement, often with keys to press.
fn announce(ending: Ending, clock: &mut i64, keys: &mut Vec<(i64, String)>, rng: &mut impl Rng) {
    if ending != Ending::NoKeyPressed && rng.random_bool(0.4) {
        *clock += talk(ending, rng);
        return;
    }
    *clock += rng.random_range(8..40);
    if ending == Ending::NoKeyPressed {
        keys.push((*clock, String::new()));
    } else {
        // The announcement is played again for the first of two.
        for _ in 0..rng.random_range(1..=2) {
            const KEYS: [&str; 6] = ["1", "2", "0", "007", "*", "12#"];
            keys.push((*clock, (*KEYS.choose(rng).unwrap_or(&"1")).to_owned()));
            *clock += rng.random_range(3..15);
        }
    }
    *clock += rng.random_range(0..4);
}

/// Why the attempt failed, or `None` for an answer.
type Failure = Option<Ending>;

fn answer_of_a(ending: Ending) -> Failure {
    use Ending::{ABusy, ANoAnswer, AOff, ARejected};
    Some(ending).filter(|ending| matches!(ending, ANoAnswer | ABusy | ARejected | AOff))
}

fn answer_of_b(ending: Ending) -> Failure {
    use Ending::{BBusy, BNoAnswer, BRejected, BUnreachable};
    Some(ending).filter(|ending| matches!(ending, BNoAnswer | BUnreachable | BBusy | BRejected))
}

/// Calls a party; the clock then stands at the answer or at the failure.
fn leg(clock: &mut i64, failure: Failure, rng: &mut impl Rng) -> Leg {
    let started = *clock;
    *clock += rng.random_range(1..6);
    let reports_ringing = match failure {
        Some(Ending::AOff | Ending::ABusy | Ending::BUnreachable) => false,
        // Not every network reports it.
        _ => rng.random_bool(0.95),
    };
    let alerting = reports_ringing.then_some(*clock);
    let mut answered = None;
    *clock += match failure {
        None => rng.random_range(2..15),
        Some(Ending::ANoAnswer | Ending::BNoAnswer) => rng.random_range(30..61),
        Some(_) => rng.random_range(1..10),
    };
    if failure.is_none() {
        answered = Some(*clock);
    }
    Leg { started, alerting, answered }
}

fn talk(ending: Ending, rng: &mut impl Rng) -> i64 {
    if ending == Ending::MaximumDuration {
        return 180;
    }
    if rng.random_bool(0.15) {
        return *EDGES.choose(rng).unwrap_or(&60);
    }
    rng.random_range(3..180)
}

fn ending(service: Service, rng: &mut impl Rng) -> Ending {
    use Ending::{
        ABusy, ANoAnswer, AOff, ARejected, BBusy, BNoAnswer, BRejected, BUnreachable, Barred,
        HungUp, HungUpWithCauses, MaximumDuration, NoKeyPressed,
    };
    let party = *[Party::Caller, Party::Callee, Party::Callee, Party::Platform]
        .choose(rng)
        .unwrap_or(&Party::Callee);
    let failures_of_a = [(ANoAnswer, 8), (ABusy, 4), (ARejected, 3), (AOff, 3), (Barred, 2)];
    let mut choices: Vec<(Ending, u32)> = failures_of_a.into();
    match service {
        Service::Callback => choices.extend([
            (HungUp(party), 50),
            (HungUpWithCauses(party), 5),
            (MaximumDuration, 3),
            (BNoAnswer, 8),
            (BUnreachable, 4),
            (BBusy, 6),
            (BRejected, 4),
        ]),
        Service::Notification => choices.extend([(HungUp(party), 60), (NoKeyPressed, 12)]),
        Service::VerificationCode => choices.extend([(HungUp(party), 75)]),
    }
    let total: u32 = choices.iter().map(|(_, weight)| weight).sum();
    let mut draw = rng.random_range(0..total);
    for (ending, weight) in choices {
        if draw < weight {
            return ending;
        }
        draw -= weight;
    }
    HungUp(party)
}
