//! Whatever a body holds, it is answered 200 and reaches a topic with its bytes.

mod common;

use std::collections::HashSet;

use common::{Bench, CONTENT_TYPE, SUCCESS, bodies};
use serde_json::value::RawValue;
use tollgate_schema::v1::QuarantineReason;

/// The items of a feeLst as written.
fn items(body: &[u8]) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Fee<'a> {
        #[serde(borrow, rename = "feeLst")]
        list: Option<Vec<&'a RawValue>>,
    }
    let fee: Fee<'_> = serde_json::from_slice(body).unwrap();
    Some(fee.list?.into_iter().map(|item| item.get().to_owned()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_is_answered_200_and_stands_on_its_topic_as_it_was_sent() {
    let bench = Bench::new().await;
    let node = bench.start();
    let (mut events, mut cdrs) = (Vec::new(), Vec::new());
    for (index, (name, body)) in bodies::samples().into_iter().enumerate() {
        // The path says nothing about the body.
        let path = ["/status", "/fee"][index % 2];
        let answer = node.post(path, &body).await;
        assert_eq!((answer.status, &*answer.body), (200, SUCCESS), "{name}");
        assert_eq!(answer.header("content-type"), Some(CONTENT_TYPE), "{name}");
        match items(&body) {
            Some(items) => cdrs.extend(items),
            None => events.push(String::from_utf8(body).unwrap()),
        }
    }
    node.settled().await;
    let topics = bench.topics().await;
    assert_eq!(topics.quarantine.len(), 0);
    let sorted = |mut texts: Vec<String>| {
        texts.sort();
        texts
    };
    let seen = topics.events.iter().map(|event| event.original_json.clone()).collect();
    assert_eq!(sorted(seen), sorted(events));
    let seen = topics.cdrs.iter().map(|cdr| cdr.original_json.clone()).collect();
    assert_eq!(sorted(seen), sorted(cdrs));
    for provenance in topics.provenances() {
        assert_eq!(provenance.edge_id, "edge-1");
        assert!(provenance.spool_epoch > 0 && provenance.spool_sequence > 0);
        assert!(provenance.received_at.is_some());
    }
    assert_eq!(node.counts().acknowledged, 46);
    assert_eq!(node.counts().published, topics.len() as u64);
    node.stop().await;
}

/// I5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_quarantined_and_repeats_collapse() {
    let bench = Bench::new().await;
    let node = bench.start();
    let garbage: [&[u8]; 8] = [
        b"",
        b"\0",
        b"\0\0{\0}",
        b"\xff\xfe{\0",
        b"{\"eventType\":\"fee\",\"feeLst\":[",
        b"[1,2,3]",
        b"%00%ff",
        b"{\"eventType\":\"fee\",\"feeLst\":[]}",
    ];
    for body in garbage {
        for path in ["/status", "/fee"] {
            let answer = node.post(path, body).await;
            assert_eq!((answer.status, &*answer.body), (200, SUCCESS));
        }
    }
    node.settled().await;
    let topics = bench.topics().await;
    assert_eq!(topics.len(), topics.quarantine.len());
    assert_eq!(topics.quarantine.len(), 2 * garbage.len());
    let contents: HashSet<_> = topics.quarantine.iter().map(|it| &it.content[..]).collect();
    assert_eq!(contents, HashSet::from(garbage));
    let ids: HashSet<_> = topics.quarantine.iter().map(|it| it.quarantine_id.clone()).collect();
    assert_eq!(ids.len(), garbage.len());
    for record in &topics.records {
        let id = record.header("ce_id").unwrap();
        assert!(ids.contains(id) && record.key == id);
    }
    node.stop().await;
}

/// I6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_record_does_not_spoil_its_batch_and_too_many_are_one() {
    let bench = Bench::new().await;
    let node = bench.start();
    let good = |session: &str| bodies::item("app", session, "");
    let batch = bodies::fee(&[good("a"), "17".into(), good("b")]);
    node.give("/fee", &batch).await;
    let many: Vec<String> = (0..1001).map(|_| "{}".to_owned()).collect();
    let many = bodies::fee(&many);
    node.give("/fee", &many).await;
    node.settled().await;
    let topics = bench.topics().await;
    assert_eq!(topics.charged_sessions(), HashSet::from(["a".to_owned(), "b".to_owned()]));
    let mut reasons: Vec<_> =
        topics.quarantine.iter().map(|it| (it.reason(), it.content.clone())).collect();
    reasons.sort();
    assert_eq!(
        reasons,
        [
            (QuarantineReason::TooManyRecords, many.into_bytes()),
            (QuarantineReason::UnreadableRecord, b"17".to_vec()),
        ]
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_at_the_limit_is_published_in_every_form() {
    const LIMIT: usize = 1 << 20;
    let bench = Bench::new().await;
    let node = bench.start();
    // Bytes that take one byte as JSON and one as text, so that everything is there twice.
    let filled = |make: &dyn Fn(&str) -> String| {
        let body = make(&"x".repeat(LIMIT - make("").len()));
        assert_eq!(body.len(), LIMIT);
        body
    };
    let status = filled(&|fill| bodies::status_with("big-status", fill));
    let session = filled(&bodies::status);
    let cdr = filled(&|fill| bodies::fee(&[bodies::item("app", "big-cdr", fill)]));
    let batch = filled(&|fill| {
        let mut items: Vec<_> =
            (0..999).map(|index| bodies::item("app", &format!("{index}"), "")).collect();
        items.push(bodies::item("app", "last", fill));
        bodies::fee(&items)
    });
    let envelope = filled(&|fill| {
        let fee = bodies::fee(&[bodies::item("app", "wrapped", "")]);
        format!(r#"{{"more":"{fill}",{}"#, &fee[1..])
    });
    let garbage = filled(&str::to_owned);
    for body in [&status, &session, &cdr, &batch, &envelope, &garbage] {
        node.give("/status", body).await;
    }
    let beyond = node.post("/status", format!("{garbage}x")).await;
    assert_eq!(beyond.status, 413);
    node.settled().await;
    let topics = bench.topics().await;
    let originals: HashSet<_> = topics.events.iter().map(|it| &it.original_json).collect();
    assert_eq!(originals, HashSet::from([&status, &session]));
    assert_eq!(topics.cdrs.len(), 1 + 1000 + 1);
    let sent: HashSet<String> =
        [&cdr, &batch, &envelope].iter().flat_map(|body| items(body.as_bytes()).unwrap()).collect();
    assert!(topics.cdrs.iter().all(|cdr| sent.contains(&cdr.original_json)));
    let wrapped = topics.cdrs.iter().find(|it| it.session_id == "wrapped").unwrap();
    assert!(wrapped.envelope_json().len() > LIMIT / 2);
    let [quarantined] = &topics.quarantine[..] else { panic!("one body") };
    assert_eq!(quarantined.content, garbage.as_bytes());
    node.stop().await;
}
