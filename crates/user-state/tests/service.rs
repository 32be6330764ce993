//! The whole service: a stream in, states and answers out.

mod common;
#[path = "common/world.rs"]
mod world;

use common::{Record, at, callback, callback_cdr, status};
use serde_json::{Value, json};
use tollgate_schema::time::rfc3339;
use tollgate_schema::v1::EventType;
use tollgate_testkit::Postgres;
use tollgate_user_state::Settings;
use world::{A, B, World, jiff_now_seconds};

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
