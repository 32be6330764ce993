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
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tollgate_schema::topics::USER_STATES;
use tollgate_schema::v1;
use tollgate_stream::{Incoming, ReadFrom, Stream, StreamError, TopicReader};

use super::answer::NumberAnswer;
use crate::{Settings, metrics};

/// Records taken from the topic at once.
const READ: usize = 500;
/// How long a read waits, which is also how soon a stop is noticed.
const WAIT: Duration = Duration::from_millis(500);
/// A reader that has been silent for so long is asked whether it has read everything, and again
/// after as long: by that it notices that it is stuck.
const LOOK: Duration = Duration::from_secs(10);
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
    /// Ends the clients' connections.
    pub(super) stopped: CancellationToken,
}

impl Feed {
    /// A feed that is silent until [`Feed::run`].
    pub fn new(settings: &Settings) -> Self {
        let (changes, _) = broadcast::channel(settings.changes_buffer as usize);
        ::metrics::gauge!(metrics::CLIENTS.name).increment(0.0); // Shown from the start.
        Self {
            changes,
            clients: Arc::default(),
            listening: Arc::default(),
            max_clients: settings.changes_max_clients,
            keep_alive: Duration::from_secs(settings.changes_keep_alive_seconds.into()),
            stopped: CancellationToken::new(),
        }
    }

    /// Reads the topic until `stop`, beginning again whenever it must. Its clients' connections end
    /// with it.
    pub async fn run(self, stream: Arc<dyn Stream>, stop: CancellationToken) {
        let _ends_the_clients = self.stopped.clone().drop_guard();
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
        let mut looked = Instant::now();
        loop {
            let records = reader.next(READ, WAIT).await?;
            if !records.is_empty() {
                looked = Instant::now();
            } else if looked.elapsed() >= LOOK {
                look(&mut *reader).await?;
                looked = Instant::now();
            }
            for record in records {
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

/// Gives a silent reader the occasion to begin anew where it stands. No answer is no reason to give
/// the reading up: it goes on when the brokers are back.
async fn look(reader: &mut dyn TopicReader) -> Result<(), StreamError> {
    match reader.caught_up().await {
        Ok(_) => Ok(()),
        Err(StreamError::Transient(error)) => {
            tracing::debug!(error, "live feed cannot be compared with its topic for the moment");
            Ok(())
        }
        Err(error) => Err(error),
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tollgate_stream::{
        Consumer, ConsumerOptions, Deliveries, Producer, ProducerKind, Relay, TopicDescription,
        TopicPartition, TopicSpec,
    };

    use super::*;

    /// A topic whose reader is stuck: its record comes once it has been asked twice whether it has
    /// read everything, the first time in vain.
    struct Stuck;

    #[derive(Default)]
    struct StuckReader {
        asked: u32,
        read: bool,
    }

    fn away<T>() -> Result<T, StreamError> {
        Err(StreamError::Transient("no broker answers".to_owned()))
    }

    #[async_trait]
    impl TopicReader for StuckReader {
        async fn next(&mut self, _: usize, wait: Duration) -> Result<Vec<Incoming>, StreamError> {
            tokio::time::sleep(wait).await;
            if self.asked < 2 || std::mem::replace(&mut self.read, true) {
                return Ok(Vec::new());
            }
            let state = v1::UserState { number: "A".to_owned(), version: 7, ..Default::default() };
            Ok(vec![Incoming {
                partition: TopicPartition::new(USER_STATES.name, 0),
                offset: 0,
                timestamp_ms: 0,
                key: "A".into(),
                value: Some(state.encode_to_vec().into()),
                headers: Vec::new(),
            }])
        }

        async fn caught_up(&mut self) -> Result<bool, StreamError> {
            self.asked += 1;
            if self.asked == 1 { away() } else { Ok(false) }
        }
    }

    #[async_trait]
    impl Stream for Stuck {
        async fn cluster_id(&self) -> Result<String, StreamError> {
            away()
        }

        fn producer(
            &self,
            _: ProducerKind,
            _: Arc<dyn Deliveries>,
        ) -> Result<Arc<dyn Producer>, StreamError> {
            away()
        }

        async fn consumer(&self, _: ConsumerOptions) -> Result<Box<dyn Consumer>, StreamError> {
            away()
        }

        async fn relay(&self, _: &str) -> Result<Box<dyn Relay>, StreamError> {
            away()
        }

        async fn reader(
            &self,
            _: &[&str],
            _: ReadFrom,
        ) -> Result<Box<dyn TopicReader>, StreamError> {
            Ok(Box::<StuckReader>::default())
        }

        async fn watermarks(&self, _: &TopicPartition) -> Result<(i64, i64), StreamError> {
            away()
        }

        async fn create_topics(&self, _: &[TopicSpec]) -> Result<Vec<String>, StreamError> {
            away()
        }

        async fn describe_topics(&self, _: &[&str]) -> Result<Vec<TopicDescription>, StreamError> {
            away()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_reader_is_asked_whether_it_is_stuck_and_read_on_with_if_nobody_answers() {
        let stop = CancellationToken::new();
        let feed = Feed::new(&Settings::default());
        let mut client = feed.subscribe().expect("room for a client");
        tokio::spawn(feed.run(Arc::new(Stuck), stop));
        let mut changes = Vec::new();
        while changes.len() < 2 {
            let change = tokio::time::timeout(Duration::from_mins(1), client.changes.recv());
            changes.push(change.await.expect("a change within its time").expect("a feed"));
        }
        // The topic was opened once.
        let [Change::Gap, Change::State(state)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((&*state.number, state.version), ("A", 7));
    }
}
