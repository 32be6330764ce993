//! What a record costs with ever more of them stored.
//!
//! Each part fills a database of its own with so many rows, made of rows that the consumer has
//! written itself, then lets the consumer work off a backlog, measured in two halves. The first
//! follows a checkpoint, after which PostgreSQL logs every page whole that is changed for the first
//! time, and its connections are new, so that each has to map every page of the buffers that it
//! touches: with many rows both is nearly every page. The second half is nearer to what lasts. What
//! is finished is kept in a file, and is not measured again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tollgate_testkit::Kafka;

use crate::db::{BUFFERS, Db, start_postgres};
use crate::figures::{Spread, text};
use crate::machine;
use crate::pipeline::{Consumed, cdrs, consume, consume_in_parts, statuses};
use crate::service::{Consumer, activate_tariff, cluster};
use crate::table::Table;

/// Rows stored before, of the ledger or of calls.
const SIZES: [u64; 3] = [100_000, 1_000_000, 10_000_000];
const HALVES: [&str; 2] = ["first", "second"];
/// Records that rows are made of.
const SEED: u64 = 20_000;

#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// Directory of the figures of finished parts
    #[arg(long, default_value = "target/bench-long")]
    state: PathBuf,
    /// Records of each half of the backlog
    #[arg(long, default_value_t = 100_000)]
    records: u64,
    /// Rounds in which each size has its turn
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Measure this consumer only: billing, user-state
    #[arg(long, value_parser = consumer)]
    only: Option<Consumer>,
    /// Leave out what has more rows than this
    #[arg(long, default_value_t = SIZES[2])]
    most: u64,
    /// shared_buffers of PostgreSQL, in which its most used pages should have room
    #[arg(long, default_value = BUFFERS)]
    buffers: String,
    /// Have PostgreSQL keep them in huge pages, which `sysctl vm.nr_hugepages` has to set aside
    #[arg(long)]
    huge_pages: bool,
    /// Write the table to this file too
    #[arg(long)]
    markdown: Option<PathBuf>,
}

const CONSUMERS: [Consumer; 2] = [Consumer::Billing, Consumer::UserState];

fn consumer(name: &str) -> Result<Consumer, String> {
    let found = CONSUMERS.into_iter().find(|it| it.name() == name);
    found.ok_or_else(|| "no such consumer: billing, user-state".to_owned())
}

pub fn measure(plan: &Plan) -> Result<()> {
    fs::create_dir_all(&plan.state)?;
    let mut table = Table::new(&[
        "consumer",
        "rows stored before",
        "half",
        "records/s committed",
        "CPU µs a record, consumer",
        "PostgreSQL",
        "both ÷ the fewest rows",
    ]);
    let sizes: Vec<u64> = SIZES.into_iter().filter(|size| *size <= plan.most).collect();
    for consumer in CONSUMERS.into_iter().filter(|it| plan.only.is_none_or(|only| only == *it)) {
        // All sizes in each round: a machine that changes by the hour changes for all of them.
        let round = |number| sizes.iter().map(move |size| part(plan, consumer, *size, number));
        let rounds: Vec<Vec<_>> =
            (1..=plan.rounds).map(|number| round(number).collect()).collect::<Result<_>>()?;
        for (place, size) in sizes.iter().enumerate() {
            for (half, name) in HALVES.iter().enumerate() {
                let spread = |digits, of: &dyn Fn(&Consumed, &Consumed) -> f64| {
                    let of = |round: &Vec<[Consumed; 2]>| of(&round[place][half], &round[0][half]);
                    text(Spread::of(rounds.iter().map(of)), digits)
                };
                table.row(&[
                    consumer.name().to_owned(),
                    size.to_string(),
                    (*name).to_owned(),
                    spread(0, &|it, _| it.rate()),
                    spread(0, &|it, _| it.cpu_us()),
                    spread(0, &|it, _| it.database_cpu_us()),
                    spread(2, &|it, fewest| cost(it) / cost(fewest)),
                ]);
            }
        }
    }
    let report = format!(
        "{} rounds, halves of {} records, shared_buffers of {}{}, on {}; median (least–greatest) of the rounds.\n\n{}",
        plan.rounds,
        plan.records,
        plan.buffers,
        if plan.huge_pages { " in huge pages" } else { "" },
        machine::describe(),
        table.into_text()
    );
    crate::publish(&report, plan.markdown.as_deref())
}

/// Processor time of a record, consumer and database together.
fn cost(consumed: &Consumed) -> f64 {
    consumed.cpu_us() + consumed.database_cpu_us()
}

/// What this part measured in this round, now or before.
#[expect(clippy::print_stderr, reason = "progress")]
fn part(
    plan: &Plan,
    consumer: Consumer,
    size: u64,
    round: u32,
) -> Result<[Consumed; HALVES.len()]> {
    let pages = if plan.huge_pages { "-huge" } else { "" };
    let name = format!("{}-{size}-{}{pages}-{round}.json", consumer.name(), plan.buffers);
    let path = plan.state.join(name);
    if let Ok(text) = fs::read_to_string(&path) {
        return serde_json::from_str(&text).with_context(|| {
            format!("cannot read {}; remove it to measure again", path.display())
        });
    }
    let server = start_postgres(&plan.buffers, plan.huge_pages)?;
    let db = Db::postgres(&server)?;
    activate_tariff(&db.url)?;
    let seed = write_seed(consumer, &db)?;
    fill(consumer, &db, size, seed)?;
    let (kafka, dir) = cluster()?;
    backlog(consumer, &kafka, dir.path(), 0, HALVES.len() as u64 * plan.records)?;
    let consumed = consume_in_parts(consumer, &kafka.bootstrap(), &db, dir.path())?;
    eprintln!("round {round}, {} with {size} rows: {consumed:?}", consumer.name());
    // Whole or not at all, whenever the run ends.
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, serde_json::to_string(&consumed)?)?;
    fs::rename(&unfinished, &path)?;
    Ok(consumed)
}

fn backlog(consumer: Consumer, kafka: &Kafka, dir: &Path, first: u64, records: u64) -> Result<()> {
    match consumer {
        Consumer::Billing => cdrs(kafka, dir, first, records),
        Consumer::UserState => statuses(kafka, dir, first, records),
    }
}

/// Lets the consumer write some rows, to make the others of; how many there are.
fn write_seed(consumer: Consumer, db: &Db) -> Result<u64> {
    let (kafka, dir) = cluster()?;
    // Of other calls than those of the backlog.
    backlog(consumer, &kafka, dir.path(), 1_000_000_000, SEED)?;
    consume(consumer, &kafka.bootstrap(), db, dir.path())?;
    Ok(db.int(match consumer {
        Consumer::Billing => "SELECT count(*) FROM billing_ledger",
        Consumer::UserState => "SELECT count(*) FROM state_call",
    })? as u64)
}

/// Rows like the seed's under keys of their own, which are hashes like any other, and of minutes of
/// their own before it.
const BILLING: &str = "
    INSERT INTO billing_records OVERRIDING SYSTEM VALUE
    SELECT tollgate.again(record_id, $COPY), revision, event_id, status,
           billed_at_ms - $COPY * 60000, partition, number - $COPY * 1000000
    FROM seed_records;
    INSERT INTO billing_digests
    SELECT number - $COPY * 1000000, event_id, authenticity, first_received_ms, application,
           application_at_ms, source, source_offset, content
    FROM seed_digests;
    INSERT INTO billing_ledger
    SELECT number - $COPY * 1000000, tollgate.again(record_id, $COPY), revision, kind, event_id, source,
           position + $COPY * 1000000, written_ms, billed_at_ms - $COPY * 60000,
           hour_ms - $COPY / 60 * 3600000, day, month, currency, application_key, application,
           service, status, attempts, answered, seconds, talk_seconds, billed_minutes,
           amount_micros, pdd_ms, pdd_samples, tollgate.again(session_key, $COPY), message
    FROM seed_ledger;";

/// A tenth of the numbers of each copy is new: most people call again.
const USER_STATE: &str = "
    INSERT INTO state_call OVERRIDING SYSTEM VALUE
    SELECT tollgate.again(session_key, $COPY), session_id, events, last_event_ms,
           touched_ms - $COPY * 60000, call_serial - $COPY * 1000000
    FROM seed_calls;
    INSERT INTO state_leg
    SELECT call_serial - $COPY * 1000000, leg, tollgate.again(session_key, $COPY),
           tollgate.again(number_key, $COPY / 10), side, ended, started_ms - $COPY * 60000,
           alerting_ms - $COPY * 60000, answered_ms - $COPY * 60000, until_ms - $COPY * 60000,
           state_code, release_reason, cause, sip_status, session_id
    FROM seed_legs;
    INSERT INTO state_number
    SELECT tollgate.again(number_key, $COPY / 10), number, version, as_of_ms, presence, shard,
           next_expiry_ms, ticket
    FROM seed_numbers WHERE $COPY % 10 = 0;";

/// How to drop the indexes of tables, and to build them again as full as one is that has grown row by
/// row. Without them rows go in many times as fast.
const INDEXES: &str = "
    CREATE TABLE tollgate.seed_indexes AS
    SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) AS remove,
           format('ALTER TABLE %s ADD CONSTRAINT %I %s WITH (fillfactor = 70)',
                  conrelid::regclass, conname, pg_get_constraintdef(oid)) AS build
    FROM pg_constraint
    WHERE contype = 'p' AND conrelid = ANY ('$TABLES'::regclass[])
    UNION ALL
    SELECT format('DROP INDEX %s', indexrelid::regclass),
           regexp_replace(pg_get_indexdef(indexrelid), '( WHERE .*)?$',
                          ' WITH (fillfactor = 70)\\1')
    FROM pg_index
    WHERE NOT indisprimary AND indrelid = ANY ('$TABLES'::regclass[])";

/// Runs what a column of [`INDEXES`] says.
const EACH_INDEX: &str = "
    DO $$
    DECLARE statement text;
    BEGIN
        PERFORM set_config('maintenance_work_mem', '1GB', true);
        FOR statement IN SELECT $COLUMN FROM tollgate.seed_indexes LOOP
            EXECUTE statement;
        END LOOP;
    END $$";

fn fill(consumer: Consumer, db: &Db, size: u64, seed: u64) -> Result<()> {
    db.run(
        "CREATE FUNCTION tollgate.again(key bytea, copy bigint) RETURNS bytea LANGUAGE sql
         IMMUTABLE PARALLEL SAFE
         RETURN CASE copy WHEN 0 THEN key ELSE decode(md5(key || int8send(copy)), 'hex') END;
         CREATE FUNCTION tollgate.again(key uuid, copy bigint) RETURNS uuid LANGUAGE sql
         IMMUTABLE PARALLEL SAFE
         RETURN CASE copy WHEN 0 THEN key ELSE md5(uuid_send(key) || int8send(copy))::uuid END",
    )?;
    let (seeds, statement): (&[(&str, &str)], _) = match consumer {
        Consumer::Billing => (
            &[
                ("seed_records", "billing_records"),
                ("seed_digests", "billing_digests"),
                ("seed_ledger", "billing_ledger"),
            ],
            BILLING,
        ),
        Consumer::UserState => (
            &[
                ("seed_calls", "state_call"),
                ("seed_legs", "state_leg"),
                ("seed_numbers", "state_number"),
            ],
            USER_STATE,
        ),
    };
    for (seed, table) in seeds {
        db.run(&format!("CREATE UNLOGGED TABLE {seed} AS SELECT * FROM {table}"))?;
    }
    let tables: Vec<&str> = seeds.iter().map(|(_, table)| *table).collect();
    db.run(&INDEXES.replace("$TABLES", &format!("{{{}}}", tables.join(","))))?;
    db.run(&EACH_INDEX.replace("$COLUMN", "remove"))?;
    for copy in 1..size.div_ceil(seed.max(1)) {
        db.run(&statement.replace("$COPY", &copy.to_string()))?;
    }
    db.run(&EACH_INDEX.replace("$COLUMN", "build"))?;
    db.run("DROP TABLE tollgate.seed_indexes")?;
    for (seed, table) in seeds {
        db.run(&format!("DROP TABLE {seed}"))?;
        db.run(&format!("VACUUM ANALYZE {table}"))?;
    }
    db.run("CHECKPOINT")
}
