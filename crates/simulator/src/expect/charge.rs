//! What a call costs under the simulator's simple tariff: a price for each started minute of each
//! answered leg (P 9, policy `per_leg`, increments 60/60).

use tollgate_schema::v1::LegSide;

use crate::Price;
use crate::script::{Call, Leg};

/// What the ledger must come to for a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Charge {
    /// Answered legs only.
    pub legs: Vec<ChargedLeg>,
    /// Micro-units of the currency.
    pub amount_micros: i64,
}

/// One answered leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChargedLeg {
    pub side: LegSide,
    pub seconds: i64,
    pub minutes: i64,
    /// Micro-units of the currency.
    pub amount_micros: i64,
}

/// What this call costs.
pub(crate) fn charge(call: &Call, price: Price) -> Charge {
    let sides = [(LegSide::A, call.course.a), (LegSide::B, call.course.b)];
    let legs: Vec<_> = sides
        .into_iter()
        .filter_map(|(side, leg)| charged(side, &leg?, call.course.ends, price))
        .collect();
    Charge { amount_micros: legs.iter().map(|leg| leg.amount_micros).sum(), legs }
}

fn charged(side: LegSide, leg: &Leg, ends: i64, price: Price) -> Option<ChargedLeg> {
    let seconds = ends - leg.answered?;
    // A started minute counts, and so does a leg that was answered and hung up within a second.
    let minutes = ((seconds + 59) / 60).max(1);
    Some(ChargedLeg { side, seconds, minutes, amount_micros: minutes * price.micros })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(seconds: i64) -> i64 {
        let leg = Leg { started: 0, alerting: None, answered: Some(10) };
        charged(LegSide::A, &leg, 10 + seconds, Price { micros: 180_000 }).unwrap().minutes
    }

    #[test]
    fn a_started_minute_counts_whole() {
        for (seconds, expected) in
            [(0, 1), (1, 1), (59, 1), (60, 1), (61, 2), (120, 2), (121, 3), (180, 3)]
        {
            assert_eq!(minutes(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn a_leg_that_nobody_answered_costs_nothing() {
        let leg = Leg { started: 0, alerting: Some(3), answered: None };
        assert_eq!(charged(LegSide::A, &leg, 60, Price { micros: 1 }), None);
    }
}
