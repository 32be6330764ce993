//! Brokers that answer as real ones do in a moment that cannot be brought about at will:
//! librdkafka's own mock of a cluster.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tollgate_kafka::KafkaStream;
use tollgate_stream::{DeliveryError, RelayError, Stream};

use crate::support::{connect, producer, random_text, record, settings, unique};

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// A cluster, a client of it, and a topic.
fn cluster() -> Result<(Cluster, Arc<KafkaStream>, Arc<str>)> {
    let cluster = Cluster::new(1)?;
    let topic = unique("implied");
    cluster.create_topic(&topic, 1, 1)?;
    let stream = connect(&settings(&cluster.bootstrap_servers()));
    Ok((cluster, stream, topic.into()))
}

/// I1: the first batch of a partition fails with its leader, the second is stored by the next one.
/// librdkafka then reports both as stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_only_thought_to_be_stored_goes_again() -> Result<()> {
    let (cluster, stream, topic) = cluster()?;
    let (producer, ear) = producer(&stream);
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT],
    );
    // Answers take so long that the second batch is on its way when the first one fails.
    cluster.broker_round_trip_time(1, Duration::from_secs(4))?;
    // Too large for company, so that there are two batches.
    producer.send(&record(&topic, "k", &random_text(700_000)), 1)?;
    producer.send(&record(&topic, "k", "behind"), 2)?;
    ear.await_all(2).await;
    let heard = ear.heard();
    assert!(matches!(heard[&1], Err(DeliveryError::Retry(_))), "{heard:?}");
    assert!(heard[&2].is_ok(), "{heard:?}");
    Ok(())
}

/// I1: an outbox keeps what it has until a broker has said where each record of the transaction is.
/// The mock takes the batches of a transaction in their order only, which a real leader that knows
/// nothing of the producer does not; so a broker says here that it has what it has not, which comes
/// to the same report.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_does_not_commit_what_is_only_thought_to_be_stored() -> Result<()> {
    let (cluster, stream, topic) = cluster()?;
    let id = unique("relay");
    let mut relay = stream.relay(&id).await?;
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER],
    );
    let records = [record(&topic, "k", "v")];
    let sent = relay.send(records.to_vec()).await;
    assert!(matches!(sent, Err(RelayError::Abort(_))), "{sent:?}");
    assert!(matches!(relay.commit().await, Err(RelayError::Abort(_))));
    relay.abort().await?;

    let mut next = stream.relay(&id).await?;
    next.send(records.to_vec()).await?;
    next.commit().await?;
    Ok(())
}
