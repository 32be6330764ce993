//! Evidence from a cluster's topics, or from the query APIs.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use tollgate_stream::Stream;

use super::http::{Api, Cursor};
use super::stream::Cluster;
use super::{Evidence, EvidenceError, LedgerEntry, NumberState, Timeline, TopicRecord};
use crate::{Options, SimulatorError};

/// Most numbers in one question.
const NUMBERS_AT_ONCE: usize = 500;
/// Timelines that are asked for at a time, each by a question of its own.
const TIMELINES_AT_ONCE: usize = 16;
/// Most records of a page of a topic.
const TOPIC_PAGE: usize = 1_000;
/// Most entries of a page of the ledger.
const LEDGER_PAGE: usize = 5_000;
/// Records read before the verifier may look at them.
const RECORDS_AT_MOST: usize = 50_000;

/// Evidence from wherever it is to be had.
#[derive(Default)]
pub struct Sources {
    cluster: Option<Cluster>,
    topics: Option<Api>,
    billing: Option<Api>,
    user_state: Option<Api>,
    positions: HashMap<&'static str, Position>,
}

/// How far a topic has been read.
#[derive(Default)]
struct Position {
    after: Option<Cursor>,
    /// Last offset of each partition: what is read again is left out.
    seen: HashMap<i32, i64>,
}

#[derive(Deserialize)]
struct TopicPage {
    records: Vec<TopicItem>,
    next: Option<Cursor>,
}

#[derive(Deserialize)]
struct TopicItem {
    partition: i32,
    offset: i64,
    #[serde(default)]
    ce_id: Option<String>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    value: Option<String>,
}

#[derive(Deserialize)]
struct LedgerPage {
    entries: Vec<LedgerEntry>,
    next: Option<Cursor>,
}

#[derive(Deserialize)]
struct NumbersAnswer {
    numbers: Vec<NumberState>,
}

impl Sources {
    /// The query APIs that the options name.
    pub fn of(options: &Options) -> Result<Self, SimulatorError> {
        let token = match &options.token_file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| SimulatorError::file("read", path, &error))?;
                Some(text.trim().to_owned())
            }
        };
        let api = |own: Option<&String>| {
            own.or(options.query.as_ref())
                .map(|url| Api::new(url, token.clone()))
                .transpose()
                .map_err(|error| SimulatorError::Options(error.to_string()))
        };
        Ok(Self {
            topics: api(None)?,
            billing: api(options.billing.as_ref())?,
            user_state: api(options.user_state.as_ref())?,
            ..Self::default()
        })
    }

    /// Reads the topics from this cluster instead.
    #[must_use]
    pub fn with_stream(mut self, stream: Arc<dyn Stream>) -> Self {
        self.cluster = Some(Cluster::new(stream));
        self
    }

    /// Whether there is anything to verify against.
    pub fn is_empty(&self) -> bool {
        self.cluster.is_none()
            && self.topics.is_none()
            && self.billing.is_none()
            && self.user_state.is_none()
    }
}

#[async_trait]
impl Evidence for Sources {
    async fn topic(
        &mut self,
        name: &'static str,
    ) -> Result<Option<Vec<TopicRecord>>, EvidenceError> {
        if let Some(cluster) = &mut self.cluster {
            return cluster.read(name).await.map(Some);
        }
        let Some(api) = &self.topics else { return Ok(None) };
        let position = self.positions.entry(name).or_default();
        let read = position.read(api, name).await;
        if read.is_err() {
            // What an answer on its way carried may be gone: begin again.
            position.after = None;
        }
        read.map(Some)
    }

    async fn ledger(&mut self) -> Result<Option<Vec<LedgerEntry>>, EvidenceError> {
        let Some(api) = &self.billing else { return Ok(None) };
        let mut entries = Vec::new();
        let mut after = None;
        // From the beginning each time: the ledger is in the order of its writers, so that a new
        // entry may stand before one that was read.
        loop {
            let page: LedgerPage =
                api.page("ledger", "/v1/ledger", LEDGER_PAGE, after.as_ref()).await?;
            let is_empty = page.entries.is_empty();
            entries.extend(page.entries);
            match page.next {
                Some(next) if !is_empty => after = Some(next),
                _ => break,
            }
        }
        Ok(Some(entries))
    }

    async fn states(
        &mut self,
        numbers: &[String],
    ) -> Result<Option<Vec<NumberState>>, EvidenceError> {
        let Some(api) = &self.user_state else { return Ok(None) };
        let mut states = Vec::with_capacity(numbers.len());
        for some in numbers.chunks(NUMBERS_AT_ONCE) {
            let question = serde_json::json!({ "numbers": some });
            let answer: NumbersAnswer = api.post("states", "/v1/numbers/query", &question).await?;
            states.extend(answer.numbers);
        }
        Ok(Some(states))
    }

    async fn timelines(
        &mut self,
        sessions: &[String],
    ) -> Result<Option<Vec<Timeline>>, EvidenceError> {
        let Some(api) = &self.user_state else { return Ok(None) };
        let questions: Vec<_> = sessions
            .iter()
            .map(|session| api.find("timelines", "/v1/calls", ("session_id", session.as_str())))
            .collect();
        let found: Vec<Option<Timeline>> =
            stream::iter(questions).buffered(TIMELINES_AT_ONCE).try_collect().await?;
        Ok(Some(found.into_iter().flatten().collect()))
    }

    fn rewind(&mut self) {
        for position in self.positions.values_mut() {
            position.after = None;
        }
    }
}

impl Position {
    /// Reads to the end, or until there is much to look at.
    async fn read(
        &mut self,
        api: &Api,
        name: &'static str,
    ) -> Result<Vec<TopicRecord>, EvidenceError> {
        let what = format!("topic {name}");
        let path = format!("/v1/topics/{name}/records");
        let mut records = Vec::new();
        while records.len() < RECORDS_AT_MOST {
            let page: TopicPage = api.page(&what, &path, TOPIC_PAGE, self.after.as_ref()).await?;
            let (length, before) = (page.records.len(), records.len());
            for item in page.records {
                let last = self.seen.entry(item.partition).or_insert(-1);
                if item.offset > *last {
                    *last = item.offset;
                    records.extend(topic_record(item));
                }
            }
            let is_last = page.next.is_none();
            self.after = page.next.or(self.after.take());
            // Others may write all the time: a few new records are the end for now. What was read
            // before is passed by, however it is cut into pages.
            let is_new = records.len() > before;
            if length == 0 || is_last || (length < TOPIC_PAGE && is_new) {
                break;
            }
        }
        Ok(records)
    }
}

fn topic_record(item: TopicItem) -> Option<TopicRecord> {
    let value = STANDARD.decode(item.value?).ok()?;
    Some(TopicRecord {
        ce_id: item.ce_id.unwrap_or_default(),
        key: item.key.unwrap_or_default().into_bytes().into(),
        value: value.into(),
    })
}
