//! What holds for every call and every tariff.

mod common;

use common::{callback, leg, notification, rated, tariff};
use jiff::Timestamp;
use proptest::prelude::*;
use tollgate_rating::{Cdr, Flag, LegTimes, Limits, Service, Status, Tariff, rate};

const MODES: [&str; 4] = ["half_up", "half_even", "up", "down"];
const SERVICES: [Option<Service>; 7] = [
    None,
    Some(Service::Callback),
    Some(Service::Notification),
    Some(Service::Verification),
    Some(Service::Playback),
    Some(Service::PrivateAx),
    Some(Service::PrivateAxb),
];

prop_compose! {
    fn any_tariff()(
        policy in prop::sample::select(vec!["per_leg", "b_leg_only", "b_leg_twice"]),
        mode in prop::sample::select(MODES.to_vec()),
        price in 0..10_000_000_000_i64,
        fee in 0..10_000_000_000_i64,
        first in 1..200_i64, step in 1..100_i64, minimum in 0..200_i64,
    ) -> Tariff {
        let decimal = |nanos: i64| format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
        tariff(policy, mode, &decimal(price), &format!("{first}/{step}"),
            &format!("minimum_seconds = {minimum}\nconnection_fee = \"{}\"", decimal(fee)))
    }
}

fn any_instant() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        4 => 1_700_000_000_000..1_700_010_000_000_i64,
        1 => Timestamp::MIN.as_millisecond()..Timestamp::MAX.as_millisecond(),
    ]
    .prop_map(|ms| Timestamp::from_millisecond(ms).expect("in range"))
}

fn any_leg() -> impl Strategy<Value = Option<LegTimes<'static>>> {
    let times = (prop::option::of(any_instant()), prop::sample::select(vec!["", "+86138", "é"]))
        .prop_map(|(answered_at, number)| leg(number, answered_at));
    prop::option::of(times)
}

prop_compose! {
    fn any_cdr()(
        a_leg in any_leg(), b_leg in any_leg(),
        ended_at in prop::option::of(any_instant()), failed_at in prop::option::of(any_instant()),
        received_at in any_instant(), service in prop::sample::select(SERVICES.to_vec()),
        unreadable_times in prop::bool::weighted(0.1),
    ) -> Cdr<'static> {
        Cdr { a_leg, b_leg, ended_at, failed_at, application: "shop", service, inbound: false, received_at,
            unreadable_times }
    }
}

/// Whole numbers only: billed seconds counted up in steps.
fn oracle_billed(seconds: i64, minimum: i64, first: i64, step: i64) -> i64 {
    let mut billed = first;
    while billed < seconds.max(minimum) {
        billed += step;
    }
    billed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_call_is_rated_without_panic_and_adds_up(
        cdr in any_cdr(), tariff in any_tariff(),
        max_leg_seconds in any::<i64>(), max_ahead_seconds in any::<i64>(),
    ) {
        for limits in [Limits::default(), Limits { max_leg_seconds, max_ahead_seconds }] {
            let rated = rate(&cdr, Some(&tariff), &limits);
            let sum: i64 = rated.legs.iter().map(|leg| leg.amount_micros).sum();
            prop_assert_eq!(rated.amount_micros, sum);
            prop_assert!(rated.amount_micros >= 0);
            prop_assert_eq!(rated.currency.is_empty(), rated.status != Status::Rated);
            if rated.status != Status::Rated {
                prop_assert_eq!(rated.amount_micros, 0);
            }
            for leg in &rated.legs {
                // Charged or not, never half of it.
                let charged = leg.billed_seconds > 0;
                prop_assert_eq!(charged, leg.billed_minutes > 0);
                prop_assert_eq!(charged, !leg.rate.is_empty());
                prop_assert!(charged || leg.amount_micros == 0);
            }
            let mut flags = rated.flags.clone();
            flags.sort();
            flags.dedup();
            prop_assert_eq!(&flags, &rated.flags);
            let fatal = flags.iter().any(|flag| matches!(flag,
                Flag::TooLong | Flag::EndsInFuture | Flag::UnreadableTimes | Flag::Overflow));
            prop_assert_eq!(fatal, rated.status == Status::Implausible);
            prop_assert_eq!(&rate(&cdr, Some(&tariff), &limits), &rated);
            prop_assert_ne!(rate(&cdr, None, &limits).status, Status::Rated);
        }
    }

    #[test]
    fn a_longer_call_never_costs_less(tariff in any_tariff(), a in 0..86_400_i64, b in 0..86_400_i64) {
        let amount = |seconds| rated(&notification(seconds), &tariff).amount_micros;
        prop_assert!(amount(a.min(b)) <= amount(a.max(b)));
    }

    #[test]
    fn increments_are_exact(
        seconds in 0..5_000_i64, minimum in 0..400_i64, first in 1..400_i64, step in 1..400_i64,
        price in 0..1_000_000_i64,
    ) {
        // A price of `price` micro-units a second: no rounding anywhere.
        let nanos = price * 60_000;
        let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
        let tariff = tariff("per_leg", "half_even", &text, &format!("{first}/{step}"),
            &format!("minimum_seconds = {minimum}"));
        let rated = rated(&notification(seconds), &tariff);
        let billed = oracle_billed(seconds, minimum, first, step);
        prop_assert_eq!(rated.legs[0].billed_seconds, billed);
        prop_assert_eq!(rated.amount_micros, billed * price);
    }

    #[test]
    fn policies_relate_as_they_say(
        a in 0..4_000_i64, b in 0..4_000_i64, price in 0..1_000_000_000_i64,
        mode in prop::sample::select(MODES.to_vec()), fee in 0..1_000_000_000_i64,
    ) {
        let end = 1_700_010_000;
        let answer = |seconds| Some(Timestamp::from_second(end - seconds).expect("in range"));
        let cdr = callback(answer(a), answer(b), answer(0));
        let amount = |policy| {
            let fee = format!("connection_fee = \"0.{fee:09}\"");
            rated(&cdr, &tariff(policy, mode, &format!("0.{price:09}"), "60/60", &fee)).amount_micros
        };
        let (per_leg, once, twice) =
            (amount("per_leg"), amount("b_leg_only"), amount("b_leg_twice"));
        prop_assert_eq!(twice, 2 * once);
        prop_assert!(per_leg >= once);
        if a == b {
            prop_assert_eq!(per_leg, twice);
        }
        if a >= b {
            prop_assert!(per_leg >= twice);
        }
    }

    #[test]
    fn the_canonical_form_is_the_tariff(tariff in any_tariff()) {
        let again = Tariff::parse(tariff.canonical()).expect("its own form is valid");
        prop_assert_eq!(again.canonical(), tariff.canonical());
        prop_assert_eq!(again.version(), tariff.version());
        prop_assert_eq!(again.rates(), tariff.rates());
    }

    #[test]
    fn odd_application_names_survive_the_canonical_form(
        name in "[^\\p{Cc}]{1,30}", other in "[\"'\\\\#\\[\\]= a]{1,10}",
    ) {
        prop_assume!(name != other);
        let literal = |text: &str| {
            let escaped: Vec<_> =
                text.chars().map(|c| format!("\\U{:08X}", u32::from(c))).collect();
            let escaped = escaped.concat();
            format!("\"{escaped}\"")
        };
        let tariff = tariff("per_leg", "up", "1", "1/1",
            &format!("applications = [{}, {}]", literal(&name), literal(&other)));
        let again = Tariff::parse(tariff.canonical()).expect("its own form is valid");
        prop_assert_eq!(again.rates(), tariff.rates());
        prop_assert!(again.find(&name, None, tollgate_rating::Side::A, None, Timestamp::UNIX_EPOCH).is_some());
    }

    #[test]
    fn no_text_makes_reading_panic(text in ".{0,200}", line in "[a-z_]{1,16} = [\"0-9./+a-z]{0,12}") {
        let _ = Tariff::parse(&text);
        let _ = Tariff::parse(&format!("{}\n{line}", tollgate_rating::SAMPLE_TARIFF));
    }
}
