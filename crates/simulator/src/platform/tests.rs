//! The platform's own rules, against a scripted edge.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::evidence::{LedgerEntry, NumberState, Timeline, TopicRecord};
use crate::{Counts, Evidence, EvidenceError, Faults, Options, Progress, Report, run};

/// A request as an edge saw it.
#[derive(Debug, Clone)]
struct Seen {
    path: String,
    headers: HashMap<String, String>,
    body: String,
    peer: SocketAddr,
}

/// Answers what its script says: of the n-th request with this body, from 0.
struct Edge {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Script = Arc<dyn Fn(&Seen, usize) -> Option<u16> + Send + Sync>;

impl Edge {
    async fn start(script: impl Fn(&Seen, usize) -> Option<u16> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, script)
    }

    fn on(
        listener: TcpListener,
        script: impl Fn(&Seen, usize) -> Option<u16> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let script: Script = Arc::new(script);
        let all = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                tokio::spawn(serve(stream, peer, Arc::clone(&all), Arc::clone(&script)));
            }
        });
        Self { address, seen, task }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, all: Arc<Mutex<Vec<Seen>>>, script: Script) {
    let mut stream = BufReader::new(stream);
    while let Some(seen) = request(&mut stream, peer).await {
        let before = {
            let mut all = all.lock().unwrap();
            let before = all.iter().filter(|it| it.body == seen.body).count();
            all.push(seen.clone());
            before
        };
        let Some(status) = script(&seen, before) else { return };
        let answer = format!("HTTP/1.1 {status} Answer\r\nContent-Length: 2\r\n\r\n{{}}");
        if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if seen.headers.get("connection").is_some_and(|it| it == "close") {
            return;
        }
    }
}

async fn request(stream: &mut BufReader<TcpStream>, peer: SocketAddr) -> Option<Seen> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let path = line.strip_prefix("POST ")?.split(' ').next()?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = Vec::new();
    if let Some(length) = headers.get("content-length") {
        body.resize(length.parse().ok()?, 0);
        stream.read_exact(&mut body).await.ok()?;
    } else {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).await.ok()?;
            let size = usize::from_str_radix(size.trim_end(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await.ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    Some(Seen { path, headers, body: String::from_utf8(body).ok()?, peer })
}

/// A quick run of some calls.
fn options(edges: &[&Edge], dir: &std::path::Path) -> Options {
    Options {
        edges: edges.iter().map(|edge| edge.url()).collect(),
        calls: Some(20),
        rate: 400.0,
        speed: 5000.0,
        repeat_after: Some(0.02),
        timeout: 20.0,
        connections: 4,
        no_verify: true,
        undelivered: dir.join("undelivered"),
        ..Options::default()
    }
}

async fn play(options: &Options) -> Report {
    run(options, None, Progress::hidden(), CancellationToken::new()).await.unwrap()
}

fn bodies(seen: &[Seen], kind: &str) -> HashMap<String, usize> {
    let mut bodies = HashMap::new();
    for request in seen.iter().filter(|request| request.path.ends_with(kind)) {
        *bodies.entry(request.body.clone()).or_default() += 1;
    }
    bodies
}

#[tokio::test]
async fn a_cdr_message_comes_again_until_it_is_taken_and_a_status_never_does() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(|seen, before| match (seen.path.as_str(), before) {
        ("/fee", 0) => Some(500),
        ("/fee", 1) => None,
        ("/fee", _) => Some(200),
        _ => Some(503),
    })
    .await;
    let report = play(&options(&[&edge], dir.path())).await;
    let seen = edge.seen();
    let fees = bodies(&seen, "/fee");
    assert!(!fees.is_empty() && fees.values().all(|times| *times == 3), "{fees:?}");
    let statuses = bodies(&seen, "/status");
    assert!(statuses.len() > 40 && statuses.values().all(|times| *times == 1));
    assert_eq!(report.counts.refused as usize, statuses.len() + fees.len());
    assert_eq!(report.counts.acknowledged as usize, fees.len());
    assert_eq!(report.counts.unknown as usize, fees.len());
    assert!(!dir.path().join("undelivered").exists());
}

#[tokio::test]
async fn after_seven_failures_a_cdr_message_is_written_to_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(|seen, _| Some(if seen.path == "/fee" { 302 } else { 200 })).await;
    let report = play(&Options { calls: Some(6), ..options(&[&edge], dir.path()) }).await;
    let fees = bodies(&edge.seen(), "/fee");
    assert!(fees.values().all(|times| *times == 7), "{:?}", fees.values());
    assert_eq!(report.counts.given_up as usize, fees.len());
    let file = std::fs::read_to_string(dir.path().join("undelivered")).unwrap();
    let mut lines: Vec<_> = file.lines().collect();
    let mut expected: Vec<_> = fees.keys().map(String::as_str).collect();
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_comes_again_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(|_, _| Some(200)).await;
    let faults: Faults = "duplicate=1".parse().unwrap();
    let report = play(&Options { faults, ..options(&[&edge], dir.path()) }).await;
    let seen = edge.seen();
    assert!(bodies(&seen, "/fee").values().all(|times| *times == 2));
    assert!(bodies(&seen, "/status").values().all(|times| *times == 1));
    assert_eq!(report.counts.repeated as usize, bodies(&seen, "/fee").len());
}

#[tokio::test]
async fn every_body_arrives_whole_however_it_is_brought() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(|_, _| Some(200)).await;
    for (faults, short) in
        [("chunked=1", false), ("slow-body=0.1", true), ("mixed-connections=0.5", true)]
    {
        let faults = faults.parse().unwrap();
        play(&Options { short, faults, ..options(&[&edge], dir.path()) }).await;
    }
    for request in edge.seen() {
        let json: serde_json::Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(json["eventType"] == "fee", request.path == "/fee");
        assert_eq!(request.headers["content-type"], "application/json;charset=UTF-8");
    }
    let chunked = |it: &&Seen| it.headers.contains_key("transfer-encoding");
    let closing = |it: &&Seen| it.headers.get("connection").is_some_and(|it| it == "close");
    let seen = edge.seen();
    assert!(seen.iter().filter(chunked).count() > 20);
    assert!(seen.iter().filter(closing).count() > 20);
    assert!(seen.iter().any(|it| !closing(&it)));
}

#[tokio::test]
async fn receivers_take_turns_and_sources_differ() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (Edge::start(|_, _| Some(200)).await, Edge::start(|_, _| Some(200)).await);
    let report = play(&Options { sources: 3, ..options(&[&one, &other], dir.path()) }).await;
    let (seen, others) = (one.seen(), other.seen());
    assert!(seen.len().abs_diff(others.len()) <= 1);
    assert_eq!(report.counts.sent as usize, seen.len() + others.len());
    let sources: std::collections::HashSet<_> =
        seen.iter().chain(&others).map(|it| it.peer.ip()).collect();
    assert_eq!(sources.len(), 3, "{sources:?}");
}

#[tokio::test]
async fn an_edge_that_comes_back_gets_the_cdrs_that_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    // Taken, and refuses whoever connects.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let options = Options {
        edges: vec![format!("http://{address}")],
        repeat_after: Some(0.5),
        ..options(&[], dir.path())
    };
    let stop = CancellationToken::new();
    let endless = crate::endless(&options, stop.clone()).unwrap();
    let a_while = Duration::from_millis(5);
    while endless.counts().repeated == 0 {
        tokio::time::sleep(a_while).await;
    }
    assert!(endless.counts().not_sent > 0);
    let edge = Edge::on(socket.listen(128).unwrap(), |_, _| Some(200));
    let is_of_the_first_call = |seen: &Seen| {
        seen.path == "/fee" && ["1201_0_", "1202_0_"].iter().any(|it| seen.body.contains(it))
    };
    while !edge.seen().iter().any(is_of_the_first_call) {
        tokio::time::sleep(a_while).await;
    }
    assert_eq!(endless.counts().given_up, 0);
    stop.cancel();
    endless.finished().await.unwrap();
}

#[tokio::test]
async fn notifications_are_signed_and_take_the_secret_path() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "simSecret\n").unwrap();
    let edge = Edge::start(|_, _| Some(200)).await;
    let options = Options {
        apps: vec!["callback=simKey/s3cret-segment".parse().unwrap()],
        sign: crate::Scheme::P3,
        wsse: true,
        app_secret_file: Some(secret),
        ..options(&[&edge], dir.path())
    };
    play(&options).await;
    for request in edge.seen() {
        assert!(request.path.starts_with("/s3cret-segment/"), "{}", request.path);
        assert!(request.headers["x-wsse"].contains("Username=\"simKey\""));
        assert!(request.headers["authorization"].starts_with("WSSE "));
    }
}

#[tokio::test]
async fn an_endless_run_ends_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(|_, _| Some(200)).await;
    let stop = CancellationToken::new();
    let options = options(&[&edge], dir.path());
    let endless = crate::endless(&options, stop.clone()).unwrap();
    while endless.counts().acknowledged < 30 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // More calls than were asked for: it does not count them.
    while endless.counts().calls < 25 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    endless.finished().await.unwrap();
}

#[tokio::test]
async fn an_edge_that_never_answers_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options {
        edges: vec![format!("http://{}", silent.local_addr().unwrap())],
        calls: Some(2),
        timeout: 0.05,
        ..options(&[], dir.path())
    };
    let Counts { unknown, acknowledged, .. } = play(&options).await.counts;
    assert!(unknown > 7 && acknowledged == 0, "{unknown} unanswered");
}

/// A system that has lost everything.
struct Empty;

#[async_trait::async_trait]
impl Evidence for Empty {
    async fn topic(&mut self, _: &'static str) -> Result<Option<Vec<TopicRecord>>, EvidenceError> {
        Ok(Some(Vec::new()))
    }

    async fn ledger(&mut self) -> Result<Option<Vec<LedgerEntry>>, EvidenceError> {
        Ok(Some(Vec::new()))
    }

    async fn states(&mut self, _: &[String]) -> Result<Option<Vec<NumberState>>, EvidenceError> {
        Ok(None)
    }

    async fn timelines(&mut self, _: &[String]) -> Result<Option<Vec<Timeline>>, EvidenceError> {
        Ok(None)
    }
}

#[tokio::test]
async fn a_run_is_verified_from_its_journal_by_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(|_, _| Some(200)).await;
    let journal = dir.path().join("journal");
    let options = Options { journal: Some(journal), settle: 0.0, ..options(&[&edge], dir.path()) };
    let sent = play(&options).await;
    assert_eq!(sent.exit_code(), 0);

    let options = Options { verify_only: true, no_verify: false, ..options };
    let stop = CancellationToken::new();
    let report = run(&options, Some(Box::new(Empty)), Progress::hidden(), stop).await.unwrap();
    let statuses = bodies(&edge.seen(), "/status").len() as u64;
    assert_eq!((report.tallies[0].expected, report.tallies[0].lost), (statuses, statuses));
    assert_eq!((report.tallies[1].lost, report.tallies[4].lost), (20, 20));
    assert_eq!(report.exit_code(), 3);
}

/// As [`Empty`], and says when it is asked.
struct Asked(tokio::sync::mpsc::UnboundedSender<()>);

#[async_trait::async_trait]
impl Evidence for Asked {
    async fn topic(&mut self, _: &'static str) -> Result<Option<Vec<TopicRecord>>, EvidenceError> {
        self.0.send(()).unwrap();
        Ok(Some(Vec::new()))
    }

    async fn ledger(&mut self) -> Result<Option<Vec<LedgerEntry>>, EvidenceError> {
        Ok(None)
    }

    async fn states(&mut self, _: &[String]) -> Result<Option<Vec<NumberState>>, EvidenceError> {
        Ok(None)
    }

    async fn timelines(&mut self, _: &[String]) -> Result<Option<Vec<Timeline>>, EvidenceError> {
        Ok(None)
    }
}

#[tokio::test]
async fn a_verification_that_is_interrupted_calls_nothing_lost() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(|_, _| Some(200)).await;
    let options = Options { no_verify: false, settle: 3600.0, ..options(&[&edge], dir.path()) };
    let stop = CancellationToken::new();
    let (sender, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let evidence = Box::new(Asked(sender));
    let stopping = stop.clone();
    let running = tokio::spawn(async move {
        run(&options, Some(evidence), Progress::hidden(), stopping).await.unwrap()
    });
    asked.recv().await.unwrap();
    stop.cancel();
    let report = running.await.unwrap();
    assert!(report.tallies.is_empty());
    assert_eq!(report.exit_code(), 1);
    assert!(report.to_string().contains("interrupted"), "{report}");
}
