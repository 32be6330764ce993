//! One suite for both databases.

#[macro_use]
#[path = "common/both.rs"]
mod both;
mod common;

use std::collections::BTreeMap;

use common::{
    Bench, EXPIRY, PARTITIONS, Record, apply, apply_together, at, callback, callback_cdr, status,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tollgate_schema::v1::Presence::{Calling, Idle, InCall, Ringing};
use tollgate_schema::v1::{EventType, Presence};
use tollgate_store::Database;
use tollgate_stream::{Outcome, StoreError};
use tollgate_user_state::fold::{EventSet, Leg, NumberLeg, derive, fold, rewind};
use tollgate_user_state::item::{Item, MAX_NUMBER_BYTES, MAX_SESSION_BYTES};
use tollgate_user_state::keys::{number_key, session_key, shard};

on_both! {
    a_callback_is_followed_from_call_to_end
    order_repetition_and_batching_give_one_state
    a_revision_replaces_and_a_repetition_changes_nothing
    of_two_that_believe_they_hold_a_partition_only_the_later_one_writes
    concurrent_batches_that_share_calls_and_numbers_end_right
    partitions_that_write_together_share_calls_and_numbers
    of_calls_that_end_at_one_instant_the_last_is_told_by_its_session
    texts_that_no_index_could_take_stop_nothing
    longer_session_ids_of_earlier_versions_are_cut_when_they_are_read
    a_record_without_session_is_a_call_of_its_own
    calls_are_forgotten_after_their_time
    the_past_can_be_asked_for
    an_answer_can_say_how_fresh_it_is
    a_partition_that_is_no_more_says_nothing_of_delay
    more_events_than_a_call_may_have_are_flagged
}

async fn legs(bench: &Bench, number: &str, now: i64) -> anyhow::Result<Vec<Leg>> {
    let found = bench.store.numbers(&[number_key(number)], now, false).await?;
    Ok(found.into_iter().flat_map(|it| it.legs).map(|it| it.leg).collect())
}

async fn a_callback_is_followed_from_call_to_end(bench: Bench) -> anyhow::Result<()> {
    let mut partition = bench.call_events(1).await?;
    let mut seen = Vec::new();
    for record in callback("s", "A", "B") {
        partition.apply(&[record], at(20)).await?;
        let (a, b) = (bench.state("A", at(20)).await?, bench.state("B", at(20)).await?);
        seen.push((a.presence, b.presence));
    }
    let expected = [
        (Calling, Idle),
        (Ringing, Idle),
        (InCall, Idle),
        (InCall, Calling),
        (InCall, Ringing),
        (InCall, InCall),
        (Idle, Idle),
    ];
    assert_eq!(seen, expected);

    bench.cdrs(1).await?.apply(&[callback_cdr("s", "A", "B", false)], at(120)).await?;
    let last = bench.state("B", at(120)).await?.last_call.expect("a call that ended");
    assert_eq!(last.session_id, "s");
    assert_eq!((last.leg.until_ms, last.leg.answered_ms), (at(109), Some(at(14))));
    assert_eq!((last.leg.state_code, last.leg.release_reason), (Some(0), Some(0)));
    assert!(bench.store.numbers(&[number_key("nobody")], at(0), false).await?.is_empty());
    Ok(())
}

async fn order_repetition_and_batching_give_one_state(bench: Bench) -> anyhow::Result<()> {
    let records = |round: usize| {
        let (s, a, b) = (format!("s{round}"), format!("A{round}"), format!("B{round}"));
        let mut records = callback(&s, &a, &b);
        records.push(callback_cdr(&s, &a, &b, false));
        records.push(callback_cdr(&s, &a, &b, true));
        records.push(status(&s, EventType::CollectInfo, 20, None, None));
        records.push(status(&s, EventType::Alerting, 4, None, None));
        records
    };
    let mut runner = TestRunner::deterministic();
    let mut partition = bench.call_events(0).await?;
    let mut results: Vec<(Vec<Leg>, Vec<Leg>)> = Vec::new();
    for round in 0..12 {
        let whole = records(round);
        let indexes: Vec<usize> = (0..whole.len()).chain(0..whole.len()).collect();
        let order = proptest::strategy::Just(indexes).prop_shuffle();
        let order = order.new_tree(&mut runner).expect("an order").current();
        let mut left: &[usize] = &order;
        let mut size = round % 5 + 1;
        while !left.is_empty() {
            let (batch, rest) = left.split_at(size.min(left.len()));
            let batch: Vec<Record> = batch.iter().map(|index| whole[*index].clone()).collect();
            // Both kinds of record in one batch: the store does not look at the topic.
            partition.apply(&batch, at(200)).await?;
            left = rest;
            size = size % 7 + 1;
        }
        let (a, b) = (format!("A{round}"), format!("B{round}"));
        results.push((legs(&bench, &a, at(200)).await?, legs(&bench, &b, at(200)).await?));
    }
    for result in &results {
        assert_eq!(result, &results[0]);
    }
    assert_eq!(results[0].0.len(), 1);
    // And what is stored is what the pure fold says.
    let set: EventSet = records(0).iter().map(|it| it.item().event).collect();
    let (call, _) = fold(&set, &EXPIRY);
    let pure: Vec<Leg> = call.legs.into_iter().map(|leg| Leg { number: None, ..leg }).collect();
    assert_eq!([results[0].0.clone(), results[0].1.clone()].concat(), pure);
    Ok(())
}

async fn a_revision_replaces_and_a_repetition_changes_nothing(bench: Bench) -> anyhow::Result<()> {
    let mut cdrs = bench.cdrs(0).await?;
    cdrs.apply(&[callback_cdr("s", "A", "B", false)], at(120)).await?;
    let version = bench.version("A").await?;
    let pending = bench.call_events(shard(&number_key("A"), PARTITIONS)).await?;
    pending.published(&pending.pending().await?).await?;

    cdrs.apply(&[callback_cdr("s", "A", "B", false)], at(125)).await?;
    assert_eq!(bench.version("A").await?, version);
    assert_eq!(pending.pending().await?, []);

    cdrs.apply(&[callback_cdr("s", "A", "B", true)], at(130)).await?;
    assert_eq!(bench.version("A").await?, version + 1);
    let last = bench.state("A", at(130)).await?.last_call.expect("a call that ended");
    assert_eq!(last.leg.until_ms, at(110));
    Ok(())
}

async fn of_two_that_believe_they_hold_a_partition_only_the_later_one_writes(
    bench: Bench,
) -> anyhow::Result<()> {
    let mut zombie = bench.call_events(0).await?;
    zombie.apply(&callback("s", "A", "B")[..1], at(1)).await?;
    let mut heir = bench.call_events(0).await?;
    assert_eq!(heir.next, 1);

    let more = callback("s", "A", "B");
    assert_eq!(zombie.apply(&more[1..], at(2)).await, Err(StoreError::Fenced));
    assert_eq!(bench.state("A", at(2)).await?.presence, Presence::Calling);
    // Neither may it remove what it thinks was published, nor sweep.
    let owner = bench.call_events(shard(&number_key("A"), PARTITIONS)).await?;
    let rows = owner.pending().await?;
    assert_eq!(zombie.published(&rows).await, Err(StoreError::Fenced));
    assert_eq!(zombie.published(&[]).await, Err(StoreError::Fenced));
    assert_eq!(owner.pending().await?, rows);

    heir = bench.call_events(0).await?;
    heir.apply(&more[1..2], at(3)).await?;
    assert_eq!(bench.state("A", at(3)).await?.presence, Presence::Ringing);
    // The same offsets a second time are refused as well.
    let mut again = heir.clone();
    again.next = 1;
    assert_eq!(again.apply(&more[1..2], at(3)).await, Err(StoreError::Fenced));

    // A sweeper that lost its shard writes nothing.
    let sweeper = bench.call_events(shard(&number_key("A"), PARTITIONS)).await?;
    let version = bench.version("A").await?;
    bench.call_events(shard(&number_key("A"), PARTITIONS)).await?;
    assert_eq!(sweeper.tick(at(3_600)).await, Err(StoreError::Fenced));
    assert_eq!(bench.version("A").await?, version);
    Ok(())
}

/// Four partitions and four of CDRs at once, over few calls and fewer numbers. Each record is
/// written once, so that nobody repairs what two of them spoil.
async fn concurrent_batches_that_share_calls_and_numbers_end_right(
    bench: Bench,
) -> anyhow::Result<()> {
    const CALLS: usize = 6;
    const WRITERS: usize = 8;
    let numbers = ["A", "B", "C", "D"];
    let parties = |call: usize| (numbers[call % 4], numbers[(call + 1 + call % 3) % 4]);
    let records: Vec<Record> = (0..CALLS)
        .flat_map(|call| {
            let ((a, b), s) = (parties(call), format!("s{call}"));
            let mut records = callback(&s, a, b);
            // Some calls go on, some end by their CDR only.
            if call % 2 == 0 {
                records.pop();
            }
            if call % 4 == 2 {
                records.push(callback_cdr(&s, a, b, false));
            }
            records.extend((15..35).map(|it| status(&s, EventType::CollectInfo, it, None, None)));
            records
        })
        .collect();
    let now = at(130);
    let order = proptest::strategy::Just(records.clone()).prop_shuffle();
    let order = order.new_tree(&mut TestRunner::deterministic()).expect("an order").current();
    let start = std::sync::Arc::new(tokio::sync::Barrier::new(WRITERS));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let number = (writer / 2) as i32;
        let mut partition = match writer % 2 {
            0 => bench.call_events(number).await?,
            _ => bench.cdrs(number).await?,
        };
        let own: Vec<Record> = order.iter().skip(writer).step_by(WRITERS).cloned().collect();
        let start = std::sync::Arc::clone(&start);
        writers.push(tokio::spawn(async move {
            start.wait().await;
            for batch in own.chunks(2 + writer % 3) {
                partition.apply(batch, now).await?;
            }
            Ok::<_, StoreError>(())
        }));
    }
    for writer in writers {
        writer.await??;
    }

    let mut expected: BTreeMap<&str, Vec<NumberLeg>> = BTreeMap::new();
    for call in 0..CALLS {
        let session_id = format!("s{call}");
        let of_call = records.iter().filter(|record| record.item().session_id == session_id);
        let set: EventSet = of_call.map(|record| record.item().event).collect();
        for mut leg in fold(&set, &EXPIRY).0.legs {
            let number = leg.number.take().expect("a number");
            let number = numbers.iter().find(|it| **it == number).expect("a known number");
            let session_key = session_key(&session_id, &[]);
            let entry = NumberLeg { session_key, session_id: session_id.clone(), leg };
            expected.entry(number).or_default().push(entry);
        }
    }
    for call in 0..CALLS {
        let row = bench.store.call(&session_key(&format!("s{call}"), &[])).await?.expect("a call");
        let stored = EventSet::decode(&row.events)?;
        let whole: EventSet = records
            .iter()
            .map(Record::item)
            .filter(|item| item.session_id == row.session_id)
            .map(|item| item.event)
            .collect();
        assert_eq!(stored, whole, "call {call}");
    }
    for number in numbers {
        let found = bench.store.numbers(&[number_key(number)], now, false).await?;
        let pure = derive(expected.get(number).map_or(&[][..], Vec::as_slice), now);
        assert_eq!(derive(&found[0].legs, now), pure, "{number}");
        // The row that the sweeper and the census go by was derived from the same legs.
        assert_eq!(found[0].row.next_expiry_ms, pure.next_expiry_ms);
        assert_eq!(found[0].row.presence, pure.presence as i16);
        // And what waits to be published is the last version.
        let owner = bench.call_events(shard(&number_key(number), PARTITIONS)).await?;
        let states = owner.states().await?;
        let state = states.iter().find(|it| it.number == number).expect("a state to publish");
        assert_eq!(state.version as i64, found[0].row.version);
        assert_eq!(state.calls.len(), pure.calls.len());
    }
    Ok(())
}

async fn partitions_that_write_together_share_calls_and_numbers(
    bench: Bench,
) -> anyhow::Result<()> {
    let outcomes = |records: &[Record]| -> Vec<Outcome<Item>> {
        records.iter().map(|record| Outcome::Apply(record.item())).collect()
    };
    // One call whose records are in three partitions, one of them twice, and one call of its own.
    let (mut a, mut b) = (bench.call_events(0).await?, bench.call_events(1).await?);
    let mut cdrs = bench.cdrs(0).await?;
    let call = callback("s", "A", "B");
    let (first, second) = call.split_at(3);
    let mut of_b = outcomes(second);
    of_b.extend(outcomes(&first[2..]));
    of_b.extend(outcomes(&callback("t", "C", "B")[..3]));
    let cdr = callback_cdr("s", "A", "B", false);
    let (of_a, of_b) = (a.entries(outcomes(first), at(200)), b.entries(of_b, at(200)));
    let of_cdrs = cdrs.entries(outcomes(std::slice::from_ref(&cdr)), at(200));
    let mut batches = [(&mut a, of_a), (&mut b, of_b), (&mut cdrs, of_cdrs)];
    apply_together(&mut batches, at(200)).await?;

    // As if it had come one by one.
    let other = Bench::sqlite()?;
    let mut one = other.call_events(0).await?;
    for record in call.iter().chain([&cdr]).chain(&callback("t", "C", "B")[..3]) {
        one.apply(std::slice::from_ref(record), at(200)).await?;
    }
    for number in ["A", "B", "C"] {
        let mut together = legs(&bench, number, at(200)).await?;
        let mut apart = legs(&other, number, at(200)).await?;
        together.sort_by_key(|leg| format!("{leg:?}"));
        apart.sort_by_key(|leg| format!("{leg:?}"));
        assert_eq!(together, apart, "{number}");
    }
    assert_eq!(bench.state("C", at(20)).await?.presence, InCall);

    // One is taken over: in its company nobody writes, without it the others do.
    let taken = bench.call_events(1).await?;
    assert_eq!(taken.next, b.next);
    let (new, other) = (callback("u", "D", "E"), callback("v", "F", "G"));
    let of_a = a.entries(outcomes(&new[..1]), at(200));
    let of_b = b.entries(outcomes(&other[..1]), at(200));
    let refused = apply_together(&mut [(&mut a, of_a), (&mut b, of_b)], at(200)).await;
    assert_eq!(refused, Err(StoreError::Fenced));
    assert!(legs(&bench, "D", at(200)).await?.is_empty());
    a.apply(&new[..1], at(200)).await?;
    assert_eq!(legs(&bench, "D", at(200)).await?.len(), 1);
    Ok(())
}

async fn of_calls_that_end_at_one_instant_the_last_is_told_by_its_session(
    bench: Bench,
) -> anyhow::Result<()> {
    let mut sessions: Vec<String> = (0..12).map(|call| format!("s{call}")).collect();
    sessions.sort_by_key(|session| session_key(session, &[]));
    let last = sessions[11].clone();
    // Neither the first nor the last that is written.
    sessions.rotate_left(5);
    for session in &sessions {
        apply(&bench, &callback(session, "A", "B"), at(200)).await?;
    }
    for past in [false, true] {
        let found = bench.store.numbers(&[number_key("B")], at(200), past).await?;
        assert_eq!(found[0].legs.len(), 1, "of many that are over, one is read");
        let state = derive(&found[0].legs, at(200));
        assert_eq!(state.last_call.map(|call| call.session_id).as_ref(), Some(&last));
    }
    Ok(())
}

async fn texts_that_no_index_could_take_stop_nothing(bench: Bench) -> anyhow::Result<()> {
    let nul = "a\0b\u{1F4DE}".to_owned();
    let long = "x".repeat(MAX_SESSION_BYTES);
    let endless = "y".repeat(MAX_SESSION_BYTES * 3);
    let number = "1".repeat(MAX_NUMBER_BYTES);
    let mut partition = bench.call_events(0).await?;
    let records: Vec<Record> = [&nul, &long, &endless]
        .into_iter()
        .map(|session| status(session, EventType::Answer, 1, Some(&nul), None))
        .chain([
            status(&long, EventType::Callout, 2, Some(&number), None),
            status(&nul, EventType::Callout, 2, Some(&format!("{number}1")), None),
            status(&nul, EventType::Callout, 3, Some(""), None),
        ])
        .collect();
    partition.apply(&records, at(5)).await?;

    let state = bench.state(&nul, at(5)).await?;
    assert_eq!(state.presence, Presence::InCall);
    let mut sessions: Vec<String> = state.calls.into_iter().map(|call| call.session_id).collect();
    sessions.sort();
    assert_eq!(sessions[0], nul);
    assert_eq!(sessions[1], long);
    // Shown cut, and still a call of its own.
    assert_eq!(sessions[2].len(), MAX_SESSION_BYTES);
    assert_eq!(bench.state(&number, at(5)).await?.presence, Presence::Calling);
    assert!(
        bench.store.numbers(&[number_key(&format!("{number}1"))], at(5), false).await?.is_empty()
    );
    assert!(bench.store.call(&session_key(&endless, &[])).await?.is_some());
    let owner = bench.call_events(shard(&number_key(&nul), PARTITIONS)).await?;
    assert!(owner.states().await?.iter().any(|state| state.number == nul));
    Ok(())
}

async fn longer_session_ids_of_earlier_versions_are_cut_when_they_are_read(
    bench: Bench,
) -> anyhow::Result<()> {
    let whole = "z".repeat(16_384);
    let records = callback(&whole, "A", "B");
    apply(&bench, &records, at(110)).await?;
    for statement in
        ["UPDATE state_call SET session_id = $1", "UPDATE state_leg SET session_id = $1"]
    {
        let id = whole.as_bytes();
        match &bench.database {
            Database::Postgres(pool) => {
                sqlx::query(statement).bind(id).execute(pool).await?;
            }
            Database::Sqlite(pools) => {
                sqlx::query(statement).bind(id).execute(&pools.writer).await?;
            }
        }
    }
    // Neither a repetition nor what changes no leg writes them again.
    let version = bench.version("A").await?;
    apply(&bench, &records, at(120)).await?;
    let keys = status(&whole, EventType::CollectInfo, 20, None, None);
    apply(&bench, &[keys], at(120)).await?;
    assert_eq!(bench.version("A").await?, version);

    let shown = &whole[..MAX_SESSION_BYTES];
    let row = bench.store.call(&session_key(&whole, &[])).await?.expect("a call");
    assert_eq!(EventSet::decode(&row.events)?.in_force().len(), records.len() + 1);
    assert_eq!(row.session_id, shown);
    let last = bench.state("A", at(120)).await?.last_call.expect("a call that ended");
    assert_eq!(last.session_id, shown);
    Ok(())
}

async fn a_record_without_session_is_a_call_of_its_own(bench: Bench) -> anyhow::Result<()> {
    let records = [
        status("", EventType::Callout, 1, Some("A"), None),
        status("", EventType::Disconnect, 2, Some("B"), None),
    ];
    apply(&bench, &records, at(5)).await?;
    assert_eq!(bench.state("A", at(5)).await?.presence, Presence::Calling);
    assert!(bench.state("B", at(5)).await?.last_call.is_some());
    Ok(())
}

async fn calls_are_forgotten_after_their_time(bench: Bench) -> anyhow::Result<()> {
    // What was heard last is kept to the hour.
    let hour = 3_600_000;
    let keep = 100 * 24 * hour;
    let (early, late) = (at(200) + keep, at(200) + keep + hour);
    apply(&bench, &callback("old", "A", "B"), at(200)).await?;
    apply(&bench, &callback("new", "B", "C"), at(200) + 2 * hour).await?;
    // A repetition is nothing new.
    apply(&bench, &callback("old", "A", "B"), at(200) + 2 * hour).await?;
    let cleaner = bench.call_events(0).await?;
    cleaner.tick(early).await?;
    assert!(bench.store.call(&session_key("old", &[])).await?.is_some());
    bench.call_events(1).await?.tick(late).await?;
    assert!(bench.store.call(&session_key("old", &[])).await?.is_some());
    cleaner.tick(late).await?;
    assert!(bench.store.call(&session_key("old", &[])).await?.is_none());
    assert!(bench.store.call(&session_key("new", &[])).await?.is_some());
    let last = bench.state("B", late).await?.last_call.expect("the other call");
    assert_eq!(last.session_id, "new");
    let forgotten = bench.state("A", late).await?;
    assert_eq!((forgotten.presence, forgotten.last_call), (Presence::Idle, None));
    // Readers of the topic are told.
    let owner = bench.call_events(shard(&number_key("A"), PARTITIONS)).await?;
    let states = owner.states().await?;
    let state = states.iter().find(|state| state.number == "A").expect("a state to publish");
    assert_eq!(state.last_call, None);
    Ok(())
}

async fn the_past_can_be_asked_for(bench: Bench) -> anyhow::Result<()> {
    let mut records = callback("s", "A", "B");
    records.push(callback_cdr("s", "A", "B", false));
    records.push(status("later", EventType::Answer, 500, Some("B"), None));
    apply(&bench, &records, at(600)).await?;
    for (second, presence, session) in [
        (2, Presence::Idle, None),
        (9, Presence::Calling, None),
        (13, Presence::Ringing, None),
        (60, Presence::InCall, None),
        (200, Presence::Idle, Some("s")),
        (550, Presence::InCall, Some("s")),
    ] {
        let found = bench.store.numbers(&[number_key("B")], at(second), true).await?;
        let legs: Vec<NumberLeg> =
            found[0].legs.iter().filter_map(|leg| rewind(leg, at(second))).collect();
        let state = derive(&legs, at(second));
        assert_eq!(state.presence, presence, "at {second}");
        let last = state.last_call.map(|last| last.session_id);
        assert_eq!(last.as_deref(), session, "at {second}");
    }
    Ok(())
}

async fn an_answer_can_say_how_fresh_it_is(bench: Bench) -> anyhow::Result<()> {
    assert_eq!(bench.store.applied().await?, None);
    apply(&bench, &callback("s", "A", "B")[..2], at(10)).await?;
    apply(&bench, &callback("s", "A", "B")[..1], at(12)).await?;
    let applied = bench.store.applied().await?.expect("something was applied");
    assert_eq!(applied.event_ms, Some(at(3)));
    assert_eq!(applied.applied_ms, at(12));
    assert_eq!((applied.record_ms, applied.delay_ms), (at(12) - 1_500, 1_500));
    let census = bench.store.census().await?;
    assert_eq!(census.numbers, [(Presence::Ringing as i16, 1)]);
    assert_eq!(census.unpublished, 1);
    Ok(())
}

async fn a_partition_that_is_no_more_says_nothing_of_delay(bench: Bench) -> anyhow::Result<()> {
    let day = 86_400;
    let mut gone = bench.call_events(1).await?;
    let outcomes = vec![Outcome::Apply(callback("s", "A", "B")[0].item())];
    let mut entries = gone.entries(outcomes, at(10));
    entries[0].timestamp_ms = at(10 - 3_600);
    apply_together(&mut [(&mut gone, entries)], at(10)).await?;
    for (second, delay_ms) in [(9 + day, 3_600_000), (10 + day, 1_500)] {
        apply(&bench, &callback("t", "C", "D")[..1], at(second)).await?;
        let applied = bench.store.applied().await?.expect("something was applied");
        assert_eq!((applied.applied_ms, applied.delay_ms), (at(second), delay_ms));
        // What was applied there was applied.
        assert_eq!(applied.event_ms, Some(at(0)));
    }
    Ok(())
}

async fn more_events_than_a_call_may_have_are_flagged(bench: Bench) -> anyhow::Result<()> {
    let mut partition = bench.call_events(0).await?;
    let keys: Vec<Record> =
        (1..=300).map(|second| status("s", EventType::CollectInfo, second, None, None)).collect();
    for batch in keys.chunks(90) {
        partition.apply(batch, at(400)).await?;
    }
    partition.apply(&callback("s", "A", "B"), at(400)).await?;
    let row = bench.store.call(&session_key("s", &[])).await?.expect("a call");
    let set = EventSet::decode(&row.events)?;
    assert!(set.is_capped());
    assert_eq!(set.in_force().len(), 256);
    // What tells how the call ended is never what goes.
    let state = bench.state("B", at(400)).await?;
    assert_eq!((state.presence, state.since_ms), (Presence::Idle, Some(at(109))));
    Ok(())
}
