//! What stands behind a 200.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tollgate_spool::{AppendError, DeadLetters, Encoded, Position, Spool};
use tollgate_stream::Outgoing;

use crate::admission::Share;
use crate::dead_letters::keep;
use crate::decode::Decoder;
use crate::delivered::{Delivered, Delivery};
use crate::meters::Held;
use crate::refusal::Refusal;
use crate::settings::Ack;

/// Makes notifications durable under either contract.
#[derive(Clone)]
pub struct Acknowledger {
    /// The log.
    pub spool: Spool,
    /// Reads bodies for `delivered`.
    pub decoder: Arc<Decoder>,
    /// There if any contract needs it.
    pub delivery: Option<Arc<Delivery>>,
    /// Where records go that no topic takes.
    pub dead_letters: Arc<DeadLetters>,
    /// Whether `delivered` may use the spool.
    pub fallback: bool,
    /// Notifications on their way to the stream; they outlive their connections.
    pub on_their_way: TaskTracker,
    /// Runs them; outlives the HTTP workers.
    pub runtime: Handle,
}

impl Acknowledger {
    /// Returns when the request is held as the contract demands. The request is complete: once
    /// this is called it goes its way, whether or not anybody waits for the answer. `share` is
    /// given back when its bytes are the spool's or the stream's.
    pub async fn acknowledge(
        &self,
        request: Encoded,
        share: Share,
        contract: Ack,
    ) -> Result<Held, Refusal> {
        let (Some(delivery), Ack::Delivered) = (&self.delivery, contract) else {
            // Appends before it waits for the first time, so dropping it takes nothing back.
            let stored = self.store(request).await;
            drop(share);
            return stored.map(|()| Held::Spooled);
        };
        let (this, delivery) = (self.clone(), Arc::clone(delivery));
        let delivered = async move {
            let held = this.deliver(&delivery, request).await;
            drop(share);
            held
        };
        // It can only have panicked; then nothing is known to be stored.
        let task = self.on_their_way.spawn_on(delivered, &self.runtime);
        task.await.unwrap_or(Err(Refusal::NotDelivered))
    }

    async fn store(&self, request: Encoded) -> Result<(), Refusal> {
        self.spool.append(request).await.map(|_| ()).map_err(|error| match error {
            AppendError::Full => Refusal::SpoolFull,
            AppendError::Overloaded => Refusal::Overloaded,
            AppendError::Closing => Refusal::Draining,
            AppendError::Failed => Refusal::DiskFailing,
            AppendError::TooLarge => Refusal::TooLarge,
        })
    }

    async fn deliver(&self, delivery: &Delivery, request: Encoded) -> Result<Held, Refusal> {
        if self.fallback && delivery.is_in_trouble() {
            return self.store(request).await.map(|()| Held::Fallback);
        }
        let normalised = self.decoder.normalise(&request.request(), None);
        match delivery.deliver(&normalised.records).await {
            Delivered::All => {}
            Delivered::Except(refused) => {
                if !self.keep(refused).await {
                    if !self.fallback {
                        return Err(Refusal::DiskFailing);
                    }
                    // The publisher comes across them again, and waits until they can be kept.
                    return self.store(request).await.map(|()| Held::Fallback);
                }
            }
            // Counted when the publisher takes it from there.
            Delivered::Missed if self.fallback => {
                return self.store(request).await.map(|()| Held::Fallback);
            }
            Delivered::Missed => return Err(Refusal::NotDelivered),
        }
        self.decoder.count(&normalised, &request.request());
        Ok(Held::Delivered)
    }

    /// Whether all of it is kept now.
    async fn keep(&self, refused: Vec<(Outgoing, String)>) -> bool {
        let dead_letters = Arc::clone(&self.dead_letters);
        let kept = tokio::task::spawn_blocking(move || {
            refused.into_iter().try_for_each(|(record, reason)| {
                keep(&dead_letters, record, Position::default(), reason)
            })
        });
        match kept.await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => tracing::error!(%error, "dead letter not kept"),
            Err(error) => tracing::error!(%error, "dead letter task failed"),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use tollgate_spool::disk::FaultyDisk;
    use tollgate_spool::{Options, Request, Settings};

    use super::*;
    use crate::admission::Budget;

    #[tokio::test]
    async fn a_spool_that_is_closed_means_that_the_edge_is_draining() {
        let disk = Arc::new(FaultyDisk::new(1));
        let settings = Settings::default();
        let dir = settings.dir.clone();
        let (spool, _reader) =
            Spool::open(Options { settings, started_at_us: 1 }, Arc::clone(&disk) as _).unwrap();
        let acknowledger = Acknowledger {
            spool: spool.clone(),
            decoder: Arc::new(Decoder::for_looking(Arc::default())),
            delivery: None,
            dead_letters: Arc::new(DeadLetters::open(&dir, 1 << 20, disk).unwrap()),
            fallback: true,
            on_their_way: TaskTracker::new(),
            runtime: Handle::current(),
        };
        let ask = || {
            let share = Budget::new(1).share();
            acknowledger.acknowledge(Request::default().encode(), share, Ack::Spooled)
        };
        assert_eq!(ask().await, Ok(Held::Spooled));
        spool.close();
        assert_eq!(ask().await, Err(Refusal::Draining));
    }
}
