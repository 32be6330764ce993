//! The member's thread: owns the client, the assignment and what was read ahead.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use metrics::counter;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use tollgate_stream::{Event, Incoming, StreamError, TopicPartition};

use super::assignment::{Assignment, Fate};
use super::membership::Membership;
use super::rebalance::{Change, Rebalances};
use super::{Command, Reply};
use crate::context::{Common, Context, Role, STRANDED};
use crate::pulse::Pulse;
use crate::settings::GroupProtocol;
use crate::trouble::{Kind, Trouble, code_of};
use crate::{convert, metrics as names};

/// Longest stay in one poll; how soon a caller's giving up is noticed.
const SLICE: Duration = Duration::from_millis(50);

/// Longest wait for where a partition ends: nothing is polled meanwhile.
const QUESTION: Duration = Duration::from_secs(5);
/// After a question without an answer.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

type Client = BaseConsumer<Context<Rebalances>>;

/// How to join.
pub struct Options {
    pub config: ClientConfig,
    pub common: Arc<Common>,
    pub topics: Vec<Arc<str>>,
    pub protocol: GroupProtocol,
    pub operation_timeout: Duration,
    /// How often the client reports; zero for never.
    pub statistics_interval: Duration,
    /// Pause after a fatal error; how long the group's coordinator may be away.
    pub rejoin_after: Duration,
    pub close_timeout: Duration,
}

impl Options {
    /// Where a message stands. Its topic is one of those that are read; no record needs a name of
    /// its own.
    fn partition_of(&self, message: &BorrowedMessage<'_>) -> TopicPartition {
        let topic = message.topic();
        let known = self.topics.iter().find(|known| &***known == topic);
        TopicPartition::new(known.map_or_else(|| topic.into(), Arc::clone), message.partition())
    }
}

pub struct Member {
    options: Options,
    client: Client,
    /// When to join; `None` when that is done.
    join: Option<Join>,
    assignment: Assignment,
    /// Changes of the group, to be told before anything else.
    events: VecDeque<Event>,
    /// Errors whose caller had gone.
    errors: VecDeque<StreamError>,
    /// Records taken from the client and not handed out, each with its partition's turn.
    buffer: VecDeque<(u64, Incoming)>,
    /// The client has given up a position that its partition does not have, and has said so once,
    /// without its name: when to look for it.
    gave_up: Option<Instant>,
    pulse: Pulse,
}

/// When to join: at an instant, or as soon as the client before has left.
struct Join {
    at: Instant,
    after: Option<JoinHandle<()>>,
}

/// Rounded up: rdkafka goes round without sleeping through the rest of a millisecond, which was a
/// tenth of a consumer's processor time.
fn whole_millis(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

impl Join {
    fn is_due(&self) -> bool {
        self.at <= Instant::now() || self.after.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Member {
    pub fn new(options: Options) -> Result<Self, StreamError> {
        let client = new_client(&options)?;
        let pulse = Pulse::new(options.statistics_interval, Instant::now());
        Ok(Self {
            options,
            client,
            join: Some(Join { at: Instant::now(), after: None }),
            assignment: Assignment::default(),
            events: VecDeque::new(),
            errors: VecDeque::new(),
            buffer: VecDeque::new(),
            gave_up: None,
            pulse,
        })
    }

    /// Serves until nobody can ask any more, then leaves the group.
    pub fn run(mut self, inbox: &mpsc::Receiver<Command>) {
        while let Ok(command) = inbox.recv() {
            self.serve(command);
        }
        // Dropping the client closes it: revokes, leaves, waits. Bounded by who waits for us.
        drop(self.client);
    }

    fn serve(&mut self, command: Command) {
        match command {
            Command::Next { max, wait, reply } => self.next(max, wait, reply),
            Command::Start { partition, offset, reply } => {
                let held = self.assignment.start(&partition, offset);
                self.forget_stale();
                let result = if held { Ok(()) } else { Err(not_held(&partition)) };
                let _ = reply.send(result);
            }
            Command::Stop { partition, reply } => {
                self.assignment.stop(&partition);
                self.forget_stale();
                let _ = reply.send(Ok(()));
            }
            Command::Pause { partition, reply } => {
                let tell = self.assignment.pause(&partition);
                let _ = reply.send(self.tell(tell, &partition, Client::pause));
            }
            Command::Resume { partition, reply } => {
                let tell = self.assignment.resume(&partition);
                let _ = reply.send(self.tell(tell, &partition, Client::resume));
            }
            Command::Progress { offsets } => self.report_progress(&offsets),
        }
    }

    fn tell(
        &self,
        tell: bool,
        partition: &TopicPartition,
        call: fn(&Client, &rdkafka::TopicPartitionList) -> KafkaResult<()>,
    ) -> Result<(), StreamError> {
        // What is not fetched yet is told when it is.
        if !tell || !self.client.context().extra.lock().fetching.contains(partition) {
            return Ok(());
        }
        call(&self.client, &convert::bare_list([partition]))
            .map_err(|error| Trouble::from_error(&error).into_stream_error())
    }

    fn next(&mut self, max: usize, wait: Duration, reply: Reply<Event>) {
        let end = Instant::now() + wait;
        let result = loop {
            if let Some(ready) = self.ready(max) {
                break ready;
            }
            let prepared = self
                .rejoin_when_in_doubt()
                .and_then(|()| self.join_when_due())
                .and_then(|()| self.apply())
                .and_then(|()| self.listen());
            if let Err(error) = prepared {
                break Err(error);
            }
            self.find_given_up();
            let left = end.saturating_duration_since(Instant::now());
            if let Err(error) = self.poll(max, whole_millis(left).min(SLICE)) {
                break Err(error);
            }
            if let Some(ready) = self.ready(max) {
                break ready;
            }
            if left.is_zero() {
                break Ok(Event::Idle);
            }
            if reply.is_closed() {
                return;
            }
        };
        if let Err(unheard) = reply.send(result) {
            self.put_back(unheard);
        }
    }

    fn join_when_due(&mut self) -> Result<(), StreamError> {
        if self.join.as_ref().is_some_and(Join::is_due) {
            let topics: Vec<&str> = self.options.topics.iter().map(|topic| &**topic).collect();
            self.client
                .subscribe(&topics)
                .map_err(|error| StreamError::Fatal(error.to_string()))?;
            self.join = None;
        }
        Ok(())
    }

    /// What can be told without asking the client.
    fn ready(&mut self, max: usize) -> Option<Result<Event, StreamError>> {
        if let Some(event) = self.events.pop_front() {
            return Some(Ok(event));
        }
        if let Some(error) = self.errors.pop_front() {
            return Some(Err(error));
        }
        let mut records = Vec::new();
        let mut kept = VecDeque::new();
        while let Some((turn, record)) = self.buffer.pop_front() {
            match self.assignment.fate(&record.partition, turn) {
                Fate::Deliver if records.len() < max => records.push(record),
                Fate::Deliver | Fate::Keep => kept.push_back((turn, record)),
                Fate::Drop => {}
            }
        }
        self.buffer = kept;
        (!records.is_empty()).then_some(Ok(Event::Records(records)))
    }

    /// The caller was gone before it heard this.
    fn put_back(&mut self, unheard: Result<Event, StreamError>) {
        match unheard {
            Ok(Event::Records(records)) => {
                // Nothing happened since they were taken out: their turn is the present one.
                for record in records.into_iter().rev() {
                    if let Some(turn) = self.assignment.turn(&record.partition) {
                        self.buffer.push_front((turn, record));
                    }
                }
            }
            Ok(Event::Idle) => {}
            Ok(event) => self.events.push_front(event),
            Err(error) => self.errors.push_back(error),
        }
    }

    fn forget_stale(&mut self) {
        let assignment = &self.assignment;
        self.buffer
            .retain(|(turn, record)| assignment.fate(&record.partition, *turn) != Fate::Drop);
    }

    /// Makes the client fetch what is wanted, from where it is wanted.
    fn apply(&mut self) -> Result<(), StreamError> {
        if !self.assignment.is_dirty() {
            return Ok(());
        }
        let wanted = self.assignment.wanted();
        let applied = match self.options.protocol {
            GroupProtocol::Classic => self.assign_all(&wanted),
            GroupProtocol::Consumer => self.assign_difference(&wanted),
        };
        applied
            .and_then(|()| {
                let paused = self.assignment.paused();
                if paused.is_empty() {
                    return Ok(());
                }
                self.client.pause(&convert::bare_list(&paused))
            })
            .map_err(|error| Trouble::from_error(&error).into_stream_error())?;
        self.assignment.applied();
        Ok(())
    }

    /// Eager groups take whole assignments only; each partition goes on where it stands.
    fn assign_all(&self, wanted: &[(TopicPartition, i64)]) -> KafkaResult<()> {
        self.client.assign(&convert::list(wanted.iter().map(|(p, offset)| (p, *offset)))?)?;
        // A pause outlives an assignment in librdkafka.
        let partitions: Vec<&TopicPartition> = wanted.iter().map(|(p, _)| p).collect();
        self.client.resume(&convert::bare_list(partitions.iter().copied()))?;
        let mut state = self.client.context().extra.lock();
        state.fetching = partitions.into_iter().cloned().collect();
        Ok(())
    }

    fn assign_difference(&self, wanted: &[(TopicPartition, i64)]) -> KafkaResult<()> {
        let mut state = self.client.context().extra.lock();
        let stays = |partition: &TopicPartition| {
            wanted.iter().any(|(p, _)| p == partition) && !self.assignment.begins_anew(partition)
        };
        let go: Vec<_> = state.fetching.iter().filter(|p| !stays(p)).cloned().collect();
        if !go.is_empty() {
            self.client.incremental_unassign(&convert::bare_list(&go))?;
            state.fetching.retain(|partition| !go.contains(partition));
        }
        let come: Vec<_> =
            wanted.iter().filter(|(p, _)| !state.fetching.contains(p)).cloned().collect();
        if !come.is_empty() {
            let list = convert::list(come.iter().map(|(p, offset)| (p, *offset)))?;
            self.client.incremental_assign(&list)?;
            self.client.resume(&convert::bare_list(come.iter().map(|(p, _)| p)))?;
            state.fetching.extend(come.into_iter().map(|(partition, _)| partition));
        }
        Ok(())
    }

    /// Takes up to `max` records from the client, waiting for the first only.
    fn poll(&mut self, max: usize, wait: Duration) -> Result<(), StreamError> {
        let mut wait = wait;
        let mut taken = 0;
        while taken < max {
            let polled = self.client.poll(wait);
            let failed = match polled {
                None => None,
                Some(Err(error)) => Some(error),
                Some(Ok(message)) => {
                    taken += 1;
                    let partition = self.options.partition_of(&message);
                    if let Some(turn) = self.assignment.take(&partition, message.offset()) {
                        let record = convert::incoming(&message, partition);
                        self.buffer.push_back((turn, record));
                    }
                    wait = Duration::ZERO;
                    continue;
                }
            };
            self.note_changes();
            if let Some(error) = failed {
                self.fail(&error)?;
            }
            break;
        }
        self.note_changes();
        Ok(())
    }

    fn note_changes(&mut self) {
        let changes = std::mem::take(&mut self.client.context().extra.lock().changes);
        for change in changes {
            match change {
                Change::Assigned(partitions) => {
                    self.assignment.assign(&partitions);
                    self.events.push_back(Event::Assigned(partitions));
                }
                Change::Revoked(partitions) => {
                    self.assignment.revoke(&partitions);
                    self.errors.retain(|error| !is_about(error, &partitions));
                    self.forget_stale();
                    self.events.push_back(Event::Revoked(partitions));
                }
            }
        }
    }

    /// What an error of the client means; `Ok` when it heals by itself.
    fn fail(&mut self, error: &KafkaError) -> Result<(), StreamError> {
        if code_of(error) == RDKafkaErrorCode::AutoOffsetReset {
            self.gave_up = Some(Instant::now());
            return Ok(());
        }
        if let Some((code, reason)) = self.client.client().fatal_error() {
            return Err(self.begin_anew(code, &reason));
        }
        let trouble = Trouble::from_error(error);
        match trouble.kind {
            Kind::Unreachable => Ok(()),
            _ => Err(trouble.into_stream_error()),
        }
    }

    /// Some position is not retained any more, or not there yet; librdkafka does not say which. Looks
    /// until every partition could be asked, and polls meanwhile.
    fn find_given_up(&mut self) {
        let now = Instant::now();
        if self.gave_up.is_none_or(|look_at| now < look_at) {
            return;
        }
        let mut found = Vec::new();
        for (partition, offset) in self.assignment.wanted() {
            match self.watermarks(&partition) {
                Ok((low, high)) if offset < low || offset > high => found.push((partition, offset)),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%partition, %error, "it is not known where a partition ends");
                    self.gave_up = Some(now + LOOK_AGAIN);
                    return;
                }
            }
        }
        self.gave_up = None;
        if found.is_empty() {
            // A log that was cut has grown again to where somebody reads: that one reads other
            // records there. The mark tells, where a partition starts.
            found = self.assignment.wanted();
        }
        for (partition, offset) in found {
            self.assignment.stop(&partition);
            self.errors.push_back(StreamError::OffsetOutOfRange { partition, offset });
        }
        self.forget_stale();
    }

    fn listen(&mut self) -> Result<(), StreamError> {
        match self.pulse.trouble(self.client.context().reports(), Instant::now()) {
            None => Ok(()),
            Some(trouble) => {
                self.client.context().tell(&trouble);
                Err(StreamError::Fatal(trouble.message))
            }
        }
    }

    /// The client can go on only as a new one, for instance because another member came with the
    /// same `group.instance.id`.
    fn begin_anew(&mut self, code: RDKafkaErrorCode, reason: &str) -> StreamError {
        let trouble = Trouble::new(code, reason);
        // Two members with one instance id would throw each other out without end: slowly, then.
        match self.replace_client(&trouble.message) {
            Ok(_) => trouble.into_stream_error(),
            Err(error) => error,
        }
    }

    /// The group may think otherwise of the client than the client does.
    fn rejoin_when_in_doubt(&mut self) -> Result<(), StreamError> {
        let context = self.client.context();
        let stranded = context.is_stranded().then_some(STRANDED);
        let Some(doubt) = stranded.or_else(|| context.extra.lock().doubt.take()) else {
            return Ok(());
        };
        let left = self.replace_client(doubt)?;
        // A static member is not let in while its former self is.
        self.join = self.join.take().map(|join| Join { after: Some(left), ..join });
        Ok(())
    }

    /// Puts a new client in place of the old one, to join after a while; returns the thread that
    /// closes the old one.
    fn replace_client(&mut self, reason: &str) -> Result<JoinHandle<()>, StreamError> {
        let client = Role::Consumer.label();
        counter!(names::RECREATIONS.name, "client" => client).increment(1);
        tracing::warn!(client, "Kafka consumer is made anew: {reason}");
        let old = std::mem::replace(&mut self.client, new_client(&self.options)?);
        self.pulse = Pulse::new(self.options.statistics_interval, Instant::now());
        self.gave_up = None;
        // Closing may take long, and its partitions are lost already.
        let left = thread::spawn(move || drop(old));
        self.join = Some(Join { at: Instant::now() + self.options.rejoin_after, after: None });
        let held = self.assignment.held();
        self.assignment.revoke(&held);
        self.forget_stale();
        if !held.is_empty() {
            self.events.push_back(Event::Revoked(held));
        }
        Ok(left)
    }

    fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), StreamError> {
        let timeout = self.options.operation_timeout.min(QUESTION);
        self.client
            .fetch_watermarks(&partition.topic, partition.partition, timeout)
            .map_err(|error| self.options.common.health.explain(&error).into_stream_error())
    }

    fn report_progress(&self, offsets: &[(TopicPartition, i64)]) {
        let held = offsets
            .iter()
            .filter(|(partition, _)| self.assignment.holds(partition))
            .map(|(partition, offset)| (partition, *offset));
        let committed = convert::list(held).and_then(|list| {
            if list.count() == 0 { Ok(()) } else { self.client.commit(&list, CommitMode::Async) }
        });
        if let Err(error) = committed {
            tracing::debug!("offsets for lag tools were not written: {error}");
        }
    }
}

fn new_client(options: &Options) -> Result<Client, StreamError> {
    let membership = Membership::new(options.protocol, options.rejoin_after, Instant::now());
    let rebalances = Rebalances::new(options.protocol, membership);
    let context = Context::new(Role::Consumer, &options.common, rebalances);
    options
        .config
        .create_with_context(context)
        .map_err(|error| StreamError::Fatal(error.to_string()))
}

fn is_about(error: &StreamError, partitions: &[TopicPartition]) -> bool {
    matches!(error, StreamError::OffsetOutOfRange { partition, .. } if partitions.contains(partition))
}

fn not_held(partition: &TopicPartition) -> StreamError {
    StreamError::Transient(format!("{partition} was taken away meanwhile"))
}
