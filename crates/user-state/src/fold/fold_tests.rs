//! Calls as the protocol page tells them.

use super::*;

const EXPIRY: Expiry = Expiry { unanswered_ms: 300_000, answered_ms: 86_400_000 };
const T0: i64 = 1_716_174_264_000;

fn at(second: i64) -> i64 {
    T0 + second * 1000
}

fn status(kind: Kind, second: i64, called: Option<&str>) -> Event {
    let mut record_id = vec![kind as u8; 16];
    record_id[1] = second as u8;
    record_id[2] = called.map_or(0, |number| number.as_bytes()[0]);
    Event {
        event_id: record_id.iter().map(|byte| !byte).collect(),
        record_id,
        kind: kind.into(),
        received_ms: at(second) + 200,
        trust: Trust::Absent.into(),
        occurred_ms: Some(at(second)),
        called: called.map(str::to_owned),
        ..Event::default()
    }
}

fn cdr(second: i64, cdr: Cdr) -> Event {
    Event { cdr: Some(Box::new(cdr)), ..status(Kind::Cdr, second, None) }
}

fn cdr_leg(number: &str, start: i64, alerting: Option<i64>, answer: Option<i64>) -> CdrLeg {
    CdrLeg {
        number: Some(number.to_owned()),
        started_ms: Some(at(start)),
        alerting_ms: alerting.map(at),
        answered_ms: answer.map(at),
        ..CdrLeg::default()
    }
}

/// The callback of samples 01 to 08.
fn callback(numbered: bool) -> Vec<Event> {
    let (a, b) = (Some("A").filter(|_| numbered), Some("B").filter(|_| numbered));
    vec![
        status(Kind::Callout, 0, a),
        status(Kind::Alerting, 3, a),
        status(Kind::Answer, 7, a),
        status(Kind::Callout, 8, b),
        status(Kind::Alerting, 12, b),
        status(Kind::Answer, 14, b),
        Event { state_code: Some(0), ..status(Kind::Disconnect, 109, b) },
    ]
}

fn callback_cdr() -> Event {
    cdr(
        109,
        Cdr {
            a: Some(cdr_leg("A", 0, Some(3), Some(7))),
            b: Some(cdr_leg("B", 8, Some(12), Some(14))),
            release_reason: Some(0),
            ..Cdr::default()
        },
    )
}

fn call(events: impl IntoIterator<Item = Event>) -> Call {
    fold(&events.into_iter().collect(), &EXPIRY).0
}

fn engaged(call: &Call, side: LegSide, as_of: i64) -> Option<(Presence, i64)> {
    let leg = call.legs.iter().find(|leg| leg.side == side)?;
    leg.is_active(as_of).then(|| leg.engagement())
}

#[test]
fn a_callback_rings_a_then_b_and_ends_with_one_disconnect() {
    for numbered in [true, false] {
        let events = callback(numbered);
        let so_far = |count: usize| call(events[..count].to_vec());
        let both = |count: usize| {
            let call = so_far(count);
            let now = at(20);
            (engaged(&call, LegSide::A, now), engaged(&call, LegSide::B, now))
        };
        assert_eq!(both(1), (Some((Presence::Calling, at(0))), None));
        assert_eq!(both(2), (Some((Presence::Ringing, at(3))), None));
        assert_eq!(both(3), (Some((Presence::InCall, at(7))), None));
        let a = Some((Presence::InCall, at(7)));
        assert_eq!(both(4), (a, Some((Presence::Calling, at(8)))));
        assert_eq!(both(5), (a, Some((Presence::Ringing, at(12)))));
        assert_eq!(both(6), (a, Some((Presence::InCall, at(14)))));
        assert_eq!(both(7), (None, None));
        let ended = so_far(7);
        assert_eq!(ended.legs.len(), 2);
        assert!(ended.legs.iter().all(|leg| leg.ended && leg.until_ms == at(109)));
        assert!(ended.legs.iter().all(|leg| leg.state_code == Some(0)));
    }
}

#[test]
fn events_without_numbers_get_them_when_the_cdr_names_a_and_b() {
    let events = callback(false).into_iter().chain([callback_cdr()]);
    let set: EventSet = events.collect();
    let (call, placed) = fold(&set, &EXPIRY);
    let numbers: Vec<Option<&str>> =
        placed.iter().map(|placed| call.legs[placed.leg?].number.as_deref()).collect();
    let (a, b) = (Some("A"), Some("B"));
    assert_eq!(numbers, [a, a, a, b, b, b, None, None]);
    assert_eq!(call.legs.len(), 2);
}

#[test]
fn a_callback_without_any_event_but_the_answers_has_a_first_and_b_second() {
    let call = call([status(Kind::Answer, 7, None), status(Kind::Answer, 14, None)]);
    assert_eq!(engaged(&call, LegSide::A, at(20)), Some((Presence::InCall, at(7))));
    assert_eq!(engaged(&call, LegSide::B, at(20)), Some((Presence::InCall, at(14))));
}

#[test]
fn a_phone_that_rings_twice_is_one_phone() {
    let events = [
        status(Kind::Callout, 0, None),
        status(Kind::Alerting, 3, None),
        status(Kind::Alerting, 4, None),
    ];
    assert_eq!(call(events).legs.len(), 1);
}

#[test]
fn b_being_called_tells_that_a_has_answered() {
    let call = call([status(Kind::Callout, 0, Some("A")), status(Kind::Alerting, 12, Some("B"))]);
    assert_eq!(engaged(&call, LegSide::A, at(20)), Some((Presence::InCall, at(12))));
    assert_eq!(engaged(&call, LegSide::B, at(20)), Some((Presence::Ringing, at(12))));
}

#[test]
fn a_cdr_ends_the_call_before_the_disconnect_and_says_who_answered() {
    let mut events = callback(true);
    events.truncate(5);
    let b_busy = Cdr {
        a: Some(cdr_leg("A", 0, Some(3), Some(7))),
        b: Some(CdrLeg { cause: Some(17), ..cdr_leg("B", 8, Some(12), None) }),
        release_reason: Some(518),
        sip_status: Some(486),
        ..Cdr::default()
    };
    events.push(cdr(21, b_busy));
    let ended = call(events.clone());
    assert!(ended.ended && ended.legs.iter().all(|leg| leg.ended && leg.until_ms == at(21)));
    let [a, b] = &ended.legs[..] else { panic!("two legs") };
    assert_eq!((a.answered_ms, b.answered_ms), (Some(at(7)), None));
    assert_eq!((a.cause, b.cause), (None, Some(17)));
    assert_eq!((b.release_reason, b.sip_status), (Some(518), Some(486)));

    let code = Event { state_code: Some(8102), ..status(Kind::Disconnect, 21, Some("B")) };
    let with_disconnect = call(events.into_iter().chain([code]));
    assert!(with_disconnect.legs.iter().all(|leg| leg.state_code == Some(8102)));
    assert!(with_disconnect.legs.iter().all(|leg| leg.until_ms == at(21)));
}

#[test]
fn two_disconnects_are_one_end_and_each_leg_keeps_its_own() {
    let mut events = callback(true);
    events.push(Event { state_code: Some(8010), ..status(Kind::Disconnect, 110, Some("A")) });
    let call = call(events);
    let [a, b] = &call.legs[..] else { panic!("two legs") };
    assert_eq!((a.until_ms, a.state_code), (at(110), Some(8010)));
    assert_eq!((b.until_ms, b.state_code), (at(109), Some(0)));
}

#[test]
fn nothing_revives_a_call_that_was_ended() {
    let events = callback(true).into_iter().chain([status(Kind::Answer, 200, Some("B"))]);
    assert_eq!(engaged(&call(events), LegSide::B, at(201)), None);
}

#[test]
fn calling_and_ringing_expire_after_five_minutes_an_answered_leg_after_a_day() {
    let ringing = call(callback(true).into_iter().take(5));
    let (last, minutes) = (at(12), 300_000);
    assert!(engaged(&ringing, LegSide::B, last + minutes - 1).is_some());
    assert!(engaged(&ringing, LegSide::B, last + minutes).is_none());
    assert!(engaged(&ringing, LegSide::A, last + minutes).is_some());
    assert!(engaged(&ringing, LegSide::A, last + 86_400_000).is_none());
    // And a later event revives what had expired.
    let revived =
        call(callback(true).into_iter().take(5).chain([status(Kind::Answer, 99, Some("B"))]));
    assert!(engaged(&revived, LegSide::B, last + minutes).is_some());
}

#[test]
fn a_private_call_has_the_caller_and_the_callee_and_no_leg_for_the_x_number() {
    let callin = Event { caller: Some("C".into()), ..status(Kind::Callin, 0, Some("X")) };
    let events = [
        callin,
        Event { caller: Some("X".into()), ..status(Kind::Callout, 1, Some("D")) },
        Event { caller: Some("X".into()), ..status(Kind::Alerting, 2, Some("D")) },
        status(Kind::Answer, 5, Some("D")),
    ];
    let ringing = call(events[..3].to_vec());
    assert_eq!(engaged(&ringing, LegSide::A, at(6)), Some((Presence::Calling, at(0))));
    assert_eq!(engaged(&ringing, LegSide::B, at(6)), Some((Presence::Ringing, at(2))));
    let answered = call(events.to_vec());
    assert_eq!(engaged(&answered, LegSide::A, at(6)), Some((Presence::InCall, at(5))));
    assert_eq!(engaged(&answered, LegSide::B, at(6)), Some((Presence::InCall, at(5))));

    let disconnect_x = status(Kind::Disconnect, 22, Some("X"));
    let record = Cdr {
        a: Some(cdr_leg("C", 0, None, None)),
        b: Some(cdr_leg("D", 1, Some(2), Some(5))),
        inbound: true,
        dialled: Some("X".into()),
        release_reason: Some(0),
        ..Cdr::default()
    };
    let ended = call(events.into_iter().chain([disconnect_x, cdr(22, record.clone())]));
    let numbers: Vec<_> = ended.legs.iter().map(|leg| leg.number.as_deref()).collect();
    assert_eq!(numbers, [Some("C"), Some("D")]);
    assert!(ended.legs.iter().all(|leg| leg.ended && leg.answered_ms == Some(at(5))));

    // The callin was lost: the callee seems to be the first party until the CDR settles it.
    let late = call([status(Kind::Callout, 1, Some("D"))]);
    assert_eq!(late.legs[0].side, LegSide::A);
    let settled = call([status(Kind::Callout, 1, Some("D")), cdr(22, record)]);
    let sides: Vec<_> = settled.legs.iter().map(|leg| (leg.number.as_deref(), leg.side)).collect();
    assert_eq!(sides, [(Some("C"), LegSide::A), (Some("D"), LegSide::B)]);
}

#[test]
fn keys_pressed_belong_to_the_party_that_was_called_and_show_that_it_answered() {
    let call = call([
        status(Kind::Callout, 0, Some("A")),
        Event { digits: Some("1".into()), ..status(Kind::CollectInfo, 9, None) },
    ]);
    assert_eq!(call.legs.len(), 1);
    assert_eq!(engaged(&call, LegSide::A, at(10)), Some((Presence::InCall, at(9))));
}

#[test]
fn a_disconnect_is_all_that_is_known() {
    let call = call([status(Kind::Disconnect, 9, Some("A"))]);
    assert_eq!(call.legs.len(), 1);
    assert!(call.legs[0].ended && call.legs[0].number.as_deref() == Some("A"));
}

#[test]
fn a_normal_hang_up_tells_of_answers_that_were_lost() {
    let hung_up =
        |called, code| Event { state_code: code, ..status(Kind::Disconnect, 20, Some(called)) };
    let answered = |call: Call| -> Vec<bool> { call.legs.iter().map(Leg::was_answered).collect() };
    let called = [status(Kind::Callout, 0, Some("A")), status(Kind::Alerting, 3, Some("A"))];
    let heard = |end: Event| call(called.iter().cloned().chain([end]));
    let told = heard(hung_up("A", Some(0)));
    assert_eq!((told.legs[0].answered_ms, told.legs[0].was_answered()), (None, true));
    for says_nothing in [None, Some(8009), Some(8010)] {
        assert_eq!(answered(heard(hung_up("A", says_nothing))), [false]);
    }
    // It is the call that was connected, whoever is named; of two, each goes by its own.
    let both = || callback(true).into_iter().take(5);
    assert_eq!(answered(call(both().chain([hung_up("A", Some(0))]))), [true, true]);
    let two = [hung_up("A", Some(0)), hung_up("B", Some(8101))];
    assert_eq!(answered(call(both().chain(two))), [true, false]);
    // Not before it ended.
    let then = told.legs[0].rewind(at(19)).map(|leg| (leg.ended, leg.was_answered()));
    assert_eq!(then, Some((false, false)));
    // A record that says how the call ended also says who answered.
    let record =
        Cdr { a: Some(cdr_leg("A", 0, Some(3), None)), release_reason: Some(0), ..Cdr::default() };
    let settled = called.into_iter().chain([hung_up("A", Some(0)), cdr(20, record)]);
    assert_eq!(answered(call(settled)), [false]);
}

#[test]
fn implausible_times_break_nothing() {
    // A status from the next century counts from its receipt.
    let mut future = status(Kind::Callout, 0, Some("A"));
    future.occurred_ms = Some(T0 + 100 * 365 * 86_400_000);
    let call_of_future = call([future.clone()]);
    assert_eq!(call_of_future.last_event_ms, future.received_ms);
    // An alerting time of another year is left out of the record (P 5.2).
    let record = Cdr {
        a: Some(CdrLeg {
            alerting_ms: Some(T0 + 365 * 86_400_000),
            ..cdr_leg("A", 0, None, Some(7))
        }),
        ..Cdr::default()
    };
    let settled = call([cdr(20, record)]);
    assert_eq!(settled.legs[0].alerting_ms, None);
    assert_eq!(settled.legs[0].answered_ms, Some(at(7)));
    // Without any time of its own, a record counts from its receipt.
    let timeless = Event { occurred_ms: None, ..cdr(20, Cdr::default()) };
    assert_eq!(call([timeless.clone()]).last_event_ms, timeless.received_ms);
}

#[test]
fn a_record_that_could_not_be_read_whole_proves_no_absence() {
    let record =
        |incomplete| Cdr { a: Some(cdr_leg("A", 0, None, None)), incomplete, ..Cdr::default() };
    let heard = status(Kind::Answer, 7, Some("A"));
    assert_eq!(call([heard.clone(), cdr(20, record(false))]).legs[0].answered_ms, None);
    assert_eq!(call([heard, cdr(20, record(true))]).legs[0].answered_ms, Some(at(7)));
    // Nor does it prove that A did not answer, where B was called.
    let of_both = |incomplete| Cdr { b: Some(cdr_leg("B", 8, None, None)), ..record(incomplete) };
    assert_eq!(call([cdr(20, of_both(false))]).legs[0].answered_ms, None);
    assert_eq!(call([cdr(20, of_both(true))]).legs[0].answered_ms, Some(at(8)));
}

#[test]
fn a_record_that_states_no_end_leaves_it_to_the_disconnect() {
    let received_ms = at(20_000);
    for unusable in [None, Some(received_ms + FUTURE_TOLERANCE_MS + 1)] {
        let record = Event { occurred_ms: unusable, received_ms, ..callback_cdr() };
        let told = call(callback(true).into_iter().chain([record.clone()]));
        assert!(told.legs.iter().all(|leg| leg.ended && leg.until_ms == at(109)));
        assert!(told.legs.iter().all(|leg| leg.release_reason == Some(0)));
        // Where nobody tells, it is over all the same.
        let alone = call([record.clone()]);
        assert!(alone.legs.iter().all(|leg| leg.ended && leg.until_ms == record.time_ms()));
    }
}

#[test]
fn of_more_parties_than_a_call_has_the_first_are_followed() {
    let party = |second: u8| Event {
        record_id: vec![second; 16],
        event_id: vec![second; 16],
        ..status(Kind::Callout, i64::from(second), Some(&format!("n{second}")))
    };
    let numbers = |call: &Call| -> Vec<String> {
        call.legs.iter().filter_map(|leg| leg.number.clone()).collect()
    };
    let eight: Vec<String> = (0..8).map(|second| format!("n{second}")).collect();
    let whole = call((0..8).map(party));
    assert_eq!((numbers(&whole), whole.capped), (eight.clone(), false));
    let end = status(Kind::Disconnect, 109, None);
    let more = call((0..30).map(party).chain([end.clone()]));
    assert_eq!((numbers(&more), more.capped), (eight, true));
    assert!(more.legs.iter().all(|leg| leg.ended && leg.until_ms == at(109)));
    assert_eq!(more, call([end].into_iter().chain((0..30).rev().map(party))));
    // Nor do many records name more.
    let records = (0..9u8).map(|record| {
        let leg = |side: &str| Some(cdr_leg(&format!("{side}{record}"), 0, None, None));
        let named = Cdr { a: leg("A"), b: leg("B"), ..Cdr::default() };
        Event { record_id: vec![record; 16], event_id: vec![record; 16], ..cdr(20, named) }
    });
    let named = call(records);
    assert_eq!((named.legs.len(), named.capped), (8, true));
}

#[test]
fn someone_who_calls_himself_has_two_legs() {
    let record = Cdr {
        a: Some(cdr_leg("A", 0, Some(3), Some(7))),
        b: Some(cdr_leg("A", 8, Some(12), None)),
        ..Cdr::default()
    };
    let events = callback(true).into_iter().map(|mut event| {
        event.called = Some("A".to_owned());
        event
    });
    let call = call(events.take(5).chain([cdr(30, record)]));
    let answered: Vec<_> = call.legs.iter().map(|leg| leg.answered_ms).collect();
    assert_eq!(answered, [Some(at(7)), None]);
}

#[test]
fn of_a_records_contents_the_verified_and_then_the_latest_is_in_force() {
    let content = |id: u8, received: i64, trust: Trust, code: i32| Event {
        event_id: vec![id; 16],
        received_ms: at(received),
        trust: trust.into(),
        state_code: Some(code),
        ..status(Kind::Disconnect, 0, Some("A"))
    };
    let in_force = |events: &[Event]| {
        let set: EventSet = events.iter().cloned().collect();
        set.in_force()[0].state_code
    };
    let absent = content(1, 5, Trust::Absent, 1);
    let later = content(2, 9, Trust::Absent, 2);
    let verified = content(3, 1, Trust::Verified, 3);
    let failed = content(4, 20, Trust::Failed, 4);
    assert_eq!(in_force(&[absent.clone(), later.clone()]), Some(2));
    assert_eq!(in_force(&[verified, absent.clone(), later.clone(), failed]), Some(3));
    // Its earliest receipt counts, not the latest repetition.
    let repeated_later = content(1, 30, Trust::Absent, 1);
    let earlier = content(2, 3, Trust::Absent, 2);
    assert_eq!(in_force(&[absent, later, repeated_later, earlier]), Some(1));
}

#[test]
fn a_number_shows_its_most_engaged_call_and_its_last_one() {
    let leg =
        |session: u8, started: i64, answered: Option<i64>, ended: bool, until: i64| NumberLeg {
            session_key: [session; 16],
            session_id: session.to_string(),
            leg: Leg {
                side: LegSide::A,
                number: None,
                started_ms: Some(started),
                alerting_ms: None,
                answered_ms: answered,
                ended,
                until_ms: until,
                state_code: None,
                release_reason: None,
                cause: None,
                sip_status: None,
            },
        };
    let legs = [
        leg(1, 10, None, false, 310),
        leg(2, 20, Some(25), false, 900),
        leg(3, 1, Some(2), true, 5),
        leg(4, 1, None, true, 7),
    ];
    let state = derive(&legs, 100);
    assert_eq!((state.presence, state.since_ms), (Presence::InCall, Some(25)));
    assert_eq!(state.calls.iter().map(|call| &*call.session_id).collect::<Vec<_>>(), ["2", "1"]);
    assert_eq!(state.last_call.map(|last| last.session_id), Some("4".to_owned()));
    assert_eq!(state.next_expiry_ms, Some(310));
    // Expired and ended calls compete for being the last.
    let state = derive(&legs, 900);
    assert_eq!((state.presence, state.since_ms), (Presence::Idle, Some(900)));
    assert_eq!(state.next_expiry_ms, None);
}

#[test]
fn looking_back_shows_a_call_that_has_ended_since() {
    let ended = call(callback(true).into_iter().chain([callback_cdr()]));
    let entry = |leg: &Leg| NumberLeg {
        session_key: [1; 16],
        session_id: "s".to_owned(),
        leg: leg.clone(),
    };
    let b = entry(&ended.legs[1]);
    let then = |instant: i64| {
        let legs: Vec<_> = rewind(&b, instant).into_iter().collect();
        let state = derive(&legs, instant);
        (state.presence, state.since_ms)
    };
    assert_eq!(then(at(7)), (Presence::Idle, None));
    assert_eq!(then(at(8)), (Presence::Calling, Some(at(8))));
    assert_eq!(then(at(13)), (Presence::Ringing, Some(at(12))));
    assert_eq!(then(at(60)), (Presence::InCall, Some(at(14))));
    assert_eq!(then(at(109)), (Presence::Idle, Some(at(109))));
}
