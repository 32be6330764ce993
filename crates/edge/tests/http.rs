//! What senders do to a connection.

mod common;

use std::sync::Arc;

use common::raw::{chunk, head};
use common::{Bench, Held, LONG, Raw, SUCCESS, bodies, eventually, post};
use tollgate_spool::disk::FaultyDisk;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_arrives_whole_however_it_is_cut() {
    let bench = Bench::new().await;
    let node = bench.start();

    let mut chunked = Raw::connect(node.address).await;
    chunked.write(&head("/status", &[("Transfer-Encoding", "chunked")])).await;
    let body = bodies::status("chunked");
    for part in body.as_bytes().chunks(7).chain([&b""[..]]) {
        chunked.write(&chunk(part)).await;
    }
    assert_eq!(chunked.answer().await.body, SUCCESS);

    let mut bytewise = Raw::connect(node.address).await;
    for byte in post("/status", bodies::status("bytewise").as_bytes()) {
        bytewise.write(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(bytewise.answer().await.status, 200);

    let mut long = Raw::connect(node.address).await;
    long.write(&head("/status", &[("Transfer-Encoding", "chunked")])).await;
    let body = bodies::status_with("long", &"x".repeat(500_000));
    for part in body.as_bytes().chunks(10_000).chain([&b""[..]]) {
        long.write(&chunk(part)).await;
    }
    assert_eq!(long.answer().await.status, 200);

    let mut patient = Raw::connect(node.address).await;
    let body = bodies::status("patient");
    let length = body.len().to_string();
    patient
        .write(&head("/status", &[("Content-Length", &length), ("Expect", "100-continue")]))
        .await;
    assert_eq!(patient.any_answer().await.status, 100);
    patient.write(body.as_bytes()).await;
    assert_eq!(patient.any_answer().await.status, 200);

    let mut old = Raw::connect(node.address).await;
    let body = bodies::status("old");
    old.write(format!("POST /fee HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
        .await;
    old.write(body.as_bytes()).await;
    assert_eq!(old.answer().await.status, 200);
    assert_eq!(old.closed().await, "");

    let mut short = Raw::connect(node.address).await;
    let body = bodies::status("short");
    let length = body.len().to_string();
    short.write(&head("/fee", &[("Content-Length", &length), ("Connection", "close")])).await;
    short.write(body.as_bytes()).await;
    let answer = short.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(short.closed().await, "");

    node.settled().await;
    let topics = bench.topics().await;
    let sessions = topics.sessions();
    for session in ["chunked", "bytewise", "long", "patient", "old", "short"] {
        assert!(sessions.contains(session), "{session}");
    }
    assert_eq!(topics.len(), 6);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_one_by_one() {
    let bench = Bench::new().await;
    let node = bench.start();
    let mut raw = Raw::connect(node.address).await;
    let mut requests = Vec::new();
    for index in 0..40 {
        requests.extend(post("/status", bodies::status(&format!("s-{index}")).as_bytes()));
        requests.extend(b"GET /status HTTP/1.1\r\nHost: edge\r\n\r\n");
    }
    raw.write(&requests).await;
    for _ in 0..40 {
        assert_eq!(raw.answer().await.status, 200);
        assert_eq!(raw.answer().await.status, 405);
    }
    node.settled().await;
    assert_eq!(bench.topics().await.sessions().len(), 40);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_sender_goes_away_is_stored_whole_or_not_at_all() {
    let mut bench = Bench::new().await;
    let disk = FaultyDisk::new(1);
    bench.disk = Arc::new(disk.clone());
    let node = bench.start();

    // Not one of these is complete.
    let body = bodies::status_with("torn", &"x".repeat(30_000));
    let request = post("/status", body.as_bytes());
    for end in [10, 60, 200, 20_000, request.len() - 1] {
        for half in [true, false] {
            let mut raw = Raw::connect(node.address).await;
            raw.write(&request[..end]).await;
            if half {
                raw.finish().await;
                raw.closed().await;
            } else {
                raw.reset();
            }
        }
    }
    let mut raw = Raw::connect(node.address).await;
    raw.write(&head("/status", &[("Transfer-Encoding", "chunked")])).await;
    raw.write(&chunk(bodies::status("torn").as_bytes())).await;
    raw.finish().await;
    raw.closed().await;

    // These are, and their senders do not wait for the answer.
    let whole = post("/status", bodies::status("half").as_bytes());
    let mut raw = Raw::connect(node.address).await;
    raw.write(&whole).await;
    raw.finish().await;
    assert_eq!(raw.answer().await.status, 200);
    let held = Held::syncs(&disk);
    for session in ["gone-1", "gone-2"] {
        let mut raw = Raw::connect(node.address).await;
        let taken = node.counts().taken;
        raw.write(&post("/status", bodies::status(session).as_bytes())).await;
        eventually("it was taken", || node.counts().taken > taken).await;
        eventually("the disk is waited for", || disk.syncs_waiting() > 0).await;
        raw.reset();
    }
    drop(held);
    eventually("both are published", || node.counts().published == 3).await;
    node.settled().await;
    let topics = bench.topics().await;
    let expected = ["half", "gone-1", "gone-2"].map(str::to_owned);
    assert_eq!(topics.sessions(), expected.into());
    assert_eq!(topics.len(), 3);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_framing_is_400_and_stores_nothing() {
    let bench = Bench::new().await;
    let node = bench.start();
    for request in [
        "POST /status HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
        "POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n{}",
        "POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        "POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "POST /status HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        "POST /status\r\n\r\n",
        "\x16\x03\x01\x02\r\n\r\n",
    ] {
        let mut raw = Raw::connect(node.address).await;
        raw.write(request.as_bytes()).await;
        assert_eq!(raw.answer().await.status, 400, "{request}");
        raw.closed().await;
    }
    let mut long = Raw::connect(node.address).await;
    let pad = "x".repeat(200_000);
    long.try_write(&head("/status", &[("X-Long", &pad)])).await;
    assert_eq!(long.answer().await.status, 431);
    let mut many = Raw::connect(node.address).await;
    many.write(&head("/status", &[("X-More", "x"); 96])).await;
    assert_eq!(many.answer().await.status, 431);
    let mut slow = Raw::connect(node.address).await;
    slow.write(b"POST /status HT").await;
    assert_eq!(slow.answer().await.status, 408);
    assert_eq!(node.counts().acknowledged, 0);
    assert_eq!(node.watch.spool_usage().records, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_asks_for_nothing_loses_its_place() {
    let mut bench = Bench::new().await;
    bench.settings.keep_alive_seconds = 3;
    bench.settings.head_deadline_ms = 3000;
    let node = bench.start();

    let mut idle = Raw::connect(node.address).await;
    idle.write(&post("/status", bodies::status("idle").as_bytes())).await;
    assert_eq!(idle.answer().await.status, 200);

    // Its second head never ends.
    let mut head_only = Raw::connect(node.address).await;
    head_only.write(&post("/status", bodies::status("slow").as_bytes())).await;
    assert_eq!(head_only.answer().await.status, 200);
    head_only.write(b"POST /sta").await;

    // Its answers are not read.
    let mut deaf = Raw::connect(node.address).await;
    let many = "GET /status HTTP/1.1\r\nHost: edge\r\n\r\n".repeat(2000);
    let deafness = tokio::spawn(async move { while deaf.try_write(many.as_bytes()).await {} });

    assert_eq!(idle.closed().await, "");
    assert_eq!(head_only.closed().await, "");
    tokio::time::timeout(LONG, deafness).await.unwrap().unwrap();

    // One that goes on asking stays.
    let mut busy = Raw::connect(node.address).await;
    for index in 0..12 {
        busy.write(&post("/status", bodies::status(&format!("{index}")).as_bytes())).await;
        assert_eq!(busy.answer().await.status, 200);
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    }
    node.stop().await;
}
