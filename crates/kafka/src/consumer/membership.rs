//! Whether a client still hears from its group, by librdkafka's own statistics. Pure.
//!
//! Two things that librdkafka (2.12.1) does not get over by itself, both seen under chaos:
//!
//! - In a broker-led group the coordinator tells an assignment once. If that answer is lost by a
//!   time-out, the client sends the same heartbeat again, which asks for nothing, and never learns
//!   what it has been given: nobody serves those partitions.
//! - A client that was given outdated metadata may look for its coordinator for ever.
//!
//! A new client joins anew and is told everything.

use std::time::{Duration, Instant};

use rdkafka::statistics::Statistics;

use crate::settings::GroupProtocol;

/// What one client's reports say so far.
#[derive(Debug)]
pub struct Membership {
    protocol: GroupProtocol,
    /// How long to look for the coordinator while brokers are there, and how long a client stays
    /// before it may be doubted for an answer: joining anew must not become a habit.
    patience: Duration,
    born: Instant,
    /// Requests to the coordinator that timed out, up to the last report.
    timeouts: u64,
    /// Some did since the coordinator was last known to answer.
    unheard: bool,
    astray_since: Option<Instant>,
}

impl Membership {
    pub fn new(protocol: GroupProtocol, patience: Duration, born: Instant) -> Self {
        Self { protocol, patience, born, timeouts: 0, unheard: false, astray_since: None }
    }

    /// Why the client should be made anew, if it should.
    pub fn doubt(&mut self, statistics: &Statistics, now: Instant) -> Option<&'static str> {
        let state = statistics.cgrp.as_ref()?.state.as_str();
        let brokers = || statistics.brokers.values();
        // The coordinator has a connection of its own, the only logical one of a consumer.
        let logical = brokers().filter(|broker| broker.source == "logical");
        let timeouts = logical.map(|broker| broker.req_timeouts).sum();
        let lately = std::mem::replace(&mut self.timeouts, timeouts) < timeouts;
        self.unheard |= lately && self.protocol == GroupProtocol::Consumer;

        if state == "up" {
            self.astray_since = None;
            // Not while answers are still missing: a new client would fare no better.
            let is_due = !lately && now.duration_since(self.born) >= self.patience;
            return (self.unheard && is_due).then_some(LOST_ANSWER);
        }
        if !brokers().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
            self.astray_since = None;
            return None;
        }
        let since = *self.astray_since.get_or_insert(now);
        (now.duration_since(since) >= self.patience).then_some(NO_COORDINATOR)
    }
}

const LOST_ANSWER: &str = "an answer of the group's coordinator was lost, and with it perhaps what \
                           this member was given";
const NO_COORDINATOR: &str = "brokers are there, but no coordinator of the group is found";

#[cfg(test)]
mod tests {
    use rdkafka::statistics::{Broker, ConsumerGroup};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(45);

    fn report(state: &str, coordinator_timeouts: u64, broker: &str) -> Statistics {
        let mut statistics = Statistics {
            cgrp: Some(ConsumerGroup { state: state.into(), ..ConsumerGroup::default() }),
            ..Statistics::default()
        };
        let node = Broker {
            nodeid: 1,
            state: broker.into(),
            source: "learned".into(),
            // Fetches that time out lose nothing: they are sent again.
            req_timeouts: 7,
            ..Broker::default()
        };
        let coordinator = Broker {
            nodeid: -1,
            source: "logical".into(),
            req_timeouts: coordinator_timeouts,
            ..Broker::default()
        };
        statistics.brokers.insert("node".into(), node);
        statistics.brokers.insert("coordinator".into(), coordinator);
        statistics
    }

    #[test]
    fn a_lost_answer_is_doubted_once_the_coordinator_answers_again() {
        let born = Instant::now();
        let now = born + PATIENCE;
        let mut member = Membership::new(GroupProtocol::Consumer, PATIENCE, born);
        assert_eq!(member.doubt(&report("up", 0, "UP"), now), None);
        assert_eq!(member.doubt(&report("up", 1, "UP"), now), None);
        assert_eq!(member.doubt(&report("up", 2, "UP"), now), None);
        assert_eq!(member.doubt(&report("wait-broker", 2, "UP"), now), None);
        assert_eq!(member.doubt(&report("up", 2, "UP"), now), Some(LOST_ANSWER));
    }

    #[test]
    fn a_client_that_has_just_joined_is_not_doubted_yet() {
        let born = Instant::now();
        let mut member = Membership::new(GroupProtocol::Consumer, PATIENCE, born);
        assert_eq!(member.doubt(&report("up", 1, "UP"), born), None);
        assert_eq!(member.doubt(&report("up", 1, "UP"), born + PATIENCE / 2), None);
        assert_eq!(member.doubt(&report("up", 1, "UP"), born + PATIENCE), Some(LOST_ANSWER));
    }

    #[test]
    fn a_classic_group_asks_again_by_itself() {
        let born = Instant::now();
        let now = born + PATIENCE;
        let mut member = Membership::new(GroupProtocol::Classic, PATIENCE, born);
        assert_eq!(member.doubt(&report("up", 1, "UP"), now), None);
        assert_eq!(member.doubt(&report("up", 1, "UP"), now), None);
    }

    #[test]
    fn a_coordinator_that_is_not_found_is_waited_for_while_brokers_are_there() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut member = Membership::new(GroupProtocol::Classic, PATIENCE, start);
        assert_eq!(member.doubt(&report("query-coord", 0, "DOWN"), after(0)), None);
        assert_eq!(member.doubt(&report("query-coord", 0, "DOWN"), after(100)), None);
        assert_eq!(member.doubt(&report("query-coord", 0, "UP"), after(200)), None);
        assert_eq!(member.doubt(&report("wait-coord", 0, "UP"), after(244)), None);
        assert_eq!(member.doubt(&report("wait-coord", 0, "UP"), after(245)), Some(NO_COORDINATOR));
        assert_eq!(member.doubt(&report("up", 0, "UP"), after(246)), None);
        assert_eq!(member.doubt(&report("wait-coord", 0, "UP"), after(300)), None);
    }
}
