//! A client that is told of no broker, as by one that is cut off from its cluster.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use tollgate_testkit::eventually_true;

use crate::support::{PATIENCE, connect, producer, record, settings, topic};
use crate::wire::{Meddler, Path};

const METADATA: u16 = 3;

/// Takes the brokers out of an answer about topics, once, when told to.
#[derive(Default)]
struct CutOff {
    armed: AtomicBool,
}

impl Meddler for CutOff {
    fn answer(&self, key: u16, answer: Vec<u8>) -> Option<Vec<u8>> {
        if key == METADATA && self.armed.swap(false, Ordering::AcqRel) {
            return Some(without_brokers(&answer));
        }
        Some(answer)
    }
}

/// Length, correlation, tags, throttle time; then how many brokers there are plus one, and of each
/// its number, host, port, rack and tags. Texts have their length plus one in front, or a zero.
fn without_brokers(answer: &[u8]) -> Vec<u8> {
    let brokers = 4 + 4 + 1 + 4;
    let after_text = |at: usize| at + usize::from(answer[at]).max(1);
    let mut end = brokers + 1;
    for _ in 1..answer[brokers] {
        end = after_text(after_text(end + 4) + 4) + 1;
    }
    let mut forged = answer[..brokers].to_vec();
    forged.push(1);
    forged.extend(&answer[end..]);
    let length = forged.len() as u32 - 4;
    forged[..4].copy_from_slice(&length.to_be_bytes());
    forged
}

/// Whether librdkafka finds its way back by itself is a race, which it loses one time in three or so.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_was_told_of_no_broker_goes_on() -> Result<()> {
    let (kafka, path) = Path::to_new_broker(CutOff::default()).await?;
    let direct = connect(&settings(&kafka.bootstrap()));
    let mut topics = Vec::new();
    for _ in 0..3 {
        topics.push(topic(&direct, "unmet", 1).await?);
    }
    let (producer, ear) = producer(&connect(&settings(&path.bootstrap())));
    let mut sent = 0;
    for topic in topics {
        // It asks when it connects again, and about a topic that it has not met.
        path.meddler.armed.store(true, Ordering::Release);
        path.cut();
        // Whoever sends is asked to send again, and refused while the client is made anew.
        eventually_true("a confirmed record", PATIENCE, async || {
            if producer.send(&record(&topic, "k", "text"), sent).is_err() {
                return false;
            }
            sent += 1;
            ear.await_all(sent as usize).await;
            ear.heard()[&(sent - 1)].is_ok()
        })
        .await;
        assert!(!path.meddler.armed.load(Ordering::Acquire), "it did not ask");
    }
    Ok(())
}
