//! Who waits for whom in PostgreSQL, the only database with several writers.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use common::{Bench, EXPIRY, PARTITIONS, apply, at, callback, status};
use sqlx::PgPool;
use sqlx::types::Uuid;
use tollgate_schema::v1::{EventType, Presence};
use tollgate_store::Database;
use tollgate_testkit::{Postgres, eventually_true};
use tollgate_user_state::keys::{number_key, shard};

fn pool(bench: &Bench) -> anyhow::Result<&PgPool> {
    match &bench.database {
        Database::Postgres(pool) => Ok(pool),
        Database::Sqlite(_) => anyhow::bail!("not PostgreSQL"),
    }
}

async fn somebody_waits(what: &str, pool: &PgPool) {
    eventually_true(what, Duration::from_secs(5), async || {
        sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(pool)
        .await
        .is_ok_and(|waits| waits > 0)
    })
    .await;
}

/// A writer that was stopped must not hang the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_waits_for_the_numbers_that_another_transaction_holds() -> anyhow::Result<()> {
    let _server = Postgres::shared();
    let bench = Bench::postgres()?;
    apply(&bench, &callback("s1", "A", "B")[..1], at(1)).await?;
    let pool = pool(&bench)?;
    // Another transaction has locked the number and is about to commit a leg.
    let mut other = pool.begin().await?;
    sqlx::query("SELECT 1 FROM state_number WHERE number_key = $1 FOR UPDATE")
        .bind(Uuid::from_bytes(number_key("A")))
        .execute(&mut *other)
        .await?;
    let mut partition = bench.call_events(1).await?;
    let ringing = [status("s2", EventType::Alerting, 5, Some("A"), None)];
    let waiting = tokio::spawn(async move { partition.apply(&ringing, at(6)).await });
    somebody_waits("the batch waits", pool).await;
    sqlx::query("UPDATE state_leg SET answered_ms = $1, until_ms = $2")
        .bind(at(4))
        .bind(at(4) + EXPIRY.answered_ms)
        .execute(&mut *other)
        .await?;
    other.commit().await?;
    waiting.await??;
    // What the other transaction wrote while it was waited for is in the state.
    let found = bench.store.numbers(&[number_key("A")], at(6), false).await?;
    assert_eq!(found[0].row.presence, Presence::InCall as i16);
    assert_eq!(found[0].legs.len(), 2);
    assert_eq!(found[0].row.as_of_ms, at(6));
    Ok(())
}

/// A relay leaves to a batch what the batch is changing again. It does not wait, so neither ends in
/// a deadlock, and the partition's next batch finds its fence free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_waits_for_no_batch() -> anyhow::Result<()> {
    let _server = Postgres::shared();
    let bench = Bench::postgres()?;
    let mut numbers: Vec<String> = (0..100).map(|number| format!("+86138{number:08}")).collect();
    numbers.retain(|number| shard(&number_key(number), PARTITIONS) == 0);
    for number in &numbers[..3] {
        let records = [status(number, EventType::Callout, 1, Some(number), None)];
        apply(&bench, &records, at(2)).await?;
    }
    let owner = bench.call_events(0).await?;
    let rows = owner.pending().await?;
    assert_eq!(rows.len(), 3);
    let pool = pool(&bench)?;
    let change = |number: &str| {
        sqlx::query(
            "UPDATE state_changed SET ticket = nextval('state_ticket') WHERE number_key = $1",
        )
        .bind(Uuid::from_bytes(number_key(number)))
    };

    // Two batches have changed a number each. One of them fails.
    let mut batch = pool.begin().await?;
    change(&numbers[0]).execute(&mut *batch).await?;
    let mut failing = pool.begin().await?;
    change(&numbers[1]).execute(&mut *failing).await?;
    owner.published(&rows).await?;
    failing.rollback().await?;
    batch.commit().await?;

    // The one is still to be published, and of the other it is not known; the third is done.
    let left: BTreeSet<Bytes> =
        owner.pending().await?.into_iter().map(|row| row.record.key).collect();
    let expected = numbers[..2].iter().map(|number| Bytes::from(number.clone())).collect();
    assert_eq!(left, expected);
    Ok(())
}

/// A call is forgotten while an event of it waits for its row. The batch is tried again, and the
/// event begins the call anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_a_call_that_is_forgotten_at_the_same_instant_is_not_lost() -> anyhow::Result<()>
{
    let _server = Postgres::shared();
    let bench = Bench::postgres()?;
    apply(&bench, &callback("s", "A", "B")[..1], at(1)).await?;
    let pool = pool(&bench)?;
    let mut sweep = pool.begin().await?;
    sqlx::query("SELECT 1 FROM state_call FOR UPDATE").execute(&mut *sweep).await?;
    let mut partition = bench.call_events(1).await?;
    let answer = [status("s", EventType::Answer, 5, Some("A"), None)];
    let waiting = tokio::spawn(async move { partition.apply(&answer, at(6)).await });
    somebody_waits("the batch waits", pool).await;
    for forget in ["DELETE FROM state_leg", "DELETE FROM state_call"] {
        sqlx::query(forget).execute(&mut *sweep).await?;
    }
    sweep.commit().await?;
    waiting.await??;
    assert_eq!(bench.state("A", at(6)).await?.presence, Presence::InCall);
    Ok(())
}
