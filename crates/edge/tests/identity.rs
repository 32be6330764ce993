//! Whose notification it is, and whether that is proven.

mod common;

use common::raw::head;
use common::{Answer, Bench, Mode, Node, Raw, application, bodies};
use tollgate_edge::Application;
use tollgate_schema::v1::{Authenticity, Provenance};
use tollgate_voicecall::aksk::{Formula, Spelling, sign};

const SECRET_PATH: &str = "a-long-enough-secret";
const NONCE: &str = "66C92B11FF8A425FB8D4CCFE0ED9ED1F";
const CREATED: &str = "2018-02-12T15:30:20Z";

/// `one` has a path, `two` has none; both can be verified.
fn applications(bench: &Bench) -> Vec<Application> {
    let mut one = application("one");
    one.path_secret_file = Some(bench.secret("path", &format!("{SECRET_PATH}\n")));
    one.app_secret_file = Some(bench.secret("one", "secret-one"));
    let mut two = application("two");
    two.app_secret_file = Some(bench.secret("two", "secret-two"));
    vec![one, two]
}

async fn signed(
    node: &Node,
    path: &str,
    (formula, spelling): (Formula, Spelling),
    (username, secret): (&str, &str),
    body: &str,
) -> Answer {
    let url = format!("https://voice.example.com{path}");
    let headers = sign(formula, spelling, (username, secret.as_bytes()), &url, NONCE, CREATED);
    let length = body.len().to_string();
    let mut raw = Raw::connect(node.address).await;
    raw.write(&head(
        path,
        &[
            ("Authorization", headers.authorization),
            (headers.token_name, &headers.token),
            ("Content-Length", &length),
        ],
    ))
    .await;
    raw.write(body.as_bytes()).await;
    raw.answer().await
}

async fn only_provenance(bench: &Bench, node: &Node, session: &str) -> Provenance {
    node.settled().await;
    let topics = bench.topics().await;
    let mut events = topics.events.into_iter().filter(|event| event.session_id == session);
    let event = events.next().expect("it is on its topic");
    assert!(events.next().is_none());
    event.provenance.unwrap()
}

const P3: (Formula, Spelling) = (Formula::P3, Spelling::Aksk);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_is_that_of_the_path_or_of_the_signature_or_of_the_record() {
    let mut bench = Bench::new().await;
    bench.applications = applications(&bench);
    let node = bench.start();
    let secret_status = format!("/{SECRET_PATH}/status");
    let secret_fee = format!("/{SECRET_PATH}/fee");

    node.give(&secret_status, bodies::status("by-path")).await;
    let found = only_provenance(&bench, &node, "by-path").await;
    assert_eq!((&*found.application, found.authenticity()), ("key-one", Authenticity::Absent));

    signed(&node, "/status", P3, ("key-two", "secret-two"), &bodies::status("by-name")).await;
    let found = only_provenance(&bench, &node, "by-name").await;
    assert_eq!((&*found.application, found.authenticity()), ("key-two", Authenticity::VerifiedP3));

    // The path wins over the name.
    signed(&node, &secret_fee, P3, ("key-two", "secret-two"), &bodies::status("both")).await;
    let found = only_provenance(&bench, &node, "both").await;
    assert_eq!((&*found.application, found.authenticity()), ("key-one", Authenticity::Failed));

    signed(&node, "/fee", P3, ("stranger", "whatever"), &bodies::status("strange")).await;
    let found = only_provenance(&bench, &node, "strange").await;
    assert_eq!((&*found.application, found.authenticity()), ("stranger", Authenticity::Failed));

    node.give("/status", bodies::status("nobody")).await;
    let found = only_provenance(&bench, &node, "nobody").await;
    assert_eq!((&*found.application, found.authenticity()), ("", Authenticity::Absent));

    node.give("/status", bodies::cdr("key-two", "open")).await;
    node.give(&secret_fee, bodies::cdr("key-two", "foreign")).await;
    node.settled().await;
    let topics = bench.topics().await;
    for (session, application) in [("open", "key-two"), ("foreign", "key-one")] {
        let cdr = topics.cdrs.iter().find(|cdr| cdr.session_id == session).unwrap();
        assert_eq!(cdr.app_key, "key-two");
        assert_eq!(cdr.provenance.as_ref().unwrap().application, application);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_formula_is_verified_and_recorded_through_the_spool_and_past_it() {
    let formulas = [
        (Formula::P1, Authenticity::VerifiedP1),
        (Formula::P2, Authenticity::VerifiedP2),
        (Formula::P3, Authenticity::VerifiedP3),
        (Formula::P4, Authenticity::VerifiedP4),
        (Formula::P5, Authenticity::VerifiedP5),
    ];
    for ack in [tollgate_edge::Ack::Spooled, tollgate_edge::Ack::Delivered] {
        let mut bench = Bench::new().await;
        bench.applications = applications(&bench);
        bench.settings.ack = ack;
        bench.settings.delivered_deadline_ms = 60_000;
        bench.settings.public_url = Some("https://voice.example.com".into());
        let node = bench.start();
        for (formula, expected) in formulas {
            for spelling in [Spelling::Aksk, Spelling::Wsse] {
                let session = format!("{formula:?}-{spelling:?}");
                let by = (formula, spelling);
                let body = bodies::status(&session);
                // The status URL is signed, the body goes to the other: both are tried.
                signed(&node, "/status", by, ("key-two", "secret-two"), &body).await;
                let found = only_provenance(&bench, &node, &session).await;
                assert_eq!(found.authenticity(), expected, "{session}");
                let session = format!("{session}-wrong");
                let body = bodies::status(&session);
                signed(&node, "/status", by, ("key-two", "secret-one"), &body).await;
                let found = only_provenance(&bench, &node, &session).await;
                assert_eq!(found.authenticity(), Authenticity::Failed, "{session}");
            }
        }
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enforcement_refuses_what_is_not_verified_as_the_application_it_names() {
    let mut bench = Bench::new().await;
    bench.applications = applications(&bench);
    bench.applications[0].enforce_authentication = true;
    bench.applications.push(application("three"));
    let node = bench.start();
    let path = format!("/{SECRET_PATH}/status");
    let one = ("key-one", "secret-one");

    let refused = [
        node.post(&path, bodies::status("none")).await,
        node.post(&path, b"").await,
        signed(&node, &path, P3, ("key-one", "wrong"), &bodies::status("wrong")).await,
        signed(&node, "/fee", P3, ("key-one", "wrong"), &bodies::status("named")).await,
        // A CDR names its application itself.
        node.post("/fee", bodies::cdr("key-one", "open")).await,
        node.post(
            "/status",
            bodies::fee(&[
                bodies::item("key-three", "mixed-1", ""),
                bodies::item("key-one", "mixed-2", ""),
            ]),
        )
        .await,
        // Verified as one application is not verified as another.
        signed(&node, "/fee", P3, ("key-two", "secret-two"), &bodies::cdr("key-one", "x")).await,
    ];
    for answer in refused {
        assert_eq!((answer.status, &*answer.reason()), (403, "not_authenticated"));
    }

    let taken = [
        signed(&node, &path, P3, one, &bodies::status("right")).await,
        signed(&node, "/fee", P3, one, &bodies::cdr("key-one", "right-cdr")).await,
        node.post("/fee", bodies::cdr("key-three", "free")).await,
        node.post("/status", bodies::status("unnamed")).await,
        node.post("/status", "not json").await,
    ];
    for answer in taken {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    node.settled().await;
    let topics = bench.topics().await;
    assert_eq!(topics.sessions(), ["right", "unnamed"].map(str::to_owned).into());
    assert_eq!(topics.charged_sessions(), ["right-cdr", "free"].map(str::to_owned).into());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relays_clock_is_read_by_the_zone_of_its_path() {
    let mut bench = Bench::new().await;
    bench.applications = applications(&bench);
    bench.applications[0].utc_offset_minutes = 480;
    let node = bench.start();
    node.give("/status", bodies::status("utc")).await;
    node.give(&format!("/{SECRET_PATH}/status"), bodies::status("beijing")).await;
    // Its name alone is not its path.
    signed(&node, "/status", P3, ("key-one", "secret-one"), &bodies::status("signed")).await;
    node.settled().await;
    let topics = bench.topics().await;
    let at = |session: &str| {
        let event = topics.events.iter().find(|event| event.session_id == session).unwrap();
        event.occurred_at.as_ref().unwrap().seconds
    };
    assert_eq!(at("utc") - at("beijing"), 8 * 3600);
    assert_eq!(at("signed"), at("utc"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_read_by_the_zone_of_its_receipt_whenever_it_is_published() {
    let mut bench = Bench::new().await;
    bench.applications = applications(&bench);
    bench.applications[0].utc_offset_minutes = 480;
    bench.settings.flush_deadline_ms = 1;
    bench.stream.set(Mode::Unavailable);
    let node = bench.start();
    node.give(&format!("/{SECRET_PATH}/fee"), bodies::cdr("key-one", "beijing")).await;
    node.stop().await;

    // Corrected, and taken out of the settings.
    bench.stream.set(Mode::Pass);
    for later in [0, 60] {
        bench.applications[0].utc_offset_minutes = later;
        let node = bench.start();
        node.give(&format!("/{SECRET_PATH}/fee"), bodies::cdr("key-one", &later.to_string())).await;
        node.settled().await;
        node.stop().await;
    }
    let topics = bench.topics().await;
    let ended = |session: &str| {
        let cdr = topics.cdrs.iter().find(|cdr| cdr.session_id == session).unwrap();
        cdr.ended_at.as_ref().unwrap().seconds
    };
    assert_eq!(ended("0") - ended("beijing"), 8 * 3600);
    assert_eq!(ended("0") - ended("60"), 3600);
}
