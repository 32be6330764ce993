//! CDRs to bill, and a ledger to bill them in.
#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "every test binary uses another part of this"
)]

use std::sync::Arc;

use actix_web::http::header::RETRY_AFTER;
use actix_web::{App, test};
use bytes::Bytes;
use prost::Message;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tollgate_billing::digest::Authenticity;
use tollgate_billing::item::Content;
use tollgate_billing::store::{Checks, LedgerEntry};
use tollgate_billing::{Api, Application, BillingStore, CdrDecoder, CdrItem, Settings, routes};
use tollgate_schema::ids::{EventId, RecordId};
use tollgate_schema::{time, v1};
use tollgate_store::Database;
use tollgate_stream::{
    Batch, Claim, Decode, Entry, Incoming, Mark, Outcome, Outgoing, Pending, Source, Store,
    StoreError, TopicPartition,
};
use tollgate_testkit::Postgres;

/// What every database must do: each test runs against SQLite and against a real PostgreSQL.
macro_rules! on_both {
    ($($(#[$doc:meta])* async fn $name:ident($ledger:ident: Ledger) $body:block)*) => {
        $(
            $(#[$doc])*
            async fn $name($ledger: Ledger) $body
        )*

        mod sqlite {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(super::Ledger::sqlite()).await;
                }
            )*
        }

        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name(super::Ledger::postgres()).await;
                }
            )*
        }
    };
}
pub(crate) use on_both;

/// 2026-11-23T02:00:00Z, ten o'clock in the morning in Shanghai.
pub const NOW: i64 = 1_795_399_200_000;
/// 0.18 a started minute and leg.
pub const TARIFF: &str = tollgate_rating::SAMPLE_TARIFF;
/// The same at 0.20.
pub fn dearer() -> String {
    TARIFF.replace("0.18", "0.20")
}

/// A callback: A answered for `seconds`, B for ten seconds less.
pub fn callback(seconds: i64) -> v1::CallDetailRecord {
    let end = NOW - 60_000;
    let leg = |seconds: i64, number: &str| v1::Leg {
        number: Some(number.to_owned()),
        started_at: Some(time::proto_from_millis(end - (seconds + 8) * 1000)),
        alerting_at: Some(time::proto_from_millis(end - (seconds + 5) * 1000)),
        answered_at: Some(time::proto_from_millis(end - seconds * 1000)),
        ..v1::Leg::default()
    };
    v1::CallDetailRecord {
        session_id: "1201_612_4294967295@host".to_owned(),
        app_key: "key1".to_owned(),
        service_type: v1::ServiceType::Callback.into(),
        a_leg: Some(leg(seconds, "+8613800000021")),
        b_leg: Some(leg((seconds - 10).max(0), "+8613800000022")),
        ended_at: Some(time::proto_from_millis(end)),
        ..v1::CallDetailRecord::default()
    }
}

/// A sighting of content `content` of record `record`.
pub fn sighting(record: u8, content: u8, cdr: v1::CallDetailRecord) -> CdrItem {
    CdrItem {
        record_id: RecordId::from_bytes([record; 16]),
        event_id: EventId::from_bytes([content; 16]),
        received_at_ms: NOW,
        authenticity: Authenticity::Absent,
        application: String::new(),
        offset: 0,
        content: Arc::new(Content::trim(cdr)),
    }
}

/// The same as it comes out of topic cdrs, where an edge gave it this application.
pub fn delivered(record: u8, content: u8, cdr: v1::CallDetailRecord, application: &str) -> CdrItem {
    let message = v1::CallDetailRecord {
        record_id: RecordId::from_bytes([record; 16]).to_string(),
        event_id: EventId::from_bytes([content; 16]).to_string(),
        provenance: Some(v1::Provenance {
            received_at: Some(time::proto_from_millis(NOW)),
            application: application.to_owned(),
            ..v1::Provenance::default()
        }),
        ..cdr
    };
    let record = Incoming {
        partition: TopicPartition::new("cdrs", 0),
        offset: 0,
        timestamp_ms: NOW,
        key: Bytes::new(),
        value: Some(message.encode_to_vec().into()),
        headers: Vec::new(),
    };
    CdrDecoder.decode(&record).expect("a valid record")
}

/// The key under which the ledger has a session or an application.
pub fn key(what: &str, text: &str) -> Vec<u8> {
    let hash = Sha256::digest(format!("tollgate-billing-1\0{what}\0{text}"));
    hash[..16].to_vec()
}

/// Partition `partition` of topic cdrs.
pub fn source(partition: i32) -> Source {
    Source {
        group: "billing".to_owned(),
        cluster_id: "cluster".to_owned(),
        partition: TopicPartition::new("cdrs", partition),
    }
}

/// A member of the group that holds one partition.
pub struct Member {
    pub claim: Claim,
    pub next: i64,
}

impl Member {
    /// Takes the partition over.
    pub async fn join(store: &BillingStore, partition: i32) -> Self {
        let source = source(partition);
        let fence = store.fence(&source).await.expect("fence");
        let claim = Claim { source, epoch: fence.epoch, partitions: 4 };
        Self { claim, next: fence.next_offset }
    }

    /// Applies a batch.
    pub async fn apply(
        &mut self,
        store: &BillingStore,
        items: Vec<CdrItem>,
    ) -> Result<(), StoreError> {
        self.apply_with(store, items, Vec::new()).await
    }

    /// Applies a batch that also holds records that cannot be applied.
    pub async fn apply_with(
        &mut self,
        store: &BillingStore,
        items: Vec<CdrItem>,
        poison: Vec<Outgoing>,
    ) -> Result<(), StoreError> {
        apply_together(store, vec![(self, items, poison)]).await
    }

    /// Does whatever jobs ask for.
    pub async fn tick(&self, store: &BillingStore) {
        while store.tick(&self.claim, NOW).await.expect("tick") {}
    }

    /// Everything that waits in the outbox.
    pub async fn pending(&self, store: &BillingStore) -> Vec<Pending> {
        store.pending(&self.claim, 10_000, usize::MAX).await.expect("pending")
    }
}

/// Applies a batch of each member in one transaction: items, and what cannot be applied.
pub async fn apply_together(
    store: &BillingStore,
    batches: Vec<(&mut Member, Vec<CdrItem>, Vec<Outgoing>)>,
) -> Result<(), StoreError> {
    let (mut members, mut contents) = (Vec::new(), Vec::new());
    for (member, items, poison) in batches {
        let outcomes =
            items.into_iter().map(Outcome::Apply).chain(poison.into_iter().map(Outcome::Poison));
        let entries: Vec<Entry<CdrItem>> = (member.next..).zip(outcomes).map(entry).collect();
        let to = member.next + entries.len() as i64;
        let mark = Mark { offset: to - 1, timestamp_ms: NOW, event_id: "e".to_owned() };
        members.push(member);
        contents.push((entries, to, mark));
    }
    let mut batches = Vec::new();
    for (member, (entries, to, mark)) in members.iter().zip(&contents) {
        let (claim, from) = (&member.claim, member.next);
        batches.push(Batch { claim, from, to: *to, mark, entries, now_ms: NOW });
    }
    store.apply(&batches).await?;
    for (member, (_, to, _)) in members.into_iter().zip(&contents) {
        member.next = *to;
    }
    Ok(())
}

fn entry((offset, mut outcome): (i64, Outcome<CdrItem>)) -> Entry<CdrItem> {
    if let Outcome::Apply(item) = &mut outcome {
        item.offset = offset;
    }
    Entry { offset, timestamp_ms: NOW, outcome }
}

/// A ledger of its own, gone when dropped.
pub struct Ledger {
    pub store: Arc<BillingStore>,
    pub settings: tollgate_store::Settings,
    dir: Option<TempDir>,
}

impl Ledger {
    pub fn open(settings: tollgate_store::Settings, dir: Option<TempDir>) -> Self {
        let store = open(connect(&settings), Vec::new());
        Self { store: Arc::new(store), settings, dir }
    }

    pub fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let url = format!("sqlite:{}", dir.path().join("billing.db").display());
        Self::open(tollgate_store::Settings::for_url(url), Some(dir))
    }

    pub fn postgres() -> Self {
        let url = Postgres::shared().create_database("billing").expect("database");
        Self::open(tollgate_store::Settings::for_url(url), None)
    }

    /// The same database through another process's eyes.
    pub fn again(&self, applications: Vec<Application>) -> BillingStore {
        open(connect(&self.settings), applications)
    }

    /// Registers and activates a tariff for everything.
    pub async fn activate(&self, tariff: &str) -> String {
        let version = self.store.register_tariff(tariff, NOW).await.expect("register");
        self.store.activate_tariff(&version, i64::MIN, NOW).await.expect("activate");
        version
    }

    pub async fn join(&self, partition: i32) -> Member {
        Member::join(&self.store, partition).await
    }

    pub async fn entries(&self, record: u8) -> Vec<LedgerEntry> {
        let record_id = RecordId::from_bytes([record; 16]);
        self.store.entries_of_record(&record_id).await.expect("entries").entries
    }

    /// Kind, revision, status and amount of a record's entries.
    pub async fn story(&self, record: u8) -> Vec<(&'static str, u32, v1::RatingStatus, i64)> {
        let told = |found: &LedgerEntry| {
            let entry = &found.entry;
            let message = &entry.message;
            (entry.kind.name(), entry.revision, message.status(), message.amount_micros)
        };
        self.entries(record).await.iter().map(told).collect()
    }

    /// What a record comes to, and by which content.
    pub async fn net(&self, record: u8) -> (i64, Option<EventId>) {
        let entries = self.entries(record).await;
        let amount = entries.iter().map(|found| found.entry.message.amount_micros).sum();
        (amount, entries.last().map(|found| found.entry.event_id))
    }

    pub async fn consistent(&self) -> Checks {
        let checks = self.store.checks().await.expect("checks");
        assert!(checks.consistent, "{checks:?}");
        checks
    }

    /// Runs a statement with these values behind the program's back.
    pub async fn rewrite(&self, statement: &'static str, values: &[&[u8]]) {
        match self.store.database() {
            Database::Postgres(pool) => {
                let query = sqlx::query(statement);
                let query = values.iter().fold(query, |query, value| query.bind(value.to_vec()));
                query.execute(pool).await.map(drop).expect("statement");
            }
            Database::Sqlite(pools) => {
                let query = sqlx::query(statement);
                let query = values.iter().fold(query, |query, value| query.bind(value.to_vec()));
                query.execute(&pools.writer).await.map(drop).expect("statement");
            }
        }
    }

    /// Bytes of the longest row of a table that holds texts of a sender.
    pub async fn longest(&self, table: &str) -> i64 {
        let columns = match table {
            "billing_digests" => "length(content) + length(application)",
            "billing_ledger" => "length(message) + length(application)",
            _ => "length(value)",
        };
        let statement = format!("SELECT CAST(MAX({columns}) AS bigint) FROM {table}");
        let statement = sqlx::AssertSqlSafe(statement);
        match self.store.database() {
            Database::Postgres(pool) => sqlx::query_scalar(statement).fetch_one(pool).await,
            Database::Sqlite(pools) => {
                sqlx::query_scalar(statement).fetch_one(&pools.readers).await
            }
        }
        .expect("a row")
    }

    /// Runs SQL behind the program's back.
    pub async fn sql(&self, statement: &str) {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        match self.store.database() {
            Database::Postgres(pool) => {
                sqlx::raw_sql(statement).execute(pool).await.map(drop).expect("statement");
            }
            Database::Sqlite(pools) => {
                sqlx::raw_sql(statement).execute(&pools.writer).await.map(drop).expect("statement");
            }
        }
    }
}

/// Asks the API.
pub async fn get(ledger: &Ledger, path: &str) -> (u16, Value) {
    let (status, _, body) = ask(ledger, path).await;
    (status, body)
}

/// The status, whether the client is told when to come again, and the body of an answer.
pub async fn ask(ledger: &Ledger, path: &str) -> (u16, bool, Value) {
    let api = Arc::new(Api::new(Arc::clone(&ledger.store)));
    let app = test::init_service(App::new().configure(routes(api))).await;
    let request = test::TestRequest::get().uri(path).to_request();
    let response = test::call_service(&app, request).await;
    let status = response.status().as_u16();
    let comes_again = response.headers().contains_key(RETRY_AFTER);
    (status, comes_again, test::read_body_json(response).await)
}

pub fn connect(settings: &tollgate_store::Settings) -> Database {
    tollgate_store::connect(settings).expect("settings")
}

pub fn open(database: Database, applications: Vec<Application>) -> BillingStore {
    BillingStore::open(database, &Settings::default(), applications).expect("settings")
}
