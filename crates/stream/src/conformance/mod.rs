//! What every implementation of the traits must do, as tests that need nothing but a [`Harness`].
//!
//! The embedded log runs them in this crate, Kafka in its own. Each function is one statement
//! about a stream, panics when it does not hold, and makes its own topics, so that all can run
//! against one cluster in any order.

#![allow(clippy::missing_panics_doc, clippy::unwrap_used, clippy::expect_used)]

pub mod company;
pub mod consuming;
pub mod crashing;
pub mod gated;
pub mod log;
pub mod publishing;
pub mod relaying;
pub mod runtime;
pub mod store;
pub mod tools;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::Stream;

/// A cluster under test.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The stream; the same cluster at each call.
    async fn stream(&self) -> Arc<dyn Stream>;

    /// Stops the cluster, or what of it runs in this process, and starts it again with its data.
    /// The caller holds nothing of it.
    async fn restart(&self);

    /// How long something may take that must happen.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// How long to watch that something does not happen.
    fn quiet(&self) -> Duration {
        Duration::from_millis(300)
    }
}

/// Runs everything, one after the other.
pub async fn all(harness: &dyn Harness) {
    publishing::a_key_goes_to_the_partition_of_the_java_client_and_keeps_its_order(harness).await;
    publishing::each_token_is_reported_exactly_once(harness).await;
    publishing::records_come_back_as_they_were_sent(harness).await;
    publishing::records_up_to_four_mebibytes_are_taken_and_larger_ones_refused_for_good(harness)
        .await;
    publishing::a_missing_topic_is_no_permanent_error(harness).await;
    publishing::topics_are_created_once_and_described(harness).await;
    publishing::what_was_confirmed_is_there_after_a_restart(harness).await;
    consuming::nothing_is_delivered_before_the_start_and_then_from_the_offset_asked_for(harness)
        .await;
    consuming::a_second_start_drops_what_was_fetched(harness).await;
    consuming::an_offset_that_is_not_there_is_reported_and_never_skipped(harness).await;
    consuming::a_paused_partition_is_silent_and_the_others_are_not(harness).await;
    consuming::a_stopped_partition_is_silent_until_it_is_started_again(harness).await;
    consuming::two_members_share_the_partitions_and_one_takes_over_when_the_other_leaves(harness)
        .await;
    consuming::a_reader_without_a_group_sees_everything_or_only_what_is_new(harness).await;
    relaying::a_transaction_is_seen_whole_and_only_after_its_commit(harness).await;
    relaying::a_relay_stopped_before_it_sends_leaves_nothing(harness).await;
    relaying::a_relay_stopped_between_send_and_commit_leaves_nothing_visible(harness).await;
    relaying::an_aborted_transaction_is_never_seen(harness).await;
    relaying::an_old_relay_can_neither_send_nor_commit_after_a_takeover(harness).await;
    relaying::a_record_that_is_too_large_is_named_and_the_others_can_be_sent(harness).await;
    runtime::every_record_is_applied_once_and_relayed_in_order(harness).await;
    runtime::a_restart_continues_behind_the_mark(harness).await;
    runtime::outages_and_lost_answers_change_nothing(harness).await;
    runtime::poison_is_quarantined_and_the_rest_of_the_batch_applied(harness).await;
    runtime::too_much_poison_stops_its_partition_and_no_other(harness).await;
    runtime::a_mark_that_does_not_match_stops_the_consumer(harness).await;
    runtime::an_offset_beyond_the_end_stops_the_consumer(harness).await;
    runtime::a_slow_partition_does_not_stop_the_others(harness).await;
    runtime::a_partition_without_a_leader_does_not_keep_the_others_from_starting(harness).await;
    company::poison_in_company_is_its_partitions_alone(harness).await;
    company::a_takeover_in_company_is_its_partitions_alone(harness).await;
    company::a_lost_answer_in_company_applies_nothing_twice(harness).await;
    crashing::a_zombie_applies_nothing_after_a_takeover(harness).await;
    crashing::a_lost_partition_that_stays_assigned_is_taken_over_again(harness).await;
    crashing::rows_published_but_not_removed_are_published_again_under_the_same_ids(harness).await;
    crashing::a_relay_whose_id_was_taken_comes_back_while_the_claim_is_in_force(harness).await;
    crashing::a_zombies_relay_sends_nothing(harness).await;
    crashing::a_zombie_that_takes_the_relays_id_last_sends_nothing(harness).await;
    crashing::a_row_that_its_topic_refuses_does_not_block_those_behind_it(harness).await;
}
