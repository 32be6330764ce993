//! Publishes a partition's outbox, in order, at least once, and never as a zombie.
//!
//! A relay is opened *after* the fence, and the fence is checked again *after* the relay is open
//! and before anything is sent. So of two that claim the partition, the one with the older epoch
//! either finds its transactional id taken, or finds its claim gone before it sends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, histogram};
use tokio::sync::Notify;

use super::Context;
use super::partition::Cancel;
use crate::metrics as m;
use crate::{
    Claim, Decode, Outgoing, Pending, Relay, RelayError, Store, StoreError, StreamError, quarantine,
};

/// Of so many tries in vain to open a relay one is worth a word, even if it passes by itself.
const LOUD_EVERY: u32 = 10;
/// Between two transactions, however long they take.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How the task of a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayEnd {
    /// Told to stop.
    Cancelled,
    /// Another consumer holds the partition.
    Lost,
}

/// What to do after a transaction did not succeed.
enum Trouble {
    End(RelayEnd),
    /// Send the same rows again through the same relay.
    Again,
    /// Through a new one.
    Reopen,
}

impl From<RelayEnd> for Trouble {
    fn from(end: RelayEnd) -> Self {
        Self::End(end)
    }
}

pub(super) struct RelayTask<S: Store + ?Sized, D> {
    pub(super) context: Arc<Context<S, D>>,
    pub(super) claim: Arc<Claim>,
    pub(super) wake: Arc<Notify>,
    pub(super) cancel: Cancel,
}

impl<S, D> RelayTask<S, D>
where
    S: Store + ?Sized,
    D: Decode<Item = S::Item>,
{
    /// Relays until cancelled or lost.
    pub(super) async fn run(self) -> RelayEnd {
        let mut backoff = self.context.backoff();
        loop {
            let mut relay = match self.open().await {
                Ok(relay) => relay,
                Err(end) => return end,
            };
            loop {
                match self.round(&mut *relay).await {
                    Ok(()) => backoff.reset(),
                    Err(Trouble::End(end)) => return end,
                    Err(trouble) => {
                        if !backoff.wait(self.cancel.token()).await {
                            return RelayEnd::Cancelled;
                        }
                        if matches!(trouble, Trouble::Reopen) {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Takes the transactional id, and makes sure that the partition is still held.
    async fn open(&self) -> Result<Box<dyn Relay>, RelayEnd> {
        let source = &self.claim.source;
        let id =
            format!("{}-{}-{}", source.group, source.partition.topic, source.partition.partition);
        let mut backoff = self.context.backoff();
        let mut failures = 0;
        let relay = loop {
            let opened = tokio::select! {
                () = self.cancel.token().cancelled() => return Err(RelayEnd::Cancelled),
                opened = self.context.stream.relay(&id) => opened,
            };
            match opened {
                Ok(relay) => break relay,
                Err(error) => {
                    self.count_error("open");
                    failures += 1;
                    if matches!(error, StreamError::Transient(_)) && failures % LOUD_EVERY > 0 {
                        tracing::debug!(%source, %error, "relay can not be opened yet");
                    } else {
                        tracing::error!(%source, %error, "relay can not be opened; it is tried again");
                    }
                    if !backoff.wait(self.cancel.token()).await {
                        return Err(RelayEnd::Cancelled);
                    }
                }
            }
        };
        self.store("holds", || self.context.store.holds(&self.claim)).await?;
        Ok(relay)
    }

    /// Publishes what is pending, or waits.
    async fn round(&self, relay: &mut dyn Relay) -> Result<(), Trouble> {
        let (limit, bytes) =
            (self.context.settings().relay_batch, self.context.settings().batch_bytes);
        let mut rows =
            self.store("pending", || self.context.store.pending(&self.claim, limit, bytes)).await?;
        if rows.is_empty() {
            return self.idle().await.map_err(Trouble::from);
        }
        let found: usize = rows.iter().map(|row| row.record.size()).sum();
        let more = rows.len() == limit || found >= bytes;
        rows.truncate(self.rows_that_fit(&rows));
        let begun = Instant::now();
        self.publish(relay, &rows).await?;
        self.store("published", || self.context.store.published(&self.claim, &rows)).await?;

        let (group, topic) = (&self.context.group, &self.claim.source.partition.topic);
        counter!(m::RELAYED.name, "group" => Arc::clone(group), "topic" => Arc::clone(topic))
            .increment(rows.len() as u64);
        histogram!(m::RELAY_SECONDS.name, "group" => Arc::clone(group)).record(begun.elapsed());
        if !more {
            self.rest(begun.elapsed()).await?;
        }
        Ok(())
    }

    async fn idle(&self) -> Result<(), RelayEnd> {
        let interval = Duration::from_millis(self.context.settings().relay_interval_ms);
        tokio::select! {
            () = self.cancel.token().cancelled() => Err(RelayEnd::Cancelled),
            () = self.wake.notified() => Ok(()),
            () = tokio::time::sleep(interval) => Ok(()),
        }
    }

    /// A transaction costs broker and database much the same whether it carries one row or a
    /// hundred: the slower they are, the longer rows gather before the next.
    async fn rest(&self, took: Duration) -> Result<(), RelayEnd> {
        let rest = rest_after(took, self.context.settings().relay_busy_percent);
        tokio::select! {
            () = self.cancel.token().cancelled() => Err(RelayEnd::Cancelled),
            () = tokio::time::sleep(rest) => Ok(()),
        }
    }

    fn rows_that_fit(&self, rows: &[Pending]) -> usize {
        let most = self.context.settings().batch_bytes;
        let mut bytes = 0;
        let fit = rows.iter().take_while(|row| {
            bytes += row.record.size();
            bytes <= most
        });
        fit.count().max(1)
    }

    /// One transaction. A row that its topic refuses for good is replaced by a message for the
    /// quarantine, then by a shorter one, then left out: it never blocks those behind it.
    async fn publish(&self, relay: &mut dyn Relay, rows: &[Pending]) -> Result<(), Trouble> {
        let mut refusals: Vec<(u8, String)> = vec![(0, String::new()); rows.len()];
        loop {
            if self.cancel.token().is_cancelled() {
                return Err(Trouble::End(RelayEnd::Cancelled));
            }
            let (indexes, records) = self.substitute(rows, &refusals);
            if records.is_empty() {
                return Ok(());
            }
            let transaction = async {
                relay.send(records).await?;
                relay.commit().await
            };
            let Some(result) = self.cancel.finish(transaction).await else {
                return Err(Trouble::End(RelayEnd::Cancelled));
            };
            match result {
                Ok(()) => return Ok(()),
                Err(RelayError::Permanent { index, reason }) => {
                    self.abort(relay).await?;
                    let Some(row) = indexes.get(index) else {
                        tracing::error!(source = %self.claim.source, %reason, "relay refuses a row it was not given");
                        return Err(Trouble::Reopen);
                    };
                    self.note_refusal(&mut refusals[*row], reason);
                }
                Err(RelayError::Abort(reason)) => {
                    self.count_error("abort");
                    tracing::warn!(source = %self.claim.source, %reason, "relay transaction is aborted");
                    self.abort(relay).await?;
                    return Err(Trouble::Again);
                }
                Err(error) => return Err(self.lost_or_reopen(error).await),
            }
        }
    }

    /// The records to send, and the row that each stands for.
    fn substitute(
        &self,
        rows: &[Pending],
        refusals: &[(u8, String)],
    ) -> (Vec<usize>, Vec<Outgoing>) {
        let of_row = |(index, row): (usize, &Pending)| {
            let (refused, reason) = &refusals[index];
            match refused {
                0 => Some((index, row.record.clone())),
                1 | 2 => {
                    Some((index, quarantine::refused(&self.claim, &row.record, reason, *refused)))
                }
                _ => None,
            }
        };
        rows.iter().enumerate().filter_map(of_row).unzip()
    }

    fn note_refusal(&self, refusal: &mut (u8, String), reason: String) {
        refusal.0 += 1;
        let outcome = match refusal.0 {
            1 => "quarantined",
            2 => "shortened",
            _ => "dropped",
        };
        counter!(
            m::RELAY_REFUSED.name,
            "group" => Arc::clone(&self.context.group), "outcome" => outcome
        )
        .increment(1);
        tracing::error!(
            source = %self.claim.source, %reason, outcome,
            "a topic refuses a row of the outbox for good"
        );
        // The first reason is the one that matters to whoever reads the quarantine.
        if refusal.0 == 1 {
            refusal.1 = reason;
        }
    }

    async fn abort(&self, relay: &mut dyn Relay) -> Result<(), Trouble> {
        match self.cancel.finish(relay.abort()).await {
            None => Err(Trouble::End(RelayEnd::Cancelled)),
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(self.lost_or_reopen(error).await),
        }
    }

    /// Fenced by a zombie, or rightly? The database knows.
    async fn lost_or_reopen(&self, error: RelayError) -> Trouble {
        let kind = if error == RelayError::Fenced { "fenced" } else { "recreate" };
        self.count_error(kind);
        tracing::warn!(source = %self.claim.source, %error, "relay is lost");
        match self.store("holds", || self.context.store.holds(&self.claim)).await {
            Ok(()) => Trouble::Reopen,
            Err(end) => Trouble::End(end),
        }
    }

    /// A store call, until it succeeds, the partition is lost, or told to stop.
    async fn store<T, F, W>(&self, operation: &'static str, call: F) -> Result<T, RelayEnd>
    where
        F: Fn() -> W,
        W: Future<Output = Result<T, StoreError>>,
    {
        let mut backoff = self.context.backoff();
        loop {
            let Some(result) = self.cancel.finish(call()).await else {
                return Err(RelayEnd::Cancelled);
            };
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            self.context.board.store_error(&self.claim, operation, &error);
            if error == StoreError::Fenced {
                return Err(RelayEnd::Lost);
            }
            if !backoff.wait(self.cancel.token()).await {
                return Err(RelayEnd::Cancelled);
            }
        }
    }

    fn count_error(&self, kind: &'static str) {
        counter!(
            m::RELAY_ERRORS.name,
            "group" => Arc::clone(&self.context.group), "kind" => kind
        )
        .increment(1);
    }
}

/// How long to rest so that transactions take up this share of the time.
fn rest_after(took: Duration, busy_percent: u32) -> Duration {
    (took.saturating_mul(100 - busy_percent) / busy_percent).min(LONGEST_REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_grows_with_what_a_transaction_takes_up_to_a_second() {
        let ms = Duration::from_millis;
        assert_eq!(rest_after(ms(10), 10), ms(90));
        assert_eq!(rest_after(ms(10), 50), ms(10));
        assert_eq!(rest_after(ms(10), 100), ms(0));
        assert_eq!(rest_after(ms(400), 10), ms(1_000));
        assert_eq!(rest_after(Duration::MAX, 1), ms(1_000));
    }
}
