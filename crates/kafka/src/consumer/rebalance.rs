//! The rebalance callback: notes what changed and assigns nothing.
//!
//! librdkafka wants an assign call in answer, so it gets one without partitions. What is really
//! fetched is assigned later, partition by partition, each from the offset that the fence gave.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use metrics::counter;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use tollgate_stream::TopicPartition;

use super::membership::Membership;
use crate::context::{Context, Extra};
use crate::convert;
use crate::metrics as names;
use crate::settings::GroupProtocol;

/// A change that the group told.
#[derive(Debug)]
pub enum Change {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
}

/// What the callback and the member share; both run on the member's thread.
pub struct Rebalances {
    pub protocol: GroupProtocol,
    state: Mutex<State>,
}

pub struct State {
    membership: Membership,
    /// Why the client should be made anew.
    pub doubt: Option<&'static str>,
    /// Told and not yet taken note of.
    pub changes: VecDeque<Change>,
    /// What is assigned in librdkafka, that is, being fetched.
    pub fetching: BTreeSet<TopicPartition>,
}

impl Rebalances {
    pub fn new(protocol: GroupProtocol, membership: Membership) -> Self {
        let state =
            State { membership, doubt: None, changes: VecDeque::new(), fetching: BTreeSet::new() };
        Self { protocol, state: Mutex::new(state) }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Extra for Rebalances {
    fn stats(&self, statistics: &Statistics) {
        let mut state = self.lock();
        state.doubt = state.membership.doubt(statistics, Instant::now());
    }
}

impl ConsumerContext for Context<Rebalances> {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions = convert::partitions(list);
        let mut state = self.extra.lock();
        let assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let answered = match (self.extra.protocol, assigned) {
            (GroupProtocol::Classic, true) => {
                state.fetching.clear();
                consumer.assign(&TopicPartitionList::new())
            }
            (GroupProtocol::Classic, false) => {
                state.fetching.clear();
                consumer.unassign()
            }
            (GroupProtocol::Consumer, true) => {
                consumer.incremental_assign(&TopicPartitionList::new())
            }
            (GroupProtocol::Consumer, false) => give_up(consumer, &mut state, &partitions),
        };
        if let Err(error) = answered {
            tracing::warn!("a rebalance was not answered: {error}");
        }
        let change = if assigned { "assigned" } else { "revoked" };
        counter!(names::REBALANCES.name, "change" => change).increment(1);
        state.changes.push_back(if assigned {
            Change::Assigned(partitions)
        } else {
            Change::Revoked(partitions)
        });
    }
}

fn give_up(
    consumer: &BaseConsumer<Context<Rebalances>>,
    state: &mut State,
    partitions: &[TopicPartition],
) -> KafkaResult<()> {
    // librdkafka refuses the whole list when one of it was never started.
    let fetching = partitions.iter().filter(|partition| state.fetching.contains(*partition));
    let answered = consumer.incremental_unassign(&convert::bare_list(fetching));
    state.fetching.retain(|partition| !partitions.contains(partition));
    answered
}
