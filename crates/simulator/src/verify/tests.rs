//! The verifier finds what was planted, and nothing else.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use tollgate_schema::v1;

use super::verify;
use crate::evidence::{
    Evidence, EvidenceError, LedgerEntry, LedgerLeg, NumberLastCall, NumberState, Timeline,
    TimelineEvent, TopicRecord,
};
use crate::expect::{self, Known, quarantine_id, side_name, state};
use crate::journal::{CDR, Journal, MALFORMED, Outcome, Part};
use crate::script::tests::plan;
use crate::script::{Call, Plan};
use crate::{Fault, Faults, Finding, Options, Progress, Report};

mod quarantine;

const CALLS: u64 = 60;

/// What a faultless system would hold.
#[derive(Default)]
struct Held {
    topics: HashMap<&'static str, Vec<TopicRecord>>,
    ledger: Vec<LedgerEntry>,
    states: Vec<NumberState>,
    timelines: Vec<Timeline>,
}

#[async_trait]
impl Evidence for Held {
    async fn topic(
        &mut self,
        name: &'static str,
    ) -> Result<Option<Vec<TopicRecord>>, EvidenceError> {
        Ok(Some(self.topics.remove(name).unwrap_or_default()))
    }

    async fn ledger(&mut self) -> Result<Option<Vec<LedgerEntry>>, EvidenceError> {
        Ok(Some(self.ledger.clone()))
    }

    async fn states(&mut self, _: &[String]) -> Result<Option<Vec<NumberState>>, EvidenceError> {
        Ok(Some(self.states.clone()))
    }

    async fn timelines(&mut self, _: &[String]) -> Result<Option<Vec<Timeline>>, EvidenceError> {
        Ok(Some(self.timelines.clone()))
    }
}

fn provenance(call: &Call, is_named: bool) -> v1::Provenance {
    v1::Provenance {
        received_at: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        edge_id: "edge-1".to_owned(),
        application: if is_named { call.app_key.clone() } else { String::new() },
        ..v1::Provenance::default()
    }
}

fn record(ce_id: &str, key: &str, value: Vec<u8>) -> TopicRecord {
    TopicRecord {
        ce_id: ce_id.to_owned(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
    }
}

/// Everything that was sent, acknowledged, applied and charged.
fn faultless(plan: &Plan, options: &Options) -> (Journal, Held) {
    let mut journal = Journal::new(plan.clone(), None).unwrap();
    let mut held = Held::default();
    let calls: Vec<Call> = (0..CALLS).map(|index| plan.call(index)).collect();
    for call in &calls {
        let mut heard = Vec::new();
        let mut note = |part: u8| {
            journal.note(Part { call: call.index, part }, Outcome::Acknowledged);
        };
        for (number, status) in call.statuses.iter().enumerate() {
            note(number as u8);
            let mut event = expect::call_event(call, status);
            event.provenance = Some(provenance(call, false));
            let value = event.encode_to_vec();
            let events = held.topics.entry("call-events").or_default();
            events.push(record(&event.event_id, &call.session_id, value));
            heard.push(TimelineEvent { event_id: event.event_id });
        }
        note(CDR);
        let mut cdr = expect::cdr(call);
        cdr.provenance = Some(provenance(call, true));
        let value = cdr.encode_to_vec();
        let cdrs = held.topics.entry("cdrs").or_default();
        cdrs.push(record(&cdr.event_id, &call.session_id, value));
        heard.push(TimelineEvent { event_id: cdr.event_id.clone() });
        held.timelines.push(Timeline { session_id: call.session_id.clone(), events: heard });
        if let Some(item) = call.malformed_item() {
            note(MALFORMED);
            let id = hex::encode(quarantine_id(item.as_bytes()));
            let quarantined = v1::Quarantined {
                quarantine_id: id.clone(),
                content: item.into_bytes(),
                reason: v1::QuarantineReason::UnreadableRecord.into(),
                ..v1::Quarantined::default()
            };
            let all = held.topics.entry("quarantine").or_default();
            all.push(record(&id, &id, quarantined.encode_to_vec()));
        }
        charge(&mut held, call, &cdr, options);
    }
    held.states = states(&calls);
    (journal, held)
}

fn charge(held: &mut Held, call: &Call, cdr: &v1::CallDetailRecord, options: &Options) {
    let charge = expect::charge(call, options.price);
    let rated = v1::RatedCdr {
        entry_id: format!("{:032x}", call.index),
        record_id: cdr.record_id.clone(),
        event_id: cdr.event_id.clone(),
        kind: v1::EntryKind::Charge.into(),
        revision: 1,
        status: v1::RatingStatus::Rated.into(),
        legs: charge
            .legs
            .iter()
            .map(|leg| v1::RatedLeg {
                side: leg.side.into(),
                seconds: leg.seconds,
                billed_minutes: leg.minutes,
                amount_micros: leg.amount_micros,
                ..v1::RatedLeg::default()
            })
            .collect(),
        currency: "CNY".to_owned(),
        amount_micros: charge.amount_micros,
        app_key: call.app_key.clone(),
        session_id: call.session_id.clone(),
        ..v1::RatedCdr::default()
    };
    let entries = held.topics.entry("rated-cdrs").or_default();
    entries.push(record(&rated.entry_id, &rated.record_id, rated.encode_to_vec()));
    held.ledger.push(LedgerEntry {
        entry_id: rated.entry_id,
        record_id: rated.record_id,
        event_id: rated.event_id,
        kind: "charge".to_owned(),
        revision: 1,
        status: "rated".to_owned(),
        legs: charge
            .legs
            .iter()
            .map(|leg| LedgerLeg {
                side: side_name(leg.side).to_owned(),
                seconds: leg.seconds,
                billed_minutes: leg.minutes,
                amount_micros: leg.amount_micros,
            })
            .collect(),
        currency: rated.currency,
        amount_micros: rated.amount_micros,
        app_key: rated.app_key,
        session_id: rated.session_id,
    });
}

fn states(calls: &[Call]) -> Vec<NumberState> {
    let known: Vec<Known<'_>> = calls
        .iter()
        .map(|call| Known { call, statuses: vec![true; call.statuses.len()], cdr: true })
        .collect();
    let mut numbers: Vec<&String> = calls
        .iter()
        .flat_map(|call| [Some(&call.number_a), call.number_b.as_ref()])
        .flatten()
        .collect();
    numbers.sort();
    numbers.dedup();
    numbers
        .into_iter()
        .map(|number| {
            let of_number: Vec<_> = known
                .iter()
                .filter(|known| {
                    known.call.number_a == *number || known.call.number_b.as_ref() == Some(number)
                })
                .cloned()
                .collect();
            let state = state(number, &of_number, 2_000_000_000).unwrap();
            let last_call = state.last_calls.first().map(|last| NumberLastCall {
                session_id: last.session_id.clone(),
                side: Some(side_name(last.side).to_ascii_lowercase()),
                ended_at: jiff::Timestamp::from_second(last.ended_at).ok(),
                answered: last.answered,
                state_code: last.state_code,
                release_reason: last.release_reason,
                cause: last.cause,
                sip_status: last.sip_status,
            });
            NumberState {
                number: number.clone(),
                presence: state.presence.name().to_owned(),
                calls: Vec::new(),
                last_call,
            }
        })
        .collect()
}

fn options() -> Options {
    Options { settle: 0.0, ..Options::default() }
}

/// Verifies what the faultless system holds after `plant` has had its way with it.
async fn verified(faults: Faults, plant: impl FnOnce(&Plan, &mut Journal, &mut Held)) -> Report {
    verified_with(&options(), faults, plant).await
}

async fn verified_with(
    options: &Options,
    faults: Faults,
    plant: impl FnOnce(&Plan, &mut Journal, &mut Held),
) -> Report {
    let plan = plan(faults);
    let (mut journal, mut held) = faultless(&plan, options);
    plant(&plan, &mut journal, &mut held);
    let mut report = Report { is_verified: true, ..Report::default() };
    verify(options, &journal, Box::new(held), &Progress::hidden(), &mut report).await;
    report
}

fn only(report: &Report) -> &Finding {
    assert_eq!(report.findings.len(), 1, "{report}");
    assert_eq!(report.exit_code(), 3);
    &report.findings[0]
}

fn place_of(report: &Report) -> (&'static str, &'static str) {
    let finding = only(report);
    (finding.kind, finding.place)
}

#[tokio::test]
async fn a_faultless_system_is_clean_under_all_faults_of_the_platform() {
    for faults in [Faults::none(), Faults::all(), "all=0.3".parse().unwrap()] {
        let report = verified(faults, |_, _, _| {}).await;
        assert!(report.findings.is_empty(), "{report}");
        assert_eq!(report.exit_code(), 0, "{report}");
        assert_eq!(report.tallies.len(), 7);
        let charges = report.charges.unwrap();
        assert_eq!(charges.expected_micros, charges.ledger_micros);
        assert!(charges.expected_micros > 0);
    }
}

#[tokio::test]
async fn a_lost_status_is_found() {
    let report = verified(Faults::none(), |plan, _, held| {
        // Not the last: a state that lacks it is nobody's fault.
        let id = expect::call_event(&plan.call(0), &plan.call(0).statuses[0]).event_id;
        held.topics.get_mut("call-events").unwrap().retain(|record| record.ce_id != id);
    })
    .await;
    assert_eq!(place_of(&report), ("lost", "call-events"));
}

#[tokio::test]
async fn a_status_that_was_never_acknowledged_may_be_there_or_not() {
    let report = verified(Faults::none(), |plan, journal, held| {
        *journal = Journal::new(plan.clone(), None).unwrap();
        for call in 0..CALLS {
            for part in 0..plan.call(call).statuses.len() {
                let outcome = if call == 0 { Outcome::Unknown } else { Outcome::Acknowledged };
                journal.note(Part { call, part: part as u8 }, outcome);
            }
            journal.note(Part { call, part: CDR }, Outcome::Acknowledged);
        }
        let id = expect::call_event(&plan.call(0), &plan.call(0).statuses[0]).event_id;
        held.topics.get_mut("call-events").unwrap().retain(|record| record.ce_id != id);
    })
    .await;
    assert_eq!(report.exit_code(), 0, "{report}");
    assert_eq!(report.tallies[0].unknown_absent, 1);
    assert!(report.tallies[0].unknown_present > 0);
}

#[tokio::test]
async fn a_cdr_that_was_lost_on_the_way_to_billing_is_found_in_the_ledger_and_its_topic() {
    let report = verified(Faults::none(), |_, _, held| {
        let entry = held.ledger.remove(7);
        let rated = held.topics.get_mut("rated-cdrs").unwrap();
        rated.retain(|record| record.ce_id != entry.entry_id);
    })
    .await;
    let places: Vec<_> = report.findings.iter().map(|it| (it.kind, it.place)).collect();
    assert_eq!(places, [("lost", "rated-cdrs"), ("lost", "ledger")]);
}

#[tokio::test]
async fn a_repeat_under_one_ce_id_is_no_finding_and_another_content_is() {
    let report = verified(Faults::none(), |_, _, held| {
        let cdrs = held.topics.get_mut("cdrs").unwrap();
        cdrs.push(cdrs[3].clone());
    })
    .await;
    assert_eq!(report.exit_code(), 0, "{report}");
    assert_eq!(report.tallies[1].repeats, 1);

    let report = verified(Faults::none(), |_, _, held| {
        let cdrs = held.topics.get_mut("cdrs").unwrap();
        let mut cdr = v1::CallDetailRecord::decode(cdrs[3].value.clone()).unwrap();
        cdr.a_leg.as_mut().unwrap().number = Some("+8613900000000".to_owned());
        cdrs.push(TopicRecord { value: cdr.encode_to_vec().into(), ..cdrs[3].clone() });
    })
    .await;
    assert_eq!(place_of(&report), ("wrong", "cdrs"));
    assert_eq!(only(&report).detail, "a_leg.number");
    assert!(!report.to_string().contains("13900000000"));
}

#[tokio::test]
async fn a_second_result_for_one_status_is_a_duplicate() {
    let report = verified(Faults::none(), |_, _, held| {
        let events = held.topics.get_mut("call-events").unwrap();
        let mut event = v1::CallEvent::decode(events[5].value.clone()).unwrap();
        event.event_id = "00".repeat(16);
        let value = event.encode_to_vec().into();
        events.push(TopicRecord { ce_id: event.event_id, value, key: events[5].key.clone() });
    })
    .await;
    assert_eq!(place_of(&report), ("duplicated", "call-events"));
}

#[tokio::test]
async fn the_right_record_under_a_wrong_id_is_wrong_and_not_lost() {
    let report = verified(Faults::none(), |_, _, held| {
        let record = &mut held.topics.get_mut("cdrs").unwrap()[4];
        let mut cdr = v1::CallDetailRecord::decode(record.value.clone()).unwrap();
        cdr.event_id = "11".repeat(16);
        record.ce_id.clone_from(&cdr.event_id);
        record.value = cdr.encode_to_vec().into();
    })
    .await;
    assert_eq!((report.tallies[1].lost, report.tallies[1].wrong), (0, 1), "{report}");
    assert_eq!(report.exit_code(), 3);
}

#[tokio::test]
async fn a_charge_that_was_booked_twice_is_found() {
    let report = verified(Faults::none(), |_, _, held| {
        let mut entry = held.ledger[2].clone();
        entry.entry_id = "22".repeat(16);
        entry.revision = 2;
        held.ledger.push(entry);
    })
    .await;
    assert_eq!(place_of(&report), ("duplicated", "ledger"));
}

#[tokio::test]
async fn a_charge_that_was_taken_back_and_booked_again_is_right() {
    let report = verified(Faults::none(), |_, _, held| {
        let charge = held.ledger[2].clone();
        let mut reversal = LedgerEntry {
            entry_id: "33".repeat(16),
            kind: "reversal".to_owned(),
            amount_micros: -charge.amount_micros,
            ..charge.clone()
        };
        reversal.legs.iter_mut().for_each(|leg| leg.amount_micros = -leg.amount_micros);
        held.ledger.push(reversal);
        held.ledger.push(LedgerEntry { entry_id: "44".repeat(16), revision: 2, ..charge });
    })
    .await;
    assert_eq!(report.exit_code(), 0, "{report}");
}

#[tokio::test]
async fn a_wrong_amount_is_found_and_the_totals_show_it() {
    let report = verified(Faults::none(), |_, _, held| {
        let entry = held.ledger.iter_mut().find(|entry| entry.amount_micros > 0).unwrap();
        entry.amount_micros += 1;
    })
    .await;
    assert_eq!(place_of(&report), ("wrong", "ledger"));
    assert!(only(&report).detail.starts_with("amount_micros"));
    let charges = report.charges.unwrap();
    assert_eq!(charges.ledger_micros, charges.expected_micros + 1);
}

#[tokio::test]
async fn an_unrated_record_says_so() {
    let report = verified(Faults::none(), |_, _, held| {
        held.ledger[0].status = "unrated".to_owned();
    })
    .await;
    assert_eq!(only(&report).detail, "status is unrated");
}

#[tokio::test]
async fn a_wrong_state_is_found_without_naming_the_number() {
    let report = verified(Faults::none(), |_, _, held| {
        held.states[0].presence = "in_call".to_owned();
    })
    .await;
    assert_eq!(place_of(&report), ("wrong", "states"));
    assert_eq!(only(&report).detail, "presence is in_call, not idle");
    assert!(!report.to_string().contains("138000"), "{report}");

    let report = verified(Faults::none(), |_, _, held| {
        let last = held.states[1].last_call.as_mut().unwrap();
        last.release_reason = Some(513);
    })
    .await;
    assert_eq!(only(&report).detail, "last_call.release_reason");
}

#[tokio::test]
async fn a_number_that_another_run_called_later_is_not_judged() {
    let report = verified(Faults::none(), |_, _, held| {
        let last = held.states[1].last_call.as_mut().unwrap();
        last.session_id = "1201_7_1_20990101000000@callenabler245.huaweicaas.com".to_owned();
        last.ended_at = last.ended_at.map(|at| at + jiff::SignedDuration::from_secs(5));
    })
    .await;
    assert_eq!(report.exit_code(), 0, "{report}");
    let states = report.tallies.iter().find(|tally| tally.place == "states").unwrap();
    assert_eq!(states.not_judged, 1);
}

#[tokio::test]
async fn a_number_that_nobody_else_can_have_called_is_judged() {
    let plant = |held: &mut Held| {
        let last = held.states[1].last_call.as_mut().unwrap();
        last.session_id = "1201_7_1_20990101000000@callenabler245.huaweicaas.com".to_owned();
    };
    let options = Options { alone: true, ..options() };
    let report = verified_with(&options, Faults::none(), |_, _, held| plant(held)).await;
    assert_eq!(only(&report).detail, "a session that was never sent");
}

#[tokio::test]
async fn what_user_state_has_never_heard_is_lost_whatever_the_states_say() {
    let report = verified(Faults::none(), |_, _, held| {
        held.timelines[3].events.remove(0);
    })
    .await;
    assert_eq!(place_of(&report), ("lost", "timelines"));

    let report = verified(Faults::none(), |plan, _, held| {
        held.timelines.remove(3);
        let first = plan.call(3).statuses[0].clone();
        // Only what is on the topics can have been heard.
        let id = expect::call_event(&plan.call(3), &first).event_id;
        held.topics.get_mut("call-events").unwrap().retain(|record| record.ce_id != id);
    })
    .await;
    let timelines = report.tallies.iter().find(|tally| tally.place == "timelines").unwrap();
    let plan = plan(Faults::none());
    assert_eq!(timelines.lost, plan.call(3).statuses.len() as u64, "{report}");
}

#[tokio::test]
async fn what_was_refused_to_the_last_is_counted_apart() {
    let report = verified(Faults::none(), |plan, journal, held| {
        let sent = std::mem::replace(journal, Journal::new(plan.clone(), None).unwrap());
        for call in 0..CALLS {
            for part in (0..plan.call(call).statuses.len() as u8).chain([CDR]) {
                let part = Part { call, part };
                let is_first = (call, part.part) == (0, 0);
                journal.note(part, if is_first { Outcome::Refused } else { sent.outcome(part) });
            }
        }
        let id = expect::call_event(&plan.call(0), &plan.call(0).statuses[0]).event_id;
        held.topics.get_mut("call-events").unwrap().retain(|record| record.ce_id != id);
    })
    .await;
    assert_eq!(report.exit_code(), 0, "{report}");
    assert_eq!((report.tallies[0].refused, report.tallies[0].unknown_absent), (1, 0));
}

#[tokio::test]
async fn what_cannot_be_read_is_said_and_is_no_clean_result() {
    struct Dark;
    #[async_trait]
    impl Evidence for Dark {
        async fn topic(
            &mut self,
            name: &'static str,
        ) -> Result<Option<Vec<TopicRecord>>, EvidenceError> {
            Err(EvidenceError { what: format!("topic {name}"), reason: "no connection".into() })
        }
        async fn ledger(&mut self) -> Result<Option<Vec<LedgerEntry>>, EvidenceError> {
            Ok(None)
        }
        async fn states(
            &mut self,
            _: &[String],
        ) -> Result<Option<Vec<NumberState>>, EvidenceError> {
            Ok(None)
        }
        async fn timelines(
            &mut self,
            _: &[String],
        ) -> Result<Option<Vec<Timeline>>, EvidenceError> {
            Ok(None)
        }
    }
    let plan = plan(Faults::none());
    let (journal, _) = faultless(&plan, &options());
    let mut report = Report { is_verified: true, ..Report::default() };
    verify(&options(), &journal, Box::new(Dark), &Progress::hidden(), &mut report).await;
    assert_eq!(report.exit_code(), 1);
    assert_eq!(report.unverified.len(), 3, "{report}");
    assert!(report.to_string().contains("topics: cannot read topic call-events: no connection"));
}
