//! Connections that are idle keep nothing but their socket, and lose nothing by it. One test, since
//! a process has one recorder.

mod common;

use common::raw::{chunk, head};
use common::{Bench, Raw, bodies, eventually, post};
use tollgate_edge::metrics;
use tollgate_runtime::telemetry;

fn status(session: &str) -> Vec<u8> {
    post("/status", bodies::status(session).as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_rests_when_it_is_idle_and_goes_on_where_it_was() {
    let handle = telemetry::init_metrics(&[metrics::ALL]).unwrap();
    let value = |name: &str| {
        let text = handle.render();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse::<f64>().unwrap() as i64)
    };
    let resting = || value("tollgate_edge_connections_resting");
    let mut bench = Bench::new().await;
    bench.settings.keep_alive_seconds = 18;
    let node = bench.start();

    // The next head has begun to come in the same packet as the first body.
    let mut begun = Raw::connect(node.address).await;
    let next = status("begun");
    begun.write(&[status("before"), next[..30].to_vec()].concat()).await;
    assert_eq!(begun.answer().await.status, 200);
    // What ends behind the last chunk cannot be told.
    let mut chunked = Raw::connect(node.address).await;
    chunked.write(&head("/status", &[("Transfer-Encoding", "chunked")])).await;
    for part in [bodies::status("chunked").as_bytes(), b""] {
        chunked.write(&chunk(part)).await;
    }
    assert_eq!(chunked.answer().await.status, 200);
    // These rest after those would have.
    let mut idle = Raw::connect(node.address).await;
    let mut left = Raw::connect(node.address).await;
    for raw in [&mut idle, &mut left] {
        raw.write(&status("first")).await;
        assert_eq!(raw.answer().await.status, 200);
    }

    eventually("both idle ones rest, and only they", || resting() == 2).await;
    begun.write(&next[30..]).await;
    assert_eq!(begun.answer().await.status, 200);
    chunked.write(&status("after-chunks")).await;
    assert_eq!(chunked.answer().await.status, 200);
    drop((begun, chunked));
    for round in 0..2 {
        eventually("both idle ones rest", || resting() == 2).await;
        idle.write(&status(&format!("again-{round}"))).await;
        assert_eq!(idle.answer().await.status, 200);
        assert_eq!(resting(), 1, "round {round}");
    }
    // One byte at a time out of its rest.
    eventually("it rests", || resting() == 2).await;
    for byte in status("bytewise") {
        idle.write(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(idle.answer().await.status, 200);
    idle.write(&[status("one"), status("two")].concat()).await;
    for _ in 0..2 {
        assert_eq!(idle.answer().await.status, 200);
    }

    // A rest is not for ever, and ends with the edge.
    assert_eq!(left.closed().await, "");
    eventually("the others rest", || resting() >= 1).await;
    node.begin_to_stop();
    assert_eq!(idle.closed().await, "");
    node.stop().await;
    assert_eq!(resting(), 0);
    assert_eq!(value("tollgate_edge_connections_ended_total{end=\"served\"}"), 4);
    let sessions = bench.topics().await.sessions();
    for session in [
        "before",
        "begun",
        "chunked",
        "again-0",
        "again-1",
        "after-chunks",
        "bytewise",
        "one",
        "two",
    ] {
        assert!(sessions.contains(session), "{session}");
    }
}
