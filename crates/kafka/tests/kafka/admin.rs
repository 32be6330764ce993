use anyhow::Result;
use tollgate_stream::{Stream, StreamError, TopicSpec};
use tollgate_testkit::{Kafka, free_port};

use crate::support::{connect, settings, shared, unique};

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_once_and_described_as_they_are() -> Result<()> {
    let stream = shared();
    let name = unique("created");
    let spec = TopicSpec {
        name: name.clone(),
        partitions: 5,
        replication: 1,
        config: vec![("cleanup.policy".into(), "compact".into())],
    };
    assert_eq!(stream.create_topics(std::slice::from_ref(&spec)).await?, [name.as_str()]);
    let other = TopicSpec { partitions: 9, ..spec };
    assert!(stream.create_topics(&[other]).await?.is_empty(), "an existing topic is left alone");

    let absent = unique("not-created");
    let described = stream.describe_topics(&[&name, &absent]).await?;
    assert_eq!(described.len(), 1);
    assert_eq!((described[0].partitions, described[0].replication), (5, 1));
    let setting = |wanted: &str| {
        described[0].config.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str())
    };
    assert_eq!(setting("cleanup.policy"), Some("compact"));
    assert_eq!(setting("unclean.leader.election.enable"), Some("false"), "defaults are included");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn more_copies_than_brokers_are_refused_with_the_reason() {
    let spec = TopicSpec { name: unique("wide"), partitions: 1, replication: 3, config: vec![] };
    let error = shared().create_topics(&[spec]).await.unwrap_err();
    assert!(matches!(&error, StreamError::Refused(text) if text.contains("brokers")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_says_who_it_is() -> Result<()> {
    assert_eq!(shared().cluster_id().await?, Kafka::shared().cluster_id());

    let nobody = format!("127.0.0.1:{}", free_port());
    let stream =
        connect(&tollgate_kafka::Settings { operation_timeout_ms: 500, ..settings(&nobody) });
    let error = stream.cluster_id().await.unwrap_err();
    assert!(matches!(error, StreamError::Transient(_)), "{error}");
    Ok(())
}
