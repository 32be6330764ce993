//! Odd questions, and a database that does not answer, as a client sees them.

use std::sync::Arc;

use actix_web::App;
use actix_web::http::header::RETRY_AFTER;
use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
use serde_json::{Value, json};
use tollgate_store::{Settings as DatabaseSettings, connect};
use tollgate_testkit::TestDir;
use tollgate_user_state::api::Feed;
use tollgate_user_state::store::{Options, UserStateStore};
use tollgate_user_state::{Api, Settings, routes};

/// The status, whether the client is told when to come again, and the body of an answer.
async fn ask(database: &DatabaseSettings, request: TestRequest) -> (u16, bool, Value) {
    let settings = Settings::default();
    let options = Options { expiry: settings.expiry(), keep_ms: None, pseudonyms: None };
    let store = UserStateStore::new(connect(database).expect("settings"), options);
    let api = Api::new(store, Feed::new(&settings));
    let app = init_service(App::new().configure(routes(Arc::new(api)))).await;
    let response = call_service(&app, request.to_request()).await;
    let status = response.status().as_u16();
    let comes_again = response.headers().contains_key(RETRY_AFTER);
    (status, comes_again, read_body_json(response).await)
}

fn sqlite(dir: &TestDir) -> DatabaseSettings {
    DatabaseSettings::for_url(format!("sqlite:{}", dir.path().join("state.db").display()))
}

fn has_a_hint(body: &Value) -> bool {
    body["error"].is_string() && body["hint"].is_string()
}

#[actix_web::test]
async fn an_odd_question_is_answered_with_what_to_ask_instead() {
    let dir = TestDir::new("user-state-odd").expect("directory");
    let database = sqlite(&dir);
    for path in [
        "/v1/numbers/+8613800000021?att=2024-05-20T03:05:00Z",
        "/v1/numbers/+8613800000021?at=yesterday",
        "/v1/numbers/+8613800000021?at=2024-05-20T03:05:00Z&at=2024-05-20T03:05:00Z",
        "/v1/numbers/+8613800000021?at=%FF",
        "/v1/calls",
        "/v1/calls?session_id=",
        "/v1/calls?session=+8613800000021",
        "/v1/calls?session_id=+8613800000021&at=now",
        "/v1/calls?session_id=%FF",
        "/v1/changes?nubmer=+8613800000021",
        "/v1/changes?number=%FF",
        "/v1/changes?number=",
    ] {
        let (status, comes_again, body) = ask(&database, TestRequest::get().uri(path)).await;
        assert_eq!((status, comes_again), (400, false), "{path}");
        assert!(has_a_hint(&body) && !body.to_string().contains("138"), "{path}: {body}");
    }
    let post = |path: &str| TestRequest::post().uri(path);
    for request in [
        post("/v1/numbers/query").set_payload(r#"{"numbers":13800}"#),
        post("/v1/numbers/query?at=2024-05-20T03:05:00Z").set_payload(r#"{"numbers":[]}"#),
    ] {
        let (status, _, body) = ask(&database, request).await;
        assert_eq!(status, 400);
        assert!(has_a_hint(&body) && !body.to_string().contains("138"), "{body}");
    }
}

#[actix_web::test]
async fn a_wrong_method_is_answered_405_with_a_hint() {
    let dir = TestDir::new("user-state-methods").expect("directory");
    let database = sqlite(&dir);
    for request in [
        TestRequest::get().uri("/v1/numbers/query"),
        TestRequest::post().uri("/v1/numbers/+8613800000021"),
        TestRequest::delete().uri("/v1/calls"),
        TestRequest::post().uri("/v1/changes"),
    ] {
        let (status, _, body) = ask(&database, request).await;
        assert_eq!(status, 405);
        assert!(has_a_hint(&body), "{body}");
    }
}

#[actix_web::test]
async fn a_plus_is_a_plus_in_every_parameter() {
    let dir = TestDir::new("user-state-plus").expect("directory");
    let database = sqlite(&dir);
    for plus in ["+", "%2B"] {
        let path = format!("/v1/numbers/{plus}1?at=2024-05-20T11:05:00{plus}08:00");
        let (status, _, body) = ask(&database, TestRequest::get().uri(&path)).await;
        let expected = (200, &json!("+1"), &json!("2024-05-20T03:05:00Z"));
        assert_eq!((status, &body["number"], &body["as_of"]), expected);
    }
}

#[actix_web::test]
async fn a_call_that_nobody_has_heard_of_is_answered_404() {
    let dir = TestDir::new("user-state-404").expect("directory");
    let request = TestRequest::get().uri("/v1/calls?session_id=nobody");
    let (status, comes_again, body) = ask(&sqlite(&dir), request).await;
    assert_eq!((status, comes_again), (404, false));
    assert!(has_a_hint(&body), "{body}");
}

#[actix_web::test]
async fn without_a_database_the_answer_is_503_and_says_when_to_come_again() {
    let database = DatabaseSettings::for_url("postgres://me:hidden@127.0.0.1:1/nothing");
    let database = DatabaseSettings { connect_timeout_ms: 200, ..database };
    for path in ["/v1/numbers/1", "/v1/calls?session_id=s", "/v1/changes?number=1"] {
        let (status, comes_again, body) = ask(&database, TestRequest::get().uri(path)).await;
        assert_eq!((status, comes_again), (503, true), "{path}");
        assert!(has_a_hint(&body) && !body.to_string().contains("hidden"), "{path}: {body}");
    }
}

#[actix_web::test]
async fn a_database_that_refuses_is_answered_500() {
    let dir = TestDir::new("user-state-refuses").expect("directory");
    std::fs::write(dir.path().join("state.db"), "no database, ".repeat(1_000)).expect("file");
    let database = sqlite(&dir);
    let (status, comes_again, body) = ask(&database, TestRequest::get().uri("/v1/numbers/1")).await;
    assert_eq!((status, comes_again), (500, false));
    assert!(has_a_hint(&body), "{body}");
}
