//! Scripts against the rules of the protocol page.

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::Value;

use super::tests::plan;
use super::{Call, Ending, Kind, Plan, message};
use crate::expect::record_ids;
use crate::{Fault, Faults, Service};

fn any_plan() -> impl Strategy<Value = Plan> {
    let faults = prop_oneof![Just(Faults::none()), Just("all=0.3".parse::<Faults>().unwrap())];
    let speed = prop_oneof![Just(1.0), Just(60.0), Just(977.0)];
    (any::<u64>(), faults, speed, 0.5_f64..2000.0).prop_map(|(seed, faults, speed, rate)| Plan {
        seed,
        rate,
        speed,
        ..plan(faults)
    })
}

fn item(call: &Call) -> Value {
    serde_json::from_str(&call.item()).unwrap()
}

/// Fields that say something: present, and not "".
fn present(item: &Value) -> HashSet<&str> {
    let says_something = |(_, value): &(&String, &Value)| value.as_str() != Some("");
    item.as_object().unwrap().iter().filter(says_something).map(|(key, _)| key.as_str()).collect()
}

const FORWARD: [&str; 5] =
    ["fwdDisplayNum", "fwdDstNum", "fwdStartTime", "fwdAlertingTime", "fwdAnswerTime"];

/// P 5.1 and 5.2: which fields a record has.
fn check_record(call: &Call) {
    let item = item(call);
    let present = present(&item);
    let has = |name: &str| present.contains(name);
    for name in ["direction", "spId", "appKey", "bindNum", "sessionId", "callerNum", "calleeNum"] {
        assert!(has(name), "{name} is required");
    }
    let limits =
        [("icid", 64), ("sessionId", 256), ("userData", 256), ("appKey", 32), ("bindNum", 32)];
    for (name, limit) in limits {
        let length = item[name].as_str().map_or(0, |text| text.chars().count());
        assert!(length <= limit, "{name} is {length} long");
    }
    let forwarded = FORWARD.iter().any(|name| has(name));
    let failed = call.course.ending.is_failure();
    assert_eq!(has("failTime"), failed);
    assert_eq!(has("callEndTime"), call.course.ending != Ending::Barred);
    match call.course.ending {
        Ending::Barred => {
            let times: Vec<_> = present.iter().filter(|name| name.ends_with("Time")).collect();
            assert_eq!(times, [&"failTime"]);
        }
        Ending::ANoAnswer | Ending::ABusy | Ending::ARejected | Ending::AOff => {
            assert!(!forwarded && !has("callOutAnswerTime") && has("callOutStartTime"));
        }
        Ending::BNoAnswer | Ending::BUnreachable | Ending::BBusy | Ending::BRejected => {
            assert!(has("callOutAnswerTime") && has("fwdStartTime") && !has("fwdAnswerTime"));
            assert_eq!(item["ulFailReason"].to_string().trim_matches('"'), "518");
        }
        _ => assert!(has("callOutAnswerTime")),
    }
    if call.service == Service::Callback {
        assert_eq!(item["serviceType"], "002");
    } else {
        assert!(!forwarded && !present.iter().any(|name| name.starts_with("recordO")));
        assert_eq!(item["serviceType"], "001");
    }
    assert_eq!(has("dynIVRStartTime"), !call.course.keys.is_empty());
    assert!(call.course.keys.is_empty() || call.service == Service::Notification);
}

/// P 4: which fields a status has, and when it is sent.
fn check_statuses(call: &Call) {
    let mut seen = HashSet::new();
    for status in &call.statuses {
        let body = status.body(call);
        let json: Value = serde_json::from_str(&body).unwrap();
        let info = &json["statusInfo"];
        let has = |name: &str| info.get(name).is_some();
        assert!(has("sessionId") && has("timestamp"));
        assert!(!has("stateCode") || status.kind == Kind::Disconnect);
        assert!(!has("stateDesc") || status.kind == Kind::Disconnect);
        let is_callback = call.service == Service::Callback;
        assert!(!has("partyType") || (status.kind == Kind::Disconnect && is_callback));
        let is_keys = matches!(status.kind, Kind::CollectInfo(_));
        assert_eq!(has("digitInfo"), is_keys);
        assert!(!is_keys || (!has("caller") && !has("called")));
        assert!(
            status.at * 1000 <= status.due_ms + 1000,
            "an event lies in the future when it is sent"
        );
        assert!(status.due_ms - status.at * 1000 < 30 * 60 * 1000, "an event is long past");
        let ids = record_ids(call, Some(status), &body);
        assert!(seen.insert(ids.record), "two statuses of one call are one record");
    }
    assert!(call.statuses.len() <= super::MAX_STATUSES);
    assert_ne!(Some(&call.number_a), call.number_b.as_ref());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn calls_keep_to_the_protocol(plan in any_plan(), from in 0_u64..1_000_000) {
        for index in from..from + 20 {
            let call = plan.call(index);
            check_record(&call);
            check_statuses(&call);
        }
    }

    #[test]
    fn a_seed_makes_a_run_repeatable_byte_for_byte(plan in any_plan(), from in 0_u64..1_000_000) {
        let bytes = |plan: &Plan| {
            let calls: Vec<_> = (from..from + 5).map(|index| plan.call(index)).collect();
            let bodies = calls.iter().flat_map(|call| {
                call.statuses.iter().map(|status| status.body(call)).chain(call.malformed_item())
            });
            let items: Vec<_> = calls.iter().map(Call::item).collect();
            let due: Vec<_> = calls.iter().map(|call| call.cdr_due_ms).collect();
            let fee = message(items.iter().map(String::as_str));
            (bodies.collect::<Vec<_>>(), fee, due)
        };
        prop_assert_eq!(bytes(&plan), bytes(&plan.clone()));
        let other = Plan { seed: plan.seed ^ 1, ..plan.clone() };
        prop_assert_ne!(bytes(&plan), bytes(&other));
    }

    #[test]
    fn faults_change_no_call(plan in any_plan(), index in 0_u64..1_000_000) {
        let faultless = Plan { faults: Faults::none(), ..plan.clone() };
        let (one, other) = (plan.call(index), faultless.call(index));
        prop_assert_eq!(&one.course, &other.course);
        prop_assert_eq!((&one.session_id, &one.icid), (&other.session_id, &other.icid));
        prop_assert_eq!((&one.number_a, &one.number_b), (&other.number_a, &other.number_b));
        prop_assert_eq!(&one.user_data, &other.user_data);
    }
}

#[test]
fn every_ending_and_every_fault_occurs() {
    let plan = Plan { calls: Some(3000), ..plan(Faults::all()) };
    let calls: Vec<Call> = (0..3000).map(|index| plan.call(index)).collect();
    let endings: HashSet<String> =
        calls.iter().map(|call| format!("{:?}", call.course.ending)).collect();
    for ending in
        ["Barred", "ANoAnswer", "BBusy", "BUnreachable", "NoKeyPressed", "MaximumDuration"]
    {
        assert!(endings.contains(ending), "{ending} never occurs");
    }
    let occurs = |what: &str, is: &dyn Fn(&Call) -> bool| {
        assert!(calls.iter().any(is), "{what} never occurs");
    };
    let kind = |call: &Call, wanted: &Kind| {
        call.statuses.iter().filter(|status| status.kind == *wanted).count()
    };
    occurs("lost answer", &|call| call.loses_answer);
    occurs("two disconnects", &|call| kind(call, &Kind::Disconnect) == 2);
    occurs("no disconnect", &|call| kind(call, &Kind::Disconnect) == 0);
    occurs("unknown type", &|call| kind(call, &Kind::Unknown("playStart")) == 1);
    occurs("late disconnect", &|call| {
        call.statuses.iter().any(|it| it.kind == Kind::Disconnect && it.due_ms > call.cdr_due_ms)
    });
    occurs("out of order", &|call| {
        call.statuses.windows(2).any(|pair| pair[0].due_ms > pair[1].due_ms)
    });
    occurs("numbers as text", &|call| call.item().contains(r#""direction":"0""#));
    occurs("two blanks", &|call| call.item().contains("  "));
    occurs("unknown fields", &|call| call.item().contains("endToEndID"));
    occurs("unreadable neighbour", &|call| call.malformed_item().is_some());
    occurs("escapes", &|call| call.item().contains("\\u8ba2"));
    occurs("a record without icid", &|call| call.icid.is_none());
    occurs("a number in a session id", &|call| call.session_id.contains(&call.number_a));
    occurs("a number in user data", &|call| {
        call.user_data.as_ref().is_some_and(|text| text.contains(&call.number_a))
    });
}

#[test]
fn no_two_records_of_a_run_have_one_id() {
    let plan = plan("all=0.2".parse().unwrap());
    let mut seen = HashSet::new();
    for index in 0..500 {
        let call = plan.call(index);
        for status in &call.statuses {
            let ids = record_ids(&call, Some(status), &status.body(&call));
            assert!(seen.insert(ids.record) && seen.insert(ids.event));
        }
        let ids = record_ids(&call, None, &call.item());
        assert!(seen.insert(ids.record) && seen.insert(ids.event));
    }
}

#[test]
fn numbers_come_from_a_pool_and_take_turns() {
    let plan = Plan { numbers: 10, ..plan(Faults::none().with(Fault::Chunked, 0.0)) };
    let numbers: Vec<String> = (0..200)
        .flat_map(|index| {
            let call = plan.call(index);
            [Some(call.number_a), call.number_b]
        })
        .flatten()
        .collect();
    let different: HashSet<_> = numbers.iter().collect();
    assert!(different.len() <= 10, "{} numbers", different.len());
    assert!(numbers.iter().all(|number| number.len() == 14 && number.starts_with("+86138000")));
}
