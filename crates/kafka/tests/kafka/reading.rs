use std::time::Duration;

use anyhow::Result;
use tollgate_stream::{ReadFrom, Stream};

use crate::support::{publish, read_all, record, shared, text, topic, unique};

#[tokio::test(flavor = "multi_thread")]
async fn latest_begins_after_what_is_there() -> Result<()> {
    let stream = shared();
    let topic = topic(&stream, "latest", 3).await?;
    publish(&stream, &topic, &["old"]).await?;
    let mut reader = stream.reader(&[&topic], ReadFrom::Latest).await?;
    assert!(reader.caught_up().await?);
    publish(&stream, &topic, &["new"]).await?;
    assert!(!reader.caught_up().await?);
    let mut read = Vec::new();
    while !reader.caught_up().await? {
        read.extend(reader.next(10, Duration::from_millis(200)).await?);
    }
    assert_eq!(read.iter().map(text).collect::<Vec<_>>(), ["new"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_not_read_and_markers_do_not_hold_up() -> Result<()> {
    let stream = shared();
    let topic = topic(&stream, "markers", 2).await?;
    let mut relay = stream.relay(&unique("marker")).await?;
    let records: Vec<_> = (0..20).map(|n| record(&topic, &n.to_string(), "committed")).collect();
    relay.send(records.clone()).await?;
    relay.commit().await?;
    relay.send(vec![record(&topic, "1", "aborted")]).await?;
    relay.abort().await?;

    let read = read_all(&stream, &topic).await?;
    assert_eq!(read.len(), 20);
    assert!(read.iter().all(|record| text(record) == "committed"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_named() -> Result<()> {
    let stream = shared();
    let name = unique("absent");
    let Err(error) = stream.reader(&[&name], ReadFrom::Earliest).await else {
        panic!("read a topic that is not there")
    };
    assert!(error.to_string().contains(&name), "{error}");
    Ok(())
}
