//! `tollgate quarantine list|replay`.
//!
//! Replaying reads the quarantined bytes with this version's reader and publishes the events that
//! come out, under the ids they would always have had. The topics themselves remember what was
//! replayed: an event whose id is on its topic already is left alone. There may be millions: only
//! ids are kept of them, and the bytes are read again to be published, a portion at a time.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use prost::Message;
use serde_json::json;
use tollgate_edge::{Applications, requalify};
use tollgate_schema::topics::{CALL_EVENTS, CDRS, QUARANTINE};
use tollgate_schema::v1::Quarantined;
use tollgate_stream::{Incoming, Outgoing, ReadFrom, Relay, RelayError, Stream, StreamError};

use super::FOUND;
use super::tail::record_json;
use crate::cli::{self, Cli};
use crate::config::{Config, Part};
use crate::say::{self, say};
use crate::{compose, mask};

/// Events in one transaction.
const PORTION: usize = 500;
/// Or so many bytes of them.
const PORTION_BYTES: usize = 4 * 1024 * 1024;

pub async fn run(cli: &Cli, command: &cli::Quarantine) -> anyhow::Result<ExitCode> {
    let config = Config::read(cli, json!({}))?;
    config.validate(&[Part::Kafka])?;
    tollgate_runtime::telemetry::init_logs(&config.log)?;
    let stream = compose::kafka(&config)?;
    let done = match command {
        cli::Quarantine::List { reveal } => list(stream.as_ref(), *reveal).await,
        cli::Quarantine::Replay { id, dry_run } => {
            let applications = Applications::new(&config.applications, None)?;
            replay(stream.as_ref(), &applications, id.as_deref(), *dry_run).await
        }
    };
    done.map_err(|error| {
        if error.is::<StreamError>() { error.context(compose::cluster(&config)) } else { error }
    })
}

async fn list(stream: &dyn Stream, reveal: bool) -> anyhow::Result<ExitCode> {
    read_all(stream, &[QUARANTINE.name], async |record| {
        let mut shown = record_json(&QUARANTINE, record);
        if !reveal {
            mask::hide(&mut shown);
        }
        say!("{shown}");
        Ok(())
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
    let mut known = Known::read(stream, applications, id).await?;
    if let Some(id) = id
        && known.refused_at.is_empty()
    {
        anyhow::bail!(
            "nothing in quarantine has the id {id}; `tollgate quarantine list` shows what there is"
        );
    }
    let (mut unreadable, mut replayed_before) = (0, 0);
    let mut publisher = Publisher::new(stream, dry_run);
    read_quarantine(stream, id, async |item| {
        // Each once, and none that has come since the first reading.
        let Some(refused_at) = known.refused_at.remove(&item.quarantine_id) else { return Ok(()) };
        let Some(events) = requalify(&item, applications) else {
            unreadable += 1;
            return Ok(());
        };
        for event in events {
            if known.is_on_its_topic(&event, refused_at) {
                replayed_before += 1;
            } else {
                publisher.take(event, &item.quarantine_id).await?;
            }
        }
        Ok(())
    })
    .await?;
    publisher.publish().await?;
    let Publisher { published, refused, .. } = publisher;
    let done = if dry_run { "would be published" } else { "published" };
    let mut text = format!(
        "{unreadable} still cannot be read; {replayed_before} were replayed before\n{published} {done}"
    );
    if refused > 0 {
        text = format!("{text}; {refused} are refused by their topics for good");
    }
    let code = if refused > 0 { FOUND } else { 0 };
    say::result(&text, code.into())
}

/// What must be known of all records before the first is published.
#[derive(Default)]
struct Known {
    /// Where each quarantine id was refused last, if by a consumer. The same bytes may be in
    /// quarantine more than once: by each group that refused them, and again by one that refused
    /// their replay.
    refused_at: HashMap<String, Option<i64>>,
    /// The greatest offset of each event that can be read now, if it is on its topic.
    newest: HashMap<String, Option<i64>>,
}

impl Known {
    async fn read(
        stream: &dyn Stream,
        applications: &Applications,
        id: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut known = Self::default();
        read_quarantine(stream, id, async |item| {
            let offset = item.source.as_ref().map(|source| source.offset);
            if let Some(refused_at) = known.refused_at.get_mut(&item.quarantine_id) {
                *refused_at = offset.max(*refused_at);
                return Ok(());
            }
            let events = requalify(&item, applications).unwrap_or_default();
            known.newest.extend(events.iter().filter_map(ce_id).map(|id| (id, None)));
            known.refused_at.insert(item.quarantine_id, offset);
            Ok(())
        })
        .await?;
        if known.newest.is_empty() {
            return Ok(known);
        }
        // An id's key, and so its partition, is always the same: its offsets can be compared.
        read_all(stream, &[CALL_EVENTS.name, CDRS.name], async |record| {
            let newest = record.header("ce_id").and_then(|id| known.newest.get_mut(id));
            if let Some(newest) = newest {
                *newest = Some(record.offset).max(*newest);
            }
            Ok(())
        })
        .await?;
        Ok(known)
    }

    /// Of what a consumer has refused, only a later offset than that counts as a replay.
    fn is_on_its_topic(&self, event: &Outgoing, refused_at: Option<i64>) -> bool {
        let newest = ce_id(event).and_then(|id| self.newest.get(&id).copied().flatten());
        newest > refused_at
    }
}

/// Publishes events a portion at a time, each in a transaction.
struct Publisher<'a> {
    stream: &'a dyn Stream,
    dry_run: bool,
    relay: Option<Box<dyn Relay>>,
    /// Events, and the quarantine id of each.
    portion: Vec<(Outgoing, String)>,
    portion_bytes: usize,
    published: usize,
    refused: usize,
}

impl<'a> Publisher<'a> {
    fn new(stream: &'a dyn Stream, dry_run: bool) -> Self {
        let (portion, portion_bytes, published, refused) = (Vec::new(), 0, 0, 0);
        Self { stream, dry_run, relay: None, portion, portion_bytes, published, refused }
    }

    async fn take(&mut self, event: Outgoing, quarantine_id: &str) -> anyhow::Result<()> {
        self.portion_bytes += event.size();
        self.portion.push((event, quarantine_id.to_owned()));
        if self.portion.len() >= PORTION || self.portion_bytes >= PORTION_BYTES {
            self.publish().await?;
        }
        Ok(())
    }

    /// Publishes what has gathered, less what its topic refuses for good.
    async fn publish(&mut self) -> anyhow::Result<()> {
        let mut portion = std::mem::take(&mut self.portion);
        self.portion_bytes = 0;
        if portion.is_empty() || self.dry_run {
            self.published += portion.len();
            return Ok(());
        }
        let relay = match &mut self.relay {
            Some(relay) => relay,
            none => none.insert(self.stream.relay("tollgate-quarantine-replay").await?),
        };
        while let Err(error) = transact(&mut **relay, &portion).await {
            let RelayError::Permanent { index, reason } = error else {
                let before = self.published;
                return Err(error).context(format!(
                    "{before} were published; try again, what was published is left alone"
                ));
            };
            relay.abort().await?;
            let (event, quarantine_id) = portion.remove(index);
            let (event_id, topic) = (ce_id(&event).unwrap_or_default(), event.topic);
            self.refused += 1;
            say::trouble(format_args!(
                "event {event_id} of quarantine id {quarantine_id} is refused by {topic} for good: {reason}"
            ));
        }
        self.published += portion.len();
        Ok(())
    }
}

/// One transaction.
async fn transact(relay: &mut dyn Relay, portion: &[(Outgoing, String)]) -> Result<(), RelayError> {
    relay.send(portion.iter().map(|(event, _)| event.clone()).collect()).await?;
    relay.commit().await
}

fn ce_id(event: &Outgoing) -> Option<String> {
    let (_, value) = event.headers.iter().find(|(name, _)| **name == *"ce_id")?;
    String::from_utf8(value.to_vec()).ok()
}

/// What is in quarantine: all of it, or of this id.
async fn read_quarantine(
    stream: &dyn Stream,
    id: Option<&str>,
    mut each: impl AsyncFnMut(Quarantined) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    read_all(stream, &[QUARANTINE.name], async |record| {
        let item = record.value.as_deref().and_then(|value| Quarantined::decode(value).ok());
        match item.filter(|item| id.is_none_or(|id| id == item.quarantine_id)) {
            Some(item) => each(item).await,
            None => Ok(()),
        }
    })
    .await
}

async fn read_all(
    stream: &dyn Stream,
    topics: &[&str],
    mut each: impl AsyncFnMut(&Incoming) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut reader =
        compose::patiently(async || stream.reader(topics, ReadFrom::Earliest).await).await?;
    loop {
        for record in reader.next(1000, Duration::from_millis(500)).await? {
            each(&record).await?;
        }
        if reader.caught_up().await? {
            return Ok(());
        }
    }
}
