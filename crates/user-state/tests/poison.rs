//! Records that PostgreSQL refuses, by each table, in each place of a batch: the one record goes to
//! quarantine, its neighbours' states are kept and published, and too many stop the partition.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Record, status};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tollgate_schema::topics::{CALL_EVENTS, USER_STATES};
use tollgate_schema::v1::{self, EventType};
use tollgate_store::Database;
use tollgate_stream::conformance::log;
use tollgate_stream::consumer::PartitionState;
use tollgate_stream::embedded::EmbeddedStream;
use tollgate_stream::{ConsumerSettings, Outgoing};
use tollgate_testkit::{TestDir, eventually_true};
use tollgate_user_state::keys::{number_key, session_key};
use tollgate_user_state::{Handle, Options, Settings, UserState};

const DEADLINE: Duration = Duration::from_mins(1);

/// Records of one transaction.
const BATCH: usize = 8;

/// Where a record meets the database, and by which column it is known there.
const PLACES: [(&str, &str); 3] =
    [("state_call", "session_key"), ("state_leg", "number_key"), ("state_number", "number_key")];

/// A record is refused where and as `refusals` says, those of a class that is not the record's
/// fault only twice.
const REFUSE: &str = "
    CREATE TABLE tollgate.refusals (place name NOT NULL, key uuid NOT NULL, code text NOT NULL);
    CREATE SEQUENCE tollgate.tries;
    CREATE FUNCTION tollgate.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        refused text := (
            SELECT code FROM tollgate.refusals
            WHERE place = TG_TABLE_NAME AND key = (to_jsonb(NEW) ->> TG_ARGV[0])::uuid);
    BEGIN
        IF refused ~ '^(22|23|54)' OR refused IS NOT NULL AND nextval('tollgate.tries') % 3 <> 0
        THEN
            RAISE EXCEPTION 'refused' USING ERRCODE = refused;
        END IF;
        RETURN NEW;
    END $$;";

struct World {
    bench: Bench,
    stream: Arc<EmbeddedStream>,
    _dir: TestDir,
}

fn session(number: usize) -> String {
    format!("session-{number}")
}

fn called(number: usize) -> String {
    format!("+86138{number:08}")
}

/// A call of its own that rings a number of its own. One key, so that all stand in one partition,
/// in their order.
fn record(number: usize) -> Outgoing {
    let called = called(number);
    let record: Record = status(&session(number), EventType::Callout, 1, Some(&called), None);
    Outgoing { key: "one".into(), ..record.outgoing() }
}

impl World {
    /// With these records on the topic, and these refused: in which of the places, and how.
    async fn new(records: usize, refused: &BTreeMap<usize, (usize, &str)>) -> anyhow::Result<Self> {
        let dir = TestDir::new("user-state-poison")?;
        let stream = log::open(dir.path()).await;
        let bench = Bench::postgres()?;
        // The tables are made when they are first needed.
        bench.call_events(0).await?;
        let world = Self { bench, stream, _dir: dir };
        world.sql(REFUSE).await?;
        for (table, column) in PLACES {
            world
                .sql(&format!(
                    "CREATE TRIGGER refuse BEFORE INSERT ON tollgate.{table}
                     FOR EACH ROW EXECUTE FUNCTION tollgate.refuse('{column}')"
                ))
                .await?;
        }
        for (number, (place, code)) in refused {
            let (table, column) = PLACES[*place];
            let key = match column {
                "session_key" => session_key(&session(*number), &[]),
                _ => number_key(&called(*number)),
            };
            let key = hex::encode(key);
            world
                .sql(&format!(
                    "INSERT INTO tollgate.refusals VALUES ('{table}', '{key}', '{code}')"
                ))
                .await?;
        }
        log::publish(&*world.stream, (0..records).map(record)).await;
        Ok(world)
    }

    fn pool(&self) -> &sqlx::PgPool {
        match &self.bench.database {
            Database::Postgres(pool) => pool,
            Database::Sqlite(_) => unreachable!("it was made on PostgreSQL"),
        }
    }

    async fn sql(&self, statement: &str) -> anyhow::Result<()> {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::raw_sql(statement).execute(self.pool()).await?;
        Ok(())
    }

    /// Runs the service until this holds, then stops it.
    async fn run_until(
        &self,
        what: &str,
        met: impl AsyncFn(&Handle) -> bool,
    ) -> anyhow::Result<()> {
        let consumer = ConsumerSettings {
            batch_records: BATCH,
            retry_first_ms: 10,
            retry_max_ms: 100,
            ..ConsumerSettings::default()
        };
        let shutdown = CancellationToken::new();
        let options = Options { settings: Settings::default(), consumer };
        let users = UserState::new(self.stream.clone(), self.bench.database.clone(), options)?;
        let handle = users.handle();
        let running = tokio::spawn(users.run(shutdown.clone()));
        eventually_true(what, DEADLINE, async || met(&handle).await).await;
        shutdown.cancel();
        running.await??;
        Ok(())
    }

    /// Whether the partition stands there, and all that waited is published.
    async fn stands_at(&self, offset: i64) -> bool {
        let found: (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT coalesce(max(next_offset), 0) FROM tollgate_fence),
                    (SELECT count(*) FROM tollgate_outbox),
                    (SELECT count(*) FROM state_changed)",
        )
        .fetch_one(self.pool())
        .await
        .expect("positions");
        found == (offset, 0, 0)
    }

    /// Every call, leg and number is of one of these records, and each of these has all three.
    async fn holds(&self, expected: &[usize]) -> anyhow::Result<()> {
        let sessions: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT session_id FROM state_call").fetch_all(self.pool()).await?;
        let of_legs: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT session_id FROM state_leg").fetch_all(self.pool()).await?;
        let numbers: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT number FROM state_number").fetch_all(self.pool()).await?;
        let sorted = |mut rows: Vec<Vec<u8>>| {
            rows.sort_unstable();
            rows
        };
        let of = |name: fn(usize) -> String| {
            sorted(expected.iter().map(|number| name(*number).into_bytes()).collect())
        };
        assert_eq!(sorted(sessions), of(session));
        assert_eq!(sorted(of_legs), of(session));
        assert_eq!(sorted(numbers), of(called));
        Ok(())
    }

    /// Numbers whose states are on the topic.
    async fn published(&self) -> anyhow::Result<Vec<String>> {
        let records = log::read(&*self.stream, USER_STATES.name).await;
        let states =
            records.into_iter().map(|it| v1::UserState::decode(it.value.expect("a value")));
        let mut numbers =
            states.map(|state| Ok(state?.number)).collect::<anyhow::Result<Vec<_>>>()?;
        numbers.sort();
        numbers.dedup();
        Ok(numbers)
    }
}

/// I6: each kind of refusal by each table, at the edges of batches, side by side, and a whole batch
/// of them.
#[tokio::test(flavor = "multi_thread")]
async fn each_record_that_postgres_refuses_is_found_and_its_neighbours_are_kept()
-> anyhow::Result<()> {
    const RECORDS: usize = 9 * BATCH;
    let at = [0, 7, 15, 16, 27, 28, RECORDS - 1].into_iter().chain(5 * BATCH..6 * BATCH);
    let codes = ["22001", "22003", "22021", "22P05", "23502", "23505", "23514", "54000"];
    // Eight codes and three places have no divisor in common: each code meets several places.
    let how = codes.into_iter().cycle().enumerate().map(|(index, code)| (index % 3, code));
    let poison: BTreeMap<_, _> = at.zip(how).collect();
    // Not the records' fault: tried again until they are taken.
    let passing =
        [(3, (0, "40001")), (20, (1, "53100")), (44 + BATCH, (2, "57014")), (61, (0, "55P03"))];
    let refused = poison.iter().map(|(number, how)| (*number, *how)).chain(passing).collect();
    let world = World::new(RECORDS, &refused).await?;
    world
        .run_until("all are applied and published", async |_| world.stands_at(RECORDS as i64).await)
        .await?;

    let expected: Vec<_> = (0..RECORDS).filter(|number| !poison.contains_key(number)).collect();
    world.holds(&expected).await?;
    assert_eq!(world.published().await?, expected.iter().map(|it| called(*it)).collect::<Vec<_>>());
    let quarantined = log::quarantined(&*world.stream, CALL_EVENTS.name).await;
    assert!(quarantined.keys().eq(poison.keys()), "{:?}", quarantined.keys());
    for (message, (number, (_, code))) in quarantined.values().zip(&poison) {
        assert_eq!(message.reason(), v1::QuarantineReason::RefusedByDatabase);
        assert_eq!(message.content, record(*number).value.expect("a value"), "not as it was");
        assert!(message.detail.contains(code), "{}", message.detail);
    }
    Ok(())
}

/// I5, I6: where everything is refused the fault is not the records'; the topic is not drained.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_refusals_in_a_row_stop_the_partition_and_a_restart_goes_on_there()
-> anyhow::Result<()> {
    let refused = (10..130).map(|number| (number, (number % 3, "23514"))).collect();
    let world = World::new(140, &refused).await?;
    world
        .run_until("the partition has stopped", async |handle| {
            let partitions = handle.consumer.status().partitions;
            let stopped = partitions.iter().any(|it| {
                matches!(&it.state, PartitionState::Stopped(reason)
                    if reason.to_string().contains("100 records in a row"))
            });
            // What was quarantined before is published all the same.
            stopped && world.stands_at(109).await
        })
        .await?;
    world.holds(&(0..10).collect::<Vec<_>>()).await?;
    assert_eq!(log::quarantined(&*world.stream, CALL_EVENTS.name).await.len(), 99);

    world.sql("DELETE FROM tollgate.refusals").await?;
    world.run_until("the rest is applied", async |_| world.stands_at(140).await).await?;
    world.holds(&(0..10).chain(109..140).collect::<Vec<_>>()).await
}
