//! Records that appear together, from whoever took the id last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::Shared;
use super::producer::refusal;
use super::queue::{Request, Transaction};
use crate::{Outgoing, Relay, RelayError, StreamError};

/// How long a commit waits while the log is full.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of one transaction, which is written as one group; less where the log is small.
const MOST_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct EmbeddedRelay {
    shared: Arc<Shared>,
    id: String,
    epoch: u64,
    open: Option<Vec<Outgoing>>,
}

impl EmbeddedRelay {
    /// Takes the id. When this returns, whoever held it can commit no more, and what they
    /// committed before is visible.
    pub(super) async fn take(shared: Arc<Shared>, id: &str) -> Result<Self, StreamError> {
        let epoch = {
            let mut state = shared.state();
            let epoch = state.relays.entry(id.to_owned()).or_insert(0);
            *epoch += 1;
            *epoch
        };
        let (reply, answer) = oneshot::channel();
        shared.queue.push(Request::Barrier(reply));
        answer.await.map_err(|_| StreamError::Transient("embedded log is closed".to_owned()))?;
        Ok(Self { shared, id: id.to_owned(), epoch, open: None })
    }

    fn check(&self) -> Result<(), RelayError> {
        let held = self.shared.state().relays.get(&self.id) == Some(&self.epoch);
        if held { Ok(()) } else { Err(RelayError::Fenced) }
    }
}

#[async_trait]
impl Relay for EmbeddedRelay {
    async fn send(&mut self, records: Vec<Outgoing>) -> Result<(), RelayError> {
        self.check()?;
        if self.open.is_some() {
            return Err(RelayError::Abort("a transaction is open already".to_owned()));
        }
        let most = MOST_BYTES.min(self.shared.options.settings.max_bytes as usize / 4);
        if records.iter().map(Outgoing::size).sum::<usize>() > most {
            return Err(RelayError::Abort(format!("more than {most} bytes; send fewer records")));
        }
        self.open = Some(Vec::new());
        for (index, record) in records.iter().enumerate() {
            match refusal(&self.shared, record) {
                Err(missing) => return Err(RelayError::Abort(missing)),
                Ok(Some(reason)) => return Err(RelayError::Permanent { index, reason }),
                Ok(None) => {}
            }
        }
        self.open = Some(records);
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), RelayError> {
        self.check()?;
        let records = self.open.take().unwrap_or_default();
        if records.is_empty() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.shared.queue.push(Request::Transaction(Transaction {
            records,
            id: self.id.clone(),
            epoch: self.epoch,
            reply,
            deadline: Instant::now() + PATIENCE,
        }));
        answer
            .await
            .unwrap_or_else(|_| Err(RelayError::Recreate("embedded log is closed".to_owned())))
    }

    async fn abort(&mut self) -> Result<(), RelayError> {
        self.check()?;
        self.open = None;
        Ok(())
    }
}
