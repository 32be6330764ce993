//! Hears of every change of every number, whichever instance made it.
//!
//! One reader of topic user-states per process, without a group, from its end on; each client
//! has a bounded buffer. Nothing waits for a client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use actix_web::web::Bytes;
use prost::Message;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tollgate_schema::topics::USER_STATES;
use tollgate_schema::v1;
use tollgate_stream::{Incoming, ReadFrom, Stream, StreamError};

use super::answer::NumberAnswer;
use crate::{Settings, metrics};

/// Records taken from the topic at once.
const READ: usize = 500;
/// How long a read waits, which is also how soon a stop is noticed.
const WAIT: Duration = Duration::from_millis(500);
/// Pause before the topic is opened again.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// What clients are told.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// A number has a new state.
    State(Arc<State>),
    /// The reader had to begin again: changes may have been missed.
    Gap,
}

/// A new state.
#[derive(Debug)]
pub(super) struct State {
    /// The topic's key: the number or its pseudonym.
    pub number: String,
    pub version: u64,
    /// The whole event, as sent to clients.
    pub event: Bytes,
}

/// The live feed. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    changes: broadcast::Sender<Change>,
    clients: Arc<AtomicU32>,
    listening: Arc<AtomicBool>,
    max_clients: u32,
    pub(super) keep_alive: Duration,
    pub(super) stop: CancellationToken,
}

impl Feed {
    /// A feed that is silent until [`Feed::run`]; `stop` ends its clients' connections.
    pub fn new(settings: &Settings, stop: CancellationToken) -> Self {
        let (changes, _) = broadcast::channel(settings.changes_buffer as usize);
        ::metrics::gauge!(metrics::CLIENTS.name).increment(0.0); // Shown from the start.
        Self {
            changes,
            clients: Arc::default(),
            listening: Arc::default(),
            max_clients: settings.changes_max_clients,
            keep_alive: Duration::from_secs(settings.changes_keep_alive_seconds.into()),
            stop,
        }
    }

    /// Reads the topic until `stop`, beginning again whenever it must.
    pub async fn run(self, stream: Arc<dyn Stream>, stop: CancellationToken) {
        loop {
            let reading = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.read(&*stream) => ended,
            };
            self.listening.store(false, Ordering::Release);
            if let Err(error) = reading {
                tracing::warn!(%error, "live feed has lost its topic; it is opened again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(OPEN_AGAIN) => {}
            }
        }
    }

    async fn read(&self, stream: &dyn Stream) -> Result<(), StreamError> {
        let mut reader = stream.reader(&[USER_STATES.name], ReadFrom::Latest).await?;
        self.listening.store(true, Ordering::Release);
        // Whoever was connected before cannot know what happened until now.
        if self.changes.send(Change::Gap).is_ok() {
            ::metrics::counter!(metrics::FEED_GAPS.name).increment(1);
        }
        loop {
            for record in reader.next(READ, WAIT).await? {
                if let Some(change) = decode(&record) {
                    // Nobody listening is no error.
                    let _ = self.changes.send(change);
                }
            }
        }
    }

    /// A client; `None` when there are too many.
    pub(super) fn subscribe(&self) -> Option<Client> {
        let taken = self.clients.fetch_update(Ordering::AcqRel, Ordering::Acquire, |clients| {
            (clients < self.max_clients).then_some(clients + 1)
        });
        taken.ok()?;
        ::metrics::gauge!(metrics::CLIENTS.name).increment(1.0);
        Some(Client { changes: self.changes.subscribe(), clients: Arc::clone(&self.clients) })
    }

    /// Whether changes are being heard of at the moment.
    pub fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Acquire)
    }

    /// How many clients are connected.
    pub fn clients(&self) -> u32 {
        self.clients.load(Ordering::Acquire)
    }
}

/// A client's place; given back when dropped.
pub(super) struct Client {
    pub changes: broadcast::Receiver<Change>,
    clients: Arc<AtomicU32>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.clients.fetch_sub(1, Ordering::AcqRel);
        ::metrics::gauge!(metrics::CLIENTS.name).decrement(1.0);
    }
}

fn decode(record: &Incoming) -> Option<Change> {
    let state = v1::UserState::decode(record.value.clone()?).ok()?;
    let (number, version) = (state.number.clone(), state.version);
    let event = state_event(&NumberAnswer::from(state))?;
    Some(Change::State(Arc::new(State { number, version, event })))
}

/// A state as a server-sent event.
pub(super) fn state_event(answer: &NumberAnswer) -> Option<Bytes> {
    let data = serde_json::to_string(answer).ok()?;
    Some(Bytes::from(format!("id: {}\nevent: state\ndata: {data}\n\n", answer.version)))
}
