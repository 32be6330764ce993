//! A member that does not hear what its group decides.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use tollgate_kafka::{GroupProtocol, KafkaStream, Settings};
use tollgate_stream::{ConsumerOptions, Stream};

use crate::consuming::Held;
use crate::support::{connect, settings, topic, unique};
use crate::wire::{Meddler, Path};

const CONSUMER_GROUP_HEARTBEAT: u16 = 68;

/// Loses the first answer that gives a member two partitions.
#[derive(Default)]
struct Forgetful {
    has_lost: AtomicBool,
    /// The member has left its group since.
    left: AtomicBool,
}

impl Meddler for Forgetful {
    fn request(&self, key: u16, request: &[u8]) {
        let lost = self.has_lost.load(Ordering::Acquire);
        if lost && key == CONSUMER_GROUP_HEARTBEAT && leaves(request) {
            self.left.store(true, Ordering::Release);
        }
    }

    fn answer(&self, key: u16, answer: Vec<u8>) -> Option<Vec<u8>> {
        let tells = key == CONSUMER_GROUP_HEARTBEAT && given(&answer) == Some(2);
        let loses = tells && !self.has_lost.swap(true, Ordering::AcqRel);
        (!loses).then_some(answer)
    }
}

/// Whether a heartbeat says that the member goes. Length, key, version, correlation, the client's
/// id, tags; then group and member, each with its length plus one in front, and the epoch.
fn leaves(request: &[u8]) -> bool {
    let client = 4 + 2 + 2 + 4;
    let group = client + 2 + usize::from(request[client + 1]) + 1;
    let member = group + usize::from(request[group]);
    let epoch = member + usize::from(request[member]);
    request[epoch] == u8::MAX
}

/// How many partitions of one topic an answer gives. Length, correlation, tags, throttle time,
/// error, no message; then the member's id, 4 bytes of epoch, 4 of interval, and the assignment:
/// one byte says that it is there, one how many topics, 16 are the topic's id.
fn given(answer: &[u8]) -> Option<usize> {
    let byte = |at: usize| answer.get(at).copied().map(usize::from);
    let id = 4 + 4 + 1 + 4 + 2 + 1;
    let assignment = id + byte(id)? + 4 + 4;
    (byte(assignment)? == 1 && byte(assignment + 1)? == 2)
        .then(|| byte(assignment + 2 + 16)?.checked_sub(1))?
}

/// A member that has one partition is given another when its holder lets go; the answer that says
/// so is lost. librdkafka asks again in a way that is not answered with it, so nobody would ever
/// serve that partition.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_not_told_of_a_partition_joins_again() -> Result<()> {
    let (kafka, path) = Path::to_new_broker(Forgetful::default()).await?;
    let stream_at = |brokers: &str| {
        connect(&Settings { group_protocol: GroupProtocol::Consumer, ..settings(brokers) })
    };
    let stream = stream_at(&kafka.bootstrap());
    let topic = topic(&stream, "untold", 6).await?;
    let group = unique("untold");
    // The broker hands out ranges in the order of instance ids.
    let member = async |stream: &KafkaStream, id: &str| {
        let topics = vec![topic.to_string()];
        let options =
            ConsumerOptions { group: group.clone(), topics, instance_id: Some(id.into()) };
        Ok::<_, anyhow::Error>(Held::new(stream.consumer(options).await?))
    };
    let mut first = member(&stream, "1").await?;
    let mut third = member(&stream, "3").await?;
    while (first.partitions.len(), third.partitions.len()) != (3, 3) {
        first.poll().await?;
        third.poll().await?;
    }
    let behind = stream_at(&path.bootstrap());
    let mut second = member(&behind, "2").await?;
    // The third does not let go as long as it does not poll.
    while second.partitions.len() != 1 {
        first.poll().await?;
        second.poll().await?;
    }
    while (second.partitions.len(), third.partitions.len()) != (2, 2) {
        for member in [&mut first, &mut second, &mut third] {
            member.poll().await?;
        }
    }
    assert!(path.meddler.has_lost.load(Ordering::Acquire), "no answer was lost");
    // Some other trouble on its connection would have helped it as well, sooner or later.
    assert!(path.meddler.left.load(Ordering::Acquire), "it did not join again by itself");
    for member in [first, second, third] {
        member.consumer.close().await;
    }
    Ok(())
}
