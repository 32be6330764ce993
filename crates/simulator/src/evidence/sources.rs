//! Evidence from a cluster's topics, or from the query APIs.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tollgate_stream::Stream;

use super::http::{Api, Cursor};
use super::stream::Cluster;
use super::{Evidence, EvidenceError, LedgerEntry, NumberState, TopicRecord};
use crate::{Options, SimulatorError};

/// Most numbers in one question.
const NUMBERS_AT_ONCE: usize = 500;
/// Most records of a page of a topic.
const TOPIC_PAGE: usize = 1_000;
/// Most entries of a page of the ledger.
const LEDGER_PAGE: usize = 5_000;
/// Pages read before the verifier may look at them.
const PAGES_AT_MOST: usize = 50;

/// Evidence from wherever it is to be had.
#[derive(Default)]
pub struct Sources {
    cluster: Option<Cluster>,
    topics: Option<Api>,
    billing: Option<Api>,
    user_state: Option<Api>,
    /// Per topic, the cursor of the last page and the last offset of each partition.
    positions: HashMap<&'static str, (Option<Cursor>, HashMap<i32, i64>)>,
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
        let what = format!("topic {name}");
        let path = format!("/v1/topics/{name}/records");
        let (after, seen) = self.positions.entry(name).or_default();
        let mut records = Vec::new();
        for _ in 0..PAGES_AT_MOST {
            let page: TopicPage = api.page(&what, &path, TOPIC_PAGE, after.as_ref()).await?;
            let mut is_new = false;
            for item in page.records {
                // Without a further cursor the last page is read again.
                let last = seen.entry(item.partition).or_insert(-1);
                if item.offset <= *last {
                    continue;
                }
                *last = item.offset;
                is_new = true;
                records.extend(topic_record(item));
            }
            match page.next {
                Some(next) if is_new || after.as_ref() != Some(&next) => *after = Some(next),
                _ => break,
            }
            if !is_new {
                break;
            }
        }
        Ok(Some(records))
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

    fn rewind(&mut self) {
        for (after, _) in self.positions.values_mut() {
            *after = None;
        }
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
