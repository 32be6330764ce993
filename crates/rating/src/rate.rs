//! CDR and tariff in, rated legs out.

use std::sync::Arc;

use jiff::Timestamp;

use crate::tariff::Policy;
use crate::{Cdr, Flag, LegTimes, Limits, Rated, RatedLeg, Service, Side, Status, Tariff};

/// Rates a call. Without a tariff it is unrated, or implausible.
///
/// The rate is the one in force when the leg was answered, also for a call that runs on into
/// another rate's validity.
pub fn rate(cdr: &Cdr<'_>, tariff: Option<&Tariff>, limits: &Limits) -> Rated {
    let call = Call::new(cdr);
    let (mut flags, implausible) = call.oddities(limits);
    if implausible {
        return call.uncharged(Status::Implausible, flags);
    }
    let Some(tariff) = tariff else { return call.uncharged(Status::Unrated, flags) };
    match call.charge(tariff) {
        Ok((legs, amount_micros)) => {
            Rated { status: Status::Rated, legs, currency: tariff.currency(), amount_micros, flags }
        }
        Err(Uncharged::NoRate) => call.uncharged(Status::Unrated, flags),
        Err(Uncharged::Overflow) => {
            flags.push(Flag::Overflow);
            call.uncharged(Status::Implausible, flags)
        }
    }
}

/// Why a plausible call has no amount.
enum Uncharged {
    NoRate,
    Overflow,
}

/// A call with its legs measured.
struct Call<'a> {
    cdr: &'a Cdr<'a>,
    /// Whole seconds since 1970.
    end: Option<i64>,
    legs: [Leg<'a>; 2],
}

struct Leg<'a> {
    side: Side,
    times: LegTimes<'a>,
    /// Answer to end in whole seconds; `None` without the one or the other.
    seconds: Option<i64>,
    /// Whether a call of this service has such a leg.
    expected: bool,
}

/// A duration to be charged, and when it began.
#[derive(Clone, Copy)]
struct Charge {
    seconds: i64,
    answered_at: Timestamp,
}

impl Leg<'_> {
    /// What this leg is charged by itself.
    fn own_charge(&self) -> Option<Charge> {
        let seconds = self.seconds.filter(|seconds| self.expected && *seconds >= 0)?;
        Some(Charge { seconds, answered_at: self.times.answered_at? })
    }

    fn uncharged(&self) -> RatedLeg {
        RatedLeg {
            side: self.side,
            seconds: self.seconds.unwrap_or(0),
            billed_seconds: 0,
            billed_minutes: 0,
            amount_micros: 0,
            rate: Arc::from(""),
        }
    }
}

impl<'a> Call<'a> {
    fn new(cdr: &'a Cdr<'a>) -> Self {
        let end = cdr.ended_at.or(cdr.failed_at).map(whole_seconds);
        let (a_counts, b_counts) = legs_of(cdr);
        let leg = |side, times: Option<LegTimes<'a>>, expected| {
            let times = times.unwrap_or_default();
            let answer = times.answered_at.map(whole_seconds);
            let seconds = end.zip(answer).map(|(end, answer)| end - answer);
            Leg { side, times, seconds, expected }
        };
        let legs = [leg(Side::A, cdr.a_leg, a_counts), leg(Side::B, cdr.b_leg, b_counts)];
        Self { cdr, end, legs }
    }

    fn answered(&self) -> impl Iterator<Item = &Leg<'a>> {
        self.legs.iter().filter(|leg| leg.times.answered_at.is_some())
    }

    /// The flags, and whether they keep the call from being charged.
    fn oddities(&self, limits: &Limits) -> (Vec<Flag>, bool) {
        let any = |odd: fn(&Leg<'_>) -> bool| self.answered().any(odd);
        let received = whole_seconds(self.cdr.received_at);
        let too_long = |leg: &Leg<'_>| leg.seconds.is_some_and(|s| s > limits.max_leg_seconds);
        let ahead = |end: i64| end.saturating_sub(received) > limits.max_ahead_seconds;
        let found = [
            (Flag::Negative, any(|leg| leg.seconds.is_some_and(|seconds| seconds < 0)), false),
            (Flag::NoEnd, self.end.is_none() && any(|_| true), false),
            (Flag::TooLong, self.answered().any(too_long), true),
            (Flag::EndsInFuture, self.end.is_some_and(ahead), true),
            (Flag::UnreadableTimes, self.cdr.unreadable_times, true),
            (Flag::UnexpectedLeg, any(|leg| !leg.expected), false),
        ];
        let found = found.into_iter().filter(|(_, is, _)| *is);
        let implausible = found.clone().any(|(_, _, fatal)| fatal);
        (found.map(|(flag, _, _)| flag).collect(), implausible)
    }

    fn uncharged(&self, status: Status, flags: Vec<Flag>) -> Rated {
        let legs = self.answered().map(Leg::uncharged).collect();
        Rated { status, legs, currency: "", amount_micros: 0, flags }
    }

    /// What each leg is charged under the policy.
    fn charges(&self, policy: Policy) -> [Option<Charge>; 2] {
        let [a, b] = &self.legs;
        let own = [a.own_charge(), b.own_charge()];
        let two_legs = a.expected && b.expected;
        match policy {
            Policy::BLegOnly if two_legs => [None, own[1]],
            Policy::BLegTwice if two_legs => [own[1], own[1]],
            Policy::PerLeg | Policy::BLegOnly | Policy::BLegTwice => own,
        }
    }

    fn charge(&self, tariff: &Tariff) -> Result<(Vec<RatedLeg>, i64), Uncharged> {
        let mut legs = Vec::with_capacity(2);
        let mut total = 0_i64;
        for (leg, charge) in self.legs.iter().zip(self.charges(tariff.policy())) {
            let Some(charge) = charge else {
                if leg.times.answered_at.is_some() {
                    legs.push(leg.uncharged());
                }
                continue;
            };
            let rate = tariff
                .find(
                    self.cdr.application,
                    self.cdr.service,
                    leg.side,
                    leg.times.number,
                    charge.answered_at,
                )
                .ok_or(Uncharged::NoRate)?;
            let billed_seconds = rate.billed_seconds(charge.seconds);
            let amount_micros =
                rate.amount(billed_seconds, tariff.rounding()).ok_or(Uncharged::Overflow)?;
            total = total.checked_add(amount_micros).ok_or(Uncharged::Overflow)?;
            legs.push(RatedLeg {
                side: leg.side,
                seconds: leg.seconds.unwrap_or(0),
                billed_seconds,
                billed_minutes: started_minutes(charge.seconds),
                amount_micros,
                rate: Arc::clone(rate.name()),
            });
        }
        Ok((legs, total))
    }
}

/// Which legs, A and B, count for the service of a record.
fn legs_of(cdr: &Cdr<'_>) -> (bool, bool) {
    match cdr.service {
        Some(Service::Callback) => (true, true),
        Some(Service::Notification | Service::Verification | Service::Playback) => (true, false),
        Some(Service::PrivateAx | Service::PrivateAxb) => (false, true),
        None => (!cdr.inbound, cdr.b_leg.is_some()),
    }
}

/// Minutes begun, at least one: an answered leg of no whole second was answered all the same.
fn started_minutes(seconds: i64) -> i64 {
    let begun = seconds / 60 + i64::from(seconds % 60 > 0);
    begun.max(1)
}

/// Cut to the second before, also before 1970.
fn whole_seconds(instant: Timestamp) -> i64 {
    instant.as_second() - i64::from(instant.subsec_nanosecond() < 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_cut_downwards() {
        for (millisecond, second) in
            [(0, 0), (999, 0), (1000, 1), (-1, -1), (-1000, -1), (-1001, -2)]
        {
            let instant = Timestamp::from_millisecond(millisecond).unwrap();
            assert_eq!(whole_seconds(instant), second, "{millisecond}");
        }
    }

    #[test]
    fn a_started_minute_counts() {
        for (seconds, minutes) in [(0, 1), (1, 1), (59, 1), (60, 1), (61, 2), (120, 2), (121, 3)] {
            assert_eq!(started_minutes(seconds), minutes, "{seconds} s");
        }
        assert_eq!(started_minutes(i64::MAX), i64::MAX / 60 + 1);
    }
}
