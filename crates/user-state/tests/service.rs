//! The whole service: a stream in, states and answers out.

mod common;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::{App, HttpServer};
use common::{Record, at, callback, callback_cdr, status};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tollgate_schema::time::rfc3339;
use tollgate_schema::topics;
use tollgate_schema::v1::EventType;
use tollgate_store::{Settings as DatabaseSettings, connect};
use tollgate_stream::consumer::ConsumerError;
use tollgate_stream::embedded::{EmbeddedOptions, EmbeddedStream};
use tollgate_stream::settings::{ConsumerSettings, EmbeddedSettings};
use tollgate_stream::{Deliveries, DeliveryError, Position, Producer, ProducerKind, Stream, Token};
use tollgate_testkit::{Postgres, TestDir, eventually, eventually_true};
use tollgate_user_state::api::Feed;
use tollgate_user_state::keys::Pseudonyms;
use tollgate_user_state::store::{Options as StoreOptions, UserStateStore};
use tollgate_user_state::{Api, Options, Settings, UserState, routes};

const SOON: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Confirmed(AtomicUsize);

impl Deliveries for Confirmed {
    fn delivered(&self, _token: Token, outcome: Result<Position, DeliveryError>) {
        assert!(outcome.is_ok());
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// A stream, a database, one consuming instance and one that only answers.
struct World {
    stream: Arc<dyn Stream>,
    producer: Arc<dyn Producer>,
    confirmed: Arc<Confirmed>,
    sent: AtomicUsize,
    database: String,
    stop: CancellationToken,
    running: JoinHandle<Result<(), ConsumerError>>,
    address: SocketAddr,
    _dir: TestDir,
}

impl World {
    async fn new(database: Option<String>, settings: Settings) -> anyhow::Result<Self> {
        let dir = TestDir::new("user-state-service")?;
        let database =
            database.unwrap_or_else(|| format!("sqlite:{}", dir.path().join("state.db").display()));
        let log = EmbeddedSettings {
            dir: dir.path().join("stream"),
            segment_bytes: 1024 * 1024,
            max_bytes: 64 * 1024 * 1024,
        };
        let stream: Arc<dyn Stream> = EmbeddedStream::open(EmbeddedOptions::new(log))?;
        tollgate_stream::topics::create(&*stream, topics::ALL, Some(1)).await?;
        let confirmed = Arc::new(Confirmed::default());
        let producer = stream.producer(ProducerKind::Spooled, Arc::clone(&confirmed) as _)?;
        let stop = CancellationToken::new();
        let consumer = ConsumerSettings { tick_interval_ms: 50, ..ConsumerSettings::default() };
        let users = UserState::new(
            Arc::clone(&stream),
            connect(&DatabaseSettings::for_url(database.as_str()))?,
            Options { settings, consumer },
        )?;
        let api = users.handle().api;
        let running = tokio::spawn(users.run(stop.clone()));
        let address = serve(Arc::clone(&api), stop.clone())?;
        let feed = api.feed();
        eventually_true("the feed listens", SOON, async || feed.is_listening()).await;
        let sent = AtomicUsize::new(0);
        Ok(Self { stream, producer, confirmed, sent, database, stop, running, address, _dir: dir })
    }

    /// Another instance that consumes nothing, and so owns no number.
    async fn bystander(&self, settings: &Settings) -> anyhow::Result<(SocketAddr, Feed)> {
        let database = connect(&DatabaseSettings::for_url(self.database.as_str()))?;
        let options = StoreOptions { expiry: settings.expiry(), keep_ms: None, pseudonyms: None };
        let store = UserStateStore::new(database, options);
        let feed = Feed::new(settings);
        tokio::spawn(feed.clone().run(Arc::clone(&self.stream), self.stop.clone()));
        // It hears of what is sent from then on.
        eventually_true("the feed listens", SOON, async || feed.is_listening()).await;
        let address = serve(Arc::new(Api::new(store, feed.clone())), self.stop.clone())?;
        Ok((address, feed))
    }

    async fn send(&self, records: &[Record]) -> anyhow::Result<()> {
        for record in records {
            let token = self.sent.fetch_add(1, Ordering::AcqRel);
            self.producer.send(&record.outgoing(), token as Token)?;
        }
        self.producer.flush(SOON).await?;
        assert_eq!(self.confirmed.0.load(Ordering::Acquire), self.sent.load(Ordering::Acquire));
        Ok(())
    }

    async fn get(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        get(self.address, path).await
    }

    async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(SOON, async || match self.get(path).await {
            Ok((200, value)) if wanted(&value) => Ok(value),
            Ok((status, value)) => Err(format!("{status} {value}")),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.running.await??;
        Ok(())
    }
}

fn serve(api: Arc<Api>, stop: CancellationToken) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let routes = routes(api);
    let server = HttpServer::new(move || App::new().configure(routes.clone()))
        .workers(1)
        .disable_signals()
        .shutdown_timeout(5)
        .shutdown_signal(async move { stop.cancelled().await })
        .listen(listener)?
        .run();
    tokio::spawn(server);
    Ok(address)
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, Value)> {
    let response = reqwest::get(format!("http://{address}{path}")).await?;
    let status = response.status().as_u16();
    Ok((status, response.json().await?))
}

/// A client of the live feed.
struct Listener {
    response: reqwest::Response,
    buffer: String,
}

impl Listener {
    async fn connect(address: SocketAddr, query: &str) -> anyhow::Result<Self> {
        let response = reqwest::Client::new()
            .get(format!("http://{address}/v1/changes{query}"))
            .header("Last-Event-ID", "12")
            .send()
            .await?;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut listener = Self { response, buffer: String::new() };
        assert_eq!(listener.block().await?.as_deref(), Some(": connected"));
        Ok(listener)
    }

    /// The next block of lines; `None` at the end.
    async fn block(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let block = block.to_owned();
                self.buffer = String::from(rest);
                return Ok(Some(block));
            }
            match tokio::time::timeout(SOON, self.response.chunk()).await?? {
                Some(bytes) => self.buffer.push_str(std::str::from_utf8(&bytes)?),
                None => return Ok(None),
            }
        }
    }

    /// The next event that is not a gap: its name and its data.
    async fn event(&mut self) -> anyhow::Result<Option<(String, Value)>> {
        while let Some(block) = self.block().await? {
            let field = |name: &str| {
                block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
            };
            match (field("event: "), field("data: ")) {
                (Some(name), Some(data)) if name != "gap" => {
                    return Ok(Some((name, serde_json::from_str(&data)?)));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

const A: &str = "+8613800000021";
const B: &str = "+8613800007021";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_is_answered_alone_in_a_list_and_in_the_past() -> anyhow::Result<()> {
    // Answers in a database with several connections.
    let database = Postgres::shared().create_database("service")?;
    let world = World::new(Some(database), Settings::default()).await?;
    let (code, unknown) = world.get("/v1/numbers/+8613800000021").await?;
    assert_eq!(
        (code, &unknown["known"], &unknown["presence"]),
        (200, &json!(false), &json!("idle"))
    );

    world.send(&callback("s", A, B)).await?;
    world.send(&[callback_cdr("s", A, B, false)]).await?;
    let path = "/v1/numbers/%2B8613800007021";
    let settled =
        |it: &Value| it["last_call"]["release_reason"] == 0 && it["last_call"]["state_code"] == 0;
    let answer = world.until(path, settled).await;
    assert_eq!(answer["number"], B);
    assert_eq!((&answer["known"], &answer["presence"]), (&json!(true), &json!("idle")));
    assert_eq!(answer["since"], "2024-05-20T03:06:13Z");
    let last = &answer["last_call"];
    assert_eq!((&last["session_id"], &last["side"]), (&json!("s"), &json!("b")));
    assert_eq!((&last["answered"], &last["state_code"]), (&json!(true), &json!(0)));
    assert_eq!((&last["group"], &last["ended_at"]), (&json!("success"), &answer["since"]));
    assert!(answer["version"].as_u64() > Some(0));
    assert_eq!(answer["freshness"]["newest_event_at"], "2024-05-20T03:06:13Z");
    assert!(answer["freshness"]["applied_at"].is_string());

    let (_, then) = world.get(&format!("{path}?at=2024-05-20T03:05:00Z")).await?;
    assert_eq!((&then["presence"], &then["last_call"]), (&json!("in_call"), &Value::Null));
    assert_eq!(then["calls"][0]["session_id"], "s");
    assert_eq!(then["as_of"], "2024-05-20T03:05:00Z");
    // The same instant in Beijing's clock, with a plus that is a plus.
    let (_, same) = world.get(&format!("{path}?at=2024-05-20T11:05:00+08:00")).await?;
    assert_eq!(same["calls"], then["calls"]);

    let ask = async |body: Value| -> anyhow::Result<(u16, Value)> {
        let url = format!("http://{}/v1/numbers/query", world.address);
        let response = reqwest::Client::new().post(url).body(body.to_string()).send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    };
    let (code, list) = ask(json!({ "numbers": [B, "nobody", A, B] })).await?;
    assert_eq!(code, 200);
    let numbers: Vec<_> = list["numbers"].as_array().unwrap().iter().collect();
    let names: Vec<_> = numbers.iter().map(|it| it["number"].as_str().unwrap()).collect();
    assert_eq!(names, [B, "nobody", A, B]);
    assert_eq!((&numbers[1]["known"], &numbers[2]["known"]), (&json!(false), &json!(true)));
    assert!(list["freshness"]["applied_at"].is_string());

    let many: Vec<String> = (0..1_001).map(|number| number.to_string()).collect();
    assert_eq!(ask(json!({ "numbers": many[1..] })).await?.0, 200);
    for wrong in [json!({ "numbers": many }), json!({}), json!([A]), json!({ "numbers": [1] })] {
        let (code, answer) = ask(wrong).await?;
        assert_eq!(code, 400);
        assert!(!answer.to_string().contains("138"));
    }
    let (code, answer) = ask(json!("x".repeat(1024 * 1024))).await?;
    assert_eq!((code, &answer["error"]), (400, &json!("body is larger than 1 MiB")));
    assert_eq!(world.get(&format!("{path}?at=yesterday")).await?.0, 400);
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_calls_timeline_tells_who_did_what_when_and_how_it_ended() -> anyhow::Result<()> {
    let world = World::new(None, Settings::default()).await?;
    let session = "+8613800000021_+86138_4_627e5c1f@x&y";
    let path = "/v1/calls?session_id=%2B8613800000021_+86138_4_627e5c1f%40x%26y";
    assert_eq!(world.get(path).await?.0, 404);
    assert_eq!(world.get("/v1/calls").await?.0, 400);

    let mut records = callback(session, A, B);
    records.pop();
    records.push(status(session, EventType::Disconnect, 21, Some(B), Some(8102)));
    world.send(&records).await?;
    let answer =
        world.until(path, |it| it["events"].as_array().is_some_and(|it| it.len() == 7)).await;
    assert_eq!(answer["session_id"], session);
    assert_eq!((&answer["active"], &answer["capped"]), (&json!(false), &json!(false)));
    let events: Vec<(&str, &str)> = answer["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["type"].as_str().unwrap(), event["side"].as_str().unwrap()))
        .collect();
    let (a, b) = ("a", "b");
    let expected = [
        ("callout", a),
        ("alerting", a),
        ("answer", a),
        ("callout", b),
        ("alerting", b),
        ("answer", b),
        ("disconnect", b),
    ];
    assert_eq!(events, expected);
    assert_eq!(answer["events"][0]["at"], "2024-05-20T03:04:24Z");
    assert_eq!(answer["legs"][1]["number"], B);
    assert_eq!(answer["end"]["state_code"], 8102);
    assert_eq!(answer["end"]["group"], "called_party");
    assert!(answer["end"]["description"].as_str().unwrap().contains("busy"));
    assert_eq!(answer["cdrs"], json!([]));

    world.send(&[callback_cdr(session, A, B, false)]).await?;
    let answer = world.until(path, |it| it["cdrs"] != json!([])).await;
    assert_eq!(answer["cdrs"][0]["release_reason"], 0);
    assert_eq!(answer["legs"][0]["answered_at"], "2024-05-20T03:04:31Z");

    // A CDR that states no end leaves it to the disconnect.
    let mut record = callback_cdr("endless", A, B, false);
    let Record::Cdr(cdr) = &mut record else { unreachable!() };
    cdr.ended_at = None;
    world.send(&callback("endless", A, B)).await?;
    world.send(&[record]).await?;
    let path = "/v1/calls?session_id=endless";
    let answer = world.until(path, |it| it["events"][7] != Value::Null).await;
    assert_eq!(answer["cdrs"][0]["ended_at"], Value::Null);
    assert_eq!(answer["end"]["ended_at"], "2024-05-20T03:06:13Z");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_call_whose_answer_was_lost_a_normal_hang_up_says_that_it_was_answered()
-> anyhow::Result<()> {
    let world = World::new(None, Settings::default()).await?;
    world
        .send(&[
            status("lost", EventType::Callout, 0, Some(A), None),
            status("lost", EventType::Alerting, 3, Some(A), None),
            status("lost", EventType::Disconnect, 21, Some(A), Some(0)),
        ])
        .await?;
    let call = world.until("/v1/calls?session_id=lost", |it| it["end"] != Value::Null).await;
    assert_eq!(call["legs"][0]["answered_at"], Value::Null);
    let path = "/v1/numbers/%2B8613800000021";
    let number = world.until(path, |it| it["last_call"] != Value::Null).await;
    for end in [&call["end"], &number["last_call"]] {
        assert_eq!((&end["answered"], &end["group"]), (&json!(true), &json!("success")));
    }
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_told_as_it_stood_at_an_instant_in_the_past() -> anyhow::Result<()> {
    let world = World::new(None, Settings::default()).await?;
    world.send(&callback("s", A, B)).await?;
    world.send(&[callback_cdr("s", A, B, false)]).await?;
    world.until("/v1/calls?session_id=s", |it| it["events"][7] != Value::Null).await;
    let then = async |second: i64| {
        let at = rfc3339(at(second)).expect("an instant");
        let (code, call) = world.get(&format!("/v1/calls?session_id=s&at={at}")).await?;
        assert_eq!((code, &call["as_of"]), (200, &json!(at)));
        anyhow::Ok(call)
    };
    let presences =
        |call: &Value| [call["legs"][0]["presence"].clone(), call["legs"][1]["presence"].clone()];
    let counts =
        |call: &Value| [&call["events"], &call["cdrs"]].map(|it| it.as_array().map(Vec::len));

    for (second, active, a, b, events) in [
        (-1, false, "idle", "idle", 0),
        (5, true, "ringing", "idle", 2),
        (13, true, "in_call", "ringing", 5),
        (60, true, "in_call", "in_call", 6),
    ] {
        let call = then(second).await?;
        assert_eq!((&call["active"], &call["end"]), (&json!(active), &Value::Null), "at {second}");
        assert_eq!(presences(&call), [json!(a), json!(b)], "at {second}");
        assert_eq!(counts(&call), [Some(events), Some(0)], "at {second}");
        for leg in call["legs"].as_array().into_iter().flatten() {
            assert_eq!((&leg["ended_at"], &leg["cause"]), (&Value::Null, &Value::Null));
        }
    }
    let ringing = &then(13).await?["legs"][1];
    assert_eq!((&ringing["number"], &ringing["side"]), (&json!(B), &json!("b")));
    assert_eq!(ringing["alerting_at"], "2024-05-20T03:04:36Z");
    assert_eq!((&ringing["answered_at"], &ringing["expires_at"]), (&Value::Null, &Value::Null));
    let not_begun = &then(5).await?["legs"][1];
    assert_eq!((&not_begun["number"], &not_begun["started_at"]), (&json!(B), &Value::Null));
    let over = then(200).await?;
    assert_eq!((&over["active"], counts(&over)), (&json!(false), [Some(8), Some(1)]));
    assert_eq!(over["end"]["ended_at"], "2024-05-20T03:06:13Z");
    assert_eq!(over["legs"][1]["cause"], 0);

    // A call of now was not on the day before.
    let now = jiff_now_seconds();
    world.send(&[status("on", EventType::Answer, now, Some(A), None)]).await?;
    world.until("/v1/calls?session_id=on", |it| it["active"] == true).await;
    let at = rfc3339(at(now - 86_400)).expect("an instant");
    let (_, before) = world.get(&format!("/v1/calls?session_id=on&at={at}")).await?;
    assert_eq!((&before["active"], &before["end"]), (&json!(false), &Value::Null));
    assert_eq!(before["legs"][0]["presence"], "idle");
    assert_eq!(before["legs"][0]["answered_at"], Value::Null);
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_heard_at_an_instance_that_owns_no_number() -> anyhow::Result<()> {
    // A client that went away is noticed when it is written to.
    let settings = Settings { changes_keep_alive_seconds: 1, ..Settings::default() };
    let world = World::new(None, settings.clone()).await?;
    world.send(&[status("first", EventType::Disconnect, 0, Some(A), Some(0))]).await?;
    world.until(&format!("/v1/numbers/{A}"), |it| it["known"] == true).await;

    let (address, feed) = world.bystander(&settings).await?;
    let mut all = Listener::connect(address, "").await?;
    let mut only_a = Listener::connect(address, &format!("?number={A}&lastEventId=12")).await?;
    assert_eq!(feed.clients(), 2);
    let (name, present) = only_a.event().await?.expect("the present state");
    assert_eq!((name.as_str(), &present["number"]), ("state", &json!(A)));
    assert_eq!(present["last_call"]["session_id"], "first");

    // Calls of now, so that nothing expires while they are watched.
    let now = jiff_now_seconds();
    let events = [
        status("s", EventType::Callout, now, Some(A), None),
        status("s", EventType::Alerting, now + 1, Some(A), None),
        status("other", EventType::Callout, now, Some(B), None),
        status("s", EventType::Answer, now + 2, Some(A), None),
    ];
    let mut heard = Vec::new();
    for event in events {
        world.send(&[event]).await?;
        let (_, state) = loop {
            // What was already known may be published only now.
            let (name, state) = all.event().await?.expect("a change");
            if state["number"] != A || state["version"].as_u64() > present["version"].as_u64() {
                break (name, state);
            }
        };
        heard.push((state["number"].clone(), state["presence"].clone()));
    }
    let pair = |number: &str, presence: &str| (json!(number), json!(presence));
    let expected = [pair(A, "calling"), pair(A, "ringing"), pair(B, "calling"), pair(A, "in_call")];
    assert_eq!(heard, expected);
    let mut versions = Vec::new();
    for presence in ["calling", "ringing", "in_call"] {
        let (_, state) = only_a.event().await?.expect("a change");
        assert_eq!((&state["number"], &state["presence"]), (&json!(A), &json!(presence)));
        versions.push(state["version"].as_u64());
    }
    assert!(versions.is_sorted() && versions[0] > present["version"].as_u64());

    drop(only_a);
    eventually(SOON, async || if feed.clients() == 1 { Ok(()) } else { Err("still there") }).await;
    world.stop.cancel();
    assert_eq!(all.event().await?.map(|(name, _)| name).as_deref(), Some("bye"));
    assert_eq!(all.event().await?, None);
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_key_the_live_feed_shows_pseudonyms_from_its_first_event_on() -> anyhow::Result<()> {
    const KEY: &str = "a secret of the deployment";
    let dir = TestDir::new("user-state-key")?;
    let file = dir.path().join("key");
    std::fs::write(&file, KEY)?;
    let settings = Settings { pseudonym_key_file: Some(file), ..Settings::default() };
    let world = World::new(None, settings).await?;
    let session = format!("{A}_4_627e5c1f");
    world.send(&[status(&session, EventType::Disconnect, 0, Some(A), Some(0))]).await?;
    world.until(&format!("/v1/numbers/{A}"), |it| it["known"] == true).await;
    let pseudonyms = Pseudonyms::new(KEY.as_bytes());
    for (number, known) in [(A, true), (B, false)] {
        let mut listener = Listener::connect(world.address, &format!("?number={number}")).await?;
        let (_, first) = listener.event().await?.expect("the present state");
        let shown = json!(pseudonyms.of(number));
        assert_eq!((&first["number"], &first["known"]), (&shown, &json!(known)));
        let session = format!("{number}_later");
        let now = jiff_now_seconds();
        world.send(&[status(&session, EventType::Callout, now, Some(number), None)]).await?;
        let (_, second) = listener.event().await?.expect("a change");
        assert_eq!((&second["number"], &second["presence"]), (&shown, &json!("calling")));
        assert!(![first, second].iter().any(|state| state.to_string().contains("13800")));
    }
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_too_many_is_refused_and_a_silent_one_is_kept_alive() -> anyhow::Result<()> {
    let settings =
        Settings { changes_max_clients: 1, changes_keep_alive_seconds: 1, ..Settings::default() };
    let world = World::new(None, settings).await?;
    let mut only = Listener::connect(world.address, "").await?;
    let (code, answer) = world.get("/v1/changes").await?;
    assert_eq!(code, 503);
    assert!(answer["error"].is_string());
    loop {
        match only.block().await?.as_deref() {
            Some(": still here") => break,
            Some("event: gap\ndata: {}") => {}
            other => anyhow::bail!("unexpected {other:?}"),
        }
    }
    drop(only);
    eventually(SOON, async || match world.get("/v1/changes?number=%FF").await {
        Ok((400, _)) => Ok(()),
        Ok((code, _)) => Err(format!("answered {code}")),
        Err(error) => Err(error.to_string()),
    })
    .await;
    world.end().await
}

/// The feed by itself, so that a client can be slow at will.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_is_told_and_disconnected() -> anyhow::Result<()> {
    let settings = Settings { changes_buffer: 4, ..Settings::default() };
    let world = World::new(None, settings).await?;
    let mut slow = Listener::connect(world.address, "").await?;
    // Far more than a socket takes while nobody reads: each of these takes six bytes in JSON.
    let now = jiff_now_seconds();
    let session = |number: usize| format!("{number}-{}", "\u{1}".repeat(1_000));
    let records: Vec<Record> = (0..3_000)
        .map(|number| {
            let called = format!("n{number}{}", "\u{1}".repeat(240));
            status(&session(number), EventType::Callout, now, Some(&called), None)
        })
        .collect();
    for batch in records.chunks(500) {
        world.send(batch).await?;
    }
    let mut states = 0;
    loop {
        match slow.event().await? {
            Some((name, _)) if name == "state" => states += 1,
            Some((name, data)) => {
                assert_eq!(name, "lagged");
                assert!(data["missed"].as_u64() > Some(0));
                break;
            }
            None => anyhow::bail!("disconnected without a word after {states}"),
        }
    }
    assert!(states < 3_000);
    assert_eq!(slow.event().await?, None);
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_is_published_without_any_event() -> anyhow::Result<()> {
    let world =
        World::new(None, Settings { unanswered_expiry_seconds: 1, ..Settings::default() }).await?;
    let mut listener = Listener::connect(world.address, "").await?;
    // Some seconds from now: until then, and one more, it is seen calling on the slowest machine.
    let soon = jiff_now_seconds() + 10;
    world.send(&[status("s", EventType::Callout, soon, Some(A), None)]).await?;
    let (_, calling) = listener.event().await?.expect("a change");
    assert_eq!(calling["presence"], "calling");
    let (_, expired) = listener.event().await?.expect("a change");
    assert_eq!(expired["presence"], "idle");
    assert_eq!(expired["last_call"]["group"], "expired");
    world.end().await
}

/// Seconds from the instant that the records count from until now.
fn jiff_now_seconds() -> i64 {
    let now = jiff::Timestamp::now().as_millisecond();
    (now - at(0)) / 1000
}
