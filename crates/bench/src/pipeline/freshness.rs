//! From POST to what can be asked for: a charge in the ledger, and the state of a call.
//!
//! Requests are sent by the clock, so it is known beforehand when each is due. Two watchers ask the
//! database over and over for what is due and was not there yet; the time between two of their
//! questions is the resolution.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use prost::Message;
use sqlx::PgPool;
use sqlx::types::Uuid;
use tollgate_schema::v1::RatedCdr;
use tollgate_testkit::Kafka;
use tollgate_user_state::keys::{Key, session_key};

use crate::bodies::{CALLS_AT_A_TIME, Kind, call_of, session_of, stage_of};
use crate::db::Db;
use crate::load::{self, Options, now_us};
use crate::service::{Consumer, Service};
use crate::subject::{Running, Subject};

/// Notifications a second.
pub const RATE: f64 = 1000.0;
const STAGES: u64 = 5;
const STATUSES: u64 = STAGES - 1;
/// Whole groups of calls, so that every call gets all of its messages.
const GROUP: u64 = CALLS_AT_A_TIME * STAGES;
const PATIENCE: Duration = Duration::from_mins(1);
/// Of billing's one topic and the two of user-state.
const PARTITIONS: i64 = 36;
/// Between two questions. Asking all the time took as much of the database as what is measured.
const PAUSE: Duration = Duration::from_millis(20);

/// Percentiles in milliseconds.
pub struct Fresh {
    pub ledger: Histogram<u64>,
    pub state: Histogram<u64>,
    /// Between two questions of a watcher.
    pub resolution: Histogram<u64>,
    /// Of the answers to the requests.
    pub ack_p99_us: u64,
}

/// When the requests of a run are due.
#[derive(Clone, Copy)]
struct Clock {
    begin_us: u64,
    first: u64,
    requests: u64,
}

impl Clock {
    fn due_us(self, number: u64) -> u64 {
        self.begin_us + ((number - self.first) as f64 * 1e6 / RATE) as u64
    }

    /// The request that brings a call to a stage.
    fn request_of(call: u64, stage: u64) -> u64 {
        call / CALLS_AT_A_TIME * GROUP + stage * CALLS_AT_A_TIME + call % CALLS_AT_A_TIME
    }

    /// Calls whose first message is due.
    fn calls(self) -> std::ops::Range<u64> {
        let (_, first) = stage_of(self.first, STAGES);
        first..first + self.requests / STAGES
    }
}

/// Edge and both consumers over one database, at [`RATE`].
pub fn measure(kafka: &Kafka, db: &Db, dir: &Path, groups: u64) -> Result<Fresh> {
    let brokers = kafka.bootstrap();
    let running = Running::start(Subject::Spooled, &brokers, dir)?;
    let _billing = Service::start(Consumer::Billing, &brokers, &db.url, dir)?;
    let _state = Service::start(Consumer::UserState, &brokers, &db.url, dir)?;
    await_taken_over(db)?;
    // Warm: calls that nobody measures, far from the others.
    let warm = Clock { begin_us: now_us()?, first: GROUP * 1_000_000, requests: GROUP };
    run(db, &running, warm)?;
    let clock = Clock { begin_us: now_us()? + 500_000, first: 0, requests: GROUP * groups };
    run(db, &running, clock)
}

/// Waits until the consumers have made their tables and hold every partition.
fn await_taken_over(db: &Db) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while db.int("SELECT count(*) FROM tollgate_fence").unwrap_or(0) < PARTITIONS {
        ensure!(Instant::now() < end, "the consumers do not take their partitions over");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

fn run(db: &Db, running: &Running, clock: Clock) -> Result<Fresh> {
    let over = Arc::new(AtomicBool::new(false));
    let pool = db.pg()?;
    let ledger = db.runtime.spawn(watch_ledger(pool.clone(), clock, Arc::clone(&over)));
    let state = db.runtime.spawn(watch_state(pool.clone(), clock, Arc::clone(&over)));
    let seen = load::apart(&Options {
        rate: Some(RATE),
        first: clock.first,
        requests: clock.requests,
        begin_at: clock.begin_us,
        clients: 64,
        ..Options::new(running.address, Kind::Whole)
    })?;
    ensure!(seen.ok == clock.requests, "not everything was taken: {seen:?}");
    over.store(true, Ordering::Relaxed);
    let (ledger, mut resolution) = db.wait(ledger)??;
    let (state, others) = db.wait(state)??;
    resolution.add(others)?;
    Ok(Fresh { ledger, state, resolution, ack_p99_us: seen.p99_us })
}

/// Notes how long things took to be seen, and how often it was looked.
struct Watch {
    clock: Clock,
    seen: Histogram<u64>,
    pauses: Histogram<u64>,
    looked: Instant,
    over: Arc<AtomicBool>,
    ended: Option<Instant>,
}

impl Watch {
    fn new(clock: Clock, over: Arc<AtomicBool>) -> Result<Self> {
        let (seen, pauses) = (Histogram::new(3)?, Histogram::new(3)?);
        Ok(Self { clock, seen, pauses, looked: Instant::now(), over, ended: None })
    }

    fn saw(&mut self, number: u64, now_us: u64) -> Result<()> {
        let took = now_us.saturating_sub(self.clock.due_us(number));
        Ok(self.seen.record(took.max(1))?)
    }

    /// Whether all of them were seen; fails when some do not come.
    async fn is_done(&mut self, expected: u64) -> Result<bool> {
        self.pauses.record(self.looked.elapsed().as_micros().max(1) as u64)?;
        self.looked = Instant::now();
        if self.seen.len() >= expected {
            return Ok(true);
        }
        if self.over.load(Ordering::Relaxed) {
            let ended = *self.ended.get_or_insert_with(Instant::now);
            ensure!(ended.elapsed() < PATIENCE, "{} of {expected} were seen", self.seen.len());
        }
        tokio::time::sleep(PAUSE).await;
        Ok(false)
    }
}

type Watched = (Histogram<u64>, Histogram<u64>);

/// The ledger has a gapless number in each partition, visible in order.
async fn watch_ledger(pool: PgPool, clock: Clock, over: Arc<AtomicBool>) -> Result<Watched> {
    let mut watch = Watch::new(clock, over)?;
    let mut read: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    let calls = clock.calls();
    loop {
        let (sources, positions): (Vec<Vec<u8>>, Vec<i64>) = read.clone().into_iter().unzip();
        let rows: Vec<(Vec<u8>, i64, Vec<u8>)> = sqlx::query_as(
            "SELECT own.source, entry.position, entry.message
             FROM billing_sources own
             LEFT JOIN unnest($1::bytea[], $2::bigint[]) AS read (source, position) USING (source)
             CROSS JOIN LATERAL (
                 SELECT position, message FROM billing_ledger
                 WHERE billing_ledger.source = own.source
                   AND billing_ledger.position > coalesce(read.position, 0)
                   AND own.entries > coalesce(read.position, 0)
                 ORDER BY position LIMIT 10000) AS entry",
        )
        .bind(sources)
        .bind(positions)
        .fetch_all(&pool)
        .await?;
        let now_us = now_us()?;
        for (source, position, message) in rows {
            let last = read.entry(source).or_default();
            *last = position.max(*last);
            let session = RatedCdr::decode(&message[..])?.session_id;
            let call = call_of(&session).context("a session of somebody else")?;
            if calls.contains(&call) {
                watch.saw(Clock::request_of(call, STATUSES), now_us)?;
            }
        }
        if watch.is_done(calls.end - calls.start).await? {
            return Ok((watch.seen, watch.pauses));
        }
    }
}

/// The time of a call's latest event says which of its statuses has come; they are a second apart.
async fn watch_state(pool: PgPool, clock: Clock, over: Arc<AtomicBool>) -> Result<Watched> {
    let mut watch = Watch::new(clock, over)?;
    let calls = clock.calls();
    let by_key: HashMap<Key, u64> =
        calls.clone().map(|call| (session_key(&session_of(call), &[]), call)).collect();
    let mut next: BTreeMap<u64, (Key, u64)> =
        by_key.iter().map(|(key, call)| (*call, (*key, 0))).collect();
    // Times are written in whole seconds.
    let begin_ms = (clock.begin_us / 1_000_000 * 1000) as i64;
    let expected = (calls.end - calls.start) * STATUSES;
    loop {
        let asked_us = now_us()?;
        let is_due = |call: u64, stage| {
            stage < STATUSES && clock.due_us(Clock::request_of(call, stage)) <= asked_us
        };
        let due = next.iter().filter(|(call, (_, stage))| is_due(**call, *stage));
        let keys: Vec<Uuid> = due.map(|(_, (key, _))| Uuid::from_bytes(*key)).collect();
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT session_key, last_event_ms FROM state_call WHERE session_key = ANY($1)",
        )
        .bind(keys)
        .fetch_all(&pool)
        .await?;
        let now_us = now_us()?;
        for (key, last_event_ms) in rows {
            let call = by_key.get(key.as_bytes()).context("a call of somebody else")?;
            let reached = (last_event_ms - begin_ms) / 1000;
            let (_, stage) = next.get_mut(call).context("a call that is complete")?;
            while (*stage as i64) <= reached && *stage < STATUSES {
                watch.saw(Clock::request_of(*call, *stage), now_us)?;
                *stage += 1;
            }
        }
        next.retain(|_, (_, stage)| *stage < STATUSES);
        if watch.is_done(expected).await? {
            return Ok((watch.seen, watch.pauses));
        }
    }
}
