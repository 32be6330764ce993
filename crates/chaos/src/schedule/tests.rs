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

/// How often each kind of fault, contract, protocol and damage occurs.
fn kinds(seeds: impl IntoIterator<Item = u64>) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    let mut count = |kind: String| *kinds.entry(kind).or_default() += 1;
    for schedule in seeds.into_iter().map(Schedule::of) {
        count(format!("delivered {}", schedule.delivered));
        count(format!("new protocol {}", schedule.new_protocol));
        count(format!("static members {}", schedule.static_members));
        for Event { fault, .. } in schedule.events {
            count(fault.kind().to_owned());
            if let Fault::Kill(_, Some(damage)) = fault {
                count(format!("{damage:?}"));
            }
        }
    }
    kinds
}

#[test]
fn two_hundred_schedules_hold_each_kind_often_and_the_tested_ones_each_kind() {
    let often = kinds(1..=200);
    assert_eq!(often.len(), 27, "{often:?}");
    assert!(often.values().all(|count| *count >= 10), "{often:?}");
    let tested = kinds(TESTED);
    assert!(tested.keys().eq(often.keys()), "{tested:?}");
    let full = |event: &Event| matches!(event.fault, Fault::DiskFull(_)) && event.lasts_ms > 6_000;
    assert!(TESTED.into_iter().any(|seed| Schedule::of(seed).events.iter().any(full)));
}
