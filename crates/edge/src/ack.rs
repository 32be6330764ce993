//! What stands behind a 200.

use std::sync::Arc;

use tollgate_spool::{AppendError, DeadLetters, Position, Request, Spool, Usage};
use tollgate_stream::Outgoing;

use crate::decode::Decoder;
use crate::delivered::{Delivered, Delivery};
use crate::publisher::keep;
use crate::refusal::Refusal;
use crate::settings::Ack;

/// What holds an acknowledged notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The spool, synced.
    Spooled,
    /// Kafka, confirmed.
    Delivered,
    /// The spool, because Kafka did not confirm in time.
    Fallback,
}

impl Held {
    /// Label of the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spooled => "spooled",
            Self::Delivered => "delivered",
            Self::Fallback => "fallback",
        }
    }
}

/// Makes notifications durable under either contract.
pub struct Acknowledger {
    spool: Spool,
    decoder: Arc<Decoder>,
    delivery: Option<Arc<Delivery>>,
    dead_letters: Arc<DeadLetters>,
    fallback: bool,
}

impl Acknowledger {
    /// `delivery` is there if any contract needs it; `fallback` is whether it may use the spool.
    pub fn new(
        spool: Spool,
        decoder: Arc<Decoder>,
        delivery: Option<Arc<Delivery>>,
        dead_letters: Arc<DeadLetters>,
        fallback: bool,
    ) -> Self {
        Self { spool, decoder, delivery, dead_letters, fallback }
    }

    /// How full the spool is.
    pub fn spool_usage(&self) -> Usage {
        self.spool.usage()
    }

    /// Returns when the request is held as the contract demands.
    pub async fn acknowledge(&self, request: Request, contract: Ack) -> Result<Held, Refusal> {
        match (&self.delivery, contract) {
            (Some(delivery), Ack::Delivered) => self.deliver(delivery, request).await,
            _ => self.store(request).await.map(|()| Held::Spooled),
        }
    }

    async fn store(&self, request: Request) -> Result<(), Refusal> {
        self.spool.append(request).await.map(|_| ()).map_err(|error| match error {
            AppendError::Full => Refusal::SpoolFull,
            AppendError::Overloaded => Refusal::Overloaded,
            AppendError::Closing => Refusal::Draining,
            AppendError::Failed => Refusal::DiskFailing,
            AppendError::TooLarge => Refusal::TooLarge,
        })
    }

    async fn deliver(&self, delivery: &Delivery, request: Request) -> Result<Held, Refusal> {
        if self.fallback && delivery.is_in_trouble() {
            return self.store(request).await.map(|()| Held::Fallback);
        }
        let records = self.decoder.normalise(&request, None).records;
        match delivery.deliver(&records).await {
            Delivered::All => {
                delivery.probe_confirmed();
                Ok(Held::Delivered)
            }
            Delivered::Except(refused) => {
                self.keep(refused).await?;
                Ok(Held::Delivered)
            }
            Delivered::Missed if self.fallback => {
                self.store(request).await.map(|()| Held::Fallback)
            }
            Delivered::Missed => Err(Refusal::NotDelivered),
        }
    }

    async fn keep(&self, refused: Vec<(Outgoing, String)>) -> Result<(), Refusal> {
        let dead_letters = Arc::clone(&self.dead_letters);
        let kept = tokio::task::spawn_blocking(move || {
            refused.into_iter().try_for_each(|(record, reason)| {
                keep(&dead_letters, record, Position::default(), reason)
            })
        });
        match kept.await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Refusal::DiskFailing),
        }
    }
}
