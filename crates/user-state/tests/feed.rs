//! The live feed of the whole service.

mod common;
#[path = "common/world.rs"]
mod world;

use std::net::SocketAddr;

use common::{Record, status};
use serde_json::{Value, json};
use tollgate_schema::v1::EventType;
use tollgate_testkit::{TestDir, eventually};
use tollgate_user_state::Settings;
use tollgate_user_state::keys::Pseudonyms;
use world::{A, B, SOON, World, jiff_now_seconds};

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
