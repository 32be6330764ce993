//! Which of the records handed to the publisher are confirmed. Pure.

use std::collections::VecDeque;

use crate::record::Position;

/// Records that were served and not yet let go, in order. Confirmations come in any order.
#[derive(Debug, Default)]
pub(crate) struct Window {
    served: VecDeque<Served>,
    /// The position behind everything served so far.
    end: Position,
}

#[derive(Debug, Clone, Copy)]
struct Served {
    position: Position,
    received_at_ms: i64,
    confirmed: bool,
}

impl Window {
    /// Nothing is served before this position.
    pub fn new(from: Position) -> Self {
        Self { served: VecDeque::new(), end: from }
    }

    /// Notes a record as served. Positions only rise.
    pub fn serve(&mut self, position: Position, received_at_ms: i64) {
        debug_assert!(position >= self.end, "records are served in order");
        self.end = position.next();
        self.served.push_back(Served { position, received_at_ms, confirmed: false });
    }

    /// Everything before this position is gone: damaged, or removed by somebody.
    pub fn skip_to(&mut self, position: Position) {
        self.end = self.end.max(position);
    }

    /// Notes a record as confirmed; whether that is news.
    pub fn confirm(&mut self, position: Position) -> bool {
        let Some(index) = self.index(position) else { return false };
        let news = !std::mem::replace(&mut self.served[index].confirmed, true);
        while self.served.front().is_some_and(|served| served.confirmed) {
            self.served.pop_front();
        }
        news
    }

    fn index(&self, position: Position) -> Option<usize> {
        // Nothing is missing between the first and this one, as a rule.
        let first = self.served.front()?.position;
        let likely = position.sequence.wrapping_sub(first.sequence) as usize;
        if self.served.get(likely).is_some_and(|served| served.position == position) {
            return Some(likely);
        }
        self.served.binary_search_by_key(&position, |served| served.position).ok()
    }

    /// The lowest record that is not confirmed, or the position behind everything served.
    pub fn lowest(&self) -> Position {
        self.served.front().map_or(self.end, |served| served.position)
    }

    /// The position behind everything served.
    pub fn end(&self) -> Position {
        self.end
    }

    /// When the lowest unconfirmed record was received.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.served.front().map(|served| served.received_at_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_are_found_across_gaps_and_epochs(
            served in prop::collection::btree_set((1u64..3, 1u64..20), 1..20),
            asked in prop::collection::vec((1u64..4, 0u64..22), 0..60),
        ) {
            let at = |(epoch, sequence)| Position { epoch, sequence };
            let mut window = Window::new(at((1, 1)));
            for position in &served {
                window.serve(at(*position), 0);
            }
            let mut left = served;
            for position in asked {
                prop_assert_eq!(window.confirm(at(position)), left.remove(&position));
                let lowest = left.first().copied().map(at);
                prop_assert_eq!(lowest.is_some_and(|lowest| lowest == window.lowest()), lowest.is_some());
            }
        }

        #[test]
        fn the_lowest_is_always_the_first_that_nobody_confirmed(
            count in 1u64..40,
            confirmations in prop::collection::vec(0u64..45, 0..80),
        ) {
            let at = |sequence| Position { epoch: 3, sequence };
            let mut window = Window::new(at(1));
            for sequence in 1..=count {
                window.serve(at(sequence), sequence as i64);
            }
            let mut confirmed = std::collections::BTreeSet::new();
            for sequence in confirmations {
                let exists = (1..=count).contains(&sequence);
                prop_assert_eq!(window.confirm(at(sequence)), exists && confirmed.insert(sequence));
                let lowest = (1..=count).find(|sequence| !confirmed.contains(sequence));
                prop_assert_eq!(window.lowest(), at(lowest.unwrap_or(count + 1)));
                prop_assert_eq!(window.oldest_ms(), lowest.map(|sequence| sequence as i64));
            }
        }
    }
}
