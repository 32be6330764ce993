//! What becomes of each record, told once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, counter};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message, OwnedMessage};
use rdkafka::producer::{NoCustomPartitioner, ProducerContext};
use tokio::sync::Notify;
use tollgate_stream::{Deliveries, DeliveryError, Position, Token};

use crate::context::{Context, Extra, Role};
use crate::metrics as names;
use crate::trouble::{Kind, Trouble, code_of};

/// Counts what is open and reports what is closed.
pub struct Ledger {
    role: Role,
    deliveries: Arc<dyn Deliveries>,
    open: AtomicUsize,
    settled: Notify,
    confirmed: Counter,
}

impl Ledger {
    pub fn new(role: Role, deliveries: Arc<dyn Deliveries>) -> Self {
        let confirmed =
            counter!(names::DELIVERIES.name, "client" => role.label(), "outcome" => "confirmed");
        Self { role, deliveries, open: AtomicUsize::new(0), settled: Notify::new(), confirmed }
    }

    /// Before a record is handed to the client, since its fate may be known at once.
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    /// The client did not take it.
    pub fn withdrawn(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.settled.notify_waiters();
        }
    }

    pub fn in_flight(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Waits until nothing is open.
    pub async fn settled(&self) {
        loop {
            let notified = self.settled.notified();
            if self.in_flight() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Tells a record's fate.
    pub fn report(&self, token: Token, outcome: Result<Position, DeliveryError>) {
        let failed = |outcome: &'static str| counter!(names::DELIVERIES.name, "client" => self.role.label(), "outcome" => outcome);
        match &outcome {
            Ok(_) => self.confirmed.increment(1),
            Err(DeliveryError::Retry(_)) => failed("retry").increment(1),
            Err(DeliveryError::Permanent(_)) => failed("permanent").increment(1),
        }
        self.deliveries.delivered(token, outcome);
        self.withdrawn();
    }

    /// Tells that a record has to be sent again.
    pub fn retry(&self, token: Token, reason: &str) {
        self.report(token, Err(DeliveryError::Retry(reason.to_owned())));
    }
}

/// One of the two ways to the brokers: in batches, or, for a record whose batch was refused, alone.
pub struct Lane {
    pub alone: bool,
    ledger: Arc<Ledger>,
    /// Records of refused batches, waiting for the driver to send them alone.
    suspects: Mutex<Vec<(OwnedMessage, Token)>>,
}

impl Lane {
    pub fn main(ledger: &Arc<Ledger>) -> Self {
        Self { alone: false, ledger: Arc::clone(ledger), suspects: Mutex::default() }
    }

    pub fn alone(ledger: &Arc<Ledger>) -> Self {
        Self { alone: true, ..Self::main(ledger) }
    }

    /// Takes what was refused in company.
    pub fn suspects(&self) -> Vec<(OwnedMessage, Token)> {
        std::mem::take(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Extra for Lane {}

impl ProducerContext<NoCustomPartitioner> for Context<Lane> {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        let lane = &self.extra;
        let token = token as Token;
        match result {
            Ok(message) if is_implied(message) => {
                lane.ledger.retry(token, "no broker has said that it is stored");
            }
            Ok(message) => {
                self.health().clear();
                let position =
                    Position { partition: message.partition(), offset: message.offset() };
                lane.ledger.report(token, Ok(position));
            }
            Err((error, message)) => match judge(code_of(error), lane.alone) {
                Judgement::Retry(trouble) => {
                    self.tell_of_record(&trouble);
                    lane.ledger.retry(token, &trouble.message);
                }
                Judgement::Suspect => {
                    let mut suspects = lane.suspects.lock().unwrap_or_else(PoisonError::into_inner);
                    suspects.push((message.detach(), token));
                }
                Judgement::Permanent(reason) => {
                    lane.ledger.report(token, Err(DeliveryError::Permanent(reason)));
                }
            },
        }
    }
}

/// Whether librdkafka only infers that a record is stored, from a later batch of its partition that
/// is. The inference is wrong where the first try went to a leader that was lost with it: the next
/// leader, which knows nothing of this producer, refuses the record for want of replicas and then
/// takes the batch behind it. Such a report has no offset. Sending again may repeat the record,
/// under the same `ce_id`; not sending again may lose it.
pub fn is_implied(message: &BorrowedMessage<'_>) -> bool {
    message.offset() < 0
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Retry(Trouble),
    /// A broker refuses a batch as a whole: the next try, alone, tells whom it meant.
    Suspect,
    Permanent(String),
}

fn judge(code: RDKafkaErrorCode, alone: bool) -> Judgement {
    use RDKafkaErrorCode as Code;
    match code {
        Code::MessageSizeTooLarge | Code::InvalidRecord | Code::InvalidMessageSize => {
            if alone {
                Judgement::Permanent(format!("the broker refuses this record: {code}"))
            } else {
                Judgement::Suspect
            }
        }
        Code::InvalidArgument | Code::BadMessage => Judgement::Permanent(code.to_string()),
        Code::InvalidTimestamp => Judgement::Retry(Trouble {
            kind: Kind::Timestamp,
            message: "the broker refuses the timestamp: check this machine's clock".into(),
        }),
        Code::PurgeQueue | Code::PurgeInflight => Judgement::Retry(Trouble {
            kind: Kind::Other,
            message: "the producer was closed or made anew first".into(),
        }),
        code => Judgement::Retry(Trouble::new(code, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RDKafkaErrorCode as Code;

    #[test]
    fn nothing_that_can_be_mended_is_permanent() {
        let mendable = [
            Code::UnknownTopic,
            Code::UnknownTopicOrPartition,
            Code::UnknownPartition,
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::Authentication,
            Code::SSL,
            Code::NotLeaderForPartition,
            Code::LeaderNotAvailable,
            Code::NotEnoughReplicas,
            Code::MessageTimedOut,
            Code::AllBrokersDown,
            Code::Fatal,
            Code::PurgeQueue,
            Code::PurgeInflight,
            Code::PolicyViolation,
            Code::InvalidTimestamp,
            Code::OutOfOrderSequenceNumber,
        ];
        for code in mendable {
            for alone in [true, false] {
                assert!(matches!(judge(code, alone), Judgement::Retry(_)), "{code:?}");
            }
        }
    }

    #[test]
    fn a_refusal_of_a_batch_is_a_records_own_only_when_it_was_alone() {
        for code in [Code::MessageSizeTooLarge, Code::InvalidRecord] {
            assert_eq!(judge(code, false), Judgement::Suspect);
            assert!(matches!(judge(code, true), Judgement::Permanent(_)));
        }
    }
}
