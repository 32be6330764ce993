//! Order, repetition and batching never matter; time only ever ends things.

use proptest::prelude::*;
use proptest::sample::Index;
use tollgate_voicecall::codes::Group;

use super::*;
use crate::reason::reason;

const EXPIRY: Expiry = Expiry { unanswered_ms: 300_000, answered_ms: 86_400_000 };

const KINDS: [Kind; 8] = [
    Kind::Unknown,
    Kind::Callin,
    Kind::Callout,
    Kind::Alerting,
    Kind::Answer,
    Kind::CollectInfo,
    Kind::Disconnect,
    Kind::Cdr,
];

fn number() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        Just(None),
        Just(Some("A".to_owned())),
        Just(Some("B".to_owned())),
        Just(Some("C".to_owned())),
        Just(Some(String::new())),
    ]
}

fn leg() -> impl Strategy<Value = CdrLeg> {
    let instant = || prop::option::of((0i64..40).prop_map(|it| it * 1000));
    (number(), instant(), instant(), instant(), prop::option::of(0i32..40)).prop_map(
        |(number, started_ms, alerting_ms, answered_ms, cause)| CdrLeg {
            number,
            started_ms,
            alerting_ms,
            answered_ms,
            cause,
            number_shown: None,
        },
    )
}

prop_compose! {
    /// A status' record id is made of its kind, its time and its party, as the real one is.
    fn status()(
        kind in prop::sample::select(&KINDS[..7]),
        time in prop::option::of(0i64..40),
        called in number(),
        caller in number(),
        content in 0u8..3,
        received in 0i64..60,
        trust in 0i32..3,
        state_code in prop::option::of(0i32..3),
    ) -> Event {
        let mut record_id = vec![0; 16];
        record_id[0] = kind as u8;
        record_id[1] = time.map_or(255, |time| time as u8);
        record_id[2] = called.as_deref().map_or(0, |it| it.as_bytes().first().copied().unwrap_or(1));
        Event {
            event_id: [&[content][..], &record_id[..15]].concat(),
            record_id,
            kind: kind.into(),
            received_ms: received * 1000,
            trust,
            occurred_ms: time.map(|time| time * 1000),
            called,
            caller: caller.filter(|_| content == 0),
            state_code: state_code.filter(|_| content > 0).map(|_| i32::from(content) - 1),
            ..Event::default()
        }
    }
}

prop_compose! {
    fn cdr()(
        record in 0u8..2,
        content in 0u8..2,
        received in 0i64..60,
        trust in 0i32..3,
        ended in prop::option::of(0i64..60),
        a in prop::option::of(leg()),
        b in prop::option::of(leg()),
        inbound in any::<bool>(),
        incomplete in any::<bool>(),
        dialled in number(),
    ) -> Event {
        Event {
            record_id: vec![200 + record; 16],
            event_id: vec![100 + record * 10 + content; 16],
            kind: Kind::Cdr.into(),
            received_ms: received * 1000,
            trust,
            occurred_ms: ended.map(|it| it * 1000),
            cdr: Some(Box::new(Cdr { a, b, inbound, incomplete, dialled, ..Cdr::default() })),
            ..Event::default()
        }
    }
}

/// Events whose content is a function of their event id, as SHA-256 makes it.
fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(prop_oneof![6 => status(), 1 => cdr()], 0..24).prop_map(|events| {
        let mut seen: std::collections::HashMap<Vec<u8>, Event> = std::collections::HashMap::new();
        events
            .into_iter()
            .map(|event| {
                let first = seen.entry(event.event_id.clone()).or_insert_with(|| event.clone());
                Event { received_ms: event.received_ms, trust: event.trust, ..first.clone() }
            })
            .collect()
    })
}

fn shuffled(mut events: Vec<Event>, order: &[Index]) -> Vec<Event> {
    for (from, to) in order.iter().enumerate() {
        if from < events.len() {
            let to = to.index(events.len());
            events.swap(from, to);
        }
    }
    events
}

fn folded(events: impl IntoIterator<Item = Event>) -> (Call, EventSet) {
    let set: EventSet = events.into_iter().collect();
    (fold(&set, &EXPIRY).0, set)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// I7.
    #[test]
    fn order_and_repetition_never_matter(
        events in events(),
        order in prop::collection::vec(any::<Index>(), 24),
        repeated in prop::collection::vec(any::<Index>(), 0..10),
    ) {
        let plain = folded(events.clone());
        let mut more = events.clone();
        if !events.is_empty() {
            more.extend(repeated.iter().map(|index| events[index.index(events.len())].clone()));
        }
        prop_assert_eq!(plain, folded(shuffled(more, &order)));
    }

    #[test]
    fn batching_through_the_stored_form_never_matters(
        events in events(),
        cuts in prop::collection::vec(any::<bool>(), 24),
    ) {
        let (_, whole) = folded(events.clone());
        let mut set = EventSet::default();
        for (event, cut) in events.into_iter().zip(cuts) {
            set.insert(event);
            if cut {
                set = EventSet::decode(&set.encode()).unwrap();
            }
        }
        prop_assert_eq!(fold(&set, &EXPIRY).0, fold(&whole, &EXPIRY).0);
        prop_assert_eq!(set, whole);
    }

    #[test]
    fn time_only_ever_ends_things(events in events(), first in 0i64..400_000, more in 0i64..90_000_000) {
        let (call, _) = folded(events);
        for leg in &call.legs {
            prop_assert!(leg.is_active(first) || !leg.is_active(first + more));
        }
        let legs: Vec<_> = call
            .legs
            .into_iter()
            .map(|leg| NumberLeg { session_key: [0; 16], session_id: String::new(), leg })
            .collect();
        let (before, after) = (derive(&legs, first), derive(&legs, first + more));
        prop_assert!(before.presence >= after.presence);
        // Nothing changes before the instant that the sweeper is told.
        if let Some(next) = before.next_expiry_ms {
            let just_before = derive(&legs, first.max(next - 1));
            prop_assert_eq!(just_before.presence, before.presence);
            prop_assert_eq!(&just_before.calls, &before.calls);
            prop_assert_ne!(&derive(&legs, next).calls, &before.calls);
        } else {
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn without_a_cdr_no_leg_succeeds_that_was_not_answered(events in events()) {
        let is_cdr = |event: &Event| event.kind() == Kind::Cdr;
        let (call, _) = folded(events.into_iter().filter(|event| !is_cdr(event)));
        for leg in &call.legs {
            prop_assert!(reason(leg).0 != Group::Success || leg.was_answered());
        }
    }

    #[test]
    fn with_a_cdr_the_loss_of_any_status_changes_nothing_that_matters(
        lost in prop::collection::vec(any::<bool>(), 7),
        order in prop::collection::vec(any::<Index>(), 8),
        numbered in any::<bool>(),
    ) {
        let record = |kind: Kind, time: i64, called: Option<&str>| Event {
            record_id: vec![kind as u8 * 30 + time as u8; 16],
            event_id: vec![time as u8; 16],
            kind: kind.into(),
            received_ms: time * 1000 + 300,
            trust: 1,
            occurred_ms: Some(time * 1000),
            called: called.filter(|_| numbered).map(str::to_owned),
            ..Event::default()
        };
        let (a, b) = (Some("A"), Some("B"));
        let statuses = [
            record(Kind::Callout, 0, a),
            record(Kind::Alerting, 3, a),
            record(Kind::Answer, 7, a),
            record(Kind::Callout, 8, b),
            record(Kind::Alerting, 12, b),
            record(Kind::Answer, 14, b),
            record(Kind::Disconnect, 20, b),
        ];
        let leg = |number: &str, start: i64, alerting: i64, answered: i64| CdrLeg {
            number: Some(number.to_owned()),
            started_ms: Some(start * 1000),
            alerting_ms: Some(alerting * 1000),
            answered_ms: Some(answered * 1000),
            ..CdrLeg::default()
        };
        let cdr = Event {
            cdr: Some(Box::new(Cdr {
                a: Some(leg("A", 0, 3, 7)),
                b: Some(leg("B", 8, 12, 14)),
                release_reason: Some(0),
                ..Cdr::default()
            })),
            ..record(Kind::Cdr, 20, None)
        };
        let matters = |events: Vec<Event>| -> Vec<Leg> {
            folded(events).0.legs.into_iter().map(|leg| Leg { state_code: None, ..leg }).collect()
        };
        let kept: Vec<Event> = statuses
            .iter()
            .zip(lost)
            .filter(|(_, lost)| !lost)
            .map(|(event, _)| event.clone())
            .chain([cdr.clone()])
            .collect();
        prop_assert_eq!(matters(shuffled(kept, &order)), matters(vec![cdr]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// More records than a call may have, and more contents than a record may have.
    #[test]
    fn what_is_dropped_at_the_cap_never_depends_on_the_order(
        order in prop::collection::vec(any::<Index>(), 400),
        repeated in prop::collection::vec(any::<Index>(), 40),
        extra in 0usize..60,
    ) {
        let events: Vec<Event> = (0..(MAX_RECORDS + extra))
            .map(|index| {
                let kind = KINDS[index % 8];
                let mut record_id = vec![0; 16];
                record_id[..2].copy_from_slice(&(index as u16).to_be_bytes());
                Event {
                    event_id: record_id.clone(),
                    record_id,
                    kind: kind.into(),
                    received_ms: 500_000 + index as i64,
                    trust: 1,
                    occurred_ms: (index % 9 != 0).then_some((index as i64 * 7919) % 300_000),
                    ..Event::default()
                }
            })
            .chain((0..12).map(|content| Event {
                record_id: vec![0; 16],
                event_id: vec![content; 16],
                kind: Kind::Unknown.into(),
                received_ms: 500_000 - i64::from(content),
                trust: 1,
                ..Event::default()
            }))
            .collect();
        let (call, set) = folded(events.clone());
        let mut more = shuffled(events.clone(), &order);
        more.extend(repeated.iter().map(|index| events[index.index(events.len())].clone()));
        prop_assert_eq!((&call, &set), (&folded(more).0, &set));
        prop_assert_eq!(folded(shuffled(events, &order)).1, set.clone());
        prop_assert!(set.in_force().len() <= MAX_RECORDS);
        prop_assert!(call.capped);
        // The last to go is what tells how the call ended.
        let endings = |events: Vec<&Event>| {
            events.iter().filter(|it| matches!(it.kind(), Kind::Cdr | Kind::Disconnect)).count()
        };
        prop_assert!(endings(set.in_force()) >= MAX_RECORDS / 4);
    }
}
