//! The transactional producer of an outbox: fences its predecessor, and all or nothing appears.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics::counter;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, NoCustomPartitioner, Producer, ProducerContext};
use tollgate_stream::{Outgoing, Relay, RelayError, StreamError};

use crate::context::{Common, Context, Extra, Role};
use crate::producer::is_implied;
use crate::settings::Settings;
use crate::trouble::{Trouble, code_of};
use crate::{config, convert, metrics as names};

/// Fates of the records of one `send`, by their index.
#[derive(Default)]
struct Fates {
    failed: Mutex<Vec<(usize, RDKafkaErrorCode)>>,
}

impl Extra for Fates {}

impl ProducerContext<NoCustomPartitioner> for Context<Fates> {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let code = match result {
            Ok(message) if is_implied(message) => RDKafkaErrorCode::OutOfOrderSequenceNumber,
            Ok(_) => return,
            Err((error, _)) => code_of(error),
        };
        let mut failed = self.extra.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.push((index, code));
    }
}

/// Between two looks whether all fates are known.
const FATE_SLICE: Duration = Duration::from_millis(1);

/// How long one call of an abort may take before we look at what it gave back.
const ABORT_SLICE: Duration = Duration::from_millis(250);

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
    /// What was sent since the last commit or abort.
    transaction: Vec<Outgoing>,
    /// A broker has refused a batch, see `is_skipping`.
    was_refused: bool,
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
            if let Err(error) = client.init_transactions(init) {
                // What the connections said explains a time-out.
                client.poll(Duration::from_millis(20));
                // Its end may take long, or never come.
                std::thread::spawn(move || drop(client));
                return Err(common.health.explain(&error).into_stream_error());
            }
            let client = Arc::new(client);
            Ok(Inner {
                client,
                common,
                state: State::Ready,
                transaction: Vec::new(),
                was_refused: false,
                patience,
            })
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
        // Even a poll that does not wait may block while a clock goes back, and this may be the
        // last handle, with which the client is destroyed.
        let polled = tokio::task::spawn_blocking(move || {
            for _ in 0..EVENTS {
                client.poll(Duration::ZERO);
            }
        });
        if polled.await.is_err() {
            return;
        }
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
    async fn send(&mut self, records: Vec<Outgoing>) -> Result<(), RelayError> {
        self.call(move |inner| inner.send(records)).await
    }

    async fn commit(&mut self) -> Result<(), RelayError> {
        self.call(Inner::commit).await
    }

    async fn abort(&mut self) -> Result<(), RelayError> {
        self.call(Inner::abort).await
    }
}

impl Inner {
    fn send(&mut self, records: Vec<Outgoing>) -> Result<(), RelayError> {
        match self.state {
            State::Dead => return Err(RelayError::Recreate("it has failed before".into())),
            State::MustAbort => {
                return Err(RelayError::Abort("the transaction has failed before".into()));
            }
            State::Ready => self.begin()?,
            State::Open => {}
        }
        let earlier = self.transaction.len();
        self.transaction.extend(records);
        let all = self.transaction.len();
        let mut sent = self.transmit(earlier..all);
        if self.is_skipping(&sent) {
            sent = self.restart(all);
        }
        if matches!(sent, Err(Failure::Refused { .. })) {
            sent = self.restart(1);
            if self.is_skipping(&sent) {
                sent = self.restart(1);
            }
        }
        sent.map_err(|failure| match failure {
            Failure::Relay(RelayError::Permanent { index, .. }) if index < earlier => {
                RelayError::Abort("a record sent before is refused now".into())
            }
            Failure::Relay(RelayError::Permanent { index, reason }) => {
                RelayError::Permanent { index: index - earlier, reason }
            }
            Failure::Relay(error) => error,
            Failure::Refused { reason } => RelayError::Abort(reason),
        })
    }

    /// Whether this is what follows a refusal: librdkafka 2.12 does not give the sequence numbers
    /// of a refused batch back when its transaction is aborted, so the broker refuses the next
    /// transaction too. The abort of that one takes a new epoch, and all is well.
    fn is_skipping(&mut self, sent: &Result<(), Failure>) -> bool {
        matches!(sent, Err(Failure::Relay(RelayError::Abort(_))))
            && std::mem::take(&mut self.was_refused)
    }

    /// Aborts, begins anew and sends the transaction's records again, in batches of `size`. With
    /// one at a time it shows which record a broker means that refuses a batch as a whole.
    fn restart(&mut self, size: usize) -> Result<(), Failure> {
        let records = std::mem::take(&mut self.transaction);
        let begun = self.abort().and_then(|()| self.begin());
        self.transaction = records;
        begun?;
        let all = self.transaction.len();
        (0..all).step_by(size).try_for_each(|from| self.transmit(from..all.min(from + size)))
    }

    fn begin(&mut self) -> Result<(), RelayError> {
        let begun = self.client.begin_transaction();
        begun.map_err(|error| self.judge(&error))?;
        self.state = State::Open;
        Ok(())
    }

    /// Takes fates until all are known, or the time is over.
    fn await_fates(&self, end: Instant) {
        let mut left = self.client.in_flight_count();
        while left > 0 && Instant::now() < end {
            self.client.poll(Duration::ZERO);
            let before = std::mem::replace(&mut left, self.client.in_flight_count());
            // Not rdkafka's own wait, which goes round in circles for the last millisecond of any.
            if left == before {
                std::thread::park_timeout(FATE_SLICE);
            }
        }
    }

    /// Hands records of the transaction over and waits until each is stored or refused.
    fn transmit(&mut self, range: Range<usize>) -> Result<(), Failure> {
        let end = Instant::now() + self.patience;
        for index in range.clone() {
            self.enqueue(index, end)?;
        }
        // Nothing lingers here, so there is no need for rdkafka's flush, which takes 100 ms.
        self.await_fates(end);
        if self.client.in_flight_count() > 0 {
            return Err(self.silence(RDKafkaErrorCode::OperationTimedOut).into());
        }
        let failed = self.failed();
        let Some((_, first)) = failed.first().copied() else { return Ok(()) };
        self.state = State::MustAbort;
        if self.client.client().fatal_error().is_some() {
            return Err(self.fatal().into());
        }
        if first == RDKafkaErrorCode::MessageTimedOut {
            return Err(self.silence(first).into());
        }
        // What stood behind a refused batch is given up with it: not the first failure counts.
        let Some((index, code)) = failed.into_iter().find(|(_, code)| is_about_the_record(*code))
        else {
            return Err(RelayError::Abort(Trouble::new(first, "").message).into());
        };
        self.was_refused = true;
        let reason = format!("the broker refuses it: {code}");
        if range.len() == 1 {
            return Err(RelayError::Permanent { index, reason }.into());
        }
        Err(Failure::Refused { reason })
    }

    /// Nothing was confirmed in time. After a broker's crash a transactional client of librdkafka
    /// 2.12 can go on like that for minutes although the brokers are back, on some partitions
    /// only; a new client finds them at once, and takes over what this one left open.
    fn silence(&mut self, code: RDKafkaErrorCode) -> RelayError {
        self.state = State::Dead;
        RelayError::Recreate(self.common.health.explain(&KafkaError::Flush(code)).message)
    }

    /// Takes the fates that were bad.
    fn failed(&self) -> Vec<(usize, RDKafkaErrorCode)> {
        let fates = &self.client.context().extra;
        std::mem::take(&mut *fates.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn enqueue(&mut self, index: usize, end: Instant) -> Result<(), RelayError> {
        loop {
            let record = convert::outgoing(&self.transaction[index], index);
            let Err((error, _)) = self.client.send(record) else { return Ok(()) };
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
        let end = Instant::now() + self.patience;
        self.until_done(end, |client| {
            client.commit_transaction(end.saturating_duration_since(Instant::now()))
        })?;
        counter!(names::TRANSACTIONS.name, "outcome" => "committed").increment(1);
        self.common.health.clear();
        self.transaction.clear();
        self.state = State::Ready;
        Ok(())
    }

    fn abort(&mut self) -> Result<(), RelayError> {
        match self.state {
            State::Ready => return Ok(()),
            State::Open | State::MustAbort => {}
            State::Dead => return Err(RelayError::Recreate("it has failed before".into())),
        }
        // In slices: librdkafka waits for the fates of what it purges, and it is we who have to
        // take them from its queue.
        let end = Instant::now() + self.patience;
        self.until_done(end, |client| {
            client.poll(Duration::from_millis(1));
            client.abort_transaction(ABORT_SLICE)
        })?;
        drop(self.failed());
        counter!(names::TRANSACTIONS.name, "outcome" => "aborted").increment(1);
        self.transaction.clear();
        self.state = State::Ready;
        Ok(())
    }

    /// Calls again while the call itself says that this helps, as long as there is time.
    fn until_done(
        &mut self,
        end: Instant,
        call: impl Fn(&Client) -> Result<(), KafkaError>,
    ) -> Result<(), RelayError> {
        loop {
            let Err(error) = call(&self.client) else { return Ok(()) };
            let again = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
            if !again || Instant::now() > end {
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

/// Why records were not stored.
enum Failure {
    /// Final; the index of a permanent one counts from the beginning of the transaction.
    Relay(RelayError),
    /// A broker refuses a batch of several records because of one of them.
    Refused { reason: String },
}

impl From<RelayError> for Failure {
    fn from(error: RelayError) -> Self {
        Self::Relay(error)
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
