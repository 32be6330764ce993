//! A number's state: a function of its legs in all its calls, and of an instant.

use super::{Leg, LegSide, Presence};

/// Calls listed in one state; a phone has one or two, a switchboard behind one number more.
pub const MAX_CALLS: usize = 20;

/// A number's leg in one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberLeg {
    /// Fixed-length identity of the session; breaks ties.
    pub session_key: [u8; 16],
    /// The session id, for people.
    pub session_id: String,
    /// The leg.
    pub leg: Leg,
}

/// What a number is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberState {
    /// The most engaged of its calls.
    pub presence: Presence,
    /// Since when; of an idle number the end of its last call, if there was one.
    pub since_ms: Option<i64>,
    /// Calls that are not over, the most engaged first, at most [`MAX_CALLS`].
    pub calls: Vec<ActiveCall>,
    /// The call that ended last.
    pub last_call: Option<LastCall>,
    /// When the state changes by itself, if nothing is heard.
    pub next_expiry_ms: Option<i64>,
}

/// A call that a number is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveCall {
    /// The session.
    pub session_id: String,
    /// Which leg.
    pub side: LegSide,
    /// Calling, ringing or in call.
    pub presence: Presence,
    /// Since when.
    pub since_ms: i64,
    /// When it expires; absent in a look back at a call whose end is known.
    pub expires_at_ms: Option<i64>,
}

/// A call that a number was in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastCall {
    /// The session.
    pub session_id: String,
    /// The leg, with how it ended.
    pub leg: Leg,
}

impl Leg {
    /// Whether the leg is still on at this instant.
    pub fn is_active(&self, as_of_ms: i64) -> bool {
        !self.ended && as_of_ms < self.until_ms
    }

    /// Whether the party answered. Where the answer was lost, a disconnect with stateCode 0 tells
    /// of it (P 4.1), not of its instant, unless a CDR's release reason says how the call ended.
    pub fn was_answered(&self) -> bool {
        let hung_up_after_connection = self.state_code == Some(0) && self.release_reason.is_none();
        self.answered_ms.is_some() || hung_up_after_connection
    }

    /// What the party is doing while the leg is on, and since when.
    pub fn engagement(&self) -> (Presence, i64) {
        let (presence, since) = if let Some(answered) = self.answered_ms {
            (Presence::InCall, answered)
        } else if let Some(alerting) = self.alerting_ms {
            (Presence::Ringing, alerting)
        } else {
            (Presence::Calling, self.started_ms.unwrap_or(self.until_ms))
        };
        (presence, since)
    }

    /// The leg as it stood at an instant in the past; `None` if it had not begun.
    ///
    /// Looks at what is known today: a leg whose end is known has no expiry while it lasts.
    pub fn rewind(&self, at_ms: i64) -> Option<Self> {
        let begun =
            [self.started_ms, self.alerting_ms, self.answered_ms].into_iter().flatten().min();
        if begun.unwrap_or(self.until_ms) > at_ms {
            return None;
        }
        let mut leg = self.clone();
        for fact in [&mut leg.started_ms, &mut leg.alerting_ms, &mut leg.answered_ms] {
            *fact = fact.filter(|instant| *instant <= at_ms);
        }
        if leg.ended && leg.until_ms > at_ms {
            leg.ended = false;
            leg.until_ms = i64::MAX;
            // These tell how it ended.
            for fact in
                [&mut leg.state_code, &mut leg.release_reason, &mut leg.cause, &mut leg.sip_status]
            {
                *fact = None;
            }
        }
        Some(leg)
    }
}

/// Derives a number's state from its legs, in any order.
pub fn derive(legs: &[NumberLeg], as_of_ms: i64) -> NumberState {
    let (mut active, over): (Vec<_>, Vec<_>) =
        legs.iter().partition(|entry| entry.leg.is_active(as_of_ms));
    active.sort_by_key(|entry| {
        let (presence, since) = entry.leg.engagement();
        (std::cmp::Reverse(presence), since, entry.session_key, entry.leg.side)
    });
    let last_call = over
        .into_iter()
        .max_by_key(|entry| (entry.leg.until_ms, entry.session_key, entry.leg.side))
        .map(|entry| LastCall { session_id: entry.session_id.clone(), leg: entry.leg.clone() });
    let (presence, since_ms) = match active.first() {
        Some(entry) => {
            let (presence, since) = entry.leg.engagement();
            (presence, Some(since))
        }
        None => (Presence::Idle, last_call.as_ref().map(|last| last.leg.until_ms)),
    };
    let next_expiry_ms = active.iter().map(|entry| entry.leg.until_ms).min();
    let calls = active
        .into_iter()
        .take(MAX_CALLS)
        .map(|entry| {
            let (presence, since_ms) = entry.leg.engagement();
            ActiveCall {
                session_id: entry.session_id.clone(),
                side: entry.leg.side,
                presence,
                since_ms,
                expires_at_ms: Some(entry.leg.until_ms).filter(|until| *until != i64::MAX),
            }
        })
        .collect();
    NumberState { presence, since_ms, calls, last_call, next_expiry_ms }
}

/// A number's leg as it stood at an instant in the past; `None` if it had not begun. See
/// [`Leg::rewind`].
pub fn rewind(entry: &NumberLeg, at_ms: i64) -> Option<NumberLeg> {
    let leg = entry.leg.rewind(at_ms)?;
    Some(NumberLeg { session_key: entry.session_key, session_id: entry.session_id.clone(), leg })
}
