//! The suite that the embedded log passes too.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tollgate_stream::Stream;
use tollgate_stream::conformance::{
    Harness, company, consuming, crashing, publishing, relaying, runtime,
};
use tollgate_testkit::{Kafka, KafkaOptions};

use crate::support::{connect, settings};

/// Which broker the tests run on.
enum Cluster {
    /// That of the whole test binary.
    Shared,
    /// One that only this test restarts.
    Own(Box<Kafka>),
}

impl Cluster {
    fn kafka(&self) -> &Kafka {
        match self {
            Self::Shared => Kafka::shared(),
            Self::Own(kafka) => kafka,
        }
    }
}

struct OnKafka {
    cluster: Cluster,
    stream: OnceLock<Arc<dyn Stream>>,
}

impl OnKafka {
    fn new(cluster: Cluster) -> Self {
        Self { cluster, stream: OnceLock::new() }
    }
}

#[async_trait]
impl Harness for OnKafka {
    async fn stream(&self) -> Arc<dyn Stream> {
        let connect = || connect(&settings(&self.cluster.kafka().bootstrap())) as Arc<dyn Stream>;
        Arc::clone(self.stream.get_or_init(connect))
    }

    async fn restart(&self) {
        // SIGKILL for a change: confirmed must mean confirmed.
        if let Cluster::Own(kafka) = &self.cluster {
            kafka.kill();
            kafka.restart().expect("the broker starts again");
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_mins(1)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(300)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_is_there_after_a_restart() {
    let kafka = Kafka::start(&KafkaOptions::new()).expect("a cluster");
    let harness = OnKafka::new(Cluster::Own(Box::new(kafka)));
    publishing::what_was_confirmed_is_there_after_a_restart(&harness).await;
}

/// Runs the statements of a module side by side: they wait for brokers and timers, not for the
/// processor. A failure names its statement by file and line.
macro_rules! suite {
    ($($module:ident { $($name:ident),+ $(,)? })+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $module() {
                let harness = OnKafka::new(Cluster::Shared);
                let harness: &dyn Harness = &harness;
                join_all([$($module::$name(harness).boxed_local()),+]).await;
            }
        )+

        /// So that nothing that the embedded log is asked for is forgotten here.
        #[test]
        fn the_suite_is_run_completely() {
            let all = include_str!("../../../stream/src/conformance/mod.rs");
            for (module, name) in [$($((stringify!($module), stringify!($name))),+),+] {
                assert!(all.contains(&format!("{module}::{name}")), "{module}::{name} is gone");
            }
            let asked = all.matches("(harness)").count();
            // The one with a restart stands above.
            assert_eq!(asked, 1 + [$($(stringify!($name)),+),+].len());
        }
    };
}

suite! {
    publishing {
        a_key_goes_to_the_partition_of_the_java_client_and_keeps_its_order,
        each_token_is_reported_exactly_once,
        records_come_back_as_they_were_sent,
        records_up_to_four_mebibytes_are_taken_and_larger_ones_refused_for_good,
        a_missing_topic_is_no_permanent_error,
        topics_are_created_once_and_described,
    }
    consuming {
        nothing_is_delivered_before_the_start_and_then_from_the_offset_asked_for,
        a_second_start_drops_what_was_fetched,
        an_offset_that_is_not_there_is_reported_and_never_skipped,
        a_paused_partition_is_silent_and_the_others_are_not,
        a_stopped_partition_is_silent_until_it_is_started_again,
        two_members_share_the_partitions_and_one_takes_over_when_the_other_leaves,
        a_reader_without_a_group_sees_everything_or_only_what_is_new,
    }
    relaying {
        a_transaction_is_seen_whole_and_only_after_its_commit,
        a_relay_stopped_before_it_sends_leaves_nothing,
        a_relay_stopped_between_send_and_commit_leaves_nothing_visible,
        an_aborted_transaction_is_never_seen,
        an_old_relay_can_neither_send_nor_commit_after_a_takeover,
        a_record_that_is_too_large_is_named_and_the_others_can_be_sent,
    }
    runtime {
        every_record_is_applied_once_and_relayed_in_order,
        a_restart_continues_behind_the_mark,
        outages_and_lost_answers_change_nothing,
        poison_is_quarantined_and_the_rest_of_the_batch_applied,
        too_much_poison_stops_its_partition_and_no_other,
        a_mark_that_does_not_match_stops_the_consumer,
        an_offset_beyond_the_end_stops_the_consumer,
        a_slow_partition_does_not_stop_the_others,
        a_partition_without_a_leader_does_not_keep_the_others_from_starting,
    }
    company {
        poison_in_company_is_its_partitions_alone,
        a_takeover_in_company_is_its_partitions_alone,
        a_lost_answer_in_company_applies_nothing_twice,
    }
    crashing {
        a_zombie_applies_nothing_after_a_takeover,
        a_lost_partition_that_stays_assigned_is_taken_over_again,
        rows_published_but_not_removed_are_published_again_under_the_same_ids,
        a_relay_whose_id_was_taken_comes_back_while_the_claim_is_in_force,
        a_zombies_relay_sends_nothing,
        a_zombie_that_takes_the_relays_id_last_sends_nothing,
        a_row_that_its_topic_refuses_does_not_block_those_behind_it,
    }
}
