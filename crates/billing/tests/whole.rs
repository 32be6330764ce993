//! The whole consumer on the embedded log: CDRs in, ledger and `rated-cdrs` out.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{NOW, TARIFF, callback, connect};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tollgate_billing::{Billing, Options};
use tollgate_schema::ids::{self, RecordId};
use tollgate_schema::{time, topics, v1};
use tollgate_stream::Outgoing;
use tollgate_stream::conformance::log;
use tollgate_stream::embedded::EmbeddedStream;
use tollgate_testkit::eventually_true;

const DEADLINE: Duration = Duration::from_secs(30);

/// A CDR as an edge publishes it. `revision` tells contents of a record apart.
fn published(record: u8, revision: u8, seconds: i64) -> Outgoing {
    let record_id = RecordId::from_bytes([record; 16]);
    let message = v1::CallDetailRecord {
        record_id: record_id.to_string(),
        event_id: ids::event_id(&record_id, &revision.to_string()).to_string(),
        session_id: format!("session-{record}"),
        provenance: Some(v1::Provenance {
            received_at: Some(time::proto_from_millis(NOW + i64::from(revision))),
            authenticity: v1::Authenticity::Absent.into(),
            ..v1::Provenance::default()
        }),
        ..callback(seconds)
    };
    let key = message.session_id.clone();
    Outgoing::event(&topics::CDRS, key, &message.event_id, None, message.encode_to_vec())
}

/// Every distinct entry of topic rated-cdrs.
async fn rated(stream: &EmbeddedStream) -> BTreeMap<String, v1::RatedCdr> {
    let mut entries = BTreeMap::new();
    for record in log::read(stream, topics::RATED_CDRS.name).await {
        let entry = v1::RatedCdr::decode(record.value.expect("value")).expect("RatedCdr");
        assert_eq!(record.key, entry.record_id);
        entries.insert(entry.entry_id.clone(), entry);
    }
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_and_ledger_agree_after_repeats_revisions_poison_and_restarts() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let stream = log::open(&dir.path().join("log")).await;
    let url = format!("sqlite:{}", dir.path().join("billing.db").display());
    let database = connect(&tollgate_store::Settings::for_url(url));

    let (mut expected_records, mut expected_offset) = (0, 0);
    for round in 0..3_u8 {
        let billing =
            Billing::new(stream.clone(), database.clone(), Options::default()).expect("billing");
        let handle = billing.handle();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(billing.run(shutdown.clone()));
        let store = handle.api.store();
        if round == 1 {
            let version = store.register_tariff(TARIFF, NOW).await.expect("register");
            store.activate_tariff(&version, i64::MIN, NOW).await.expect("activate");
        }
        // New records of this round, the same again, and revisions of round 0.
        let fresh = round * 10..round * 10 + 10;
        let mut records: Vec<_> = fresh.map(|record| published(record, 0, 70)).collect();
        records.extend(records.clone());
        records.extend((0..5).map(|record| published(record, round, 70 + 60 * i64::from(round))));
        if round == 2 {
            let mut poison = published(99, 0, 70);
            poison.value = Some(bytes::Bytes::from_static(b"\xff"));
            records.push(poison);
        }
        expected_records += 10;
        expected_offset += records.len() as i64;
        log::publish(&*stream, records).await;

        eventually_true("everything is billed and published", DEADLINE, async || {
            let revised = store.entries_of_record(&RecordId::from_bytes([4; 16])).await;
            let is_revised = revised.is_ok_and(|revised| {
                let minutes = 3 + 2 * i64::from(round);
                let last = revised.entries.last();
                last.is_some_and(|last| round == 0 || last.entry.measures.billed_minutes == minutes)
            });
            let is_rated = round == 0 || store.unrated().await == Ok(0);
            // Asked last: what came of the above may wait in the outbox.
            let Ok(checks) = store.checks().await else { return false };
            is_revised
                && is_rated
                && checks.consistent
                && checks.records == expected_records
                && checks.sources.iter().all(|source| source.waiting == 0)
                && checks.sources.iter().map(|it| it.next_offset).sum::<i64>() == expected_offset
        })
        .await;
        shutdown.cancel();
        running.await.expect("task").expect("billing");

        let page = store.ledger(None, 10_000).await.expect("ledger");
        let ledger: BTreeMap<_, _> = page
            .entries
            .into_iter()
            .map(|found| (found.entry.message.entry_id.clone(), found.entry.message))
            .collect();
        assert_eq!(rated(&stream).await, ledger, "round {round}");
    }
    assert_eq!(log::quarantined(&*stream, topics::CDRS.name).await.len(), 1);
}
