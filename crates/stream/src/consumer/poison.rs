//! How much poison is too much: then the fault is ours, not the records', and going on would
//! only move a topic into quarantine.

use std::collections::VecDeque;

use crate::settings::ConsumerSettings;

/// The latest records of a partition, each good or poison.
#[derive(Debug, Clone)]
pub(super) struct PoisonWatch {
    in_a_row: u32,
    recent: VecDeque<bool>,
    poison: u64,
    in_a_row_limit: u32,
    percent_limit: u64,
    window: usize,
    judged_from: usize,
}

impl PoisonWatch {
    pub(super) fn new(settings: &ConsumerSettings) -> Self {
        Self {
            in_a_row: 0,
            recent: VecDeque::new(),
            poison: 0,
            in_a_row_limit: settings.poison_in_a_row,
            percent_limit: settings.poison_percent.into(),
            window: settings.poison_window as usize,
            judged_from: settings.poison_judged_from as usize,
        }
    }

    /// Takes a record into account.
    pub(super) fn note(&mut self, poison: bool) {
        self.in_a_row = if poison { self.in_a_row + 1 } else { 0 };
        self.recent.push_back(poison);
        self.poison += u64::from(poison);
        if self.recent.len() > self.window && self.recent.pop_front() == Some(true) {
            self.poison -= 1;
        }
    }

    /// Whether one more poison record reaches a limit; says which.
    pub(super) fn limit_at_next(&self) -> Option<String> {
        if self.in_a_row + 1 >= self.in_a_row_limit {
            return Some(format!("{} records in a row", self.in_a_row + 1));
        }
        let full = self.recent.len() >= self.window;
        let leaving = u64::from(full && self.recent.front() == Some(&true));
        let poison = self.poison + 1 - leaving;
        let judged = if full { self.window } else { self.recent.len() + 1 };
        if judged >= self.judged_from && poison * 100 >= self.percent_limit * judged as u64 {
            return Some(format!("{poison} of the last {judged} records"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> PoisonWatch {
        PoisonWatch::new(&ConsumerSettings::default())
    }

    #[test]
    fn the_hundredth_in_a_row_stops() {
        let mut watch = watch();
        for _ in 0..99 {
            assert_eq!(watch.limit_at_next(), None);
            watch.note(true);
        }
        assert_eq!(watch.limit_at_next().as_deref(), Some("100 records in a row"));
        watch.note(false);
        assert_eq!(watch.limit_at_next(), None, "one good record breaks the row");
    }

    #[test]
    fn one_percent_stops_from_the_thousandth_record_on_and_not_before() {
        let mut watch = watch();
        for _ in 0..9 {
            watch.note(true);
            watch.note(false);
        }
        for _ in 18..998 {
            watch.note(false);
        }
        assert_eq!(watch.limit_at_next(), None, "the 999th is not judged");
        watch.note(false);
        assert_eq!(watch.limit_at_next().as_deref(), Some("10 of the last 1000 records"));
    }

    #[test]
    fn poison_that_left_the_window_does_not_count() {
        let mut watch = watch();
        for _ in 0..99 {
            watch.note(true);
        }
        for _ in 0..9_901 {
            watch.note(false);
        }
        assert_eq!(watch.recent.len(), 10_000);
        // 99 poison, the oldest leaves as the next comes.
        assert_eq!(watch.limit_at_next(), None);
        for _ in 0..99 {
            watch.note(false);
        }
        assert_eq!(watch.poison, 0);
        assert_eq!(watch.recent.len(), 10_000);
    }
}
