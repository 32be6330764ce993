//! `tollgate quarantine list|replay`.
//!
//! Replaying reads the quarantined bytes with this version's reader and publishes the events that
//! come out, under the ids they would always have had. The topics themselves remember what was
//! replayed: an event whose id is on its topic already is left alone.

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use prost::Message;
use serde_json::json;
use tollgate_edge::{Applications, requalify};
use tollgate_schema::topics::{CALL_EVENTS, CDRS, QUARANTINE};
use tollgate_schema::v1::Quarantined;
use tollgate_stream::{Incoming, Outgoing, ReadFrom, Stream};

use super::tail::record_json;
use crate::cli::{self, Cli};
use crate::config::{Config, Part};
use crate::say::say;
use crate::{compose, mask};

pub async fn run(cli: &Cli, command: &cli::Quarantine) -> anyhow::Result<ExitCode> {
    let config = Config::read(cli, json!({}))?;
    config.validate(&[Part::Kafka])?;
    tollgate_runtime::telemetry::init_logs(&config.log)?;
    let stream = compose::kafka(&config)?;
    match command {
        cli::Quarantine::List { reveal } => list(stream.as_ref(), *reveal).await,
        cli::Quarantine::Replay { id, dry_run } => {
            let applications = Applications::new(&config.applications, None)?;
            replay(stream.as_ref(), &applications, id.as_deref(), *dry_run).await
        }
    }
}

async fn list(stream: &dyn Stream, reveal: bool) -> anyhow::Result<ExitCode> {
    read_all(stream, &[QUARANTINE.name], |record| {
        let mut shown = record_json(&QUARANTINE, record);
        if !reveal {
            mask::hide(&mut shown);
        }
        say!("{shown}");
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

async fn replay(
    stream: &dyn Stream,
    applications: &Applications,
    id: Option<&str>,
    dry_run: bool,
) -> anyhow::Result<ExitCode> {
    // The same bytes may be there more than once: by each group that refused them, and again by
    // one that refused their replay. What counts is where they were refused last.
    let mut refused_at: HashMap<String, Option<i64>> = HashMap::new();
    let mut readable: Vec<Candidate> = Vec::new();
    let mut unreadable = 0;
    read_all(stream, &[QUARANTINE.name], |record| {
        let Some(item) = record.value.as_deref().and_then(|value| Quarantined::decode(value).ok())
        else {
            return;
        };
        if id.is_some_and(|id| id != item.quarantine_id) {
            return;
        }
        let offset = item.source.as_ref().map(|source| source.offset);
        if let Some(known) = refused_at.get_mut(&item.quarantine_id) {
            *known = offset.max(*known);
            return;
        }
        refused_at.insert(item.quarantine_id.clone(), offset);
        match requalify(&item, applications) {
            Some(events) => readable.extend(
                events
                    .into_iter()
                    .map(|event| Candidate { event, quarantine_id: item.quarantine_id.clone() }),
            ),
            None => unreadable += 1,
        }
    })
    .await?;
    if let Some(id) = id
        && refused_at.is_empty()
    {
        anyhow::bail!(
            "nothing in quarantine has the id {id}; `tollgate quarantine list` shows what there is"
        );
    }
    let known = newest_offsets(stream, &readable).await?;
    let total = readable.len();
    readable.retain(|candidate| !candidate.is_on_its_topic(&known, &refused_at));
    say!("{unreadable} still cannot be read; {} were replayed before", total - readable.len());
    if dry_run {
        say!("{} would be published", readable.len());
        return Ok(ExitCode::SUCCESS);
    }
    let events: Vec<Outgoing> = readable.into_iter().map(|candidate| candidate.event).collect();
    let count = events.len();
    publish(stream, events).await?;
    say!("{count} published");
    Ok(ExitCode::SUCCESS)
}

/// An event that may be published again.
struct Candidate {
    event: Outgoing,
    quarantine_id: String,
}

impl Candidate {
    /// Of what a consumer has refused, only a later offset than that counts as a replay.
    fn is_on_its_topic(
        &self,
        newest: &HashMap<String, i64>,
        refused_at: &HashMap<String, Option<i64>>,
    ) -> bool {
        let after = refused_at.get(&self.quarantine_id).copied().flatten();
        let found = ce_id(&self.event).and_then(|id| newest.get(&id));
        found.is_some_and(|offset| after.is_none_or(|after| *offset > after))
    }
}

/// Publishes all of it or nothing.
async fn publish(stream: &dyn Stream, events: Vec<Outgoing>) -> anyhow::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let mut relay = stream.relay("tollgate-quarantine-replay").await?;
    relay.send(events).await.context("nothing was published; try again")?;
    relay
        .commit()
        .await
        .context("it is not known whether it was published; try again, what was is left alone")
}

/// The greatest offset of each candidate that is on its topic. An id's key, and so its partition,
/// is always the same.
async fn newest_offsets(
    stream: &dyn Stream,
    candidates: &[Candidate],
) -> anyhow::Result<HashMap<String, i64>> {
    let mut newest = HashMap::new();
    let wanted: HashSet<String> =
        candidates.iter().filter_map(|candidate| ce_id(&candidate.event)).collect();
    if wanted.is_empty() {
        return Ok(newest);
    }
    read_all(stream, &[CALL_EVENTS.name, CDRS.name], |record| {
        if let Some(id) = record.header("ce_id").filter(|id| wanted.contains(*id)) {
            let offset = newest.entry(id.to_owned()).or_insert(record.offset);
            *offset = record.offset.max(*offset);
        }
    })
    .await?;
    Ok(newest)
}

fn ce_id(event: &Outgoing) -> Option<String> {
    let (_, value) = event.headers.iter().find(|(name, _)| **name == *"ce_id")?;
    String::from_utf8(value.to_vec()).ok()
}

async fn read_all(
    stream: &dyn Stream,
    topics: &[&str],
    mut each: impl FnMut(&Incoming),
) -> anyhow::Result<()> {
    let mut reader =
        compose::patiently(async || stream.reader(topics, ReadFrom::Earliest).await).await?;
    loop {
        let records = reader.next(1000, Duration::from_millis(500)).await?;
        records.iter().for_each(&mut each);
        if reader.caught_up().await? {
            return Ok(());
        }
    }
}
