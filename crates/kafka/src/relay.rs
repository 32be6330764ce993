//! The transactional producer of an outbox: fences its predecessor, and all or nothing appears.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics::counter;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{
    BaseProducer, NoCustomPartitioner, Producer, ProducerContext, PurgeConfig,
};
use tollgate_stream::{Outgoing, Relay, RelayError, StreamError};

use crate::context::{Common, Context, Role};
use crate::settings::Settings;
use crate::trouble::{Trouble, code_of};
use crate::{config, convert, metrics as names};

/// Fates of the records of one `send`, by their index.
#[derive(Default)]
struct Fates {
    failed: Mutex<Vec<(usize, RDKafkaErrorCode)>>,
}

impl ProducerContext<NoCustomPartitioner> for Context<Fates> {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let Err((error, _)) = result else { return };
        let mut failed = self.extra.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.push((index, code_of(error)));
    }
}

type Client = BaseProducer<Context<Fates>>;

/// Where a relay is between two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No transaction is open.
    Ready,
    /// Records were sent.
    Open,
    /// Something failed: only an abort helps.
    MustAbort,
    /// Of no more use.
    Dead,
}

/// See the module's description. Calls block in librdkafka, so each runs on a blocking thread.
pub struct KafkaRelay {
    /// Taken while a call runs; stays away when a call was given up half-way.
    inner: Option<Inner>,
}

struct Inner {
    client: Arc<Client>,
    common: Arc<Common>,
    state: State,
    /// Send one by one next time: a batch was refused, and we do not know because of whom.
    one_by_one: bool,
    /// How long one call may take.
    patience: Duration,
}

impl KafkaRelay {
    /// Takes `id` over: fences whoever has it and aborts what they left open.
    pub async fn take_over(
        base: &ClientConfig,
        settings: &Settings,
        common: &Arc<Common>,
        id: &str,
    ) -> Result<Self, StreamError> {
        let config = config::relay(base, settings, id);
        let common = Arc::clone(common);
        let patience = Duration::from_millis(settings.transaction_timeout_ms.into());
        let init = Duration::from_millis(settings.operation_timeout_ms.into());
        let inner = blocking(move || {
            let client: Client = config
                .create_with_context(Context::new(Role::Relay, &common, Fates::default()))
                .map_err(|error| StreamError::Fatal(error.to_string()))?;
            client
                .init_transactions(init)
                .map_err(|error| common.health.explain(&error).into_stream_error())?;
            let client = Arc::new(client);
            Ok(Inner { client, common, state: State::Ready, one_by_one: false, patience })
        })
        .await
        .map_err(StreamError::Transient)??;
        tokio::spawn(poll_when_idle(Arc::downgrade(&inner.client)));
        Ok(Self { inner: Some(inner) })
    }

    async fn call<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Inner) -> Result<T, RelayError> + Send + 'static,
    ) -> Result<T, RelayError> {
        let Some(mut inner) = self.inner.take() else {
            return Err(RelayError::Recreate("an earlier call was given up half-way".into()));
        };
        let (inner, result) = blocking(move || {
            let result = work(&mut inner);
            (inner, result)
        })
        .await
        .map_err(RelayError::Recreate)?;
        self.inner = Some(inner);
        result
    }
}

impl Drop for KafkaRelay {
    fn drop(&mut self) {
        // Destroying a client may wait for its connections; nobody needs to wait for that.
        if let Some(inner) = self.inner.take() {
            std::thread::spawn(move || drop(inner));
        }
    }
}

/// A relay may have nothing to do for days; its client's statistics and log lines must not pile up
/// meanwhile.
async fn poll_when_idle(client: Weak<Client>) {
    const EVENTS: usize = 64;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(client) = client.upgrade() else { return };
        for _ in 0..EVENTS {
            client.poll(Duration::ZERO);
        }
        // If this was the last handle, destroying the client must not block the runtime.
        drop(tokio::task::spawn_blocking(move || drop(client)));
    }
}

/// Runs on a blocking thread; the error is a panic there.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

#[async_trait]
impl Relay for KafkaRelay {
    async fn send(&mut self, records: &[Outgoing]) -> Result<(), RelayError> {
        let records = records.to_vec();
        self.call(move |inner| inner.send(&records)).await
    }

    async fn commit(&mut self) -> Result<(), RelayError> {
        self.call(Inner::commit).await
    }

    async fn abort(&mut self) -> Result<(), RelayError> {
        self.call(Inner::abort).await
    }
}

impl Inner {
    fn send(&mut self, records: &[Outgoing]) -> Result<(), RelayError> {
        match self.state {
            State::Dead => return Err(RelayError::Recreate("it has failed before".into())),
            State::MustAbort => {
                return Err(RelayError::Abort("the transaction has failed before".into()));
            }
            State::Ready => {
                let begun = self.client.begin_transaction();
                begun.map_err(|error| self.judge(&error))?;
                self.state = State::Open;
            }
            State::Open => {}
        }
        let sent = if self.one_by_one {
            (0..records.len()).try_for_each(|index| self.send_slice(records, index..index + 1))
        } else {
            self.send_slice(records, 0..records.len())
        };
        if sent.is_ok() {
            self.one_by_one = false;
        }
        sent
    }

    /// Hands the records over and waits until each is stored or refused.
    fn send_slice(
        &mut self,
        records: &[Outgoing],
        range: std::ops::Range<usize>,
    ) -> Result<(), RelayError> {
        let end = Instant::now() + self.patience;
        for index in range.clone() {
            self.enqueue(&records[index], index, end)?;
        }
        self.client.flush(self.patience).map_err(|error| self.judge(&error))?;
        let failed = std::mem::take(
            &mut *self.client.context().extra.failed.lock().unwrap_or_else(PoisonError::into_inner),
        );
        let Some((index, code)) = failed.first().copied() else { return Ok(()) };
        self.state = State::MustAbort;
        if self.client.client().fatal_error().is_some() {
            return Err(self.fatal());
        }
        if !is_about_the_record(code) {
            return Err(RelayError::Abort(Trouble::new(code, "").message));
        }
        if range.len() > 1 {
            self.one_by_one = true;
            return Err(RelayError::Abort(format!(
                "the broker refuses the batch ({code}); it is sent one by one"
            )));
        }
        let reason = format!("the broker refuses this record: {code}");
        Err(RelayError::Permanent { index, reason })
    }

    fn enqueue(&mut self, record: &Outgoing, index: usize, end: Instant) -> Result<(), RelayError> {
        loop {
            let Err((error, _)) = self.client.send(convert::outgoing(record, index)) else {
                return Ok(());
            };
            match code_of(&error) {
                RDKafkaErrorCode::QueueFull if Instant::now() < end => {
                    self.client.poll(Duration::from_millis(10));
                }
                RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidArgument => {
                    self.state = State::MustAbort;
                    return Err(RelayError::Permanent { index, reason: error.to_string() });
                }
                _ => return Err(self.judge(&error)),
            }
        }
    }

    fn commit(&mut self) -> Result<(), RelayError> {
        match self.state {
            State::Ready => return Ok(()),
            State::Open => {}
            State::MustAbort => {
                return Err(RelayError::Abort("the transaction has failed before".into()));
            }
            State::Dead => return Err(RelayError::Recreate("it has failed before".into())),
        }
        self.until_done(Producer::commit_transaction)?;
        counter!(names::TRANSACTIONS.name, "outcome" => "committed").increment(1);
        self.common.health.clear();
        self.state = State::Ready;
        Ok(())
    }

    fn abort(&mut self) -> Result<(), RelayError> {
        match self.state {
            State::Ready => return Ok(()),
            State::Open | State::MustAbort => {}
            State::Dead => return Err(RelayError::Recreate("it has failed before".into())),
        }
        // Records that wait for a broker must not keep the abort waiting.
        self.client.purge(PurgeConfig::default().queue().inflight());
        self.until_done(Producer::abort_transaction)?;
        self.client.context().extra.failed.lock().unwrap_or_else(PoisonError::into_inner).clear();
        counter!(names::TRANSACTIONS.name, "outcome" => "aborted").increment(1);
        self.state = State::Ready;
        Ok(())
    }

    /// Calls again while the call itself says that this helps, as long as patience lasts.
    fn until_done(
        &mut self,
        call: impl Fn(&Client, Duration) -> Result<(), KafkaError>,
    ) -> Result<(), RelayError> {
        let end = Instant::now() + self.patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Err(error) = call(&self.client, left) else { return Ok(()) };
            let again = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
            if !again || left.is_zero() {
                return Err(self.judge(&error));
            }
        }
    }

    /// What a failed call means for this relay.
    fn judge(&mut self, error: &KafkaError) -> RelayError {
        let code = code_of(error);
        let (fatal, abortable) = match error {
            KafkaError::Transaction(error) => (error.is_fatal(), error.txn_requires_abort()),
            _ => (false, matches!(error, KafkaError::MessageProduction(_) | KafkaError::Flush(_))),
        };
        if is_fencing(code) || fatal || self.client.client().fatal_error().is_some() {
            return self.fatal_because(code, error);
        }
        if abortable {
            self.state = State::MustAbort;
            return RelayError::Abort(self.common.health.explain(error).message);
        }
        self.state = State::Dead;
        counter!(names::TRANSACTIONS.name, "outcome" => "failed").increment(1);
        RelayError::Recreate(self.common.health.explain(error).message)
    }

    fn fatal(&mut self) -> RelayError {
        self.fatal_because(RDKafkaErrorCode::Fatal, &KafkaError::Global(RDKafkaErrorCode::Fatal))
    }

    fn fatal_because(&mut self, code: RDKafkaErrorCode, error: &KafkaError) -> RelayError {
        self.state = State::Dead;
        let (root, reason) =
            self.client.client().fatal_error().unwrap_or((code, error.to_string()));
        if is_fencing(root) || is_fencing(code) {
            counter!(names::TRANSACTIONS.name, "outcome" => "fenced").increment(1);
            return RelayError::Fenced;
        }
        counter!(names::TRANSACTIONS.name, "outcome" => "failed").increment(1);
        RelayError::Recreate(Trouble::new(root, &reason).message)
    }
}

/// When in doubt somebody else has the id: a relay made anew would take it away from them.
fn is_fencing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
    )
}

fn is_about_the_record(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::BadMessage
    )
}
