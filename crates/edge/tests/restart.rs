//! What was answered 200 is published, whatever stops in between.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Bench, Mode, Report, Topics, bodies, eventually};
use tollgate_edge::replay;
use tollgate_spool::disk::RealDisk;
use tollgate_spool::inspect;
use tollgate_testkit::noise;

/// The sequences of each epoch.
fn sequences(topics: &Topics) -> BTreeMap<u64, BTreeSet<u64>> {
    let mut epochs: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for provenance in topics.provenances() {
        assert_eq!(provenance.edge_id, "edge-1");
        epochs.entry(provenance.spool_epoch).or_default().insert(provenance.spool_sequence);
    }
    epochs
}

fn is_gapless(sequences: &BTreeSet<u64>) -> bool {
    sequences.first() == Some(&1) && sequences.last() == Some(&(sequences.len() as u64))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_without_any_broker_starts_is_ready_and_publishes_after_a_restart() {
    let mut bench = Bench::new().await;
    bench.settings.flush_deadline_ms = 100;
    for (round, mode) in [Mode::Stall, Mode::Unavailable, Mode::Full].into_iter().enumerate() {
        bench.stream.set(mode);
        let node = bench.start();
        assert!(node.health.failing().is_empty());
        for index in 0..20 {
            node.give("/status", bodies::status(&format!("{round}-{index}"))).await;
        }
        assert!(node.health.failing().is_empty());
        assert_eq!(node.counts().published, 0);
        node.stop().await;
    }
    bench.stream.set(Mode::Pass);
    let node = bench.start();
    node.settled().await;
    node.give("/status", bodies::status("last")).await;
    node.settled().await;
    node.stop().await;

    let topics = bench.topics().await;
    assert_eq!(topics.sessions().len(), 61);
    let epochs = sequences(&topics);
    assert_eq!(epochs.len(), 4, "each start has an epoch of its own");
    assert!(epochs.values().all(is_gapless));
    // Nothing is published again once it is confirmed.
    let node = bench.start();
    node.settled().await;
    node.stop().await;
    assert_eq!(bench.topics().await.len(), topics.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_edge_stopped_under_load_has_published_every_200() {
    let bench = Bench::new().await;
    let node = bench.start();
    let url = format!("http://{}/status", node.address);
    let over = Arc::new(AtomicBool::new(false));
    let mut senders = Vec::new();
    for sender in 0..16 {
        let (url, over) = (url.clone(), Arc::clone(&over));
        senders.push(tokio::spawn(async move {
            let client = reqwest::Client::new();
            let (mut taken, mut others) = (Vec::new(), 0);
            for index in 0.. {
                let session = format!("{sender}-{index}");
                let body = bodies::status(&session);
                match client.post(&url).body(body).send().await {
                    Ok(answer) if answer.status() == 200 => taken.push(session),
                    Ok(answer) => panic!("{}", answer.status()),
                    // Cut off or refused: not answered.
                    Err(_) => others += 1,
                }
                if over.load(Ordering::Relaxed) && others > 0 {
                    return taken;
                }
            }
            taken
        }));
    }
    eventually("there is load", || node.counts().acknowledged > 300).await;
    node.stop().await;
    over.store(true, Ordering::Relaxed);
    let mut taken = BTreeSet::new();
    for sender in senders {
        taken.extend(sender.await.unwrap());
    }
    let topics = bench.topics().await;
    let published: BTreeSet<_> = topics.sessions().into_iter().collect();
    let missing: Vec<_> = taken.difference(&published).collect();
    assert!(taken.len() > 300 && missing.is_empty(), "{} of {}", missing.len(), taken.len());
    assert!(sequences(&topics).values().all(is_gapless));
    // All of it left the spool, so that the edge can go for good.
    assert_eq!(topics.len(), published.len());
    let node = bench.start();
    assert_eq!(node.watch.spool_usage().records, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_confirmed_goes_again_in_order_under_the_same_ids() {
    let mut bench = Bench::new().await;
    bench.settings.workers = 1;
    let node = bench.start();
    bench.stream.set(Mode::Stall);
    for index in 0..10 {
        node.give("/status", bodies::status_with("same", &index.to_string())).await;
    }
    let mut tried = BTreeSet::new();
    for _ in 0..3 {
        eventually("all are sent", || bench.stream.stalled() == 10).await;
        // The last is heard of first.
        for _ in 0..10 {
            let record = bench.stream.report(|count| count - 1, Report::Lost).unwrap();
            let id = record.headers.iter().find(|(name, _)| name == "ce_id").unwrap();
            tried.insert(String::from_utf8(id.1.to_vec()).unwrap());
        }
    }
    eventually("all are sent again", || bench.stream.stalled() == 10).await;
    bench.stream.set(Mode::Pass);
    node.settled().await;
    let topics = bench.topics().await;
    let texts: Vec<_> = topics.events.iter().map(|it| it.user_data().to_owned()).collect();
    assert_eq!(texts, (0..10).map(|index| index.to_string()).collect::<Vec<_>>());
    let ids: BTreeSet<_> = topics.events.iter().map(|it| it.event_id.clone()).collect();
    assert_eq!(ids, tried);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_no_topic_takes_becomes_a_dead_letter_and_blocks_nothing() {
    let bench = Bench::new().await;
    bench.stream.set(Mode::Refuse("poison"));
    let node = bench.start();
    node.give("/status", bodies::status("before")).await;
    node.give("/status", bodies::status("poison")).await;
    let batch = ["c-1", "poison", "c-2"].map(|session| bodies::item("app", session, ""));
    node.give("/fee", bodies::fee(&batch)).await;
    node.give("/status", bodies::status("after")).await;
    node.settled().await;
    node.stop().await;
    let topics = bench.topics().await;
    assert_eq!(topics.sessions(), ["before", "after"].map(str::to_owned).into());
    assert_eq!(topics.charged_sessions(), ["c-1", "c-2"].map(str::to_owned).into());
    let kept = tollgate_spool::dead_letters::list(&RealDisk, &bench.spool.dir).unwrap();
    let kept: Vec<_> = kept.letters.iter().map(|it| (&*it.topic, &it.key[..])).collect();
    assert_eq!(kept, [("call-events", &b"poison"[..]), ("cdrs", &b"poison"[..])]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_says_how_many_records_no_topic_takes_and_publishes_the_others() {
    let mut bench = Bench::new().await;
    bench.settings.flush_deadline_ms = 1;
    bench.stream.set(Mode::Stall);
    let node = bench.start();
    for session in ["before", "poison", "after"] {
        node.give("/status", bodies::status(session)).await;
    }
    node.stop().await;
    bench.stream.set(Mode::Refuse("poison"));
    let replay = async || {
        let disk = Arc::clone(&bench.disk);
        replay(&bench.spool, disk, &*bench.stream, Arc::default(), |_| {}).await.unwrap()
    };
    let replayed = replay().await;
    assert_eq!((replayed.requests, replayed.dead_letters), (3, 1));
    assert_eq!(bench.topics().await.sessions(), ["before", "after"].map(str::to_owned).into());
    // Nothing is left for the next one but to say so again.
    assert_eq!(replay().await.dead_letters, 1, "it is still there");
    let found = inspect(&bench.spool.dir, &bench.disk).unwrap();
    assert_eq!((found.unconfirmed, found.dead_letters, found.deletable), (0, 1, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_cannot_be_trusted_hold_the_spools_segments() {
    let mut bench = Bench::new().await;
    bench.make_small();
    // One copy of each partition is all that the embedded log has.
    bench.settings.allow_weak_topics = false;
    let node = bench.start();
    let body = |index: u32| bodies::status_with(&index.to_string(), &noise(8 << 10));
    let mut taken = 0;
    let refusal = loop {
        let answer = node.post("/status", body(taken)).await;
        if answer.status != 200 {
            break answer.reason();
        }
        taken += 1;
    };
    assert_eq!(refusal, "spool_full");
    node.settled().await;
    assert_eq!(bench.topics().await.events.len() as u32, taken);
    assert!(node.watch.spool_usage().is_in_reserve(), "published, and kept all the same");
    node.stop().await;
    bench.settings.allow_weak_topics = true;
    let node = bench.start();
    eventually("there is room again", || !node.watch.spool_usage().is_in_reserve()).await;
    node.give("/status", body(taken)).await;
    node.stop().await;
}
