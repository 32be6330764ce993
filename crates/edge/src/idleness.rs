//! How long a connection has asked for nothing, and what follows from that. No clock, no socket.

use std::time::Duration;

use tokio::time::Instant;

/// A connection that has been idle for so long rests.
pub const UNTIL_REST: Duration = Duration::from_secs(2);

/// How long a connection may ask for nothing.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// When the last answer is gone and not a byte has come since.
    pub idle: Duration,
    /// In all; must exceed the time for a head and `idle` together.
    pub most: Duration,
}

/// What a connection has done since its last request.
#[derive(Debug)]
pub struct Idleness {
    /// None while a request is in progress.
    since: Option<Instant>,
    /// Whether anything has come since.
    has_heard: bool,
    is_flushed: bool,
    has_served: bool,
}

/// What a look at a connection says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Look again then.
    Again(Instant),
    /// It needs nothing but its socket.
    Rests,
    /// It has asked for nothing for too long: in the middle of something, where it is `cut`.
    Over { cut: bool },
}

impl Idleness {
    /// A connection that was accepted just now.
    pub fn new(now: Instant) -> Self {
        Self { since: Some(now), has_heard: false, is_flushed: true, has_served: false }
    }

    /// A request begins.
    pub fn begins(&mut self) {
        self.since = None;
        self.has_served = true;
    }

    /// The request has ended.
    pub fn ends(&mut self, now: Instant) {
        self.since = Some(now);
        self.has_heard = false;
    }

    /// Something has come.
    pub fn hears(&mut self) {
        self.has_heard = true;
    }

    /// Whether all that was written has reached the kernel.
    pub fn set_flushed(&mut self, is_flushed: bool) {
        self.is_flushed = is_flushed;
    }

    /// Since when no request is in progress; `None` while one is.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether there ever was a request.
    pub fn has_served(&self) -> bool {
        self.has_served
    }

    /// What to do now. `is_read_up` is whether nothing of a next request lies in its buffers.
    pub fn look(&self, now: Instant, patience: Patience, is_read_up: bool) -> Look {
        let Some(since) = self.since else { return Look::Again(now + UNTIL_REST) };
        let is_quiet = self.has_served && !self.has_heard && self.is_flushed;
        let deadline = since + if is_quiet { patience.idle } else { patience.most };
        let rest = since + UNTIL_REST;
        if now >= deadline {
            Look::Over { cut: !is_quiet }
        } else if !is_quiet || !is_read_up {
            Look::Again(deadline)
        } else if now < rest {
            Look::Again(rest.min(deadline))
        } else {
            Look::Rests
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { idle: Duration::from_secs(30), most: Duration::from_mins(1) };

    /// What is said so many seconds after a connection did `what`.
    fn looks(what: impl Fn(&mut Idleness, Instant), seconds: u64, is_read_up: bool) -> Seen {
        let start = Instant::now();
        let mut idleness = Idleness::new(start);
        what(&mut idleness, start);
        match idleness.look(start + Duration::from_secs(seconds), PATIENCE, is_read_up) {
            Look::Again(then) => Seen::Again((then - start).as_secs()),
            Look::Rests => Seen::Rests,
            Look::Over { cut } => Seen::Over { cut },
        }
    }

    #[derive(Debug, PartialEq)]
    enum Seen {
        Again(u64),
        Rests,
        Over { cut: bool },
    }

    fn served(idleness: &mut Idleness, now: Instant) {
        idleness.begins();
        idleness.hears();
        idleness.set_flushed(false);
        idleness.ends(now);
        idleness.set_flushed(true);
    }

    #[test]
    fn one_that_was_answered_rests_and_is_over_when_it_stays_idle() {
        assert_eq!(looks(served, 1, true), Seen::Again(2));
        assert_eq!(looks(served, 2, true), Seen::Rests);
        assert_eq!(looks(served, 29, true), Seen::Rests);
        assert_eq!(looks(served, 30, true), Seen::Over { cut: false });
    }

    #[test]
    fn one_with_something_in_its_buffers_does_not_rest() {
        assert_eq!(looks(served, 2, false), Seen::Again(30));
        assert_eq!(looks(served, 30, false), Seen::Over { cut: false });
    }

    #[test]
    fn one_in_the_middle_of_something_has_longer_and_is_cut() {
        let half_a_head = |idleness: &mut Idleness, now| {
            served(idleness, now);
            idleness.hears();
        };
        let unread_answer = |idleness: &mut Idleness, now| {
            served(idleness, now);
            idleness.set_flushed(false);
        };
        let nothing_yet = |_: &mut Idleness, _| {};
        for what in [&half_a_head as &dyn Fn(&mut Idleness, Instant), &unread_answer, &nothing_yet]
        {
            assert_eq!(looks(what, 30, true), Seen::Again(60));
            assert_eq!(looks(what, 60, true), Seen::Over { cut: true });
        }
    }

    #[test]
    fn a_request_in_progress_may_take_as_long_as_it_takes() {
        let begins = |idleness: &mut Idleness, _| idleness.begins();
        assert_eq!(looks(begins, 1000, true), Seen::Again(1002));
    }
}
