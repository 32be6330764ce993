//! Records that PostgreSQL refuses, each kind of refusal in each place of a batch: the one record
//! goes to quarantine, its neighbours are billed, and too many stop the partition.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{Ledger, NOW, callback};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tollgate_billing::{Billing, Handle, Options};
use tollgate_schema::ids::{self, RecordId};
use tollgate_schema::{time, topics, v1};
use tollgate_store::Database;
use tollgate_stream::Outgoing;
use tollgate_stream::conformance::log;
use tollgate_stream::consumer::PartitionState;
use tollgate_stream::embedded::EmbeddedStream;
use tollgate_stream::settings::ConsumerSettings;
use tollgate_testkit::eventually_true;

const DEADLINE: Duration = Duration::from_mins(1);

/// Records of one transaction.
const BATCH: usize = 8;

/// Stands where data meets the tables: a record is refused as `refusals` says, those of a class
/// that is not the record's fault only twice.
const REFUSE: &str = "
    CREATE TABLE tollgate.refusals (number integer PRIMARY KEY, code text NOT NULL);
    CREATE SEQUENCE tollgate.tries;
    CREATE FUNCTION tollgate.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        refused text := (
            SELECT code FROM tollgate.refusals
            WHERE number = get_byte(NEW.record_id, 0) * 256 + get_byte(NEW.record_id, 1));
    BEGIN
        IF refused ~ '^(22|23|54)' OR refused IS NOT NULL AND nextval('tollgate.tries') % 3 <> 0
        THEN
            RAISE EXCEPTION 'refused' USING ERRCODE = refused;
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON tollgate.billing_ledger
        FOR EACH ROW EXECUTE FUNCTION tollgate.refuse();";

struct Bench {
    ledger: Ledger,
    stream: Arc<EmbeddedStream>,
    _dir: tempfile::TempDir,
}

fn id(number: usize) -> RecordId {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&(number as u16).to_be_bytes());
    RecordId::from_bytes(bytes)
}

/// All of one session, so that they stand in one partition, in their order.
fn record(number: usize) -> Outgoing {
    let message = v1::CallDetailRecord {
        record_id: id(number).to_string(),
        event_id: ids::event_id(&id(number), "").to_string(),
        session_id: "one".to_owned(),
        provenance: Some(v1::Provenance {
            received_at: Some(time::proto_from_millis(NOW)),
            ..v1::Provenance::default()
        }),
        ..callback(70)
    };
    let value = message.encode_to_vec();
    Outgoing::event(&topics::CDRS, "one".to_owned(), message.event_id, None, value)
}

impl Bench {
    /// With these records on the topic, and these refused under these codes.
    async fn new(records: usize, refused: &BTreeMap<usize, &str>) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let stream = log::open(dir.path()).await;
        let ledger = Ledger::postgres();
        ledger.activate(common::TARIFF).await;
        ledger.sql(REFUSE).await;
        for (number, code) in refused {
            ledger.sql(&format!("INSERT INTO tollgate.refusals VALUES ({number}, '{code}')")).await;
        }
        log::publish(&*stream, (0..records).map(record)).await;
        Self { ledger, stream, _dir: dir }
    }

    fn pool(&self) -> &sqlx::PgPool {
        match self.ledger.store.database() {
            Database::Postgres(pool) => pool,
            Database::Sqlite(_) => unreachable!("it was made on PostgreSQL"),
        }
    }

    /// Runs the consumer until this holds, then stops it.
    async fn run_until(&self, what: &str, met: impl AsyncFn(&Handle) -> bool) {
        let consumer = ConsumerSettings {
            batch_records: BATCH,
            retry_first_ms: 10,
            retry_max_ms: 100,
            ..ConsumerSettings::default()
        };
        let options = Options { consumer, ..Options::default() };
        let database = common::connect(&self.ledger.settings);
        let billing = Billing::new(self.stream.clone(), database, options).expect("billing");
        let handle = billing.handle();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(billing.run(shutdown.clone()));
        eventually_true(what, DEADLINE, async || met(&handle).await).await;
        shutdown.cancel();
        running.await.expect("task").expect("billing");
    }

    async fn billed(&self) -> Vec<usize> {
        let page = self.ledger.store.ledger(None, 10_000).await.expect("ledger");
        let of = |found: &tollgate_billing::store::LedgerEntry| {
            let id = RecordId::from_hex(&found.entry.message.record_id).expect("an id");
            usize::from(u16::from_be_bytes([id.as_bytes()[0], id.as_bytes()[1]]))
        };
        let mut billed: Vec<_> = page.entries.iter().map(of).collect();
        billed.sort_unstable();
        billed
    }

    /// Whether the partition stands there, and everything has left the outbox.
    async fn stands_at(&self, offset: i64) -> bool {
        let found: (i64, i64) = sqlx::query_as(
            "SELECT (SELECT coalesce(max(next_offset), 0) FROM tollgate_fence),
                    (SELECT count(*) FROM tollgate_outbox)",
        )
        .fetch_one(self.pool())
        .await
        .expect("positions");
        found == (offset, 0)
    }
}

/// I6: each kind of refusal, at the edges of batches, side by side, and a whole batch of them.
#[tokio::test(flavor = "multi_thread")]
async fn each_record_that_postgres_refuses_is_found_and_its_neighbours_are_billed() {
    const RECORDS: usize = 9 * BATCH;
    let places = [0, 7, 15, 16, 27, 28, RECORDS - 1].into_iter().chain(5 * BATCH..6 * BATCH);
    let codes = ["22001", "22003", "22021", "22P05", "23502", "23505", "23514", "54000"];
    let poison: BTreeMap<_, _> = places.zip(codes.into_iter().cycle()).collect();
    // Not the records' fault: tried again until they are taken.
    let passing = [(3, "40001"), (20, "53100"), (44 + BATCH, "57014"), (61, "55P03")];
    let refused = poison.iter().map(|(number, code)| (*number, *code)).chain(passing).collect();
    let bench = Bench::new(RECORDS, &refused).await;
    bench
        .run_until("all are applied and published", async |_| bench.stands_at(RECORDS as i64).await)
        .await;

    let expected: Vec<_> = (0..RECORDS).filter(|number| !poison.contains_key(number)).collect();
    assert_eq!(bench.billed().await, expected);
    bench.ledger.consistent().await;
    let quarantined = log::quarantined(&*bench.stream, topics::CDRS.name).await;
    assert!(quarantined.keys().eq(poison.keys()), "{:?}", quarantined.keys());
    for (message, (number, code)) in quarantined.values().zip(&poison) {
        assert_eq!(message.reason(), v1::QuarantineReason::RefusedByDatabase);
        assert_eq!(message.content, record(*number).value.expect("a value"), "not as it was");
        assert!(message.detail.contains(code), "{}", message.detail);
    }
}

/// I5, I6: where everything is refused the fault is not the records'; the topic is not drained.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_refusals_in_a_row_stop_the_partition_and_a_restart_goes_on_there() {
    let refused = (10..130).map(|number| (number, "23514")).collect();
    let bench = Bench::new(140, &refused).await;
    bench
        .run_until("the partition has stopped", async |handle| {
            let partitions = handle.consumer.status().partitions;
            let stopped = partitions.iter().any(|it| matches!(&it.state,
                PartitionState::Stopped(reason) if reason.to_string().contains("100 records in a row")));
            // What was quarantined before is published all the same.
            stopped && bench.stands_at(109).await
        })
        .await;
    assert_eq!(bench.billed().await, (0..10).collect::<Vec<_>>());
    assert_eq!(log::quarantined(&*bench.stream, topics::CDRS.name).await.len(), 99);

    bench.ledger.sql("DELETE FROM tollgate.refusals").await;
    bench.run_until("the rest is applied", async |_| bench.stands_at(140).await).await;
    let expected: Vec<_> = (0..10).chain(109..140).collect();
    assert_eq!(bench.billed().await, expected);
    bench.ledger.consistent().await;
}
