//! Things that are numbered as they come, and go in about the same order.

use std::collections::VecDeque;

/// Holds them by number. Takes as much memory as there are numbers between the oldest that is still
/// here and the newest.
pub struct Numbered<T> {
    /// Number of the first place.
    first: u64,
    /// Emptied places are removed at the front only.
    places: VecDeque<Option<T>>,
    len: usize,
}

impl<T> Numbered<T> {
    /// Empty; the first number is 0.
    pub fn new() -> Self {
        Self { first: 0, places: VecDeque::new(), len: 0 }
    }

    /// The number that the next one gets.
    pub fn next(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// Takes one in; its number.
    pub fn push(&mut self, thing: T) -> u64 {
        let number = self.next();
        self.places.push_back(Some(thing));
        self.len += 1;
        number
    }

    /// The one with this number, if it is still here.
    pub fn get(&self, number: u64) -> Option<&T> {
        self.places.get(self.index(number)?)?.as_ref()
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let index = self.index(number)?;
        self.places.get_mut(index)?.as_mut()
    }

    /// Takes the one with this number out, if it is still here.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let index = self.index(number)?;
        let thing = self.places.get_mut(index)?.take()?;
        self.len -= 1;
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.first += 1;
        }
        Some(thing)
    }

    /// How many are here.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Places from the oldest that is still here to the newest, emptied ones too.
    pub fn span(&self) -> usize {
        self.places.len()
    }

    /// Whether none is here.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_came_and_has_not_gone(steps in prop::collection::vec(0u64..30, 0..120)) {
            let mut numbered = Numbered::new();
            let mut model = BTreeMap::new();
            let mut came = 0;
            for step in steps {
                if step < 15 {
                    prop_assert_eq!(numbered.next(), came);
                    prop_assert_eq!(numbered.push(step), came);
                    model.insert(came, step);
                    came += 1;
                } else {
                    // Of the last ones, some of which have gone already or never came.
                    let number = (came + 5).saturating_sub(step - 14);
                    prop_assert_eq!(numbered.get(number), model.get(&number));
                    prop_assert_eq!(numbered.get_mut(number), model.get_mut(&number));
                    prop_assert_eq!(numbered.remove(number), model.remove(&number));
                }
                prop_assert_eq!(numbered.len(), model.len());
                prop_assert_eq!(numbered.is_empty(), model.is_empty());
                let oldest = model.keys().next().copied().unwrap_or(came);
                prop_assert_eq!(numbered.places.len() as u64, came - oldest);
            }
        }
    }
}
