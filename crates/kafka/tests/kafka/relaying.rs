use anyhow::Result;
use tollgate_stream::{Outgoing, Relay, RelayError, Stream};

use crate::support::{random_text, read_at_least, record, shared, text, topic, unique};

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_takes_over_fences_the_first_and_aborts_what_it_left() -> Result<()> {
    let stream = shared();
    let topic = topic(&stream, "fence", 1).await?;
    let id = unique("relay");
    let mut first = stream.relay(&id).await?;
    first.send(vec![record(&topic, "k", "confirmed")]).await?;
    first.commit().await?;
    first.send(vec![record(&topic, "k", "left open")]).await?;

    let mut second = stream.relay(&id).await?;
    let fenced = first.commit().await.unwrap_err();
    assert_eq!(fenced, RelayError::Fenced);
    let again = first.send(vec![record(&topic, "k", "zombie")]).await.unwrap_err();
    assert!(matches!(again, RelayError::Recreate(_) | RelayError::Fenced), "{again}");

    second.send(vec![record(&topic, "k", "taken over")]).await?;
    second.commit().await?;
    let read: Vec<String> = read_at_least(&stream, &topic, 2).await?.iter().map(text).collect();
    assert_eq!(read, ["confirmed", "taken over"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_sends_after_the_takeover_is_fenced_too() -> Result<()> {
    let stream = shared();
    let topic = topic(&stream, "zombie", 1).await?;
    let id = unique("relay");
    let mut first = stream.relay(&id).await?;
    let mut second = stream.relay(&id).await?;
    let sent = first.send(vec![record(&topic, "k", "zombie")]).await;
    let fate = match sent {
        Ok(()) => first.commit().await,
        failed => failed,
    };
    assert_eq!(fate, Err(RelayError::Fenced));
    second.send(vec![record(&topic, "k", "owner")]).await?;
    second.commit().await?;
    let read: Vec<String> = read_at_least(&stream, &topic, 1).await?.iter().map(text).collect();
    assert_eq!(read, ["owner"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_can_never_be_sent_is_named_by_its_index() -> Result<()> {
    let stream = shared();
    let topic = topic(&stream, "index", 1).await?;
    let mut relay = stream.relay(&unique("relay")).await?;
    let huge = "x".repeat(5 * 1024 * 1024);
    let records =
        [record(&topic, "k", "first"), record(&topic, "k", "second"), record(&topic, "k", &huge)];
    let refused = relay.send(records.to_vec()).await.unwrap_err();
    assert!(matches!(refused, RelayError::Permanent { index: 2, .. }), "{refused}");
    assert!(matches!(relay.commit().await, Err(RelayError::Abort(_))));
    relay.abort().await?;
    relay.send(records[..2].to_vec()).await?;
    relay.commit().await?;
    assert_eq!(read_at_least(&stream, &topic, 2).await?.len(), 2);
    Ok(())
}

/// As an outbox does: what has to be aborted is, and is sent again.
async fn deliver(relay: &mut dyn Relay, records: &[Outgoing]) -> Result<(), RelayError> {
    let mut ended = Ok(());
    for _ in 0..5 {
        let sent = relay.send(records.to_vec()).await;
        ended = if sent.is_ok() { relay.commit().await } else { sent };
        if !matches!(ended, Err(RelayError::Abort(_))) {
            break;
        }
        abort(relay).await?;
    }
    ended
}

async fn abort(relay: &mut dyn Relay) -> Result<(), RelayError> {
    let mut aborted = relay.abort().await;
    for _ in 0..5 {
        if !matches!(aborted, Err(RelayError::Abort(_))) {
            break;
        }
        aborted = relay.abort().await;
    }
    aborted
}

/// I6
#[tokio::test(flavor = "multi_thread")]
async fn each_record_that_only_the_broker_refuses_is_found_by_sending_one_by_one() -> Result<()> {
    let stream = shared();
    let name = unique("narrow-relay");
    let spec = tollgate_stream::TopicSpec {
        name: name.clone(),
        partitions: 1,
        replication: 1,
        config: vec![("max.message.bytes".into(), "1000".into())],
    };
    stream.create_topics(&[spec]).await?;
    let topic = name;
    let mut relay = stream.relay(&unique("relay")).await?;
    let wide = random_text(3_000);
    for refused in [&[0][..], &[1], &[2], &[0, 1, 2], &[1, 2]] {
        let value = |index| if refused.contains(&index) { wide.as_str() } else { "small" };
        let mut records: Vec<_> =
            (0..3).map(|index| record(&topic, &index.to_string(), value(index))).collect();
        // As an outbox does: the one that is named goes to quarantine, the rest is sent again.
        for before in 0..refused.len() {
            let refusal = relay.send(records.clone()).await.unwrap_err();
            let expected = refused[before] - before;
            assert!(
                matches!(refusal, RelayError::Permanent { index, .. } if index == expected),
                "{refused:?}, {before}: {refusal}"
            );
            abort(&mut *relay).await?;
            records.remove(expected);
        }
        deliver(&mut *relay, &records).await?;
    }
    let read = read_at_least(&stream, &topic, 7).await?;
    let keys: Vec<_> = read.iter().map(|it| it.key.clone()).collect();
    assert_eq!(keys, ["1", "2", "0", "2", "0", "1", "0"]);
    Ok(())
}
