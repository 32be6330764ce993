//! The names that an object's members are known by, found by hash: an object of a CDR has forty
//! members, and each is looked up among as many names.

/// Names without doubles, each of which has a number: its place in the list.
#[derive(Debug)]
pub(crate) struct Names {
    list: &'static [&'static str],
    /// Numbers, each at the first place from its name's hash on that was free.
    places: [u8; PLACES],
}

/// More than twice as many as there are names in any list.
const PLACES: usize = 128;

/// No number.
const FREE: u8 = u8::MAX;

impl Names {
    /// Made while compiling.
    pub(crate) const fn of(list: &'static [&'static str]) -> Self {
        assert!(list.len() * 2 < PLACES, "too many names: make more places");
        let mut places = [FREE; PLACES];
        let mut number = 0;
        while number < list.len() {
            let mut place = hash(list[number].as_bytes());
            while places[place] != FREE {
                place = (place + 1) % PLACES;
            }
            places[place] = number as u8;
            number += 1;
        }
        Self { list, places }
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.list.len()
    }

    /// The number of a name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let mut place = hash(name.as_bytes());
        loop {
            let number = self.places[place];
            if self.list.get(usize::from(number))? == &name {
                return Some(usize::from(number));
            }
            place = (place + 1) % PLACES;
        }
    }

    /// The same while compiling, which fails when the name is not there.
    pub(crate) const fn number_of(&self, name: &str) -> usize {
        let mut number = 0;
        while !is_same(self.list[number].as_bytes(), name.as_bytes()) {
            number += 1;
        }
        number
    }
}

/// Of the first and the last eight bytes, between which the known names differ enough.
const fn hash(name: &[u8]) -> usize {
    let (mut bits, mut at) = (0, 0);
    if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        bits = u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last);
    } else {
        while at < name.len() {
            bits = bits << 8 | name[at] as u64;
            at += 1;
        }
    }
    // Fibonacci hashing: the upper bits of the product depend on all bits.
    ((bits ^ name.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % PLACES
}

const fn is_same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether what is known is found, and what is nearly known is not.
    fn finds_itself(names: &Names) {
        for (number, name) in names.list.iter().enumerate() {
            assert_eq!(names.find(name), Some(number), "{name}");
            assert_eq!(names.number_of(name), number, "{name}");
            let other =
                [&name[1..], &name[..name.len() - 1], &format!("{name}x"), &name.to_uppercase()];
            assert!(other.iter().all(|other| names.find(other).is_none()), "{name}");
        }
        assert_eq!(names.find(""), None);
    }

    #[test]
    fn every_name_is_found_and_nothing_else() {
        finds_itself(&crate::cdr::NAMES);
        finds_itself(&crate::status::NAMES);
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_search_through_the_list_finds(
            name in prop::sample::select(crate::cdr::NAMES.list),
            at in any::<prop::sample::Index>(),
            with in "[a-zA-Z\0é]{0,2}",
        ) {
            let at = at.index(name.len());
            let changed = format!("{}{with}{}", &name[..at], &name[at + 1..]);
            let expected = crate::cdr::NAMES.list.iter().position(|known| **known == changed);
            prop_assert_eq!(crate::cdr::NAMES.find(&changed), expected);
        }
    }
}
