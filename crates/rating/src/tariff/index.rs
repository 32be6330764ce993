//! Finds a leg's rate, and proves that there is never more than one.
//!
//! Each rate stands under every combination of what it names. Two rates can claim the same leg
//! with the same right only under the same combination, so that is where overlaps are looked
//! for, and one look-up per combination of the leg's own traits finds the winner.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::{Rate, Validity};
use crate::{Service, Side};

/// Combinations a tariff may have: bounds memory, about 100 bytes each.
const MAX_COMBINATIONS: usize = 1_000_000;
/// Overlaps that are named; a tariff pasted twice has thousands.
const MAX_NAMED: usize = 20;

/// What a rate names, in order of weight; `None` is anything. Texts by number.
type Key = (Option<u32>, Option<Service>, Option<Side>, Option<u32>);

#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    applications: HashMap<String, u32>,
    prefixes: HashMap<String, u32>,
    /// Longest first.
    prefix_lengths: Vec<usize>,
    /// Rates by place in the tariff, by start of validity.
    rates: HashMap<Key, Vec<(Validity, usize)>>,
}

impl Index {
    /// Refuses rates that overlap; every reason found.
    pub(super) fn new(rates: &[Rate]) -> Result<Self, Vec<String>> {
        let combinations = rates.iter().map(|rate| {
            [rate.applications.len(), rate.services.len(), rate.legs.len(), rate.prefixes.len()]
                .into_iter()
                .fold(1_usize, |product, count| product.saturating_mul(count.max(1)))
        });
        if combinations.fold(0, usize::saturating_add) > MAX_COMBINATIONS {
            return Err(vec![format!(
                "rates name more than {MAX_COMBINATIONS} combinations of applications, services, \
                 legs and prefixes; use shorter prefixes"
            )]);
        }
        let mut index = Self::default();
        for (place, rate) in rates.iter().enumerate() {
            index.insert(place, rate);
        }
        let mut lengths: Vec<usize> = index.prefixes.keys().map(String::len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        index.prefix_lengths = lengths;
        index.sort(rates)
    }

    fn insert(&mut self, place: usize, rate: &Rate) {
        let applications = numbers(&mut self.applications, &rate.applications);
        let prefixes = numbers(&mut self.prefixes, &rate.prefixes);
        for application in applications {
            for service in one_or_any(&rate.services) {
                for leg in one_or_any(&rate.legs) {
                    for prefix in &prefixes {
                        self.rates
                            .entry((application, service, leg, *prefix))
                            .or_default()
                            .push((rate.validity, place));
                    }
                }
            }
        }
    }

    /// Sorts each combination's rates by time; those that overlap are then neighbours.
    fn sort(mut self, rates: &[Rate]) -> Result<Self, Vec<String>> {
        let mut overlaps = BTreeSet::new();
        for found in self.rates.values_mut() {
            found.sort_by_key(|(validity, place)| (validity.from, *place));
            for pair in found.windows(2) {
                if pair[0].0.overlaps(&pair[1].0) {
                    let (one, other) = (pair[0].1.min(pair[1].1), pair[0].1.max(pair[1].1));
                    overlaps.insert((one, other));
                }
            }
        }
        if overlaps.is_empty() {
            return Ok(self);
        }
        let mut named: Vec<String> = overlaps
            .iter()
            .take(MAX_NAMED)
            .map(|(one, other)| {
                format!(
                    "rates {} and {} overlap: the same legs at the same time, and neither names \
                     more than the other",
                    rates[*one].name, rates[*other].name
                )
            })
            .collect();
        if overlaps.len() > MAX_NAMED {
            named.push(format!("and {} more overlaps", overlaps.len() - MAX_NAMED));
        }
        Err(named)
    }

    pub(super) fn find(
        &self,
        application: &str,
        service: Option<Service>,
        side: Side,
        number: Option<&str>,
        at: Timestamp,
    ) -> Option<usize> {
        let application = self.applications.get(application).copied();
        // The number's prefixes that some rate names, longest first, then none.
        let prefixes = || {
            let known = self
                .prefix_lengths
                .iter()
                .filter_map(|length| self.prefixes.get(number?.get(..*length)?).copied());
            known.map(Some).chain([None])
        };
        for application in trait_or_any(application) {
            for service in trait_or_any(service) {
                for leg in [Some(side), None] {
                    for prefix in prefixes() {
                        let Some(rates) = self.rates.get(&(application, service, leg, prefix))
                        else {
                            continue;
                        };
                        // Sorted by start and apart: only the last to begin can be in force.
                        let begun =
                            rates.partition_point(|(v, _)| v.from.is_none_or(|from| from <= at));
                        let last = begun.checked_sub(1).and_then(|last| rates.get(last));
                        if let Some((_, place)) = last.filter(|(v, _)| v.contains(at)) {
                            return Some(*place);
                        }
                    }
                }
            }
        }
        None
    }
}

fn numbers(known: &mut HashMap<String, u32>, texts: &BTreeSet<String>) -> Vec<Option<u32>> {
    if texts.is_empty() {
        return vec![None];
    }
    texts
        .iter()
        .map(|text| {
            let next = known.len() as u32;
            Some(*known.entry(text.clone()).or_insert(next))
        })
        .collect()
}

fn one_or_any<T: Copy>(named: &BTreeSet<T>) -> Vec<Option<T>> {
    if named.is_empty() { vec![None] } else { named.iter().copied().map(Some).collect() }
}

fn trait_or_any<T: Copy>(own: Option<T>) -> impl Iterator<Item = Option<T>> {
    own.map(Some).into_iter().chain([None])
}
