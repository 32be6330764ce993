//! Topics over HTTP: the embedded log has no network protocol of its own, so `tollgate dev` shows
//! its topics here, to `tollgate tail --dev` and to the simulator's verifier.
//!
//! `GET /v1/topics/{name}/records?limit=1000[&from=latest]` opens a reading and answers
//! `{"records":[…],"next":"…"}`; `?after=<next>` goes on with it, on the same topic. No records: nothing new for the
//! moment. A reading gives each record once; what a client did not receive it reads from the start.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, web};
use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tollgate_runtime::listener::get;
use tollgate_runtime::query::{Refusal, read};
use tollgate_schema::topics::Topic;
use tollgate_stream::{Incoming, ReadFrom, Stream, StreamError, TopicPartition, TopicReader};

use crate::commands::Refused;

/// Readings kept open; the one unused for longest goes first.
const OPEN_READINGS: usize = 32;

const DEFAULT_LIMIT: usize = 1000;
const MAX_LIMIT: usize = 5000;

/// How long a request waits for a record.
const WAIT: Duration = Duration::from_millis(200);

const HINT: &str = "GET /v1/topics/{name}/records takes limit (1 to 5000) and either from (earliest, latest) or \
     after (the `next` of the answer before)";

/// One page of a topic.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    records: Vec<Shown>,
    next: String,
}

/// A record on the wire.
#[derive(Debug, Serialize, Deserialize)]
struct Shown {
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    ce_id: Option<String>,
    key: String,
    value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    after: Option<String>,
    limit: Option<usize>,
    from: Option<From>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Earliest,
    Latest,
}

/// What is asked for, once it makes sense.
struct Question {
    place: Place,
    limit: usize,
}

enum Place {
    Open(ReadFrom),
    After(String),
}

/// The readings of all clients.
pub struct Readings {
    stream: Arc<dyn Stream>,
    open: Mutex<HashMap<String, Reading>>,
    clock: AtomicU64,
}

struct Reading {
    topic: &'static str,
    reader: Arc<Mutex<Box<dyn TopicReader>>>,
    used: u64,
}

impl Readings {
    /// Shows the topics of this stream.
    pub fn new(stream: Arc<dyn Stream>) -> Arc<Self> {
        Arc::new(Self { stream, open: Mutex::default(), clock: AtomicU64::new(0) })
    }

    /// `None` when there is no such reading of this topic, or not any more.
    async fn page(
        &self,
        topic: &'static Topic,
        question: Question,
    ) -> Result<Option<Page>, StreamError> {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let (id, reader) = match question.place {
            Place::Open(from) => self.open(topic, from, now).await?,
            Place::After(id) => match self.open.lock().await.get_mut(&id) {
                Some(reading) if reading.topic == topic.name => {
                    reading.used = now;
                    let reader = Arc::clone(&reading.reader);
                    (id, reader)
                }
                _ => return Ok(None),
            },
        };
        let records = reader.lock().await.next(question.limit, WAIT).await?;
        Ok(Some(Page { records: records.iter().map(Shown::of).collect(), next: id }))
    }

    async fn open(
        &self,
        topic: &'static Topic,
        from: ReadFrom,
        now: u64,
    ) -> Result<(String, Arc<Mutex<Box<dyn TopicReader>>>), StreamError> {
        let reader = Arc::new(Mutex::new(self.stream.reader(&[topic.name], from).await?));
        let id = format!("{}-{now}", topic.name);
        let mut open = self.open.lock().await;
        if open.len() >= OPEN_READINGS
            && let Some(oldest) =
                open.iter().min_by_key(|(_, it)| it.used).map(|(id, _)| id.clone())
        {
            open.remove(&oldest);
        }
        let reading = Reading { topic: topic.name, reader: Arc::clone(&reader), used: now };
        open.insert(id.clone(), reading);
        Ok((id, reader))
    }
}

impl Question {
    fn of(query: Query) -> Result<Self, Refusal> {
        let place = match (query.after, query.from) {
            (Some(_), Some(_)) => return Err(Refusal::invalid("both after and from", HINT)),
            (Some(id), None) => Place::After(id),
            (None, Some(From::Latest)) => Place::Open(ReadFrom::Latest),
            (None, Some(From::Earliest) | None) => Place::Open(ReadFrom::Earliest),
        };
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Refusal::invalid("limit is not between 1 and 5000", HINT));
        }
        Ok(Self { place, limit })
    }
}

impl Shown {
    fn of(record: &Incoming) -> Self {
        Self {
            partition: record.partition.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            ce_id: record.header("ce_id").map(ToOwned::to_owned),
            key: String::from_utf8_lossy(&record.key).into_owned(),
            value: record.value.as_ref().map(|value| BASE64_STANDARD.encode(value)),
        }
    }

    fn into_incoming(self, topic: &Topic) -> anyhow::Result<Incoming> {
        let value = self.value.map(|text| BASE64_STANDARD.decode(text)).transpose()?;
        let headers = self.ce_id.map(|id| ("ce_id".into(), id.into_bytes().into()));
        Ok(Incoming {
            partition: TopicPartition::new(topic.name, self.partition),
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.into_bytes().into(),
            value: value.map(Into::into),
            headers: headers.into_iter().collect(),
        })
    }
}

/// Routes for the query listener.
pub fn routes(
    readings: Arc<Readings>,
) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    move |config| {
        let readings = Arc::clone(&readings);
        config.service(get(
            "/v1/topics/{name}/records",
            move |name: web::Path<String>, request: HttpRequest| {
                answer(Arc::clone(&readings), name.into_inner(), request)
            },
        ));
    }
}

async fn answer(
    readings: Arc<Readings>,
    name: String,
    request: HttpRequest,
) -> Result<web::Json<Page>, Refusal> {
    let topic = Topic::named(&name).ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, "no such topic", "see docs/topics.md for their names")
    })?;
    let question = Question::of(read(request.query_string(), HINT)?)?;
    let page = readings.page(topic, question).await.map_err(|error| {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            error.to_string(),
            "ask again in a few seconds",
        )
    })?;
    page.map(web::Json).ok_or_else(|| {
        Refusal::new(StatusCode::GONE, "this reading is closed", "begin again without `after`")
    })
}

/// Follows a topic of a running `tollgate dev`.
pub struct Pages {
    client: reqwest::Client,
    url: String,
    topic: &'static Topic,
    after: Option<String>,
    latest: bool,
}

impl Pages {
    /// `url` is the address of the query API.
    pub fn new(url: &str, topic: &'static Topic, from_beginning: bool) -> anyhow::Result<Self> {
        if !Url::parse(url).is_ok_and(|url| url.scheme() == "http") {
            let hint = "give the query address of `tollgate dev`, such as http://127.0.0.1:8081";
            return Err(Refused(format!("--dev must begin with http://; {hint}")).into());
        }
        let url = format!("{}/v1/topics/{}/records", url.trim_end_matches('/'), topic.name);
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
        Ok(Self { client, url, topic, after: None, latest: !from_beginning })
    }

    /// The next records; empty when nothing is there for the moment.
    pub async fn next(&mut self) -> anyhow::Result<Vec<Incoming>> {
        let query = match &self.after {
            Some(after) => vec![("after", after.as_str())],
            None if self.latest => vec![("from", "latest")],
            None => vec![],
        };
        let answer = self.client.get(&self.url).query(&query).send().await;
        let answer = answer.with_context(|| {
            format!(
                "no answer from {}; is `tollgate dev` running, and is this its query address?",
                self.url
            )
        })?;
        let page: Page = answer.error_for_status()?.json().await?;
        self.after = Some(page.next);
        page.records.into_iter().map(|record| record.into_incoming(self.topic)).collect()
    }
}

#[cfg(test)]
mod tests {
    use actix_web::App;
    use actix_web::test::{
        TestRequest, call_and_read_body_json, call_service, init_service, read_body_json,
    };
    use serde_json::Value;
    use tempfile::TempDir;
    use tollgate_stream::TopicSpec;
    use tollgate_stream::embedded::{EmbeddedOptions, EmbeddedStream};
    use tollgate_stream::settings::EmbeddedSettings;

    use super::*;

    #[actix_web::test]
    async fn an_odd_question_is_answered_with_what_to_ask_instead() {
        let dir = TempDir::new().unwrap();
        let log = EmbeddedSettings { dir: dir.path().to_owned(), ..EmbeddedSettings::default() };
        let stream = EmbeddedStream::open(EmbeddedOptions::new(log)).unwrap();
        stream.create_topics(&TopicSpec::catalogue(Some(1))).await.unwrap();
        let app = init_service(App::new().configure(routes(Readings::new(stream)))).await;
        let open = TestRequest::get().uri("/v1/topics/call-events/records?from=earliest");
        let page: Page = call_and_read_body_json(&app, open.to_request()).await;
        assert_eq!(page.next, "call-events-0");
        for (path, expected) in [
            ("/v1/topics/nothing/records", 404),
            ("/v1/topics/cdrs/records?limti=5", 400),
            ("/v1/topics/cdrs/records?limit=five", 400),
            ("/v1/topics/cdrs/records?limit=0", 400),
            ("/v1/topics/cdrs/records?limit=5001", 400),
            ("/v1/topics/cdrs/records?from=newest", 400),
            ("/v1/topics/cdrs/records?from=latest&after=cdrs-0", 400),
            ("/v1/topics/cdrs/records?after=cdrs-7", 410),
            // Open, but of the other topic.
            ("/v1/topics/cdrs/records?after=call-events-0", 410),
        ] {
            let request = TestRequest::get().uri(path).to_request();
            let response = call_service(&app, request).await;
            assert_eq!(response.status(), expected, "{path}");
            let body: Value = read_body_json(response).await;
            assert!(body["error"].is_string() && body["hint"].is_string(), "{path}: {body}");
        }
        let posted = TestRequest::post().uri("/v1/topics/cdrs/records").to_request();
        assert_eq!(call_service(&app, posted).await.status(), 405);
    }
}
