//! The questions, as a client asks them.

mod common;

use std::collections::BTreeMap;

use common::{Ledger, TARIFF, ask, callback, get, sighting};
use serde_json::{Value, json};
use tollgate_billing::CdrItem;
use tollgate_schema::v1;

async fn filled() -> Ledger {
    let ledger = Ledger::sqlite();
    ledger.activate(TARIFF).await;
    let mut member = ledger.join(0).await;
    let mut notification = callback(30);
    notification.b_leg = None;
    notification.service_type = v1::ServiceType::Playback.into();
    "key2".clone_into(&mut notification.app_key);
    let mut unanswered = callback(70);
    unanswered.b_leg.as_mut().unwrap().answered_at = None;
    let items = vec![
        sighting(1, 1, callback(70)),
        sighting(2, 2, notification),
        sighting(3, 3, unanswered),
        sighting(4, 4, callback(25 * 3600)),
    ];
    member.apply(&ledger.store, items).await.unwrap();
    ledger
}

const DAY: &str = "from=2026-11-23T00:00:00+08:00&to=2026-11-24T00:00:00+08:00";

#[actix_web::test]
async fn usage_sums_by_day_with_rates_and_a_total() {
    let ledger = filled().await;
    let (status, body) = get(&ledger, &format!("/v1/usage?{DAY}&group_by=day")).await;
    assert_eq!(status, 200);
    let rows = body["rows"].as_array().unwrap();
    // By currency: the implausible record has none.
    assert_eq!(rows.len(), 2);
    let row = &rows[1];
    // 2 + 1 started minutes, 1, and 2 of the A-leg whose B never answered.
    assert_eq!(row["period"], "2026-11-23");
    assert_eq!(row["currency"], "CNY");
    assert_eq!((&row["attempts"], &row["answered"]), (&json!(3), &json!(2)));
    assert_eq!(row["seconds"], 70 + 60 + 30 + 70);
    assert_eq!(row["talk_seconds"], 60 + 30);
    assert_eq!(row["billed_minutes"], 6);
    assert_eq!(row["amount"], "1.080000");
    assert_eq!(row["amount_micros"], 1_080_000);
    assert_eq!(row["asr"], 2.0 / 3.0);
    assert_eq!(row["acd_seconds"], 45.0);
    assert_eq!(row["pdd_seconds"], 3.0);
    assert!(row.get("application").is_none());
    assert_eq!(body["total"].as_array().unwrap().len(), 2);
    assert_eq!(body["total"][1]["amount"], "1.080000");
    assert_eq!(body["from"], "2026-11-22T16:00:00Z");
    assert!(body["as_of"].is_string());
}

#[actix_web::test]
async fn usage_is_told_apart_by_hour_application_service_and_status() {
    let ledger = filled().await;
    let groups = "hour,application,service,status";
    let (_, body) = get(&ledger, &format!("/v1/usage?{DAY}&group_by={groups}")).await;
    let mut found: Vec<_> = body["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            (text("period"), text("application"), text("service"), text("status"))
        })
        .collect();
    found.sort();
    let expected = |hour: &str, app: &str, service: &str, status: &str| {
        (hour.to_owned(), app.to_owned(), service.to_owned(), status.to_owned())
    };
    let nine = "2026-11-23T09:00:00+08:00";
    let ten = "2026-11-23T10:00:00+08:00";
    assert_eq!(
        found,
        [
            expected(nine, "key1", "callback", "rated"),
            expected(nine, "key2", "playback", "rated"),
            // Its own times are not believed, so it is found by its receipt.
            expected(ten, "key1", "callback", "implausible"),
        ]
    );
}

#[actix_web::test]
async fn charges_are_found_by_session_and_by_record() {
    let ledger = filled().await;
    let (status, body) = get(&ledger, "/v1/charges?session_id=1201_612_4294967295@host").await;
    assert_eq!((status, body["entries"].as_array().unwrap().len()), (200, 4));
    let (_, body) = get(&ledger, &format!("/v1/charges?record_id={}", "01".repeat(16))).await;
    let entry = &body["entries"][0];
    assert_eq!(entry["kind"], "charge");
    assert_eq!(entry["revision"], 1);
    assert_eq!(entry["status"], "rated");
    assert_eq!(entry["amount"], "0.540000");
    assert_eq!(entry["billing_day"], "2026-11-23");
    assert_eq!(entry["source"]["topic"], "cdrs");
    assert_eq!(entry["source"]["offset"], 0);
    assert_eq!(
        entry["legs"][1],
        json!({"side": "B", "seconds": 60, "billed_seconds": 60, "billed_minutes": 1,
               "amount_micros": 180_000, "rate": "standard"})
    );
    let (_, body) = get(&ledger, "/v1/charges?session_id=nobody").await;
    assert_eq!(body, json!({"entries": [], "truncated": false}));
}

#[actix_web::test]
async fn the_ledger_is_paged_by_cursor() {
    let ledger = filled().await;
    let (_, first) = get(&ledger, "/v1/ledger?limit=3").await;
    assert_eq!(first["entries"].as_array().unwrap().len(), 3);
    let next = first["next"].as_str().unwrap();
    let (_, second) = get(&ledger, &format!("/v1/ledger?limit=3&after={next}")).await;
    assert_eq!(second["entries"].as_array().unwrap().len(), 1);
    assert_eq!(second["next"], Value::Null);
    let ids = |body: &Value| -> Vec<String> {
        let entries = body["entries"].as_array().unwrap();
        entries.iter().map(|e| e["entry_id"].as_str().unwrap().to_owned()).collect()
    };
    let mut all = [ids(&first), ids(&second)].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4);
}

/// What is new since `last`, the last place in each partition, by the way that docs/api.md tells.
async fn follow(ledger: &Ledger, last: &mut BTreeMap<String, i64>) -> Vec<String> {
    let entries = async |after: &str| {
        let (status, body) = get(ledger, &format!("/v1/ledger?limit=2{after}")).await;
        assert_eq!(status, 200, "{body}");
        body["entries"].as_array().unwrap().clone()
    };
    let cursor = |entry: &Value| {
        let (partition, place) = entry["cursor"].as_str().unwrap().split_once('-').unwrap();
        (partition.to_owned(), place.parse::<i64>().unwrap())
    };
    let mut new = Vec::new();
    let mut behind = String::new();
    while let Some(first) = entries(&behind).await.first() {
        let (partition, _) = cursor(first);
        let place = last.entry(partition.clone()).or_default();
        loop {
            let mut page = entries(&format!("&after={partition}-{place}")).await;
            page.retain(|entry| cursor(entry).0 == partition);
            let Some(newest) = page.last() else { break };
            *place = cursor(newest).1;
            new.extend(page.iter().map(|entry| entry["record_id"].as_str().unwrap().to_owned()));
        }
        behind = format!("&after={partition}-{}", i64::MAX);
    }
    new.sort();
    new
}

#[actix_web::test]
async fn the_ledger_is_followed_by_the_last_cursor_of_each_partition() {
    let ledger = Ledger::sqlite();
    ledger.activate(TARIFF).await;
    let mut first = ledger.join(0).await;
    let mut second = ledger.join(1).await;
    let records = |numbers: &[u8]| -> Vec<CdrItem> {
        numbers.iter().map(|number| sighting(*number, *number, callback(70))).collect()
    };
    let ids = |numbers: &[u8]| -> Vec<String> {
        numbers.iter().map(|number| format!("{number:02x}").repeat(16)).collect()
    };
    let mut last = BTreeMap::new();
    first.apply(&ledger.store, records(&[1, 2, 3])).await.unwrap();
    assert_eq!(follow(&ledger, &mut last).await, ids(&[1, 2, 3]));
    second.apply(&ledger.store, records(&[4])).await.unwrap();
    assert_eq!(follow(&ledger, &mut last).await, ids(&[4]));
    first.apply(&ledger.store, records(&[5])).await.unwrap();
    second.apply(&ledger.store, records(&[6])).await.unwrap();
    assert_eq!(follow(&ledger, &mut last).await, ids(&[5, 6]));
    assert_eq!(follow(&ledger, &mut last).await, ids(&[]));
}

#[actix_web::test]
async fn checks_and_tariffs_are_shown() {
    let ledger = filled().await;
    let (status, body) = get(&ledger, "/v1/checks").await;
    assert_eq!((status, &body["consistent"]), (200, &json!(true)));
    assert_eq!((&body["records"], &body["charges_in_force"]), (&json!(4), &json!(4)));
    assert_eq!(body["sources"][0]["entries"], 4);
    let (_, body) = get(&ledger, "/v1/tariffs").await;
    assert_eq!(body["activations"][0]["version"], body["tariffs"][0]["version"]);
    assert_eq!(body["activations"][0]["from"], Value::Null);
    let (status, body) = get(&ledger, "/v1/jobs").await;
    assert_eq!((status, body), (200, json!({"jobs": []})));
}

#[actix_web::test]
async fn an_odd_question_is_answered_with_what_to_ask_instead() {
    let ledger = filled().await;
    for path in [
        "/v1/usage?from=now",
        "/v1/usage?group_by=number",
        "/v1/charges",
        "/v1/charges?record_id=zz",
        "/v1/ledger?limit=0",
        "/v1/ledger?after=12",
        "/v1/charges?session_id=%FF",
        "/v1/charges?session=a",
        "/v1/checks?partition=9",
        "/v1/tariffs?version=1",
        "/v1/jobs?job=1",
    ] {
        let (status, comes_again, body) = ask(&ledger, path).await;
        assert_eq!((status, comes_again), (400, false), "{path}");
        assert!(body["error"].is_string() && body["hint"].is_string(), "{path}: {body}");
    }
}

#[actix_web::test]
async fn without_a_database_the_answer_is_503_says_when_to_come_again_and_names_no_secret() {
    let settings = tollgate_store::Settings::for_url("postgres://me:hidden@127.0.0.1:1/nothing");
    let settings = tollgate_store::Settings { connect_timeout_ms: 200, ..settings };
    let ledger = Ledger::open(settings, None);
    let (status, comes_again, body) = ask(&ledger, "/v1/usage").await;
    assert_eq!((status, comes_again), (503, true));
    assert!(!body.to_string().contains("hidden"), "{body}");
}

#[actix_web::test]
async fn a_database_that_refuses_is_answered_500() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("billing.db");
    std::fs::write(&file, "no database, ".repeat(1_000)).unwrap();
    let settings = tollgate_store::Settings::for_url(format!("sqlite:{}", file.display()));
    let ledger = Ledger::open(settings, None);
    let (status, comes_again, body) = ask(&ledger, "/v1/usage").await;
    assert_eq!((status, comes_again), (500, false));
    assert!(body["error"].is_string() && body["hint"].is_string(), "{body}");
}
