//! What is published of numbers, and by whom; on both databases.

#[macro_use]
#[path = "common/both.rs"]
mod both;
mod common;

use common::{Bench, EXPIRY, PARTITIONS, Record, apply, at, callback, poison, status};
use tollgate_schema::v1::{self, EventType, Presence};
use tollgate_stream::{Decode, Outcome};
use tollgate_user_state::item::Decoder;
use tollgate_user_state::keys::{Pseudonyms, number_key, shard};

on_both! {
    only_the_owner_of_the_shard_publishes_a_state
    a_change_after_publishing_is_published_again
    poison_goes_through_the_outbox_of_its_partition
    the_sweeper_publishes_what_expires
    published_states_can_hide_numbers_and_sessions
}

async fn only_the_owner_of_the_shard_publishes_a_state(bench: Bench) -> anyhow::Result<()> {
    let numbers: Vec<String> = (0..20).map(|number| format!("+86138{number:08}")).collect();
    let records: Vec<Record> = numbers
        .iter()
        .map(|number| status(&format!("s{number}"), EventType::Callout, 1, Some(number), None))
        .collect();
    bench.call_events(2).await?.apply(&records, at(2)).await?;
    let mut published = Vec::new();
    for partition in 0..PARTITIONS {
        assert_eq!(bench.cdrs(partition).await?.pending().await?, []);
        let owner = bench.call_events(partition).await?;
        for state in owner.states().await? {
            assert_eq!(shard(&number_key(&state.number), PARTITIONS), partition);
            assert_eq!((state.version, state.presence()), (1, Presence::Calling));
            published.push(state.number);
        }
        let rows = owner.pending().await?;
        assert!(rows.iter().all(|row| row.record.key == row_number(row)));
        owner.published(&rows).await?;
        assert_eq!(owner.pending().await?, []);
    }
    published.sort();
    assert_eq!(published, numbers);
    Ok(())
}

fn row_number(row: &tollgate_stream::Pending) -> String {
    let value = row.record.value.clone().expect("a value");
    <v1::UserState as prost::Message>::decode(value).expect("a state").number
}

async fn a_change_after_publishing_is_published_again(bench: Bench) -> anyhow::Result<()> {
    let owner = bench.call_events(shard(&number_key("A"), PARTITIONS)).await?;
    let mut source = bench.cdrs(0).await?;
    let events = callback("s", "A", "B");
    source.apply(&events[..1], at(1)).await?;
    let rows = owner.pending().await?;
    // While it is being published the number changes.
    source.apply(&events[1..2], at(3)).await?;
    owner.published(&rows).await?;
    let states: Vec<_> =
        owner.states().await?.into_iter().filter(|state| state.number == "A").collect();
    assert_eq!(states.len(), 1);
    assert_eq!((states[0].version, states[0].presence()), (2, Presence::Ringing));
    // A state has the same id however often it is published.
    let id = |rows: &[tollgate_stream::Pending]| {
        let headers = &rows.iter().find(|row| row.record.key == "A").expect("a row").record.headers;
        headers.iter().find(|(name, _)| &**name == "ce_id").map(|(_, id)| id.clone())
    };
    assert_eq!(id(&owner.pending().await?), id(&owner.pending().await?));
    assert_ne!(id(&owner.pending().await?), id(&rows));
    Ok(())
}

async fn poison_goes_through_the_outbox_of_its_partition(bench: Bench) -> anyhow::Result<()> {
    let mut partition = bench.call_events(3).await?;
    let good = Outcome::Apply(status("s", EventType::Callout, 1, Some("A"), None).item());
    let outcomes = vec![Outcome::Poison(poison()), good, Outcome::Poison(poison())];
    partition.apply_outcomes(outcomes, at(1)).await?;
    let rows = partition.pending().await?;
    let quarantined = rows.iter().filter(|row| &*row.record.topic == "quarantine").count();
    assert_eq!(quarantined, 2);
    assert_eq!(bench.state("A", at(1)).await?.presence, Presence::Calling);
    partition.published(&rows).await?;
    assert_eq!(partition.pending().await?, []);
    // And what cannot be decoded is refused by name of field, never by value.
    let mut broken = status("s", EventType::Callout, 1, Some("+8613800000021"), None).incoming();
    for value in [None, Some("\u{ff}not protobuf +8613800000021".into()), Some("".into())] {
        broken.value = value;
        let rejection = Decoder.decode(&broken).err().expect("a rejection").0;
        assert!(!rejection.contains("138"), "{rejection}");
    }
    Ok(())
}

async fn the_sweeper_publishes_what_expires(bench: Bench) -> anyhow::Result<()> {
    apply(&bench, &callback("s", "A", "B")[..2], at(4)).await?;
    let mine = bench.call_events(shard(&number_key("A"), PARTITIONS)).await?;
    mine.published(&mine.pending().await?).await?;
    let expires = at(3) + EXPIRY.unanswered_ms;

    mine.tick(expires - 1).await?;
    assert_eq!(mine.pending().await?, []);
    for other in (0..PARTITIONS).filter(|it| *it != mine.claim.source.partition.partition) {
        bench.call_events(other).await?.tick(expires).await?;
    }
    bench.cdrs(0).await?.tick(expires).await?;
    assert_eq!(mine.pending().await?, []);

    assert_eq!(mine.tick(expires).await, Ok(false));
    let state = mine.states().await?.pop().expect("an expired state");
    assert_eq!((state.number.as_str(), state.presence()), ("A", Presence::Idle));
    let last = state.last_call.expect("a last call");
    assert_eq!((last.group.as_str(), last.answered), ("expired", false));
    // Once is enough.
    mine.published(&mine.pending().await?).await?;
    mine.tick(expires + 1).await?;
    assert_eq!(mine.pending().await?, []);
    // A later event revives the call.
    let answer = status("s", EventType::Answer, 400, Some("A"), None);
    bench.cdrs(0).await?.apply(&[answer], expires + 100_000).await?;
    let state = mine.states().await?.pop().expect("a revived state");
    assert_eq!(state.presence(), Presence::InCall);
    Ok(())
}

async fn published_states_can_hide_numbers_and_sessions(bench: Bench) -> anyhow::Result<()> {
    let (number, session) = ("+8613800000021", "+8613800000021_+8613800007021_4_627e5c1f");
    apply(&bench, &[status(session, EventType::Callout, 1, Some(number), None)], at(2)).await?;
    let owner = bench.call_events(shard(&number_key(number), PARTITIONS)).await?;
    let store = bench.with_pseudonyms(b"a secret of the deployment");
    let rows = tollgate_stream::Store::pending(&store, &owner.claim, 10, usize::MAX).await?;
    assert_eq!(rows.len(), 1);
    let shown = format!("{:?}", rows[0].record);
    assert!(!shown.contains("13800"), "a number is shown");
    let pseudonym = Pseudonyms::new(b"a secret of the deployment").of(number);
    assert_eq!(rows[0].record.key, pseudonym);
    assert_eq!(row_number(&rows[0]), pseudonym);
    Ok(())
}
