//! Several consumers and commands at once, against a real PostgreSQL.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Ledger, Member, NOW, TARIFF, callback, sighting};
use tollgate_schema::ids::{EventId, RecordId};
use tollgate_store::Database;
use tollgate_stream::{Claim, Store, StoreError};
use tollgate_testkit::{Postgres, PostgresOptions, eventually_true};

const DEADLINE: Duration = Duration::from_secs(20);

fn pool(ledger: &Ledger) -> sqlx::PgPool {
    match ledger.store.database() {
        Database::Postgres(pool) => pool.clone(),
        Database::Sqlite(_) => panic!("PostgreSQL was asked for"),
    }
}

/// Whether somebody in this database waits for a lock of this mode. The server is shared with
/// other tests, and waits for a transaction are not filed under a database.
async fn somebody_waits(pool: &sqlx::PgPool, mode: &str) -> bool {
    sqlx::query_scalar::<_, bool>(
        "SELECT EXISTS (SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
                        WHERE NOT granted AND mode = $1 AND datname = current_database())",
    )
    .bind(mode)
    .fetch_one(pool)
    .await
    .expect("pg_locks")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activation_waits_for_running_batches_so_that_nothing_stays_unrated() {
    let ledger = Ledger::postgres();
    let version = ledger.store.register_tariff(TARIFF, NOW).await.unwrap();
    let mut member = ledger.join(0).await;
    member.apply(&ledger.store, vec![sighting(1, 1, callback(70))]).await.unwrap();

    // Somebody holds the record's row, so that the next batch stops after it has read which
    // tariffs are active: none.
    let pool = pool(&ledger);
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM billing_records FOR UPDATE").execute(&mut *holder).await.unwrap();
    let store = Arc::clone(&ledger.store);
    let batch = tokio::spawn(async move {
        let items = vec![sighting(1, 1, callback(70)), sighting(2, 2, callback(70))];
        member.apply(&store, items).await.map(|()| member)
    });
    eventually_true("the batch waits for the row", DEADLINE, async || {
        somebody_waits(&pool, "ShareLock").await
    })
    .await;
    let store = Arc::clone(&ledger.store);
    let activation =
        tokio::spawn(async move { store.activate_tariff(&version, i64::MIN, NOW).await });
    eventually_true("the activation waits for the batch", DEADLINE, async || {
        somebody_waits(&pool, "ExclusiveLock").await
    })
    .await;
    assert!(!activation.is_finished() && !batch.is_finished());

    holder.rollback().await.unwrap();
    let member = batch.await.unwrap().unwrap();
    activation.await.unwrap().unwrap();
    assert_eq!(ledger.store.unrated().await.unwrap(), 2);
    member.tick(&ledger.store).await;
    assert_eq!(ledger.store.unrated().await.unwrap(), 0);
    ledger.consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_fight_for_the_same_records_agree_and_never_deadlock() {
    let ledger = Ledger::postgres();
    ledger.activate(TARIFF).await;
    let mut tasks = Vec::new();
    for partition in 0..4_u8 {
        let mut member = ledger.join(partition.into()).await;
        let store = Arc::clone(&ledger.store);
        tasks.push(tokio::spawn(async move {
            for round in 0..12_u8 {
                // The same forty records everywhere, in another order, in ever newer contents.
                let item = |n: u16| {
                    let shift = u16::from(partition) * 11 + u16::from(round);
                    let record = ((n * 7 + shift) % 40) as u8;
                    let content = round * 4 + partition;
                    let mut item = sighting(record, content, callback(60 + i64::from(content)));
                    item.received_at_ms += i64::from(content);
                    item
                };
                let items: Vec<_> = (0..40).map(item).collect();
                loop {
                    match member.apply(&store, items.clone()).await {
                        Ok(()) => break,
                        Err(StoreError::Transient(text)) => {
                            assert!(!text.contains("40P01"), "deadlock");
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }));
    }
    // Readers never see a ledger that differs from its sums, also in the middle.
    while tasks.iter().any(|task| !task.is_finished()) {
        ledger.consistent().await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let checks = ledger.consistent().await;
    assert_eq!((checks.records, checks.charges_in_force), (40, 40));
    for record in 0..40 {
        // The newest content is the last round's of the last partition.
        assert_eq!(ledger.net(record).await.1, Some(EventId::from_bytes([47; 16])));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_consumers_that_race_for_one_offset_exactly_one_writes() {
    let ledger = Ledger::postgres();
    ledger.activate(TARIFF).await;
    let holder = ledger.join(0).await;
    for round in 0..10_u8 {
        let attempt = |number: u8| {
            let store = Arc::clone(&ledger.store);
            let mut member = Member { claim: holder.claim.clone(), next: round.into() };
            tokio::spawn(async move {
                let record = round * 2 + number;
                member.apply(&store, vec![sighting(record, record, callback(70))]).await
            })
        };
        let (left, right) = (attempt(0), attempt(1));
        let outcomes = [left.await.unwrap(), right.await.unwrap()];
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(outcomes.contains(&Err(StoreError::Fenced)), "{outcomes:?}");
    }
    assert_eq!(ledger.consistent().await.records, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_with_thousands_of_contents_still_has_the_right_one_in_force() {
    let ledger = Ledger::postgres();
    ledger.activate(TARIFF).await;
    let mut member = ledger.join(0).await;
    let content = |number: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let mut item = sighting(1, 0, callback(70));
        item.event_id = EventId::from_bytes(id);
        item.received_at_ms = NOW + i64::from(number);
        item
    };
    for start in (0..3000).step_by(1000) {
        let batch = (start..start + 1000).map(content).collect();
        member.apply(&ledger.store, batch).await.unwrap();
    }
    assert_eq!(ledger.net(1).await.1, Some(content(2999).event_id));
    // The greatest is found to be older than it seemed: the next one takes its place.
    let mut older = content(2999);
    older.received_at_ms = NOW - 1;
    member.apply(&ledger.store, vec![older]).await.unwrap();
    assert_eq!(ledger.net(1).await.1, Some(content(2998).event_id));
    assert_eq!(ledger.net(1).await.0, 540_000);
    ledger.consistent().await;
}

/// I3, I8.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_dies_under_a_batch_loses_and_doubles_nothing() {
    let postgres = Arc::new(Postgres::start(&PostgresOptions::new()).expect("PostgreSQL"));
    let url = postgres.create_database("crash").expect("database");
    let settings = tollgate_store::Settings::for_url(url);
    let ledger =
        Ledger::open(tollgate_store::Settings { connect_timeout_ms: 500, ..settings }, None);
    ledger.activate(TARIFF).await;

    let store = Arc::clone(&ledger.store);
    let consumer = tokio::spawn(async move {
        let mut failures = 0;
        let mut member = Member::join(&store, 0).await;
        while member.next < 400 {
            // A record of its own, one that everybody sends, and one that is revised for ever.
            let offset = member.next;
            let mut own = sighting(1, 1, callback(70));
            own.record_id = record(offset);
            let mut revised = sighting(251, 0, callback(70));
            revised.event_id = EventId::from_bytes(*record(offset).as_bytes());
            revised.received_at_ms += offset;
            let items = vec![own, sighting(250, 1, callback(70)), revised];
            if member.apply(&store, items).await.is_ok() {
                continue;
            }
            failures += 1;
            // Not known whether it was written: the fence tells.
            member = loop {
                let source = common::source(0);
                if let Ok(fence) = store.fence(&source).await {
                    let claim = Claim { source, epoch: fence.epoch, partitions: 4 };
                    break Member { claim, next: fence.next_offset };
                }
            };
        }
        failures
    });
    for _ in 0..3 {
        let mut before = None;
        eventually_true("batches are applied", DEADLINE, async || {
            let page = ledger.store.ledger(None, 10_000).await;
            let count = page.map(|page| page.entries.len()).ok();
            count.is_some() && *before.get_or_insert(count) != count
        })
        .await;
        let postgres = Arc::clone(&postgres);
        tokio::task::spawn_blocking(move || {
            postgres.kill();
            postgres.restart().expect("restart");
        })
        .await
        .unwrap();
    }
    let failures = consumer.await.unwrap();
    assert!(failures >= 1, "the database was killed, and nobody noticed");
    let checks = ledger.consistent().await;
    // 402 offsets are 134 batches of three.
    assert_eq!((checks.records, checks.charges_in_force), (134 + 2, 134 + 2));
    assert_eq!(ledger.story(250).await.len(), 1);
    assert_eq!(ledger.story(251).await.len(), 2 * 134 - 1);
    assert_eq!(checks.sources[0].next_offset, 402);
}

fn record(offset: i64) -> RecordId {
    let mut id = [0xff; 16];
    id[..8].copy_from_slice(&offset.to_be_bytes());
    RecordId::from_bytes(id)
}
