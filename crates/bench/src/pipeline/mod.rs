//! From the spool to the database: drain, consumers against COPY, freshness.
//!
//! ```text
//!  full spool ─▶ Kafka        ÷ a bare producer of the same records
//!  50-CDR batches ─▶ Kafka    ÷ the same
//!  backlog ─▶ billing, user-state ─▶ PostgreSQL, SQLite
//!                             ÷ COPY, multi-row INSERT of the rows they wrote
//!  POST ─▶ … ─▶ ledger, state: how long
//! ```

mod consume;
mod copy;
mod drain;
mod freshness;
mod insert;
mod report;
mod rows;

use std::path::{Path, PathBuf};

use anyhow::Result;
use tollgate_testkit::Kafka;

pub use consume::{Consumed, consume, consume_in_parts};
pub use drain::{cdrs, statuses};

use crate::db::{BUFFERS, Db, start_postgres};
use crate::service::{Consumer, activate_tariff, cluster};
use copy::{Copied, Copy};

/// As many connections as a consumer has by default.
const CONNECTIONS: usize = 8;

#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// Interleaved rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Records of the backlogs
    #[arg(long, default_value_t = 50_000)]
    records: u64,
    /// Only parts whose name contains this: drain, consumers, sqlite, freshness; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Write the tables to this file too
    #[arg(long)]
    markdown: Option<PathBuf>,
}

impl Plan {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| part.contains(only.as_str()))
    }
}

/// One consumer on PostgreSQL, and its baselines.
struct OnPostgres {
    consumer: Consumer,
    consumed: Consumed,
    /// Over one connection, and over as many as the consumer has.
    one: Copied,
    many: Copied,
}

/// One consumer on SQLite, and its baseline's seconds.
struct OnSqlite {
    consumer: Consumer,
    consumed: Consumed,
    insert_seconds: f64,
}

/// What one round measured.
#[derive(Default)]
struct Round {
    drain: Option<drain::Published>,
    batches: Option<drain::Published>,
    postgres: Vec<OnPostgres>,
    sqlite: Vec<OnSqlite>,
    fresh: Option<freshness::Fresh>,
}

#[expect(clippy::print_stderr, reason = "progress")]
pub fn measure(plan: &Plan) -> Result<()> {
    let mut rounds = Vec::new();
    for number in 0..plan.rounds {
        let mut round = Round::default();
        if plan.wants("drain") {
            let (kafka, dir) = cluster()?;
            round.drain = Some(drain::drain(&kafka, dir.path())?);
            round.batches = Some(drain::batches(&kafka, dir.path())?);
        }
        if ["consumers", "sqlite", "freshness"].iter().any(|part| plan.wants(part)) {
            consumers(plan, number, &mut round)?;
        }
        eprintln!("round {} | {}", number + 1, report::line(&round));
        rounds.push(round);
    }
    crate::publish(&report::report(&rounds, plan), plan.markdown.as_deref())
}

#[expect(clippy::print_stderr, reason = "progress")]
fn consumers(plan: &Plan, number: usize, round: &mut Round) -> Result<()> {
    let (kafka, dir) = cluster()?;
    let (kafka, dir) = (&kafka, dir.path());
    statuses(kafka, dir, 0, plan.records)?;
    cdrs(kafka, dir, 0, plan.records)?;
    let server = start_postgres(BUFFERS, false)?;
    let mut order = [Consumer::Billing, Consumer::UserState];
    order.rotate_left(number % 2);
    for consumer in order {
        if plan.wants("consumers") {
            let db = Db::postgres(&server)?;
            round.postgres.push(on_postgres(consumer, kafka, &db, dir)?);
            eprintln!("round {} so far | {}", number + 1, report::line(round));
        }
        if plan.wants("sqlite") {
            round.sqlite.push(on_sqlite(consumer, kafka, dir)?);
        }
    }
    if plan.wants("freshness") {
        // On topics of its own: the backlog would come first.
        let (kafka, dir) = cluster()?;
        let db = Db::postgres(&server)?;
        activate_tariff(&db.url)?;
        round.fresh = Some(freshness::measure(&kafka, &db, dir.path(), 3)?);
    }
    Ok(())
}

fn on_postgres(consumer: Consumer, kafka: &Kafka, db: &Db, dir: &Path) -> Result<OnPostgres> {
    activate_tariff(&db.url)?;
    let consumed = consume(consumer, &kafka.bootstrap(), db, dir)?;
    let copy = Copy::read(db, consumer, consumed.transactions)?;
    let one = copy.run(db, 1)?;
    let many = copy.run(db, CONNECTIONS)?;
    Ok(OnPostgres { consumer, consumed, one, many })
}

fn on_sqlite(consumer: Consumer, kafka: &Kafka, dir: &Path) -> Result<OnSqlite> {
    let path = dir.join(consumer.name()).with_extension("db");
    let db = Db::sqlite(&path)?;
    if consumer == Consumer::Billing {
        activate_tariff(&db.url)?;
    }
    let consumed = consume(consumer, &kafka.bootstrap(), &db, dir)?;
    let insert_seconds = db.wait(insert::insert(consumer, &path, consumed.transactions))?;
    Ok(OnSqlite { consumer, consumed, insert_seconds })
}
