//! What is wrong with the cluster or with our access to it, said so that one knows what to do.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tollgate_stream::StreamError;

/// The kinds of trouble; the label `reason` of the error metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// User or password.
    Authentication,
    /// Certificates, or TLS where the listener speaks none.
    Tls,
    /// Missing access control entries.
    Authorization,
    /// A topic that is not there.
    UnknownTopic,
    /// Records whose time the broker does not believe.
    Timestamp,
    /// The client can go on only as a new one.
    Fatal,
    /// The client has locked itself up.
    Hung,
    /// Brokers or leaders away, time-outs.
    Unreachable,
    /// Anything else.
    Other,
}

impl Kind {
    /// Value of the metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Tls => "tls",
            Self::Authorization => "authorization",
            Self::UnknownTopic => "unknown_topic",
            Self::Timestamp => "timestamp",
            Self::Fatal => "fatal",
            Self::Hung => "hung",
            Self::Unreachable => "unreachable",
            Self::Other => "other",
        }
    }

    /// Whether somebody has to mend something: it does not pass by itself.
    pub fn needs_somebody(self) -> bool {
        matches!(
            self,
            Self::Authentication
                | Self::Tls
                | Self::Authorization
                | Self::UnknownTopic
                | Self::Timestamp
                | Self::Hung
        )
    }
}

/// One trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Which kind.
    pub kind: Kind,
    /// What it is and what to do. Names brokers, topics and settings, never a record's content.
    pub message: String,
}

impl Trouble {
    /// From an error code and what librdkafka says about it.
    pub fn new(code: RDKafkaErrorCode, detail: &str) -> Self {
        use RDKafkaErrorCode as Code;
        let (kind, advice) = match code {
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState => (
                Kind::Authentication,
                "the cluster does not accept the user or the password: check sasl_username, \
                 sasl_password_file and sasl_mechanism",
            ),
            Code::SSL => (Kind::Tls, tls_advice(detail)),
            Code::TopicAuthorizationFailed => (
                Kind::Authorization,
                "an ACL is missing: allow the user to read, write and describe the topic",
            ),
            Code::GroupAuthorizationFailed => (
                Kind::Authorization,
                "an ACL is missing: allow the user to read the consumer group",
            ),
            Code::TransactionalIdAuthorizationFailed => (
                Kind::Authorization,
                "an ACL is missing: allow the user to write and describe the transactional ids",
            ),
            Code::ClusterAuthorizationFailed => (
                Kind::Authorization,
                "an ACL is missing: allow the user to write to the topics, which idempotent \
                 publishing needs, and for creating topics to create in the cluster",
            ),
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                (Kind::UnknownTopic, "the topic is not there: run `tollgate topics create`")
            }
            Code::FencedInstanceId => (
                Kind::Fatal,
                "another consumer has come with the same instance id: give each its own",
            ),
            Code::Fatal => (Kind::Fatal, "the client is made anew"),
            code if is_passing(code) => (
                Kind::Unreachable,
                "no answer from the cluster: check brokers, and security_protocol",
            ),
            _ => (Kind::Other, "see docs/operations.md, Kafka"),
        };
        let detail = if detail.is_empty() { code.to_string() } else { detail.to_owned() };
        Self { kind, message: format!("{advice} ({detail})") }
    }

    /// From an error of a call; the code alone says what it is.
    pub fn from_error(error: &KafkaError) -> Self {
        let code = code_of(error);
        match error {
            KafkaError::Transaction(error) => Self::new(code, &error.string()),
            KafkaError::MessageConsumptionFatal(code) => {
                Self { kind: Kind::Fatal, ..Self::new(*code, "") }
            }
            _ if code == RDKafkaErrorCode::Unknown => {
                Self { kind: Kind::Other, message: error.to_string() }
            }
            _ => Self::new(code, ""),
        }
    }

    /// What a caller of the stream gets.
    pub fn into_stream_error(self) -> StreamError {
        if self.kind.needs_somebody() {
            StreamError::Refused(self.message)
        } else {
            StreamError::Transient(self.message)
        }
    }
}

/// The code of an error; `Unknown` where it carries none.
pub fn code_of(error: &KafkaError) -> RDKafkaErrorCode {
    match error {
        KafkaError::AdminOp(code) => *code,
        other => other.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown),
    }
}

fn tls_advice(detail: &str) -> &'static str {
    if detail.contains("certificate verify failed") || detail.contains("could not be verified") {
        "the broker's certificate is not trusted: check that ssl_ca_file holds the authority that \
         signed it, and that it is for the host names in use"
    } else {
        "no TLS connection: check that the brokers' listener speaks TLS, and ssl_certificate_file \
         if they ask for a certificate"
    }
}

fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::MessageTimedOut
            | Code::TimedOutQueue
            | Code::RequestTimedOut
            | Code::NodeUpdate
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::NotCoordinator
            | Code::NotController
            | Code::BrokerDestroy
    )
}

/// Remembers what was wrong lately, so that a bare time-out can be explained.
#[derive(Debug, Default)]
pub struct Health {
    last: Mutex<Option<(Instant, Trouble)>>,
}

/// How long a trouble explains a time-out; librdkafka repeats it at each new connection.
const FRESH: Duration = Duration::from_secs(30);

impl Health {
    /// Notes a trouble. "All brokers down" follows every refusal and must not hide it.
    pub fn note(&self, trouble: &Trouble) {
        let mut last = self.lock();
        let hides = !trouble.kind.needs_somebody()
            && last
                .as_ref()
                .is_some_and(|(at, known)| known.kind.needs_somebody() && at.elapsed() < FRESH);
        if !hides {
            *last = Some((Instant::now(), trouble.clone()));
        }
    }

    /// Something worked: forget.
    pub fn clear(&self) {
        *self.lock() = None;
    }

    /// What is wrong, if something was lately.
    pub fn current(&self) -> Option<Trouble> {
        self.lock()
            .as_ref()
            .filter(|(at, _)| at.elapsed() < FRESH)
            .map(|(_, trouble)| trouble.clone())
    }

    /// The error of a call, explained by what was noted when it says little itself.
    pub fn explain(&self, error: &KafkaError) -> Trouble {
        let trouble = Trouble::from_error(error);
        if trouble.kind.needs_somebody() {
            self.note(&trouble);
            return trouble;
        }
        self.current().filter(|known| known.kind.needs_somebody()).unwrap_or(trouble)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Trouble)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RDKafkaErrorCode as Code;

    #[test]
    fn each_refusal_has_its_own_advice() {
        let told = [
            (Code::Authentication, "", "sasl_password_file"),
            (Code::SSL, "error:0A000086: certificate verify failed", "ssl_ca_file"),
            (Code::SSL, "wrong version number", "listener speaks TLS"),
            (Code::TopicAuthorizationFailed, "", "ACL"),
            (Code::GroupAuthorizationFailed, "", "consumer group"),
            (Code::TransactionalIdAuthorizationFailed, "", "transactional ids"),
            (Code::UnknownTopicOrPartition, "", "topics create"),
        ];
        for (code, detail, advice) in told {
            let trouble = Trouble::new(code, detail);
            assert!(trouble.message.contains(advice), "{}", trouble.message);
            assert!(matches!(trouble.into_stream_error(), StreamError::Refused(_)));
        }
        let passing = Trouble::new(Code::AllBrokersDown, "2/2 brokers are down");
        assert!(matches!(passing.into_stream_error(), StreamError::Transient(_)));
    }

    #[test]
    fn all_brokers_down_does_not_hide_why() {
        let health = Health::default();
        health.note(&Trouble::new(Code::SSL, "certificate verify failed"));
        health.note(&Trouble::new(Code::AllBrokersDown, ""));
        assert_eq!(health.current().unwrap().kind, Kind::Tls);

        let timeout = KafkaError::MetadataFetch(Code::BrokerTransportFailure);
        assert_eq!(health.explain(&timeout).kind, Kind::Tls);

        health.clear();
        assert_eq!(health.explain(&timeout).kind, Kind::Unreachable);
    }
}
