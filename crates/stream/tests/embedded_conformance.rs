//! The embedded log passes the suite that Kafka passes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tollgate_stream::conformance::{
    Harness, company, consuming, crashing, publishing, relaying, runtime,
};
use tollgate_stream::embedded::{EmbeddedOptions, EmbeddedStream};
use tollgate_stream::{EmbeddedSettings, Stream};

struct Embedded {
    dir: TempDir,
    stream: Mutex<Option<Arc<EmbeddedStream>>>,
}

impl Embedded {
    fn new() -> Self {
        let harness = Self { dir: tempfile::tempdir().unwrap(), stream: Mutex::new(None) };
        harness.open();
        harness
    }

    fn open(&self) {
        let settings = EmbeddedSettings {
            dir: self.dir.path().join("log"),
            max_bytes: 256 * 1024 * 1024,
            segment_bytes: 256 * 1024,
        };
        let stream = EmbeddedStream::open(EmbeddedOptions::new(settings)).unwrap();
        assert_eq!(stream.damage(), []);
        *self.stream.lock().unwrap() = Some(stream);
    }
}

#[async_trait]
impl Harness for Embedded {
    async fn stream(&self) -> Arc<dyn Stream> {
        Arc::clone(self.stream.lock().unwrap().as_ref().unwrap()) as Arc<dyn Stream>
    }

    async fn restart(&self) {
        let stream = self.stream.lock().unwrap().take().unwrap();
        // A task that was stopped may need a moment to let go of it.
        for _ in 0..6000 {
            if Arc::strong_count(&stream) == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(Arc::strong_count(&stream), 1, "somebody still holds the stream");
        drop(stream);
        self.open();
    }
}

macro_rules! suite {
    ($($module:ident :: $name:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $module::$name(&Embedded::new()).await;
            }
        )+

        /// So that nothing that Kafka is asked for is forgotten here.
        #[test]
        fn the_suite_is_run_completely() {
            let all = include_str!("../src/conformance/mod.rs");
            let asked = all.matches("(harness)").count();
            assert_eq!(asked, [$(stringify!($name)),+].len());
        }
    };
}

suite! {
    publishing::a_key_goes_to_the_partition_of_the_java_client_and_keeps_its_order,
    publishing::each_token_is_reported_exactly_once,
    publishing::records_come_back_as_they_were_sent,
    publishing::records_up_to_four_mebibytes_are_taken_and_larger_ones_refused_for_good,
    publishing::a_missing_topic_is_no_permanent_error,
    publishing::topics_are_created_once_and_described,
    publishing::what_was_confirmed_is_there_after_a_restart,
    consuming::nothing_is_delivered_before_the_start_and_then_from_the_offset_asked_for,
    consuming::a_second_start_drops_what_was_fetched,
    consuming::an_offset_that_is_not_there_is_reported_and_never_skipped,
    consuming::a_paused_partition_is_silent_and_the_others_are_not,
    consuming::a_stopped_partition_is_silent_until_it_is_started_again,
    consuming::two_members_share_the_partitions_and_one_takes_over_when_the_other_leaves,
    consuming::a_reader_without_a_group_sees_everything_or_only_what_is_new,
    relaying::a_transaction_is_seen_whole_and_only_after_its_commit,
    relaying::a_relay_stopped_before_it_sends_leaves_nothing,
    relaying::a_relay_stopped_between_send_and_commit_leaves_nothing_visible,
    relaying::an_aborted_transaction_is_never_seen,
    relaying::an_old_relay_can_neither_send_nor_commit_after_a_takeover,
    relaying::a_record_that_is_too_large_is_named_and_the_others_can_be_sent,
    runtime::every_record_is_applied_once_and_relayed_in_order,
    runtime::a_restart_continues_behind_the_mark,
    runtime::outages_and_lost_answers_change_nothing,
    runtime::poison_is_quarantined_and_the_rest_of_the_batch_applied,
    runtime::too_much_poison_stops_its_partition_and_no_other,
    runtime::a_mark_that_does_not_match_stops_the_consumer,
    runtime::an_offset_beyond_the_end_stops_the_consumer,
    runtime::a_slow_partition_does_not_stop_the_others,
    runtime::a_partition_without_a_leader_does_not_keep_the_others_from_starting,
    company::poison_in_company_is_its_partitions_alone,
    company::a_takeover_in_company_is_its_partitions_alone,
    company::a_lost_answer_in_company_applies_nothing_twice,
    crashing::a_zombie_applies_nothing_after_a_takeover,
    crashing::a_lost_partition_that_stays_assigned_is_taken_over_again,
    crashing::rows_published_but_not_removed_are_published_again_under_the_same_ids,
    crashing::a_relay_whose_id_was_taken_comes_back_while_the_claim_is_in_force,
    crashing::a_zombies_relay_sends_nothing,
    crashing::a_zombie_that_takes_the_relays_id_last_sends_nothing,
    crashing::a_row_that_its_topic_refuses_does_not_block_those_behind_it,
}
