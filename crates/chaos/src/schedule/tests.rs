use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn the_same_seed_gives_the_same_schedule(seed: u64) {
        prop_assert_eq!(Schedule::of(seed), Schedule::of(seed));
    }

    #[test]
    fn every_fault_begins_and_ends_while_calls_are_made(seed: u64) {
        let schedule = Schedule::of(seed);
        prop_assert!(schedule.events.len() >= 8);
        prop_assert!(schedule.events.is_sorted_by_key(|event| event.at_ms));
        for event in &schedule.events {
            prop_assert!(event.lasts_ms > 0 && event.ends_ms() <= TRAFFIC_MS, "{:?}", event);
        }
    }

    #[test]
    fn no_fault_undoes_another(seed: u64) {
        let events = Schedule::of(seed).events;
        for (index, one) in events.iter().enumerate() {
            for two in &events[..index] {
                let apart = one.ends_ms() < two.at_ms || two.ends_ms() < one.at_ms;
                prop_assert!(apart || !one.fault.excludes(two.fault), "{:?} {:?}", one, two);
            }
        }
    }

    #[test]
    fn edges_are_where_only_edges_can_be(seed: u64) {
        for Event { fault, .. } in Schedule::of(seed).events {
            match fault {
                Fault::Kill(node, Some(_)) | Fault::DiskFull(node) => prop_assert!(node.is_edge()),
                Fault::Network(Path::Sender(node), _) => prop_assert!(node.is_edge()),
                Fault::Network(Path::Database(node), _) => prop_assert!(!node.is_edge()),
                _ => {}
            }
        }
    }
}

#[test]
fn two_hundred_schedules_hold_every_kind_of_fault_and_of_damage() {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut damages = Vec::new();
    for seed in 1..=200 {
        for Event { fault, .. } in Schedule::of(seed).events {
            *kinds.entry(fault.kind()).or_default() += 1;
            if let Fault::Kill(_, Some(damage)) = fault
                && !damages.contains(&damage)
            {
                damages.push(damage);
            }
        }
    }
    assert_eq!(kinds.len(), 16, "{kinds:?}");
    assert!(kinds.values().all(|count| *count >= 10), "{kinds:?}");
    assert_eq!(damages.len(), Damage::ALL.len(), "{damages:?}");
}
