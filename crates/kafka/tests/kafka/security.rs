//! Through TLS with a private authority and SCRAM, and every way in which that goes wrong.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use tollgate_kafka::{KafkaStream, SecurityProtocol, Settings};
use tollgate_stream::{
    ConsumerOptions, DeliveryError, Event, Producer, Stream, StreamError, TopicSpec,
};
use tollgate_testkit::{
    Kafka, KafkaOptions, PASSWORD, STRANGER, TestDir, USER, eventually, eventually_true,
};

use crate::support::{
    Ear, PATIENCE, assigned, connect, producer, publish, read_all, read_at_least, record, settings,
    take, topic, unique,
};

fn cluster() -> &'static Kafka {
    static CLUSTER: OnceLock<Kafka> = OnceLock::new();
    CLUSTER.get_or_init(|| Kafka::start(&KafkaOptions::new().sasl_ssl()).expect("a cluster"))
}

struct Secured {
    stream: Arc<KafkaStream>,
    settings: Settings,
    _dir: TestDir,
}

fn secured(user: &str, password: &str, ca: &Path) -> Result<Secured> {
    let dir = TestDir::new("secrets")?;
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, format!("{password}\n"))?;
    let settings = Settings {
        security_protocol: SecurityProtocol::SaslSsl,
        sasl_username: user.into(),
        sasl_password_file: Some(password_file),
        ssl_ca_file: Some(ca.to_owned()),
        ..settings(&cluster().bootstrap())
    };
    Ok(Secured { stream: connect(&settings), settings, _dir: dir })
}

/// Publishes into a cluster that refuses us: advice appears, nothing is permanent, and nothing is
/// lost when access is mended. `said` must be in the advice.
async fn nothing_is_lost_and_the_advice_says(refused: &Secured, said: &str) -> Result<()> {
    let direct = connect(&settings(&cluster().internal_bootstrap()));
    let topic = topic(&direct, "refused", 1).await?;
    let (producer, ear): (Arc<dyn Producer>, Arc<Ear>) = producer(&refused.stream);
    let _ = producer.send(&record(&topic, "k", "v"), 1);
    eventually(PATIENCE, async || {
        // Each try may be taken over or not, but never for good.
        match refused.stream.trouble() {
            Some(trouble) if trouble.contains(said) => Ok(()),
            other => Err(format!("advice without {said}: {other:?}")),
        }
    })
    .await;
    let error = refused.stream.cluster_id().await.err().map(|error| error.to_string());
    if let Some(error) = error {
        assert!(error.contains(said), "{error}");
    }
    tokio::task::spawn_blocking(move || drop(producer)).await?;
    let permanent = |outcome: &Result<_, _>| matches!(outcome, Err(DeliveryError::Permanent(_)));
    assert!(!ear.heard().values().any(permanent), "{:?}", ear.heard());
    assert!(read_all(&direct, &topic).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_through_tls_and_scram() -> Result<()> {
    let secured = secured(USER, PASSWORD, cluster().ca_file())?;
    let stream = &secured.stream;
    assert_eq!(stream.cluster_id().await?, cluster().cluster_id());
    let topic = topic(stream, "secured", 1).await?;
    publish(stream, &topic, &["a", "b"]).await?;
    let mut relay = stream.relay(&unique("secured")).await?;
    relay.send(vec![record(&topic, "key", "c")]).await?;
    relay.commit().await?;
    assert_eq!(read_at_least(stream, &topic, 3).await?.len(), 3);

    let options = ConsumerOptions {
        group: unique("secured"),
        topics: vec![topic.to_string()],
        instance_id: Some("0".into()),
    };
    let mut consumer = stream.consumer(options).await?;
    let partition = assigned(&mut *consumer).await?.remove(0);
    consumer.start(&partition, 0).await?;
    assert_eq!(take(&mut *consumer, 3).await?.len(), 3);
    consumer.close().await;
    // What a pause of the broker may have left is gone with the next answer.
    eventually_true("nothing is wrong", PATIENCE, async || {
        stream.cluster_id().await.is_ok() && stream.trouble().is_none()
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_authority_is_said_to_be_one() -> Result<()> {
    let refused = secured(USER, PASSWORD, cluster().other_ca_file())?;
    nothing_is_lost_and_the_advice_says(&refused, "ssl_ca_file").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_to_be_one() -> Result<()> {
    let refused = secured(USER, "open-barley-1913", cluster().ca_file())?;
    nothing_is_lost_and_the_advice_says(&refused, "sasl_password_file").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_acl_is_said_to_be_one() -> Result<()> {
    let refused = secured(STRANGER, PASSWORD, cluster().ca_file())?;
    nothing_is_lost_and_the_advice_says(&refused, "ACL").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_neither_consumes_nor_relays_nor_creates() -> Result<()> {
    let direct = connect(&settings(&cluster().internal_bootstrap()));
    let topic = topic(&direct, "strange", 1).await?;
    let refused = secured(STRANGER, PASSWORD, cluster().ca_file())?;
    let acl = |error: &StreamError| {
        assert!(matches!(error, StreamError::Refused(text) if text.contains("ACL")), "{error}");
    };

    let options = ConsumerOptions {
        group: unique("strange"),
        topics: vec![topic.to_string()],
        instance_id: None,
    };
    let mut consumer = refused.stream.consumer(options).await?;
    let mut told = None;
    eventually_true("a refusal", PATIENCE, async || {
        match consumer.next(10, Duration::from_millis(200)).await {
            Ok(Event::Idle) => false,
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                told = Some(error);
                true
            }
        }
    })
    .await;
    acl(&told.expect("was told"));
    consumer.close().await;

    let Err(error) = refused.stream.relay(&unique("strange")).await else {
        panic!("a stranger relays")
    };
    acl(&error);
    let spec = TopicSpec { name: unique("s"), partitions: 1, replication: 1, config: vec![] };
    acl(&refused.stream.create_topics(&[spec]).await.unwrap_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_never_shown() -> Result<()> {
    let secured = secured(USER, PASSWORD, cluster().ca_file())?;
    for shown in [format!("{:?}", secured.stream), format!("{:?}", secured.settings)] {
        assert!(!shown.contains(PASSWORD), "{shown}");
    }
    Ok(())
}
