//! What may be in quarantine, and what must.

use super::*;

#[tokio::test]
async fn an_unreadable_record_must_be_in_quarantine_with_its_bytes() {
    let faults = || Faults::none().with(Fault::MalformedRecord, 0.3);
    let report = verified(faults(), |_, _, held| {
        held.topics.get_mut("quarantine").unwrap().pop();
    })
    .await;
    assert_eq!(place_of(&report), ("lost", "quarantine"));

    let report = verified(faults(), |_, _, held| {
        let record = &mut held.topics.get_mut("quarantine").unwrap()[0];
        let mut quarantined = v1::Quarantined::decode(record.value.clone()).unwrap();
        quarantined.content.pop();
        record.value = quarantined.encode_to_vec().into();
    })
    .await;
    assert_eq!(only(&report).detail, "content");
}

#[tokio::test]
async fn a_good_record_in_quarantine_is_found() {
    let report = verified(Faults::none(), |plan, _, held| {
        let item = plan.call(1).item().into_bytes();
        let id = hex::encode(quarantine_id(&item));
        let quarantined = v1::Quarantined {
            quarantine_id: id.clone(),
            content: item,
            reason: v1::QuarantineReason::RefusedByDatabase.into(),
            ..v1::Quarantined::default()
        };
        let value = quarantined.encode_to_vec();
        held.topics.entry("quarantine").or_default().push(record(&id, &id, value));
    })
    .await;
    assert_eq!(place_of(&report), ("wrong", "quarantine"));
}

#[tokio::test]
async fn a_record_that_a_consumer_gave_up_is_found() {
    let given_up = |content: Vec<u8>, topic: &str| {
        let id = hex::encode(quarantine_id(&content));
        let source = v1::SourcePosition { topic: topic.to_owned(), ..Default::default() };
        let quarantined = v1::Quarantined {
            quarantine_id: id.clone(),
            content,
            reason: v1::QuarantineReason::RefusedByDatabase.into(),
            source: Some(source),
            found_by: "billing".to_owned(),
            ..v1::Quarantined::default()
        };
        record(&id, &id, quarantined.encode_to_vec())
    };
    for topic in ["call-events", "cdrs", "rated-cdrs"] {
        let report = verified(Faults::none(), |_, _, held| {
            let content = held.topics[topic][0].value.to_vec();
            held.topics.entry("quarantine").or_default().push(given_up(content, topic));
        })
        .await;
        let detail = "given up by billing as QUARANTINE_REASON_REFUSED_BY_DATABASE";
        assert_eq!(only(&report).detail, detail);
    }
    // Another run's, but for one that has the system for itself.
    for (alone, code) in [(false, 0), (true, 3)] {
        let options = Options { alone, ..options() };
        let report = verified_with(&options, Faults::none(), |_, _, held| {
            let held = held.topics.entry("quarantine").or_default();
            held.push(given_up(vec![0xff], "cdrs"));
        })
        .await;
        assert_eq!(report.exit_code(), code, "{report}");
    }
}
