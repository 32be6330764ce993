//! Metrics as a scrape shows them: names, units and values from the right fields.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tollgate_testkit::eventually_true;

use crate::support::{PATIENCE, producer, publish, record, shared, topic, unique};

fn scrape() -> String {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = HANDLE
        .get_or_init(|| PrometheusBuilder::new().install_recorder().expect("no other recorder"));
    handle.render()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_cluster_shows_its_brokers_and_every_name_is_declared() -> Result<()> {
    scrape();
    let stream = shared();
    let topic = topic(&stream, "measured", 1).await?;
    // Lives on, so that its gauges stay.
    let (producer, _ear) = producer(&stream);
    producer.send(&record(&topic, "k", "v"), 0)?;
    publish(&stream, &topic, &["a"]).await?;
    let missing: Arc<str> = unique("measured-missing").into();
    let _ = producer.send(&record(&missing, "k", "v"), 1);
    let wanted = [
        "tollgate_kafka_deliveries_total{client=\"spooled\",outcome=\"confirmed\"}",
        "tollgate_kafka_broker_rtt_seconds{client=\"spooled\",broker=\"1\"}",
        "tollgate_kafka_broker_connections{client=\"spooled\",broker=\"1\"}",
        "tollgate_kafka_broker_request_timeouts_total{client=\"spooled\",broker=\"1\"}",
        "tollgate_kafka_queue_bytes{client=\"spooled\"}",
    ];
    eventually_true("the metrics", PATIENCE, async || {
        let text = scrape();
        wanted.iter().all(|name| text.contains(name))
    })
    .await;

    let declared: BTreeSet<&str> = tollgate_kafka::metrics::ALL.iter().map(|m| m.name).collect();
    // Other tests of this process run consumers, which have metrics of their own.
    let others = |line: &&str| line.starts_with("tollgate_consumer_");
    let page = scrape();
    for line in
        page.lines().filter(|line| !line.starts_with('#') && !line.is_empty() && !others(line))
    {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        assert!(declared.contains(name), "{name} is not declared");
    }
    assert_eq!(declared.len(), tollgate_kafka::metrics::ALL.len(), "a name twice");
    Ok(())
}
