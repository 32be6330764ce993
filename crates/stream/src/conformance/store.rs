//! A store in memory with the fence of a real one, and faults on demand.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::sync::watch;

use super::tools::record;
use crate::{
    Batch, Claim, Decode, Fence, Incoming, Mark, Outcome, Outgoing, Pending, Rejection, Source,
    Store, StoreError, TopicPartition,
};

/// What the double makes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its `ce_id`.
    pub id: String,
    /// Its value.
    pub text: String,
}

/// Takes text; what begins with `undecodable` is refused, and `panic` shows a defect.
#[derive(Debug, Clone, Copy, Default)]
pub struct TextDecode;

impl Decode for TextDecode {
    type Item = Item;

    fn decode(&self, record: &Incoming) -> Result<Item, Rejection> {
        let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
        if text.starts_with("undecodable") {
            return Err(Rejection("text must not be undecodable".to_owned()));
        }
        assert!(!text.starts_with("panic"), "a decoder with a defect");
        let id = record.header("ce_id").unwrap_or_default().to_owned();
        Ok(Item { id, text: text.into_owned() })
    }
}

/// A fault of one store call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call fails and changes nothing.
    Down,
    /// The call takes effect and its answer is lost.
    AnswerLost,
}

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Store::fence`].
    Fence,
    /// [`Store::apply`].
    Apply,
    /// [`Store::pending`].
    Pending,
    /// [`Store::published`].
    Published,
}

/// One record as it was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// From where.
    pub partition: TopicPartition,
    /// From which offset.
    pub offset: i64,
    /// What, or `None` for poison.
    pub item: Option<Item>,
}

#[derive(Debug, Default)]
struct Row {
    epoch: i64,
    next_offset: i64,
    mark: Option<Mark>,
    position: i64,
}

#[derive(Debug, Default)]
struct Inner {
    rows: HashMap<Source, Row>,
    applied: Vec<Applied>,
    outbox: BTreeMap<(TopicPartition, i64), Outgoing>,
    faults: HashMap<Call, Vec<Fault>>,
    ticks: usize,
}

/// Everything a store keeps, in memory; each call is one transaction.
///
/// Applying an item whose text begins with `refused` fails as a database refuses data. Every item
/// applied puts one row under its id into the outbox, for the topic given.
#[derive(Debug)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    out: Option<String>,
    /// Partitions whose `apply` waits.
    held: watch::Sender<Vec<TopicPartition>>,
    /// How many applies wait.
    waiting: watch::Sender<usize>,
}

impl MemoryStore {
    /// An empty store that relays to this topic.
    pub fn new(out: Option<String>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            out,
            held: watch::Sender::new(Vec::new()),
            waiting: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// The next calls of this kind fail like this, in order.
    pub fn fail(&self, call: Call, faults: &[Fault]) {
        self.lock().faults.entry(call).or_default().extend(faults);
    }

    /// No more faults.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// What was applied, in order.
    pub fn applied(&self) -> Vec<Applied> {
        self.lock().applied.clone()
    }

    /// How many rows wait in the outbox.
    pub fn outbox_len(&self) -> usize {
        self.lock().outbox.len()
    }

    /// How often `tick` was called.
    pub fn ticks(&self) -> usize {
        self.lock().ticks
    }

    /// Puts a row into a partition's outbox, as a job would.
    pub fn put_row(&self, source: &Source, record: Outgoing) {
        self.lock().put(source, record);
    }

    /// The epoch in force.
    pub fn epoch(&self, source: &Source) -> i64 {
        self.lock().rows.get(source).map_or(0, |row| row.epoch)
    }

    /// Changes where a partition is to be continued, as a restored backup would.
    pub fn set_position(&self, source: &Source, next_offset: i64, mark: Option<Mark>) {
        let mut inner = self.lock();
        let row = inner.rows.entry(source.clone()).or_default();
        row.next_offset = next_offset;
        row.mark = mark;
    }

    /// Makes `apply` of this partition wait.
    pub fn hold(&self, partition: &TopicPartition) {
        self.held.send_modify(|held| held.push(partition.clone()));
    }

    /// Ends all waiting.
    pub fn release(&self) {
        self.held.send_modify(Vec::clear);
    }

    /// How many applies wait at the moment.
    pub fn waiting(&self) -> usize {
        *self.waiting.borrow()
    }

    /// A lock's time-out ends the waiting of those that are in company.
    async fn wait_while_held(&self, batches: &[Batch<'_, Item>]) -> Result<(), StoreError> {
        let mut held = self.held.subscribe();
        let waits = |held: &Vec<TopicPartition>| {
            batches.iter().any(|batch| held.contains(&batch.claim.source.partition))
        };
        if waits(&held.borrow()) {
            if batches.len() > 1 {
                return Err(StoreError::Transient("the double waits for a lock".to_owned()));
            }
            self.waiting.send_modify(|waiting| *waiting += 1);
            let released = held.wait_for(|held| !waits(held)).await.is_ok();
            self.waiting.send_modify(|waiting| *waiting -= 1);
            assert!(released, "the store lives as long as its calls");
        }
        Ok(())
    }
}

impl Inner {
    fn fault(&mut self, call: Call) -> Option<Fault> {
        let faults = self.faults.get_mut(&call)?;
        (!faults.is_empty()).then(|| faults.remove(0))
    }

    fn check(&self, claim: &Claim) -> Result<(), StoreError> {
        let held = self.rows.get(&claim.source).is_some_and(|row| row.epoch == claim.epoch);
        if held { Ok(()) } else { Err(StoreError::Fenced) }
    }

    fn apply(&mut self, batch: &Batch<'_, Item>, out: Option<&str>) {
        let source = &batch.claim.source;
        for entry in batch.entries {
            let item = match &entry.outcome {
                Outcome::Apply(item) => {
                    if let Some(out) = out {
                        self.put(source, record(out, &item.id, &item.id, &item.text));
                    }
                    Some(item.clone())
                }
                Outcome::Poison(message) => {
                    self.put(source, message.clone());
                    None
                }
            };
            let partition = source.partition.clone();
            self.applied.push(Applied { partition, offset: entry.offset, item });
        }
        if let Some(row) = self.rows.get_mut(source) {
            row.next_offset = batch.to;
            row.mark = Some(batch.mark.clone());
        }
    }

    fn put(&mut self, source: &Source, record: Outgoing) {
        let row = self.rows.entry(source.clone()).or_default();
        row.position += 1;
        self.outbox.insert((source.partition.clone(), row.position), record);
    }
}

fn down() -> StoreError {
    StoreError::Transient("the double is down".to_owned())
}

#[async_trait]
impl Store for MemoryStore {
    type Item = Item;

    async fn fence(&self, source: &Source) -> Result<Fence, StoreError> {
        let mut inner = self.lock();
        let fault = inner.fault(Call::Fence);
        if fault == Some(Fault::Down) {
            return Err(down());
        }
        let row = inner.rows.entry(source.clone()).or_default();
        row.epoch += 1;
        if fault.is_some() {
            return Err(down());
        }
        Ok(Fence { epoch: row.epoch, next_offset: row.next_offset, mark: row.mark.clone() })
    }

    async fn apply(&self, batches: &[Batch<'_, Item>]) -> Result<(), StoreError> {
        self.wait_while_held(batches).await?;
        let mut inner = self.lock();
        let fault = inner.fault(Call::Apply);
        if fault == Some(Fault::Down) {
            return Err(down());
        }
        for batch in batches {
            inner.check(batch.claim)?;
            if inner.rows.get(&batch.claim.source).is_none_or(|row| row.next_offset != batch.from) {
                return Err(StoreError::Fenced);
            }
        }
        let refused = |outcome: &Outcome<Item>| matches!(outcome, Outcome::Apply(item) if item.text.starts_with("refused"));
        let mut entries = batches.iter().flat_map(|batch| batch.entries);
        if entries.any(|entry| refused(&entry.outcome)) {
            return Err(StoreError::Rejected("23514".to_owned()));
        }
        for batch in batches {
            inner.apply(batch, self.out.as_deref());
        }
        if fault.is_some() { Err(down()) } else { Ok(()) }
    }

    async fn pending(
        &self,
        claim: &Claim,
        limit: usize,
        _: usize,
    ) -> Result<Vec<Pending>, StoreError> {
        let mut inner = self.lock();
        if inner.fault(Call::Pending).is_some() {
            return Err(down());
        }
        let rows =
            inner.outbox.iter().filter(|((partition, _), _)| *partition == claim.source.partition);
        Ok(rows
            .take(limit)
            .map(|((_, position), record)| Pending { position: *position, record: record.clone() })
            .collect())
    }

    async fn published(&self, claim: &Claim, rows: &[Pending]) -> Result<(), StoreError> {
        let mut inner = self.lock();
        // Asking whether the claim is in force is not what the fault is for.
        let fault = if rows.is_empty() { None } else { inner.fault(Call::Published) };
        if fault == Some(Fault::Down) {
            return Err(down());
        }
        inner.check(claim)?;
        for row in rows {
            inner.outbox.remove(&(claim.source.partition.clone(), row.position));
        }
        if fault.is_some() { Err(down()) } else { Ok(()) }
    }

    async fn tick(&self, claim: &Claim, _now_ms: i64) -> Result<bool, StoreError> {
        let mut inner = self.lock();
        inner.check(claim)?;
        inner.ticks += 1;
        Ok(false)
    }
}
