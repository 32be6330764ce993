//! Evidence over HTTP and from a cluster.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{Evidence as _, Sources};
use crate::Options;

type Handler = Arc<dyn Fn(&str, &str) -> (u16, Value) + Send + Sync>;

/// Serves a query API: path with query, and body, to status and answer.
async fn serve(handler: impl Fn(&str, &str) -> (u16, Value) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let handler: Handler = Arc::new(handler);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&handler)));
        }
    });
    url
}

async fn answer(stream: TcpStream, handler: Handler) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut headers = HashMap::new();
    let mut first = String::new();
    stream.read_line(&mut first).await.ok()?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |it| it.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let (status, answer) = if headers.get("authorization").is_some_and(|it| it == "Bearer secret") {
        handler(first.split(' ').nth(1)?, std::str::from_utf8(&body).ok()?)
    } else {
        (401, json!({"error": "a token is needed"}))
    };
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status} Answer\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    stream.get_mut().write_all((head + &answer).as_bytes()).await.ok()
}

fn sources(url: String, dir: &tempfile::TempDir) -> Sources {
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "secret\n").unwrap();
    let options = Options { query: Some(url), token_file: Some(token_file), ..Options::default() };
    Sources::of(&options).unwrap()
}

fn record(partition: i32, offset: i64) -> Value {
    let value = STANDARD.encode(format!("{partition}-{offset}"));
    json!({"partition": partition, "offset": offset, "ce_id": "id", "key": "k", "value": value})
}

#[tokio::test]
async fn a_topic_is_read_page_by_page_and_each_record_once() {
    let dir = tempfile::tempdir().unwrap();
    // A reading that hands out one record after the other, in no order of partitions.
    let left: Arc<Mutex<Vec<Value>>> = Arc::default();
    let all = [record(1, 0), record(0, 0), record(1, 1), record(0, 1)];
    let handed = Arc::clone(&left);
    let url = serve(move |path, _| {
        assert!(path.starts_with("/v1/topics/cdrs/records?limit=1000"), "{path}");
        let mut left = handed.lock().unwrap();
        if !path.contains("after=r1") {
            *left = all.to_vec();
        }
        let first = if left.is_empty() { None } else { Some(left.remove(0)) };
        (200, json!({"records": first.as_slice(), "next": "r1"}))
    })
    .await;
    let mut sources = sources(url, &dir);
    let mut values = Vec::new();
    for _ in 0..5 {
        values.extend(sources.topic("cdrs").await.unwrap().unwrap());
    }
    let text = |record: &super::TopicRecord| String::from_utf8(record.value.to_vec()).unwrap();
    assert_eq!(values.iter().map(text).collect::<Vec<_>>(), ["1-0", "0-0", "1-1", "0-1"]);
    assert_eq!((&values[0].ce_id[..], &values[0].key[..]), ("id", &b"k"[..]));
    // From the beginning again: everything is known.
    sources.rewind();
    assert!(sources.topic("cdrs").await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn a_reading_that_was_closed_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Mutex::new(0);
    let url = serve(move |path, _| match path.split_once("after=") {
        None => {
            let mut opened = opened.lock().unwrap();
            *opened += 1;
            (200, json!({"records": [record(0, 0)], "next": format!("r{opened}")}))
        }
        Some((_, "r2")) => (200, json!({"records": [], "next": "r2"})),
        Some(_) => (410, json!({"error": "this reading is closed"})),
    })
    .await;
    let mut sources = sources(url, &dir);
    assert_eq!(sources.topic("cdrs").await.unwrap().unwrap().len(), 1);
    let error = sources.topic("cdrs").await.unwrap_err();
    assert_eq!(error.to_string(), "cannot read topic cdrs: answered 410");
    assert_eq!(sources.topic("cdrs").await, Ok(Some(Vec::new())), "known already");
}

#[tokio::test]
async fn the_ledger_is_read_from_its_beginning_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let entry = |id: &str| {
        json!({"entry_id": id, "record_id": "r", "event_id": "e", "kind": "charge",
            "revision": 1, "status": "rated", "amount": "0.36", "amount_micros": 360_000,
            "currency": "CNY", "app_key": "k", "session_id": "s", "flags": [],
            "legs": [{"side": "A", "seconds": 61, "billed_seconds": 120, "billed_minutes": 2,
                "amount_micros": 360_000, "rate": "standard"}]})
    };
    let url = serve(move |path, _| match path {
        "/v1/ledger?limit=5000" => (200, json!({"entries": [entry("1")], "next": "c-1"})),
        "/v1/ledger?limit=5000&after=c-1" => (200, json!({"entries": [entry("2")], "next": null})),
        other => panic!("{other}"),
    })
    .await;
    let mut sources = sources(url, &dir);
    for _ in 0..2 {
        let entries = sources.ledger().await.unwrap().unwrap();
        assert_eq!(entries.iter().map(|it| &it.entry_id).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(entries[0].legs[0].billed_minutes, 2);
    }
}

#[tokio::test]
async fn states_are_asked_for_in_portions() {
    let dir = tempfile::tempdir().unwrap();
    let url = serve(|path, body| {
        assert_eq!(path, "/v1/numbers/query");
        let question: Value = serde_json::from_str(body).unwrap();
        let numbers = question["numbers"].as_array().unwrap();
        assert!(numbers.len() <= 500);
        let answer = |number: &Value| {
            json!({"number": number, "known": true, "version": 3, "presence": "idle",
                "since": "2026-11-23T04:00:00Z", "calls": [], "as_of": null,
                "last_call": {"session_id": "s", "side": "a", "ended_at": "2026-11-23T04:00:00Z",
                    "answered": true, "state_code": 0, "release_reason": null, "cause": null,
                    "sip_status": null, "group": "success", "description": ""}})
        };
        let answers: Vec<_> = numbers.iter().map(answer).collect();
        (200, json!({"numbers": answers, "freshness": {}}))
    })
    .await;
    let numbers: Vec<String> = (0..1201).map(|number| format!("+86{number}")).collect();
    let states = sources(url, &dir).states(&numbers).await.unwrap().unwrap();
    assert_eq!(states.len(), 1201);
    let last = states[0].last_call.clone().unwrap();
    assert_eq!((last.state_code, last.release_reason), (Some(0), None));
}

#[tokio::test]
async fn timelines_are_asked_for_one_by_one_and_an_unknown_call_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let url = serve(|path, _| match path.strip_prefix("/v1/calls?session_id=").unwrap() {
        "none" => (404, json!({"error": "no event of such a call has been applied"})),
        session => {
            let event = json!({"type": "answer", "event_id": format!("e-{session}")});
            (200, json!({"session_id": session, "events": [event], "legs": []}))
        }
    })
    .await;
    let asked = ["1", "none", "2"].map(str::to_owned);
    let found = sources(url, &dir).timelines(&asked).await.unwrap().unwrap();
    let found: Vec<_> =
        found.iter().map(|it| (&it.session_id[..], &it.events[0].event_id[..])).collect();
    assert_eq!(found, [("1", "e-1"), ("2", "e-2")]);
}

#[tokio::test]
async fn what_is_wrong_with_an_api_is_said_without_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let url = serve(|path, _| match path {
        path if path.starts_with("/v1/ledger") => (200, json!({"entries": "+8613800000021"})),
        _ => (404, json!({"error": "no such page"})),
    })
    .await;
    let options = Options { query: Some(url.clone()), ..Options::default() };
    let error = Sources::of(&options).unwrap().ledger().await.unwrap_err().to_string();
    assert_eq!(error, "cannot read ledger: answered 401; give its token with --token-file");
    let mut sources = sources(url, &dir);
    let error = sources.ledger().await.unwrap_err().to_string();
    assert!(error.contains("not as expected") && !error.contains("138000"), "{error}");
    let error = sources.topic("cdrs").await.unwrap_err().to_string();
    assert!(error.contains("answered 404"), "{error}");
}

#[tokio::test]
async fn without_sources_there_is_no_evidence() {
    let mut sources = Sources::of(&Options::default()).unwrap();
    assert!(sources.is_empty());
    assert_eq!(sources.topic("cdrs").await, Ok(None));
    assert_eq!(sources.ledger().await, Ok(None));
    assert_eq!(sources.states(&[]).await, Ok(None));
    assert_eq!(sources.timelines(&[]).await, Ok(None));
}

#[tokio::test]
async fn topics_of_a_cluster_are_read_each_record_once() {
    use tollgate_stream::embedded::{EmbeddedOptions, EmbeddedStream};
    use tollgate_stream::{
        Deliveries, DeliveryError, EmbeddedSettings, Outgoing, Position, ProducerKind, Stream,
        Token, TopicSpec,
    };

    struct Delivered(tokio::sync::mpsc::UnboundedSender<Token>);
    impl Deliveries for Delivered {
        fn delivered(&self, token: Token, outcome: Result<Position, DeliveryError>) {
            outcome.unwrap();
            self.0.send(token).unwrap();
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let settings = EmbeddedSettings { dir: dir.path().join("log"), ..EmbeddedSettings::default() };
    let stream = EmbeddedStream::open(EmbeddedOptions::new(settings)).unwrap();
    stream.create_topics(&TopicSpec::catalogue(Some(1))).await.unwrap();
    let (sender, mut delivered) = tokio::sync::mpsc::unbounded_channel();
    let producer = stream.producer(ProducerKind::Spooled, Arc::new(Delivered(sender))).unwrap();
    let topic = &tollgate_schema::topics::CDRS;
    let mut sources = Sources::default().with_stream(Arc::clone(&stream) as Arc<dyn Stream>);
    assert!(!sources.is_empty());
    for round in 0..2_u64 {
        for number in 0..100 {
            let id = format!("{round}-{number}");
            let record = Outgoing::event(topic, id.clone(), &id, None, id.clone());
            producer.send(&record, number).unwrap();
        }
        for _ in 0..100 {
            delivered.recv().await.unwrap();
        }
        let mut ids: Vec<String> = Vec::new();
        while ids.len() < 100 {
            let records = sources.topic("cdrs").await.unwrap().unwrap();
            ids.extend(records.into_iter().map(|record| record.ce_id));
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| id.starts_with(&format!("{round}-"))));
    }
}
