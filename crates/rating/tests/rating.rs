//! Calls rated by hand.

mod common;

use common::{at, callback, leg, legs, notification, rated, tariff};
use jiff::Timestamp;
use tollgate_rating::{Cdr, Flag, LegTimes, Limits, SAMPLE_TARIFF, Service, Status, Tariff, rate};

fn sample() -> Tariff {
    Tariff::parse(SAMPLE_TARIFF).expect("the sample tariff is valid")
}

#[test]
fn a_started_minute_is_a_full_minute() {
    let tariff = sample();
    for (seconds, minutes) in [(0, 1), (1, 1), (59, 1), (60, 1), (61, 2), (120, 2), (121, 3)] {
        let rated = rated(&notification(seconds), &tariff);
        assert_eq!(rated.amount_micros, minutes * 180_000, "{seconds} s");
        assert_eq!(rated.legs[0].billed_minutes, minutes, "{seconds} s");
        assert_eq!((rated.status, rated.currency), (Status::Rated, "CNY"));
    }
}

#[test]
fn increments_of_thirty_and_six_seconds() {
    // 0.30 a minute: 6 seconds are 0.03.
    let tariff = tariff("per_leg", "half_up", "0.30", "30/6", "");
    for (seconds, billed, amount) in [
        (0, 30, 150_000),
        (1, 30, 150_000),
        (30, 30, 150_000),
        (31, 36, 180_000),
        (36, 36, 180_000),
        (37, 42, 210_000),
        (59, 60, 300_000),
        (60, 60, 300_000),
        (61, 66, 330_000),
    ] {
        let rated = rated(&notification(seconds), &tariff);
        assert_eq!(rated.legs[0].billed_seconds, billed, "{seconds} s");
        assert_eq!(rated.amount_micros, amount, "{seconds} s");
    }
}

#[test]
fn minimum_fee_and_rounding_apply_once_per_leg() {
    // 0.10 a minute by the second: 7 s are 0.011666…, and the fee on top.
    let more = "connection_fee = \"0.05\"";
    for (rounding, amount) in
        [("half_up", 61_667), ("half_even", 61_667), ("up", 61_667), ("down", 61_666)]
    {
        let tariff = tariff("per_leg", rounding, "0.10", "1/1", more);
        assert_eq!(rated(&notification(7), &tariff).amount_micros, amount, "{rounding}");
    }
    let tariff = tariff("per_leg", "half_up", "0.60", "1/1", "minimum_seconds = 20");
    for (seconds, billed) in [(0, 20), (19, 20), (20, 20), (21, 21)] {
        let rated = rated(&notification(seconds), &tariff);
        assert_eq!(legs(&rated), [("a", seconds, billed, 1, billed * 10_000)]);
    }
}

/// Sample 08: a callback, A-leg 102 s, B-leg 95 s.
fn sample_08() -> Cdr<'static> {
    callback(
        Some(at("2024-05-20 03:04:31")),
        Some(at("2024-05-20 03:04:38")),
        Some(at("2024-05-20 03:06:13")),
    )
}

#[test]
fn sample_08_under_each_policy() {
    let policy = |policy| tariff(policy, "half_up", "0.18", "60/60", "");
    let per_leg = rated(&sample_08(), &policy("per_leg"));
    assert_eq!(legs(&per_leg), [("a", 102, 120, 2, 360_000), ("b", 95, 120, 2, 360_000)]);
    assert_eq!(per_leg.amount_micros, 720_000);
    let b_only = rated(&sample_08(), &policy("b_leg_only"));
    assert_eq!(legs(&b_only), [("a", 102, 0, 0, 0), ("b", 95, 120, 2, 360_000)]);
    assert_eq!(b_only.amount_micros, 360_000);
    let twice = rated(&sample_08(), &policy("b_leg_twice"));
    assert_eq!(legs(&twice), [("a", 102, 120, 2, 360_000), ("b", 95, 120, 2, 360_000)]);
    assert_eq!(twice.amount_micros, 720_000);
    for rated in [per_leg, b_only, twice] {
        assert!(rated.flags.is_empty() && rated.status == Status::Rated);
    }
}

#[test]
fn b_leg_twice_takes_the_duration_of_b_for_a() {
    let cdr = Cdr { a_leg: Some(leg("+86", Some(at("2024-05-20 03:00:00")))), ..sample_08() };
    let twice = rated(&cdr, &tariff("b_leg_twice", "half_up", "0.18", "60/60", ""));
    assert_eq!(legs(&twice), [("a", 373, 120, 2, 360_000), ("b", 95, 120, 2, 360_000)]);
}

#[test]
fn sample_11_charges_the_a_leg_when_b_was_busy() {
    let cdr = callback(Some(at("2024-05-20 07:30:17")), None, Some(at("2024-05-20 07:30:31")));
    let per_leg = rated(&cdr, &sample());
    assert_eq!(legs(&per_leg), [("a", 14, 60, 1, 180_000)]);
    for policy in ["b_leg_only", "b_leg_twice"] {
        let rated = rated(&cdr, &tariff(policy, "half_up", "0.18", "60/60", ""));
        assert_eq!((rated.status, rated.amount_micros), (Status::Rated, 0), "{policy}");
        assert_eq!(legs(&rated), [("a", 14, 0, 0, 0)], "{policy}");
    }
}

#[test]
fn samples_21_and_22_have_one_leg_under_every_policy() {
    for policy in ["per_leg", "b_leg_only", "b_leg_twice"] {
        let tariff = tariff(policy, "half_up", "0.18", "60/60", "");
        for (answer, end, seconds, minutes) in [
            ("2024-06-01 02:00:11", "2024-06-01 02:00:42", 31, 1),
            ("2024-06-01 03:00:11", "2024-06-01 03:03:16", 185, 4),
        ] {
            let cdr = Cdr {
                a_leg: Some(leg("+8613800000021", Some(at(answer)))),
                service: Some(Service::Playback),
                ..callback(None, None, Some(at(end)))
            };
            let cdr = Cdr { b_leg: None, ..cdr };
            let rated = rated(&cdr, &tariff);
            let amount = minutes * 180_000;
            assert_eq!(legs(&rated), [("a", seconds, minutes * 60, minutes, amount)], "{policy}");
        }
    }
}

#[test]
fn sample_32_charges_the_forwarded_leg_of_a_private_number() {
    for policy in ["per_leg", "b_leg_only", "b_leg_twice"] {
        let cdr = Cdr {
            a_leg: Some(LegTimes { number: Some("+8613800000021"), answered_at: None }),
            service: Some(Service::PrivateAx),
            ..callback(None, Some(at("2024-07-03 02:30:06")), Some(at("2024-07-03 02:30:22")))
        };
        let rated = rated(&cdr, &tariff(policy, "half_up", "0.18", "60/60", ""));
        assert_eq!(legs(&rated), [("b", 16, 60, 1, 180_000)], "{policy}");
    }
}

#[test]
fn sample_41_across_the_month_is_rated_by_the_rate_at_its_answer() {
    let text = r#"
        name = "new-price"
        currency = "CNY"
        rounding = "half_up"
        [[rates]]
        name = "august"
        valid_to = "2024-09-01T00:00:00+08:00"
        price_per_minute = "0.18"
        increment = "60/60"
        [[rates]]
        name = "september"
        valid_from = 2024-09-01T00:00:00+08:00
        price_per_minute = "0.20"
        increment = "60/60"
    "#;
    let tariff = Tariff::parse(text).expect("valid");
    let end = at("2024-08-31 16:00:44");
    let cdr = callback(Some(at("2024-08-31 15:58:37")), Some(at("2024-08-31 15:58:44")), Some(end));
    let august = rated(&cdr, &tariff);
    assert_eq!(legs(&august), [("a", 127, 180, 3, 540_000), ("b", 120, 120, 2, 360_000)]);
    assert!(august.legs.iter().all(|leg| &*leg.rate == "august"));
    // The boundary itself belongs to the new rate.
    let cdr = callback(Some(at("2024-08-31 15:59:59")), Some(at("2024-08-31 16:00:00")), Some(end));
    let both = rated(&cdr, &tariff);
    assert_eq!(both.legs.iter().map(|leg| &*leg.rate).collect::<Vec<_>>(), ["august", "september"]);
}

#[test]
fn nobody_answered_costs_nothing_and_is_rated() {
    let rated = rated(&callback(None, None, Some(at("2024-05-20 03:06:13"))), &sample());
    assert_eq!((rated.status, rated.amount_micros, rated.currency), (Status::Rated, 0, "CNY"));
    assert!(rated.legs.is_empty() && rated.flags.is_empty());
}

#[test]
fn odd_but_plausible_times_are_flagged_and_charged_nothing() {
    let cdr = callback(
        Some(at("2024-05-20 03:06:14")),
        Some(at("2024-05-20 03:06:13")),
        Some(at("2024-05-20 03:06:13")),
    );
    let negative = rated(&cdr, &sample());
    assert_eq!(negative.flags, [Flag::Negative]);
    assert_eq!(legs(&negative), [("a", -1, 0, 0, 0), ("b", 0, 60, 1, 180_000)]);

    let cdr = callback(Some(at("2024-05-20 03:06:14")), None, None);
    let no_end = rate(
        &Cdr { received_at: at("2024-05-20 03:07:00"), ..cdr },
        Some(&sample()),
        &Limits::default(),
    );
    assert_eq!((no_end.status, no_end.flags.as_slice()), (Status::Rated, &[Flag::NoEnd][..]));
    assert_eq!(legs(&no_end), [("a", 0, 0, 0, 0)]);
}

#[test]
fn the_time_of_failure_ends_a_call_without_an_end() {
    let end = at("2024-05-20 03:06:13");
    let cdr = Cdr {
        ended_at: None,
        failed_at: Some(end),
        ..callback(Some(at("2024-05-20 03:05:12")), None, Some(end))
    };
    assert_eq!(legs(&rated(&cdr, &sample())), [("a", 61, 120, 2, 360_000)]);
}

#[test]
fn what_cannot_be_true_is_not_charged() {
    let answer = at("2024-05-20 03:00:00");
    let after = |seconds: i64| Timestamp::from_second(answer.as_second() + seconds).expect("range");
    let day = 24 * 3600;
    let fits = callback(None, Some(answer), Some(after(day)));
    assert_eq!(rated(&fits, &sample()).status, Status::Rated);

    let too_long = rated(&callback(None, Some(answer), Some(after(day + 1))), &sample());
    assert_eq!((too_long.status, too_long.amount_micros), (Status::Implausible, 0));
    assert_eq!(too_long.flags, [Flag::TooLong]);
    assert_eq!(legs(&too_long), [("b", day + 1, 0, 0, 0)]);
    assert_eq!(too_long.currency, "");

    let received = |seconds: i64| Cdr {
        received_at: after(60 - seconds),
        ..callback(None, Some(answer), Some(after(60)))
    };
    assert_eq!(rated(&received(3600), &sample()).status, Status::Rated);
    let future = rated(&received(3601), &sample());
    assert_eq!((future.status, future.flags), (Status::Implausible, vec![Flag::EndsInFuture]));

    let unreadable = Cdr { unreadable_times: true, ..sample_08() };
    let unreadable = rated(&unreadable, &sample());
    assert_eq!(unreadable.status, Status::Implausible);
    assert_eq!(unreadable.flags, [Flag::UnreadableTimes]);

    // The limits are the caller's.
    let strict = Limits { max_leg_seconds: 101, max_ahead_seconds: 0 };
    assert_eq!(rate(&sample_08(), Some(&sample()), &strict).flags, [Flag::TooLong]);
}

#[test]
fn a_leg_that_the_service_does_not_have_is_flagged_and_not_charged() {
    let cdr = Cdr { service: Some(Service::Notification), ..sample_08() };
    let rated = rated(&cdr, &sample());
    assert_eq!(rated.flags, [Flag::UnexpectedLeg]);
    assert_eq!(legs(&rated), [("a", 102, 120, 2, 360_000), ("b", 95, 0, 0, 0)]);
}

#[test]
fn a_record_that_names_no_service_is_judged_by_its_legs() {
    let two = rated(&Cdr { service: None, ..sample_08() }, &sample());
    assert_eq!(two.amount_micros, 720_000);
    let b_only = tariff("b_leg_only", "half_up", "0.18", "60/60", "");
    assert_eq!(rated(&Cdr { service: None, ..sample_08() }, &b_only).amount_micros, 360_000);
    let one = Cdr { service: None, b_leg: None, ..sample_08() };
    assert_eq!(rated(&one, &b_only).amount_micros, 360_000, "one leg, charged as it is");
    let twice = tariff("b_leg_twice", "half_up", "0.18", "60/60", "");
    assert_eq!(rated(&Cdr { service: None, ..sample_08() }, &twice).amount_micros, 720_000);
    let a_leg = Some(leg("+8613800000021", None));
    let inbound = Cdr { service: None, inbound: true, a_leg, ..sample_08() };
    assert_eq!(rated(&inbound, &twice).amount_micros, 360_000, "A called the platform");
}

#[test]
fn without_a_rate_for_every_leg_nothing_is_charged() {
    let only_a = tariff("per_leg", "half_up", "0.18", "60/60", "legs = [\"a\"]");
    let unrated = rated(&sample_08(), &only_a);
    assert_eq!((unrated.status, unrated.amount_micros), (Status::Unrated, 0));
    assert_eq!(legs(&unrated), [("a", 102, 0, 0, 0), ("b", 95, 0, 0, 0)]);
    let none = rate(&sample_08(), None, &Limits::default());
    assert_eq!(none, unrated);
}

#[test]
fn more_money_than_there_is_is_implausible_and_never_wraps() {
    let tariff = tariff("per_leg", "up", "1000000", "60/60", "");
    let forever = Limits { max_leg_seconds: i64::MAX, max_ahead_seconds: i64::MAX };
    let cdr = callback(None, Some(Timestamp::MIN), Some(Timestamp::MAX));
    let rated = rate(&cdr, Some(&tariff), &forever);
    // 10^6 × 6.3 × 10^11 s / 60 is 10^16 units, 10^22 micros.
    assert_eq!((rated.status, rated.flags), (Status::Implausible, vec![Flag::Overflow]));
    assert_eq!(rated.amount_micros, 0);
}
