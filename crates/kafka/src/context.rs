//! What librdkafka calls back, the same for all kinds of client.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::counter;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

use crate::logs::{Limiter, Verdict};
use crate::metrics as names;
use crate::stats::Hub;
use crate::trouble::{Health, Trouble, code_of};

/// Kinds of client; the metric label `client`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Publishes what is safe in a spool.
    Spooled,
    /// Publishes what a sender waits for.
    Delivered,
    /// Member of a group.
    Consumer,
    /// Transactional producer.
    Relay,
    /// Reads without a group.
    Reader,
    /// Asks about topics.
    Admin,
}

impl Role {
    /// Value of the label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Spooled => "spooled",
            Self::Delivered => "delivered",
            Self::Consumer => "consumer",
            Self::Relay => "relay",
            Self::Reader => "reader",
            Self::Admin => "admin",
        }
    }
}

/// What the clients of one stream share.
#[derive(Debug, Default)]
pub struct Common {
    /// What was wrong lately.
    pub health: Health,
    hub: Hub,
    log_limiter: Limiter,
    error_limiter: Limiter,
}

/// What a kind of client needs besides.
pub trait Extra: Send + Sync + 'static {
    /// Takes note of the client's statistics.
    fn stats(&self, _statistics: &Statistics) {}
}

impl Extra for () {}

/// What is wrong with a client that [`Context::is_stranded`].
pub const STRANDED: &str = "the client knows no broker any more";

/// Reports without any broker after which nobody hopes for the next. One may fall between the
/// brokers that go and those of the settings, which librdkafka puts in their place.
const REPORTS: u32 = 2;

/// The context of one client; `extra` is what its kind needs besides.
pub struct Context<E> {
    id: u64,
    role: Role,
    common: Arc<Common>,
    last_error: Mutex<Option<(RDKafkaErrorCode, String)>>,
    /// Statistics in a row that named no broker.
    without_brokers: AtomicU32,
    /// Statistics so far.
    reports: AtomicU64,
    /// Deliveries, rebalances, or nothing.
    pub extra: E,
}

impl<E> Context<E> {
    /// A context for one client.
    pub fn new(role: Role, common: &Arc<Common>, extra: E) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            role,
            common: Arc::clone(common),
            last_error: Mutex::default(),
            without_brokers: AtomicU32::new(0),
            reports: AtomicU64::new(0),
            extra,
        }
    }

    /// What was wrong lately.
    pub fn health(&self) -> &Health {
        &self.common.health
    }

    /// Whether the client knows no broker any more, so that it will never reach one again.
    /// librdkafka (2.12.1) lets go of all when a broker that is cut off from its cluster names
    /// none, and does not always come back to those of the settings.
    pub fn is_stranded(&self) -> bool {
        self.without_brokers.load(Ordering::Relaxed) >= REPORTS
    }

    /// How many statistics the client has reported.
    pub fn reports(&self) -> u64 {
        self.reports.load(Ordering::Relaxed)
    }

    fn note_brokers(&self, statistics: &Statistics) {
        let is_real = |source: &str| !matches!(source, "internal" | "logical");
        if statistics.brokers.values().any(|broker| is_real(&broker.source)) {
            self.without_brokers.store(0, Ordering::Relaxed);
        } else {
            self.without_brokers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes a trouble, counts it and says it.
    pub fn tell(&self, trouble: &Trouble) {
        self.health().note(trouble);
        let client = self.role.label();
        let reason = trouble.kind.label();
        counter!(names::ERRORS.name, "client" => client, "reason" => reason).increment(1);
        if let Verdict::Pass { dropped } = self.common.error_limiter.admit() {
            tracing::warn!(client, reason, dropped, "Kafka: {}", trouble.message);
        }
    }

    /// The same for what befell a record; what passes by itself is not worth a word for each.
    pub fn tell_of_record(&self, trouble: &Trouble) {
        if trouble.kind.needs_somebody() {
            self.tell(trouble);
        }
    }

    /// rdkafka tells a producer's context each error twice in a row; only the first counts.
    fn is_echo(&self, code: RDKafkaErrorCode, reason: &str) -> bool {
        if !matches!(self.role, Role::Spooled | Role::Delivered | Role::Relay) {
            return false;
        }
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        if last.take_if(|(known, text)| *known == code && text == reason).is_some() {
            return true;
        }
        *last = Some((code, reason.to_owned()));
        false
    }
}

impl<E> Drop for Context<E> {
    fn drop(&mut self) {
        self.common.hub.forget(self.id);
    }
}

impl<E: Extra> ClientContext for Context<E> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let client = self.role.label();
        let dropped = match self.common.log_limiter.admit() {
            Verdict::Pass { dropped } => dropped,
            Verdict::Drop => {
                counter!(names::LOG_LINES_DROPPED.name, "client" => client).increment(1);
                return;
            }
        };
        // Never as an error: what matters arrives through `error`, with advice.
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(client, facility, dropped, "librdkafka: {line}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(client, facility, dropped, "librdkafka: {line}");
            }
            RDKafkaLogLevel::Debug => {
                tracing::debug!(client, facility, dropped, "librdkafka: {line}");
            }
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.reports.fetch_add(1, Ordering::Relaxed);
        self.common.hub.report(self.id, self.role, &statistics);
        self.extra.stats(&statistics);
        self.note_brokers(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = code_of(&error);
        if code == RDKafkaErrorCode::PartitionEOF || self.is_echo(code, reason) {
            return;
        }
        self.tell(&Trouble::new(code, reason));
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::Broker;

    use super::*;

    #[test]
    fn a_client_is_stranded_when_report_after_report_names_no_broker() {
        let context = Context::new(Role::Admin, &Arc::default(), ());
        let report = |source: &str| {
            let mut statistics = Statistics::default();
            let broker = Broker { source: source.to_owned(), ..Broker::default() };
            statistics.brokers.insert(source.to_owned(), broker);
            statistics
        };
        let stranded = |sources: &[&str]| {
            for source in sources {
                context.note_brokers(&report(source));
            }
            context.is_stranded()
        };
        assert!(!stranded(&["configured", "learned", "logical"]));
        assert!(!stranded(&["configured", "internal"]));
        assert!(stranded(&["learned", "internal", "logical"]));
        assert!(!stranded(&["learned"]));
    }
}
