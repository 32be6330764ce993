//! A store on either database, and the records that are applied to it.
#![allow(dead_code, reason = "each test binary uses its part")]

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tollgate_schema::time::proto_from_millis;
use tollgate_schema::topics::{CALL_EVENTS, CDRS};
use tollgate_schema::v1;
use tollgate_store::{Database, Settings, connect};
use tollgate_stream::{
    Batch, Claim, Decode, Entry, Incoming, Mark, Outcome, Outgoing, Pending, Source, Store,
    StoreError, TopicPartition,
};
use tollgate_testkit::{Postgres, TestDir};
use tollgate_user_state::fold::{Expiry, NumberState, derive};
use tollgate_user_state::item::{Decoder, Item};
use tollgate_user_state::keys::{Pseudonyms, number_key};
use tollgate_user_state::store::{Options, UserStateStore};

/// When the calls of the tests happen.
pub const T0: i64 = 1_716_174_264_000;
pub const EXPIRY: Expiry = Expiry { unanswered_ms: 300_000, answered_ms: 86_400_000 };
pub const PARTITIONS: i32 = 4;

pub fn at(second: i64) -> i64 {
    T0 + second * 1000
}

/// A store and what keeps its database alive.
pub struct Bench {
    pub store: UserStateStore,
    pub database: Database,
    _dir: Option<TestDir>,
}

impl Bench {
    pub fn sqlite() -> anyhow::Result<Self> {
        let dir = TestDir::new("user-state")?;
        let url = format!("sqlite:{}", dir.path().join("state.db").display());
        Self::on(url, Some(dir), None)
    }

    pub fn postgres() -> anyhow::Result<Self> {
        Self::on(Postgres::shared().create_database("user_state")?, None, None)
    }

    fn on(
        url: String,
        dir: Option<TestDir>,
        pseudonyms: Option<Pseudonyms>,
    ) -> anyhow::Result<Self> {
        let database = connect(&Settings::for_url(url))?;
        let bench = Self { store: store(&database, pseudonyms), database, _dir: dir };
        Ok(bench)
    }

    /// Another store on the same database, with pseudonyms.
    pub fn with_pseudonyms(&self, key: &[u8]) -> UserStateStore {
        store(&self.database, Some(Pseudonyms::new(key)))
    }

    /// Takes a partition over.
    pub async fn partition(&self, topic: &str, partition: i32) -> anyhow::Result<Partition> {
        let source = Source {
            group: "user-state".to_owned(),
            cluster_id: "cluster".to_owned(),
            partition: TopicPartition::new(topic, partition),
        };
        let fence = self.store.fence(&source).await?;
        Ok(Partition {
            store: self.store.clone(),
            claim: Claim { source, epoch: fence.epoch, partitions: PARTITIONS },
            next: fence.next_offset,
        })
    }

    pub async fn call_events(&self, partition: i32) -> anyhow::Result<Partition> {
        self.partition(CALL_EVENTS.name, partition).await
    }

    pub async fn cdrs(&self, partition: i32) -> anyhow::Result<Partition> {
        self.partition(CDRS.name, partition).await
    }

    pub async fn state(&self, number: &str, as_of: i64) -> anyhow::Result<NumberState> {
        let found = self.store.numbers(&[number_key(number)], as_of, false).await?;
        Ok(derive(&found.first().map(|it| it.legs.clone()).unwrap_or_default(), as_of))
    }

    pub async fn version(&self, number: &str) -> anyhow::Result<i64> {
        let found = self.store.numbers(&[number_key(number)], T0, false).await?;
        Ok(found.first().map_or(0, |it| it.row.version))
    }
}

fn store(database: &Database, pseudonyms: Option<Pseudonyms>) -> UserStateStore {
    let options = Options { expiry: EXPIRY, keep_ms: Some(100 * 86_400_000), pseudonyms };
    let store = UserStateStore::new(database.clone(), options);
    store.relay_over(PARTITIONS);
    store
}

/// A partition that this test holds.
#[derive(Clone)]
pub struct Partition {
    store: UserStateStore,
    pub claim: Claim,
    pub next: i64,
}

impl Partition {
    /// Applies records in one transaction.
    pub async fn apply(&mut self, records: &[Record], now_ms: i64) -> Result<(), StoreError> {
        let items = records.iter().map(|record| Outcome::Apply(record.item())).collect();
        self.apply_outcomes(items, now_ms).await
    }

    pub async fn apply_outcomes(
        &mut self,
        outcomes: Vec<Outcome<Item>>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let entries = self.entries(outcomes, now_ms);
        let mut batches = [(self, entries)];
        // As the runtime does: what passes by itself is tried again.
        loop {
            match apply_together(&mut batches, now_ms).await {
                Err(StoreError::Transient(_)) => {}
                done => return done,
            }
        }
    }

    /// The next batch.
    pub fn entries(&self, outcomes: Vec<Outcome<Item>>, now_ms: i64) -> Vec<Entry<Item>> {
        (self.next..)
            .zip(outcomes)
            .map(|(offset, outcome)| Entry { offset, timestamp_ms: now_ms - 1_500, outcome })
            .collect()
    }

    pub async fn pending(&self) -> Result<Vec<Pending>, StoreError> {
        self.store.pending(&self.claim, 1_000, usize::MAX).await
    }

    /// The states waiting at this partition.
    pub async fn states(&self) -> anyhow::Result<Vec<v1::UserState>> {
        let pending = self.pending().await?;
        let values = pending.iter().filter_map(|row| row.record.value.clone());
        Ok(values.map(v1::UserState::decode).collect::<Result<_, _>>()?)
    }

    pub async fn published(&self, rows: &[Pending]) -> Result<(), StoreError> {
        self.store.published(&self.claim, rows).await
    }

    pub async fn tick(&self, now_ms: i64) -> Result<bool, StoreError> {
        self.store.tick(&self.claim, now_ms).await
    }
}

/// Applies a batch of each partition in one transaction.
pub async fn apply_together(
    batches: &mut [(&mut Partition, Vec<Entry<Item>>)],
    now_ms: i64,
) -> Result<(), StoreError> {
    let to = |partition: &Partition, entries: &Vec<_>| partition.next + entries.len() as i64;
    let mark = |(partition, entries): &(&mut Partition, Vec<_>)| Mark {
        offset: to(partition, entries) - 1,
        timestamp_ms: now_ms,
        event_id: String::new(),
    };
    let marks: Vec<Mark> = batches.iter().map(mark).collect();
    let mut all = Vec::new();
    for ((partition, entries), mark) in batches.iter().zip(&marks) {
        let (claim, from, to) = (&partition.claim, partition.next, to(partition, entries));
        all.push(Batch { claim, from, to, mark, entries, now_ms });
    }
    let store = batches.first().map(|(it, _)| it.store.clone()).expect("at least one batch");
    store.apply(&all).await?;
    for (partition, entries) in batches {
        partition.next = to(partition, entries);
    }
    Ok(())
}

/// A record of either topic.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    Status(Box<v1::CallEvent>),
    Cdr(Box<v1::CallDetailRecord>),
}

impl Record {
    pub fn outgoing(&self) -> Outgoing {
        match self {
            Self::Status(it) => {
                let value = it.encode_to_vec();
                Outgoing::event(&CALL_EVENTS, it.session_id.clone(), &it.event_id, None, value)
            }
            Self::Cdr(it) => {
                let value = it.encode_to_vec();
                Outgoing::event(&CDRS, it.session_id.clone(), &it.event_id, None, value)
            }
        }
    }

    pub fn incoming(&self) -> Incoming {
        let record = self.outgoing();
        Incoming {
            partition: TopicPartition::new(record.topic, 0),
            offset: 0,
            timestamp_ms: 0,
            key: record.key,
            value: record.value,
            headers: record.headers,
        }
    }

    pub fn item(&self) -> Item {
        Decoder.decode(&self.incoming()).expect("a record that can be decoded")
    }
}

fn id(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..16])
}

fn provenance(received_ms: i64) -> v1::Provenance {
    v1::Provenance {
        received_at: Some(proto_from_millis(received_ms)),
        authenticity: v1::Authenticity::Absent.into(),
        ..v1::Provenance::default()
    }
}

pub fn status(
    session: &str,
    kind: v1::EventType,
    second: i64,
    called: Option<&str>,
    state_code: Option<i32>,
) -> Record {
    let name = called.unwrap_or_default();
    let record_id =
        id(&[b"status", session.as_bytes(), &[kind as u8], &second.to_be_bytes(), name.as_bytes()]);
    Record::Status(Box::new(v1::CallEvent {
        event_id: id(&[record_id.as_bytes(), format!("{state_code:?}").as_bytes()]),
        record_id,
        session_id: session.to_owned(),
        r#type: kind.into(),
        occurred_at: Some(proto_from_millis(at(second))),
        called: called.map(str::to_owned),
        caller: Some("+8675528000002".to_owned()),
        state_code,
        provenance: Some(provenance(at(second) + 250)),
        ..v1::CallEvent::default()
    }))
}

/// The status events of a good callback.
pub fn callback(session: &str, a: &str, b: &str) -> Vec<Record> {
    use v1::EventType::{Alerting, Answer, Callout, Disconnect};
    vec![
        status(session, Callout, 0, Some(a), None),
        status(session, Alerting, 3, Some(a), None),
        status(session, Answer, 7, Some(a), None),
        status(session, Callout, 8, Some(b), None),
        status(session, Alerting, 12, Some(b), None),
        status(session, Answer, 14, Some(b), None),
        status(session, Disconnect, 109, Some(b), Some(0)),
    ]
}

/// The CDR of that callback; with `revised`, another content of the same record.
pub fn callback_cdr(session: &str, a: &str, b: &str, revised: bool) -> Record {
    let leg = |number: &str, start: i64, alerting: i64, answer: i64| v1::Leg {
        number: Some(number.to_owned()),
        started_at: Some(proto_from_millis(at(start))),
        alerting_at: Some(proto_from_millis(at(alerting))),
        answered_at: Some(proto_from_millis(at(answer))),
        cause: Some(0),
        ..v1::Leg::default()
    };
    let record_id = id(&[b"cdr", session.as_bytes()]);
    Record::Cdr(Box::new(v1::CallDetailRecord {
        event_id: id(&[record_id.as_bytes(), &[u8::from(revised)]]),
        record_id,
        session_id: session.to_owned(),
        service_type: v1::ServiceType::Callback.into(),
        service_type_text: Some("002".to_owned()),
        a_leg: Some(leg(a, 0, 3, 7)),
        b_leg: Some(leg(b, 8, 12, 14)),
        ended_at: Some(proto_from_millis(at(if revised { 110 } else { 109 }))),
        release_reason: Some(0),
        sip_status: Some(0),
        provenance: Some(provenance(at(115 + i64::from(revised)))),
        ..v1::CallDetailRecord::default()
    }))
}

pub fn poison() -> Outgoing {
    Outgoing::event(
        &tollgate_schema::topics::QUARANTINE,
        Bytes::from_static(b"key"),
        "0".repeat(32),
        None,
        Bytes::from_static(b"poison"),
    )
}

/// Applies each record to the partition of its topic.
pub async fn apply(bench: &Bench, records: &[Record], now: i64) -> anyhow::Result<()> {
    let (statuses, cdrs): (Vec<_>, Vec<_>) =
        records.iter().cloned().partition(|it| matches!(it, Record::Status(_)));
    if !statuses.is_empty() {
        bench.call_events(0).await?.apply(&statuses, now).await?;
    }
    if !cdrs.is_empty() {
        bench.cdrs(0).await?.apply(&cdrs, now).await?;
    }
    Ok(())
}
