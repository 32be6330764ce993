//! The producer's own thread: polls, replaces the client after a fatal error, and closes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig};
use tollgate_stream::Token;

use super::{Client, Factory, Shared};
use crate::context::STRANDED;
use crate::metrics as names;
use crate::pulse::Pulse;
use crate::trouble::{Kind, Trouble};

/// Longest stay in one poll, or away from it while a sender polls; what a stop or a flush waits for
/// at most.
const SLICE: Duration = Duration::from_millis(50);
/// Purged records are reported within milliseconds; past this something is badly wrong.
const PURGE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A client that lived this long was well; the pause begins anew.
const WELL: Duration = Duration::from_mins(1);

pub struct Driver {
    factory: Factory,
    shared: Arc<Shared>,
    /// For records whose batch was refused; made when the first is.
    alone: Option<Client>,
    pause: Duration,
    born: Instant,
    pulse: Pulse,
}

impl Driver {
    pub fn new(factory: Factory, shared: Arc<Shared>) -> Self {
        let born = Instant::now();
        let pulse = Pulse::new(factory.statistics_interval, born);
        Self { factory, shared, alone: None, pause: FIRST_PAUSE, born, pulse }
    }

    pub fn run(mut self) {
        while !self.stopped() {
            let Some(client) = self.client() else {
                self.replace();
                continue;
            };
            self.poll(&client);
            if let Some(trouble) = end_of(&client) {
                self.discard(client, &trouble);
            } else if let Some(trouble) =
                self.pulse.trouble(client.context().reports(), Instant::now())
            {
                // Not closed: that would hang as well. Its records wait in the spool for another
                // process; this one goes on storing what comes.
                client.context().tell(&trouble);
            }
        }
        if let Some(client) = self.take_client() {
            self.close(client);
        }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    fn client(&self) -> Option<Arc<Client>> {
        self.shared.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From here on nothing is sent through it.
    fn take_client(&self) -> Option<Arc<Client>> {
        self.shared.client.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn poll(&mut self, client: &Client) {
        if self.shared.flushes.load(Ordering::Relaxed) > 0 {
            // Polls as well, and lets nothing linger.
            let _ = client.flush(SLICE);
            if self.shared.ledger.in_flight() == 0 {
                client.poll(SLICE);
            }
        } else if self.shared.polled.swap(false, Ordering::Relaxed) {
            std::thread::park_timeout(SLICE);
        } else {
            client.poll(SLICE);
        }
        for (message, token) in client.context().extra.suspects() {
            self.send_alone(&message, token);
        }
        let Some(alone) = &self.alone else { return };
        let busy = alone.in_flight_count() > 0;
        alone.poll(if busy { Duration::from_millis(5) } else { Duration::ZERO });
        if alone.client().fatal_error().is_some()
            && let Some(alone) = self.alone.take()
        {
            self.drain(&alone);
        }
    }

    fn send_alone(&mut self, message: &OwnedMessage, token: Token) {
        let ledger = Arc::clone(&self.shared.ledger);
        if self.alone.is_none() {
            match self.factory.lone_client() {
                Ok(client) => self.alone = Some(client),
                Err(error) => {
                    ledger.retry(token, &error.to_string());
                    return;
                }
            }
        }
        let Some(client) = &self.alone else { return };
        counter!(names::SENT_ALONE.name, "client" => self.factory.role.label()).increment(1);
        let mut record: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(message.topic(), token as usize);
        record.key = message.key();
        record.payload = message.payload();
        record.headers = message.headers().cloned();
        if let Err((error, _)) = client.send(record) {
            ledger.retry(token, &error.to_string());
        }
    }

    /// Everything queued goes back to its sender.
    fn discard(&mut self, client: Arc<Client>, trouble: &Trouble) {
        let client_label = self.factory.role.label();
        client.context().health().note(trouble);
        counter!(names::RECREATIONS.name, "client" => client_label).increment(1);
        tracing::warn!(
            client = client_label,
            reason = Kind::Fatal.label(),
            "Kafka producer is made anew, its records are sent again: {}",
            trouble.message
        );
        drop(self.take_client());
        self.close(client);
        if self.born.elapsed() > WELL {
            self.pause = FIRST_PAUSE;
        }
        let end = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        while !self.stopped() && Instant::now() < end {
            std::thread::park_timeout(SLICE);
        }
    }

    fn replace(&mut self) {
        match self.factory.main_client() {
            Ok(client) => {
                self.born = Instant::now();
                self.pulse = Pulse::new(self.factory.statistics_interval, self.born);
                let mut slot = self.shared.client.write().unwrap_or_else(PoisonError::into_inner);
                *slot = Some(Arc::new(client));
            }
            Err(error) => {
                tracing::error!("cannot make a Kafka producer, trying again: {error}");
                std::thread::park_timeout(FIRST_PAUSE);
            }
        }
    }

    /// Reports everything that is still in the clients and drops them.
    fn close(&mut self, client: Arc<Client>) {
        self.drain(&client);
        if let Some(alone) = self.alone.take() {
            self.drain(&alone);
        }
        drop(client);
    }

    fn drain(&self, client: &Client) {
        client.purge(PurgeConfig::default().queue().inflight());
        let end = Instant::now() + PURGE;
        while client.in_flight_count() > 0 && Instant::now() < end {
            client.poll(Duration::from_millis(5));
        }
        for (_, token) in client.context().extra.suspects() {
            self.shared.ledger.retry(token, "the producer was closed or made anew first");
        }
        if client.in_flight_count() > 0 {
            tracing::error!("a Kafka producer did not give its records back within {PURGE:?}");
        }
    }
}

/// Why a client can not go on, if so.
fn end_of(client: &Client) -> Option<Trouble> {
    // Of a missing right librdkafka says nothing but that it is fatal.
    let fatal = client.client().fatal_error().map(|(code, reason)| Trouble::new(code, &reason));
    let stranded = || Trouble::new(RDKafkaErrorCode::AllBrokersDown, STRANDED);
    fatal.or_else(|| client.context().is_stranded().then(stranded))
}
