//! The contract `delivered`, and what it does in trouble.

mod common;

use std::sync::Arc;

use common::{Bench, Mode, Raw, application, bodies, eventually, post};
use tollgate_edge::Ack;
use tollgate_spool::disk::{FaultyDisk, Operation, RealDisk};

async fn bench() -> Bench {
    let mut bench = Bench::new().await;
    bench.settings.ack = Ack::Delivered;
    bench.settings.delivered_deadline_ms = 60_000;
    bench
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_200_means_that_the_record_is_on_its_topic_and_no_disk_was_needed() {
    let mut bench = bench().await;
    let disk = FaultyDisk::new(1);
    bench.disk = Arc::new(disk.clone());
    let mut spooled = application("spooled");
    spooled.path_secret = Some("a-long-enough-secret".into());
    spooled.ack = Some(Ack::Spooled);
    bench.applications = vec![spooled];
    let node = bench.start();
    let syncs = disk.count(Operation::Sync);
    for index in 0..5 {
        node.give("/status", bodies::status(&index.to_string())).await;
        node.give("/fee", bodies::cdr("app", &index.to_string())).await;
        node.give("/fee", b"\0").await;
        let topics = bench.topics().await;
        assert_eq!(topics.len(), 3 * (index + 1), "already there");
    }
    assert_eq!(disk.count(Operation::Sync), syncs);
    assert_eq!(node.counts().published, 15);
    for provenance in bench.topics().await.provenances() {
        assert_eq!((provenance.spool_epoch, provenance.spool_sequence), (0, 0));
        assert!(provenance.received_at.is_some());
    }
    // An application may have a contract of its own.
    node.give("/a-long-enough-secret/status", bodies::status("spooled")).await;
    assert!(disk.count(Operation::Sync) > syncs);
    node.settled().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_deadline_the_spool_answers_at_once_until_a_probe_is_confirmed() {
    let mut bench = bench().await;
    bench.settings.delivered_deadline_ms = 3000;
    let node = bench.start();
    bench.stream.set(Mode::Stall);
    node.give("/status", bodies::status("missed")).await;
    // The first was sent, is stored, and was sent again by the publisher; from now on nothing
    // waits for the stream: it says nothing at all.
    for index in 0..30 {
        node.give("/status", bodies::status(&index.to_string())).await;
    }
    assert_eq!(node.watch.spool_usage().records, 31);
    eventually("the publisher tries", || bench.stream.stalled() == 32).await;

    bench.stream.set(Mode::Pass);
    node.settled().await;
    // This one is confirmed soon.
    node.give("/status", bodies::status("probe")).await;
    node.settled().await;
    node.give("/status", bodies::status("well")).await;
    let topics = bench.topics().await;
    assert_eq!(topics.sessions().len(), 33);
    let well = topics.events.iter().find(|event| event.session_id == "well").unwrap();
    assert_eq!(well.provenance.as_ref().unwrap().spool_epoch, 0, "delivered again");
    // What Kafka took late is there twice, under one id and with its first received-at.
    let twice: Vec<_> = topics.events.iter().filter(|event| event.session_id == "missed").collect();
    assert_eq!(twice.len(), 2);
    assert_eq!(twice[0].event_id, twice[1].event_id);
    let received = |index: usize| twice[index].provenance.as_ref().unwrap().received_at;
    assert_eq!(received(0), received(1));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_cannot_take_or_confirm_is_trouble_at_once() {
    for mode in [Mode::Unavailable, Mode::Full, Mode::StoreAndFail] {
        let mut bench = bench().await;
        bench.settings.flush_deadline_ms = 100;
        let node = bench.start();
        bench.stream.set(mode);
        // Far sooner than the deadline.
        node.give("/fee", bodies::cdr("app", "fallen")).await;
        assert_eq!(node.watch.spool_usage().records, 1);
        bench.stream.set(Mode::Pass);
        node.settled().await;
        assert!(bench.topics().await.charged_sessions().contains("fallen"));
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fallback_trouble_is_503_and_nothing_is_spooled() {
    let mut bench = bench().await;
    bench.settings.delivered_deadline_ms = 2000;
    bench.settings.delivered_fallback = false;
    let node = bench.start();
    bench.stream.set(Mode::Stall);
    for _ in 0..2 {
        let answer = node.post("/fee", bodies::cdr("app", "again")).await;
        assert_eq!((answer.status, &*answer.reason()), (503, "not_delivered"));
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(node.watch.spool_usage().records, 0);
    bench.stream.set(Mode::Pass);
    node.give("/fee", bodies::cdr("app", "again")).await;
    node.stop().await;
    let ids: std::collections::HashSet<_> =
        bench.topics().await.cdrs.into_iter().map(|cdr| cdr.event_id).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_refused_for_good_is_kept_and_its_request_is_answered() {
    let bench = bench().await;
    let node = bench.start();
    bench.stream.set(Mode::Refuse("poison"));
    let batch = ["c-1", "poison", "c-2"].map(|session| bodies::item("app", session, ""));
    node.give("/fee", bodies::fee(&batch)).await;
    let topics = bench.topics().await;
    assert_eq!(topics.charged_sessions(), ["c-1", "c-2"].map(str::to_owned).into());
    assert_eq!(node.counts().published, 2);
    node.stop().await;
    let kept = tollgate_spool::dead_letters::list(&RealDisk, &bench.spool.dir).unwrap();
    assert_eq!(kept.letters.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_refused_for_good_that_cannot_be_kept_waits_in_the_spool() {
    let mut bench = bench().await;
    bench.spool.dead_letters_max_bytes = 1;
    bench.settings.flush_deadline_ms = 100;
    let node = bench.start();
    bench.stream.set(Mode::Refuse("poison"));
    node.give("/status", bodies::status("poison")).await;
    assert_eq!(node.watch.spool_usage().records, 1);
    node.stop().await;

    // Once there is room it is kept.
    bench.spool.dead_letters_max_bytes = 1 << 20;
    let node = bench.start();
    node.settled().await;
    node.stop().await;
    let kept = tollgate_spool::dead_letters::list(&RealDisk, &bench.spool.dir).unwrap();
    assert_eq!(kept.letters.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_complete_request_outlives_its_connection_and_the_stop_waits_for_it() {
    let mut bench = bench().await;
    bench.settings.delivered_deadline_ms = 500;
    let node = bench.start();
    bench.stream.set(Mode::Stall);
    for session in ["gone-1", "gone-2"] {
        let mut raw = Raw::connect(node.address).await;
        let stalled = bench.stream.stalled();
        raw.write(&post("/status", bodies::status(session).as_bytes())).await;
        eventually("it is on its way", || bench.stream.stalled() > stalled).await;
        raw.reset();
    }
    eventually("both fell back to the spool", || node.watch.spool_usage().records == 2).await;
    bench.stream.set(Mode::Pass);
    node.stop().await;
    let sessions = bench.topics().await.sessions();
    assert_eq!(sessions, ["gone-1", "gone-2"].map(str::to_owned).into());
}
