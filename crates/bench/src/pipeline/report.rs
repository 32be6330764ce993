//! The tables of the pipeline.

use std::fmt::Write;

use super::{Consumed, OnPostgres, OnSqlite, Plan, Round, drain::Published, freshness};
use crate::figures::{Spread, text};
use crate::machine;
use crate::service::Consumer;
use crate::table::Table;
use crate::topic::Sent;

const CONSUMERS: [Consumer; 2] = [Consumer::Billing, Consumer::UserState];

/// One round in a line.
pub fn line(round: &Round) -> String {
    let mut line = String::new();
    // Writing to a string cannot fail.
    for (name, published) in [("drain", &round.drain), ("50 CDRs", &round.batches)] {
        if let Some(Published { edge, bare }) = published {
            let _ = write!(line, "{name} {:.0}/s, bare {:.0}/s | ", edge.rate(), bare.rate());
        }
    }
    for OnPostgres { consumer, consumed, one, many } in &round.postgres {
        let records = consumed.records as f64;
        let _ = write!(
            line,
            "{} {:.0}/s, {:.0} + {:.0} µs, COPY {:.0}/s {:.0}/s | ",
            consumer.name(),
            consumed.rate(),
            consumed.cpu_us(),
            consumed.database_cpu_us(),
            records / one.seconds,
            records / many.seconds
        );
    }
    for OnSqlite { consumer, consumed, insert_seconds } in &round.sqlite {
        let insert = consumed.records as f64 / insert_seconds;
        let _ = write!(
            line,
            "{} on SQLite {:.0}/s, INSERT {insert:.0}/s | ",
            consumer.name(),
            consumed.rate()
        );
    }
    if let Some(fresh) = &round.fresh {
        let p99 = |histogram: &hdrhistogram::Histogram<u64>| histogram.value_at_quantile(0.99);
        let _ = write!(
            line,
            "fresh p99: ledger {} µs, state {} µs",
            p99(&fresh.ledger),
            p99(&fresh.state)
        );
    }
    line
}

pub fn report(rounds: &[Round], plan: &Plan) -> String {
    format!(
        "{} rounds, backlogs of {} records, on {}; median (least–greatest) of the rounds.\n\n\
         ### Publishing\n\n{}\n\
         ### Consumers on PostgreSQL\n\n{}\n\
         ### Consumers on SQLite\n\n{}\n\
         ### Freshness at {} notifications a second\n\n{}",
        plan.rounds,
        plan.records,
        machine::describe(),
        publishing(rounds),
        postgres(rounds),
        sqlite(rounds),
        freshness::RATE,
        fresh(rounds)
    )
}

fn publishing(rounds: &[Round]) -> String {
    let mut table =
        Table::new(&["what", "records/s", "bare producer", "÷", "CPU µs a record", "bare", "÷"]);
    let drain: Vec<_> = rounds.iter().filter_map(|round| round.drain.as_ref()).collect();
    let batches: Vec<_> = rounds.iter().filter_map(|round| round.batches.as_ref()).collect();
    for (name, parts) in
        [("drain of a full spool", drain), ("50-CDR batches, posted and published", batches)]
    {
        let spread = |figure: &dyn Fn(&Published) -> f64, digits| {
            text(Spread::of(parts.iter().map(|part| figure(part))), digits)
        };
        let of = |read: fn(&Published) -> &Sent, digits, figure: fn(&Sent) -> f64| {
            spread(&|published| figure(read(published)), digits)
        };
        table.row(&[
            name.to_owned(),
            of(|it| &it.edge, 0, Sent::rate),
            of(|it| &it.bare, 0, Sent::rate),
            spread(&|it| it.edge.rate() / it.bare.rate(), 2),
            of(|it| &it.edge, 1, Sent::cpu_us),
            of(|it| &it.bare, 1, Sent::cpu_us),
            spread(&|it| it.edge.cpu_us() / it.bare.cpu_us(), 2),
        ]);
    }
    table.into_text()
}

fn postgres(rounds: &[Round]) -> String {
    let mut table = Table::new(&[
        "consumer",
        "records/s committed",
        "÷ COPY, one connection",
        "÷ COPY, 8 connections",
        "÷ billing",
        "CPU µs a record, consumer",
        "PostgreSQL",
        "PostgreSQL by COPY",
        "records a transaction",
    ]);
    for consumer in CONSUMERS {
        let spread = |figure: &dyn Fn(&OnPostgres, &Round) -> Option<f64>, digits| {
            let figures = rounds.iter().filter_map(|round| {
                figure(round.postgres.iter().find(|one| one.consumer == consumer)?, round)
            });
            text(Spread::of(figures), digits)
        };
        // COPY wrote the rows of the whole backlog, and all of them took this long.
        let backlog = |one: &OnPostgres| one.consumed.backlog as f64;
        table.row(&[
            consumer.name().to_owned(),
            spread(&|one, _| Some(one.consumed.rate()), 0),
            spread(&|one, _| Some(one.consumed.rate() / (backlog(one) / one.one.seconds)), 2),
            spread(&|one, _| Some(one.consumed.rate() / (backlog(one) / one.many.seconds)), 2),
            spread(
                &|one, round| {
                    let billing = round.postgres.iter();
                    let mut billing = billing.filter(|other| other.consumer == Consumer::Billing);
                    Some(one.consumed.rate() / billing.next()?.consumed.rate())
                },
                2,
            ),
            spread(&|one, _| Some(one.consumed.cpu_us()), 0),
            spread(&|one, _| Some(one.consumed.database_cpu_us()), 0),
            spread(&|one, _| Some(one.one.database_cpu_seconds * 1e6 / backlog(one)), 0),
            spread(&|one, _| Some(one.consumed.a_transaction()), 0),
        ]);
    }
    table.into_text()
}

fn sqlite(rounds: &[Round]) -> String {
    let mut table = Table::new(&[
        "consumer",
        "records/s committed",
        "÷ INSERT of the same rows",
        "CPU µs a record",
        "records a transaction",
    ]);
    for consumer in CONSUMERS {
        let of = || rounds.iter().flat_map(|round| &round.sqlite);
        let spread = |figure: &dyn Fn(&OnSqlite) -> f64, digits| {
            let figures = of().filter(|one| one.consumer == consumer).map(figure);
            text(Spread::of(figures), digits)
        };
        let insert = |one: &OnSqlite| one.consumed.backlog as f64 / one.insert_seconds;
        table.row(&[
            consumer.name().to_owned(),
            spread(&|one| one.consumed.rate(), 0),
            spread(&|one| one.consumed.rate() / insert(one), 2),
            spread(&|one| one.consumed.cpu_us(), 0),
            spread(&|one| Consumed::a_transaction(&one.consumed), 0),
        ]);
    }
    table.into_text()
}

fn fresh(rounds: &[Round]) -> String {
    let mut table = Table::new(&["from POST to", "p50 ms", "p99 ms", "greatest ms"]);
    let all = || rounds.iter().filter_map(|round| round.fresh.as_ref());
    let ledger: Vec<_> = all().map(|fresh| &fresh.ledger).collect();
    let state: Vec<_> = all().map(|fresh| &fresh.state).collect();
    let looks: Vec<_> = all().map(|fresh| &fresh.resolution).collect();
    for (name, watched) in [
        ("row in the ledger", ledger),
        ("state of the call", state),
        ("(between two looks of the watcher)", looks),
    ] {
        let at = |quantile: f64| {
            let each = watched.iter().map(|one| one.value_at_quantile(quantile) as f64 / 1000.0);
            text(Spread::of(each), 1)
        };
        table.row(&[name.to_owned(), at(0.5), at(0.99), at(1.0)]);
    }
    let ack = Spread::of(all().map(|fresh| fresh.ack_p99_us as f64 / 1000.0));
    table.row(&["(the answer 200)".to_owned(), "–".to_owned(), text(ack, 1), "–".to_owned()]);
    table.into_text()
}
