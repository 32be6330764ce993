//! Every answer that is not 200, and what it leaves untouched.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::raw::{chunk, head};
use common::{Bench, Held, Mode, Raw, application, bodies, eventually, post};
use rustix::process::getpriority_process;
use tollgate_spool::disk::{FaultPlan, FaultyDisk, Injected, Operation};
use tollgate_testkit::noise;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_paths_are_404_and_other_methods_are_405() {
    let mut bench = Bench::new().await;
    let mut known = application("one");
    known.path_secret = Some("a-long-enough-secret".into());
    bench.applications = vec![known];
    let node = bench.start();
    for path in [
        "/",
        "/status/",
        "/fee/",
        "//status",
        "/Status",
        "/status/status",
        "/a-long-enough-secre/status",
        "/a-long-enough-secret",
        "/a-long-enough-secret/status/",
        "/a-long-enough-secret/other",
        "/%ff/status",
    ] {
        let answer = node.post(path, bodies::status("lost")).await;
        assert_eq!((answer.status, &*answer.reason()), (404, "unknown_path"), "{path}");
    }
    for path in ["/status", "/fee", "/a-long-enough-secret/fee"] {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let mut raw = Raw::connect(node.address).await;
            raw.write(format!("{method} {path} HTTP/1.1\r\nHost: edge\r\n\r\n").as_bytes()).await;
            if method == "HEAD" {
                raw.finish().await;
                let said = raw.closed().await;
                assert!(said.starts_with("HTTP/1.1 405"), "{said}");
                assert!(said.to_lowercase().contains("\r\nallow: post\r\n"), "{said}");
                assert!(said.ends_with("\r\n\r\n"), "a body where none may be");
                continue;
            }
            let answer = raw.answer().await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
        }
    }
    assert_eq!(node.counts().acknowledged, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_long_is_413_however_it_is_sent_and_its_connection_ends() {
    let mut bench = Bench::new().await;
    bench.make_small();
    let node = bench.start();
    let limit = 64 << 10;

    let mut announced = Raw::connect(node.address).await;
    let length = (limit + 1).to_string();
    announced.write(&head("/fee", &[("Content-Length", &length)])).await;
    let answer = announced.answer().await;
    assert_eq!((answer.status, &*answer.reason()), (413, "too_large"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(announced.closed().await, "");

    let mut chunked = Raw::connect(node.address).await;
    chunked.write(&head("/fee", &[("Transfer-Encoding", "chunked")])).await;
    for _ in 0..9 {
        chunked.write(&chunk(&[b' '; 8 << 10])).await;
    }
    let answer = chunked.answer().await;
    assert_eq!((answer.status, &*answer.reason()), (413, "too_large"));
    assert_eq!(answer.header("connection"), Some("close"));
    // Its rest is not waited for.
    assert_eq!(chunked.closed().await, "");

    let huge = u64::MAX.to_string();
    let mut raw = Raw::connect(node.address).await;
    raw.write(&head("/fee", &[("Content-Length", &huge)])).await;
    assert_eq!(raw.answer().await.status, 413);
    assert_eq!(node.counts().acknowledged, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_slow_is_408_and_gives_its_memory_back() {
    let mut bench = Bench::new().await;
    bench.make_small();
    bench.settings.body_deadline_ms = 2000;
    bench.settings.body_budget_bytes = 64 << 10;
    let node = bench.start();
    for framing in [("Content-Length", "65536"), ("Transfer-Encoding", "chunked")] {
        let mut slow = Raw::connect(node.address).await;
        slow.write(&head("/status", &[framing])).await;
        slow.write(b"1\r\n{\r\n").await;
        let answer = slow.answer().await;
        assert_eq!((answer.status, &*answer.reason()), (408, "slow_body"));
        assert_eq!(answer.header("connection"), Some("close"));
        slow.closed().await;
    }
    // Needs most of the budget.
    let body = bodies::status_with("after", &"x".repeat(60 << 10));
    node.give("/status", body).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_has_spent_its_quota_takes_json_of_any_shape_and_nothing_else() {
    let mut bench = Bench::new().await;
    bench.settings.malformed_quota_bytes = 1000;
    let mut known = application("one");
    known.path_secret = Some("a-long-enough-secret".into());
    bench.applications = vec![known];
    let node = bench.start();
    let garbage = "x".repeat(600);
    node.give("/status", &garbage).await;
    node.give("/fee", &garbage).await;
    // Bodies are judged when they are published.
    node.settled().await;
    for body in [&garbage, "{", ""] {
        let answer = node.post("/status", body).await;
        assert_eq!((answer.status, &*answer.reason()), (400, "malformed_quota"));
    }
    for body in ["{}", "[17]", "null", &bodies::status("s"), &bodies::cdr("app", "c")] {
        node.give("/fee", body).await;
    }
    // Another path has a quota of its own.
    node.give("/a-long-enough-secret/status", &garbage).await;
    node.stop().await;
}

/// I2, I11.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn near_the_spools_bound_statuses_are_taken_and_cdrs_are_not_until_it_is_full() {
    let mut bench = Bench::new().await;
    bench.make_small();
    bench.stream.set(Mode::Stall);
    let node = bench.start();
    let filler = |index: u32| bodies::status_with(&format!("s-{index}"), &noise(8 << 10));
    let mut taken = 0;
    while !node.watch.spool_usage().is_in_reserve() {
        node.give("/status", bodies::cdr("app", "early")).await;
        node.give("/status", filler(taken)).await;
        taken += 1;
    }
    let answer = node.post("/status", bodies::cdr("app", "late")).await;
    assert_eq!((answer.status, &*answer.reason()), (503, "reserved_for_status"));
    assert_eq!(answer.header("retry-after"), Some("60"));
    // What is long counts as a CDR, and is refused before it comes.
    let mut long = Raw::connect(node.address).await;
    long.write(&head("/status", &[("Content-Length", "20000")])).await;
    let answer = long.answer().await;
    assert_eq!((answer.status, &*answer.reason()), (503, "reserved_for_status"));
    assert_eq!(long.closed().await, "");
    let mut chunked = Raw::connect(node.address).await;
    chunked.write(&head("/status", &[("Transfer-Encoding", "chunked")])).await;
    chunked.write(&chunk(" ".repeat(20_000).as_bytes())).await;
    assert_eq!(chunked.answer().await.reason(), "reserved_for_status");

    let full = loop {
        let answer = node.post("/status", filler(taken)).await;
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
    };
    assert_eq!((full.status, &*full.reason()), (503, "spool_full"));
    assert!(full.header("retry-after").is_some());
    assert!(node.health.failing().is_empty(), "a full spool is no reason to be restarted");

    // When the stream confirms, there is room again, and nothing was lost.
    bench.stream.set(Mode::Pass);
    node.settled().await;
    eventually("there is room again", || !node.watch.spool_usage().is_in_reserve()).await;
    node.give("/status", bodies::cdr("app", "late")).await;
    node.settled().await;
    let topics = bench.topics().await;
    assert_eq!(topics.events.len() as u32, taken);
    assert_eq!(topics.charged_sessions().len(), 2);
    node.stop().await;
}

/// I2. A status that finds no room is lost; so answers come first only while there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_gives_way_until_the_spool_is_in_its_reserve() {
    let mut bench = Bench::new().await;
    bench.make_small();
    bench.stream.set(Mode::Stall);
    let node = bench.start();
    let ours = getpriority_process(None).unwrap();
    let gives_way = || bench.stream.sender_niceness() > ours;
    let status = bodies::status_with("s", &noise(8 << 10));
    node.give("/status", &status).await;
    eventually("it is sent", || bench.stream.stalled() == 1).await;
    assert!(gives_way());
    let until_it_hurries = async {
        while gives_way() {
            node.post("/status", &status).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(3), until_it_hurries).await.expect("it hurries");
    assert!(node.watch.spool_usage().is_in_reserve());
    bench.stream.set(Mode::Pass);
    eventually("there is room again", || !node.watch.spool_usage().is_in_reserve()).await;
    node.settled().await;
    node.give("/status", &status).await;
    eventually("it gives way again", gives_way).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn near_the_budgets_bound_small_statuses_are_taken_and_all_else_is_refused() {
    let mut bench = Bench::new().await;
    bench.make_small();
    bench.spool.max_bytes = 8 << 20;
    bench.settings.body_budget_bytes = 256 << 10;
    bench.settings.body_deadline_ms = 60_000;
    let node = bench.start();
    let big = bodies::status_with("slow", &"x".repeat(64_000));
    let (begin, end) = big.as_bytes().split_at(100);
    let mut slow = Vec::new();
    for _ in 0..5 {
        let mut raw = Raw::connect(node.address).await;
        let length = big.len().to_string();
        raw.write(&head("/status", &[("Content-Length", &length)])).await;
        raw.write(begin).await;
        slow.push(raw);
    }
    eventually("the slow ones hold the budget", || node.counts().taken == 5).await;
    node.give("/fee", bodies::status("small")).await;
    let answer = node.post("/status", bodies::cdr("app", "small")).await;
    assert_eq!((answer.status, &*answer.reason()), (503, "reserved_for_status"));
    assert_eq!(node.post("/status", &big).await.reason(), "reserved_for_status");
    for mut raw in slow {
        raw.write(end).await;
        assert_eq!(raw.answer().await.status, 200);
    }
    node.give("/status", &big).await;
    node.stop().await;
}

/// What waits for a slow disk is bounded too, and a status that finds no room there is as lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn near_the_bound_of_what_waits_for_the_disk_statuses_are_taken_and_cdrs_are_not() {
    let mut bench = Bench::new().await;
    bench.make_small();
    bench.spool.queue_bytes = 128 << 10;
    let disk = FaultyDisk::new(1);
    bench.disk = Arc::new(disk.clone());
    let node = bench.start();
    let held = Held::syncs(&disk);
    let send = async |body: String| {
        let mut sender = Raw::connect(node.address).await;
        sender.write(&post("/status", body.as_bytes())).await;
        sender
    };
    let mut waiting = vec![send(bodies::status("first")).await];
    eventually("it waits for the disk", || disk.syncs_waiting() > 0).await;
    let queued = || node.watch.spool_usage().queued_bytes;
    while queued() < bench.spool.queue_bytes * 4 / 5 {
        let before = queued();
        waiting.push(send(bodies::status_with("long", &"x".repeat(8 << 10))).await);
        eventually("it waits too", || queued() > before).await;
    }
    let answer = node.post("/status", bodies::cdr("app", "late")).await;
    assert_eq!((answer.status, &*answer.reason()), (503, "reserved_for_status"));
    let before = queued();
    waiting.push(send(bodies::status("last")).await);
    eventually("a status waits with the others", || queued() > before).await;
    assert!(!node.watch.spool_usage().is_in_reserve(), "the disk has room");

    drop(held);
    for sender in &mut waiting {
        assert_eq!(sender.answer().await.status, 200);
    }
    node.give("/status", bodies::cdr("app", "late")).await;
    node.settled().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_holds_its_budget_until_it_is_stored_and_who_finds_none_in_time_is_503() {
    let mut bench = Bench::new().await;
    bench.make_small();
    bench.settings.body_budget_bytes = 64 << 10;
    bench.settings.body_deadline_ms = 2000;
    let disk = FaultyDisk::new(1);
    bench.disk = Arc::new(disk.clone());
    let node = bench.start();
    let body = bodies::status_with("long", &"x".repeat(60_000));
    let held = Held::syncs(&disk);
    let mut first = Raw::connect(node.address).await;
    first.write(&post("/status", body.as_bytes())).await;
    eventually("it waits for the disk", || disk.syncs_waiting() > 0).await;
    let answer = node.post("/status", &body).await;
    assert_eq!((answer.status, &*answer.reason()), (503, "overloaded"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    drop(held);
    assert_eq!(first.answer().await.status, 200);
    node.give("/status", &body).await;
    node.stop().await;
}

/// I11: what actix-http holds for a chunked body while nobody reads it is not bounded by the budget.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_body_does_not_wait_for_the_budget() {
    let mut bench = Bench::new().await;
    bench.make_small();
    bench.settings.body_budget_bytes = 64 << 10;
    bench.settings.body_deadline_ms = 600_000;
    let disk = FaultyDisk::new(1);
    bench.disk = Arc::new(disk.clone());
    let node = bench.start();
    let held = Held::syncs(&disk);
    let mut first = Raw::connect(node.address).await;
    let body = bodies::status_with("long", &"x".repeat(60_000));
    first.write(&post("/status", body.as_bytes())).await;
    eventually("it waits for the disk", || disk.syncs_waiting() > 0).await;
    let mut chunked = Raw::connect(node.address).await;
    chunked.write(&head("/status", &[("Transfer-Encoding", "chunked")])).await;
    chunked.write(&chunk("x".repeat(20_000).as_bytes())).await;
    let patience = Duration::from_mins(3);
    let answer = tokio::time::timeout(patience, chunked.answer()).await.expect("it does not wait");
    assert_eq!((answer.status, &*answer.reason()), (503, "overloaded"));
    drop(held);
    assert_eq!(first.answer().await.status, 200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_disk_is_503_and_two_failures_in_a_row_make_the_edge_unready() {
    let mut bench = Bench::new().await;
    let disk = FaultyDisk::new(1);
    bench.disk = Arc::new(disk.clone());
    bench.spool.probe_interval_ms = 20;
    let node = bench.start();
    node.give("/status", bodies::status("before")).await;
    disk.arm(FaultPlan::all(Operation::Sync, Injected::Eio));
    let answer = node.post("/status", bodies::status("during")).await;
    assert_eq!((answer.status, &*answer.reason()), (503, "disk_failing"));
    assert!(answer.header("retry-after").is_some());
    eventually("the edge is unready", || !node.health.failing().is_empty()).await;
    disk.heal();
    eventually("the edge is ready again", || node.health.failing().is_empty()).await;
    node.give("/status", bodies::status("after")).await;
    node.settled().await;
    let sessions = bench.topics().await.sessions();
    assert!(sessions.contains("before") && sessions.contains("after"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_answer_makes_the_edge_unready_and_what_waits_for_it_is_taken() {
    let mut bench = Bench::new().await;
    let disk = FaultyDisk::new(1);
    bench.disk = Arc::new(disk.clone());
    let node = bench.start();
    let held = Held::syncs(&disk);
    let mut sender = Raw::connect(node.address).await;
    sender.write(&post("/status", bodies::status("waits").as_bytes())).await;
    eventually("the edge is unready", || !node.health.failing().is_empty()).await;
    let failing = node.health.failing();
    assert!(failing[0].1.contains("has not answered"), "{failing:?}");
    drop(held);
    assert_eq!(sender.answer().await.status, 200);
    eventually("the edge is ready again", || node.health.failing().is_empty()).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_stops_is_unready_and_takes_what_was_begun() {
    let mut bench = Bench::new().await;
    bench.settings.drain_delay_ms = 5000;
    bench.settings.body_deadline_ms = 60_000;
    let node = bench.start();
    let mut idle = Raw::connect(node.address).await;
    idle.write(&post("/status", bodies::status("first").as_bytes())).await;
    assert_eq!(idle.answer().await.status, 200);
    let mut slow = Raw::connect(node.address).await;
    let body = bodies::status("begun");
    slow.write(&head("/status", &[("Content-Length", &body.len().to_string())])).await;
    eventually("it is begun", || node.counts().taken == 2).await;

    node.begin_to_stop();
    eventually("it is unready", || !node.health.failing().is_empty()).await;
    // While load balancers notice, it goes on, and asks to be left.
    let answer = node.post("/status", bodies::status("late")).await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(idle.closed().await, "");
    slow.write(body.as_bytes()).await;
    let answer = slow.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    node.stop().await;
    let topics = bench.topics().await;
    for session in ["first", "begun", "late"] {
        assert!(topics.sessions().contains(session), "{session}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_cannot_hold_the_largest_body_is_refused_at_start() {
    let mut bench = Bench::new().await;
    bench.spool.segment_bytes = 512 << 10;
    bench.spool.group_bytes = 128 << 10;
    let error = bench.try_start().err().unwrap().to_string();
    assert!(error.contains("spool.segment_bytes") && error.contains("edge.max_body_bytes"));
    let mut bench = Bench::new().await;
    bench.settings.listen = ([0, 0, 0, 0], 0).into();
    let error = bench.try_start().err().unwrap().to_string();
    assert!(error.contains("edge.allow_open_ingest"), "{error}");
}
