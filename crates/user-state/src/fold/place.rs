//! Which leg of a call an event belongs to.
//!
//! By its number where it has one and it is clear; by order otherwise: a callback calls A until
//! A has answered, then B. When a CDR names the parties the legs are known beforehand, and the
//! same events are placed again among them.
//!
//! An X number of PrivateNumber is no party: nobody's phone rings for it, and it may be in many
//! calls at once. It gets no leg. Nor does a party beyond the cap: CDRs come first, then the order
//! of events.

use super::{CdrLeg, Event, Kind, LegSide};

/// Legs followed of a call: it has two, or as many as its CDR says; more is somebody playing.
pub const MAX_LEGS: usize = 8;

/// How far a leg has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Only named.
    Named,
    /// Being called, or calling in.
    Calling,
    /// Ringing.
    Ringing,
    /// Answered.
    Answered,
}

/// A leg while events are being placed.
#[derive(Debug, Clone)]
pub(super) struct Draft<'a> {
    pub side: LegSide,
    pub number: Option<&'a str>,
    /// The party called in.
    pub inbound: bool,
    pub stage: Stage,
    pub started_ms: Option<i64>,
    pub alerting_ms: Option<i64>,
    pub answered_ms: Option<i64>,
    pub disconnect: Option<&'a Event>,
    /// What a CDR says about this leg, and which CDR.
    pub cdr: Option<(&'a CdrLeg, &'a Event)>,
}

/// Places events one after the other.
#[derive(Debug, Default)]
pub(super) struct Placement<'a> {
    pub legs: Vec<Draft<'a>>,
    /// Whether a party was left out for the cap.
    pub capped: bool,
    /// The outbound leg that the last event was placed on.
    current: Option<usize>,
    /// Whether a CDR has said who takes part.
    settled: bool,
    /// X numbers that were dialled.
    dialled: Vec<&'a str>,
}

impl<'a> Placement<'a> {
    /// Legs that a CDR names. Call for every CDR before the first [`Placement::place`].
    pub fn seed(&mut self, event: &'a Event) {
        let Some(cdr) = event.cdr.as_deref() else { return };
        self.dialled.extend(text(cdr.dialled.as_ref()));
        let sides = [(LegSide::A, &cdr.a, cdr.inbound), (LegSide::B, &cdr.b, false)];
        for (side, leg, inbound) in sides {
            let Some(leg) = leg else { continue };
            let number = text(leg.number.as_ref());
            if number.is_none() && leg.started_ms.is_none() && leg.answered_ms.is_none() {
                continue;
            }
            self.settled = true;
            let known = self.legs.iter().position(|draft| {
                draft.side == side && (draft.number == number || number.is_none())
            });
            let index = known.or_else(|| {
                let taken = self.legs.iter().any(|draft| draft.side == side);
                let side = if taken { LegSide::Unspecified } else { side };
                self.push(side, number, inbound)
            });
            if let Some(index) = index {
                self.legs[index].cdr = Some((leg, event));
            }
        }
    }

    /// Takes note of the X number of a callin. Call for every event before the first
    /// [`Placement::place`].
    pub fn note(&mut self, event: &'a Event) {
        if event.kind() == Kind::Callin {
            self.dialled.extend(text(event.called.as_ref()));
        }
    }

    /// Places a status event, takes its facts over, and says where it went, if anywhere.
    pub fn place(&mut self, event: &'a Event) -> Option<usize> {
        let time = event.time_ms();
        let (index, stage) = match event.kind() {
            Kind::Unknown | Kind::Cdr => return None,
            Kind::Callin => (self.inbound(text(event.caller.as_ref()))?, Stage::Calling),
            Kind::Callout => (self.outbound(event, Stage::Calling)?, Stage::Calling),
            Kind::Alerting => (self.outbound(event, Stage::Ringing)?, Stage::Ringing),
            Kind::Answer => (self.outbound(event, Stage::Answered)?, Stage::Answered),
            Kind::CollectInfo => (self.first()?, Stage::Answered),
            Kind::Disconnect => {
                let index = self.disconnected(text(event.called.as_ref()))?;
                self.legs[index].disconnect.get_or_insert(event);
                return Some(index);
            }
        };
        let leg = &mut self.legs[index];
        leg.stage = leg.stage.max(stage);
        let fact = match stage {
            Stage::Named | Stage::Calling => &mut leg.started_ms,
            Stage::Ringing => &mut leg.alerting_ms,
            Stage::Answered => &mut leg.answered_ms,
        };
        fact.get_or_insert(time);
        Some(index)
    }

    /// The caller's leg of a PrivateNumber call.
    fn inbound(&mut self, caller: Option<&'a str>) -> Option<usize> {
        if let Some(index) = self.legs.iter().position(|leg| leg.inbound) {
            let leg = &mut self.legs[index];
            leg.number = leg.number.or(caller);
            return Some(index);
        }
        self.push(LegSide::Unspecified, caller, true)
    }

    /// The leg of a callout, alerting or answer.
    fn outbound(&mut self, event: &'a Event, stage: Stage) -> Option<usize> {
        let index = match text(event.called.as_ref()) {
            Some(number) => self.numbered(number, stage)?,
            None => self.by_time(event, stage).or_else(|| self.by_order(None, stage))?,
        };
        self.current = Some(index);
        Some(index)
    }

    fn numbered(&mut self, number: &'a str, stage: Stage) -> Option<usize> {
        let mut named =
            self.outbound_legs().filter(|index| self.legs[*index].number == Some(number));
        match (named.next(), named.next()) {
            (Some(index), None) => return Some(index),
            // A calls itself: the number does not tell the legs apart.
            (Some(_), Some(_)) => {
                drop(named);
                return self.by_order(Some(number), stage);
            }
            (None, _) => {}
        }
        drop(named);
        let unnamed = self
            .outbound_legs()
            .find(|index| self.legs[*index].number.is_none() && self.legs[*index].stage < stage);
        match unnamed {
            Some(index) => {
                self.legs[index].number = Some(number);
                Some(index)
            }
            None => self.push(LegSide::Unspecified, Some(number), false),
        }
    }

    /// The leg whose CDR gives this very instant.
    fn by_time(&self, event: &Event, stage: Stage) -> Option<usize> {
        let time = Some(event.time_ms());
        self.outbound_legs().find(|index| {
            self.legs[*index].cdr.is_some_and(|(cdr, _)| match stage {
                Stage::Named | Stage::Calling => cdr.started_ms == time,
                Stage::Ringing => cdr.alerting_ms == time,
                Stage::Answered => cdr.answered_ms == time,
            })
        })
    }

    /// The first leg, from the current one on, that has not come that far.
    fn by_order(&mut self, number: Option<&'a str>, stage: Stage) -> Option<usize> {
        let candidates: Vec<usize> = self
            .outbound_legs()
            .filter(|index| number.is_none() || self.legs[*index].number == number)
            .collect();
        let start =
            candidates.iter().position(|index| Some(*index) == self.current).unwrap_or_default();
        let behind = candidates[start.min(candidates.len())..]
            .iter()
            .copied()
            .find(|index| self.legs[*index].stage < stage);
        if behind.is_some() {
            return behind;
        }
        let Some(current) = candidates.get(start).copied() else {
            return self.push(LegSide::Unspecified, number, false);
        };
        // Ringing twice is one phone; anything else again is the next party, of which a call has
        // two, or as many as its CDR says.
        let again = stage == Stage::Ringing && self.legs[current].stage == Stage::Ringing;
        let inbound = self.legs.iter().any(|leg| leg.inbound);
        if again || self.settled || inbound || candidates.len() > 1 {
            return Some(current);
        }
        self.push(LegSide::Unspecified, number, false)
    }

    /// The leg that a digit dialogue is held with.
    fn first(&mut self) -> Option<usize> {
        if self.legs.is_empty() { self.push(LegSide::Unspecified, None, false) } else { Some(0) }
    }

    /// The leg that a disconnect names, or none: it ends the call all the same.
    fn disconnected(&mut self, called: Option<&'a str>) -> Option<usize> {
        let number = called.filter(|number| !self.dialled.contains(number))?;
        if let Some(index) = self.legs.iter().position(|leg| leg.number == Some(number)) {
            return Some(index);
        }
        let unnamed = self.outbound_legs().find(|index| self.legs[*index].number.is_none());
        if let Some(index) = unnamed {
            self.legs[index].number = Some(number);
            return Some(index);
        }
        self.push(LegSide::Unspecified, Some(number), false)
    }

    /// Gives the legs their sides by order of appearance, unless a CDR did.
    pub fn name_sides(&mut self) {
        if self.settled {
            return;
        }
        let outbound: Vec<usize> = self.outbound_legs().collect();
        let inbound = self.legs.iter().position(|leg| leg.inbound);
        let order = inbound.into_iter().chain(outbound);
        for (index, side) in order.zip([LegSide::A, LegSide::B]) {
            self.legs[index].side = side;
        }
    }

    fn outbound_legs(&self) -> impl Iterator<Item = usize> + '_ {
        self.legs.iter().enumerate().filter(|(_, leg)| !leg.inbound).map(|(index, _)| index)
    }

    /// One more leg, unless there are as many as are followed.
    fn push(&mut self, side: LegSide, number: Option<&'a str>, inbound: bool) -> Option<usize> {
        if self.legs.len() == MAX_LEGS {
            self.capped = true;
            return None;
        }
        self.legs.push(Draft {
            side,
            number,
            inbound,
            stage: Stage::Named,
            started_ms: None,
            alerting_ms: None,
            answered_ms: None,
            disconnect: None,
            cdr: None,
        });
        Some(self.legs.len() - 1)
    }
}

/// A text that says something: the platform sends empty ones for absent ones.
fn text(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|text| !text.is_empty())
}
