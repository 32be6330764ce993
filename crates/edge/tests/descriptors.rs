//! What a connection takes of the limit of open files. One test, since it counts the process's.

mod common;

use common::{Bench, Raw, bodies, post};

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_takes_one_descriptor_of_the_edge_and_gives_it_back() {
    const CONNECTIONS: usize = 100;
    let bench = Bench::new().await;
    let node = bench.start();
    node.give("/status", bodies::status("first")).await;
    node.settled().await;
    let before = open_files();
    let mut clients = Vec::new();
    for index in 0..CONNECTIONS {
        let mut raw = Raw::connect(node.address).await;
        raw.write(&post("/status", bodies::status(&format!("{index}")).as_bytes())).await;
        assert_eq!(raw.answer().await.status, 200);
        clients.push(raw);
    }
    // The sender's end and the edge's, and a few for what else begins or ends.
    let taken = open_files() - before;
    assert!((2 * CONNECTIONS - 10..2 * CONNECTIONS + 20).contains(&taken), "{taken}");
    drop(clients);
    common::eventually("all are closed", || open_files() < before + 20).await;
    node.stop().await;
}
