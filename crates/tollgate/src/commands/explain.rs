//! `tollgate explain FILE|-`: what Tollgate makes of one notification body, as one JSON document.
//! Goes through the very code of edge and billing; publishes and stores nothing.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::{Value, json};
use tollgate_billing::digest::{Digest, Place};
use tollgate_billing::http::amount_text;
use tollgate_billing::ledger::Account;
use tollgate_billing::pricing::{Book, Desk};
use tollgate_billing::{CdrDecoder, CdrItem};
use tollgate_edge::{Applications, Decoder};
use tollgate_rating::{SAMPLE_TARIFF, Tariff};
use tollgate_schema::topics::{CDRS, QUARANTINE, Topic};
use tollgate_schema::{json, v1};
use tollgate_spool::Request;
use tollgate_stream::{Decode, Incoming, Outgoing, Source, TopicPartition};

use super::Refused;
use crate::cli::{Cli, Explain};
use crate::compose::billing_applications;
use crate::config::Config;
use crate::mask;
use crate::say::say;

pub fn run(cli: &Cli, arguments: &Explain) -> anyhow::Result<ExitCode> {
    let config = Config::read(cli, json!({}))?;
    let body = read(arguments)?;
    let received_at = match &arguments.received_at {
        None => Timestamp::now(),
        Some(text) => text.parse().map_err(|_| {
            Refused("--received-at: expected a time such as 2026-11-23T07:00:00Z".into())
        })?,
    };
    let tariff = tariff(arguments)?;
    let mut document = explain(&config, &body, &arguments.application, received_at, tariff)?;
    if !arguments.reveal {
        mask::hide(&mut document);
    }
    say!("{document:#}");
    Ok(ExitCode::SUCCESS)
}

fn read(arguments: &Explain) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    if arguments.file.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut body).context("standard input cannot be read")?;
    } else {
        let name = arguments.file.display();
        body = std::fs::read(&arguments.file).with_context(|| format!("{name} cannot be read"))?;
    }
    Ok(body)
}

fn tariff(arguments: &Explain) -> anyhow::Result<Tariff> {
    let Some(path) = &arguments.tariff else {
        return Tariff::parse(SAMPLE_TARIFF).context("the sample tariff");
    };
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
    Tariff::parse(&text).map_err(|error| Refused(format!("{name}: {error}")).into())
}

/// The whole document.
fn explain(
    config: &Config,
    body: &[u8],
    application: &str,
    received_at: Timestamp,
    tariff: Tariff,
) -> anyhow::Result<Value> {
    let bytes = body.len();
    let request = Request {
        application,
        received_at_ms: received_at.as_millisecond(),
        edge_id: "explain",
        body,
        ..Request::default()
    };
    let applications = Arc::new(Applications::new(&config.applications, None)?);
    let decoder = Decoder::for_looking(applications);
    let (name, version) = (tariff.name().to_owned(), tariff.version().to_string());
    let mut book = Book::default();
    book.activate(i64::MIN, Arc::new(tariff));
    let rules = config.billing.rules(billing_applications(config)).map_err(Refused)?;
    let desk = Desk { rules: &rules, book: &book };

    let mut records = Vec::new();
    let mut quarantined = Vec::new();
    for record in decoder.normalise(&request, None).records {
        let topic = Topic::named(&record.topic).context("a topic of the catalogue")?;
        let value = record.value.clone().unwrap_or_default();
        let event = json::to_json(topic.message, &value)?;
        if *topic == QUARANTINE {
            quarantined.push(quarantine(&event));
            continue;
        }
        let mut shown = json!({
            "index": event["provenance"]["index"].as_u64().unwrap_or(0),
            "topic": topic.name,
            "record_id": event["record_id"],
            "event_id": event["event_id"],
        });
        if *topic == CDRS {
            add_charge(&mut shown, &record, &desk)?;
        }
        shown["event"] = event;
        records.push(shown);
    }
    Ok(json!({
        "bytes": bytes,
        "received_at": received_at.to_string(),
        "tariff": {"name": name, "version": version},
        "records": records,
        "quarantined": quarantined,
    }))
}

fn quarantine(event: &Value) -> Value {
    json!({
        "index": event["provenance"]["index"].as_u64().unwrap_or(0),
        "topic": QUARANTINE.name,
        "quarantine_id": event["quarantine_id"],
        "reason": event["reason"],
        "location": event["location"].as_str().unwrap_or(""),
        "detail": event["detail"],
        "event": event,
    })
}

/// Rates a CDR as billing would, if it were the only one ever seen of its record.
fn add_charge(shown: &mut Value, record: &Outgoing, desk: &Desk<'_>) -> anyhow::Result<()> {
    let item = match CdrDecoder.decode(&incoming(record)) {
        Ok(item) => item,
        Err(rejection) => {
            shown["charge"] = json!({"status": "rejected", "reason": rejection.0});
            return Ok(());
        }
    };
    let rated = rate(&item, desk).context("a sighting opens an account")?;
    shown["legs"] = rated.legs.iter().map(leg).collect();
    shown["charge"] = json!({
        "status": status(rated.status()),
        "currency": rated.currency,
        "amount": amount_text(rated.amount_micros),
        "amount_micros": rated.amount_micros,
        "policy": rated.policy,
        "tariff_version": rated.tariff_version,
        "application": rated.application,
        "billing_day": rated.billing_day,
    });
    shown["flags"] = json!(rated.flags);
    Ok(())
}

fn rate(item: &CdrItem, desk: &Desk<'_>) -> Option<v1::RatedCdr> {
    let nowhere = Source {
        group: String::new(),
        cluster_id: String::new(),
        partition: TopicPartition::new(CDRS.name, 0),
    };
    let digest = Digest::of(item, &Place::of(&nowhere));
    Account::open(item.record_id, &[digest], desk).map(|account| account.charge.message)
}

fn leg(leg: &v1::RatedLeg) -> Value {
    json!({
        "side": match leg.side() {
            v1::LegSide::A => "A",
            v1::LegSide::B => "B",
            v1::LegSide::Unspecified => "",
        },
        "seconds": leg.seconds,
        "billed_seconds": leg.billed_seconds,
        "billed_minutes": leg.billed_minutes,
        "amount": amount_text(leg.amount_micros),
        "amount_micros": leg.amount_micros,
        "rate": leg.rate,
    })
}

fn status(status: v1::RatingStatus) -> String {
    status.as_str_name().trim_start_matches("RATING_STATUS_").to_lowercase()
}

fn incoming(record: &Outgoing) -> Incoming {
    Incoming {
        partition: TopicPartition::new(&*record.topic, 0),
        offset: 0,
        timestamp_ms: 0,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
    }
}
