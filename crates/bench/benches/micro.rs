//! The steps of a notification's way, one by one, without a network.
//!
//! `cargo bench -p tollgate-bench` runs them; in test mode each runs once.

#![allow(missing_docs, reason = "the macros of criterion make public functions")]

#[path = "../src/bodies.rs"]
#[allow(dead_code, unused_imports, reason = "only the bodies; their tests run in the binary")]
mod bodies;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bodies::{BATCH, Kind};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use jiff::Timestamp;
use jiff::tz::Offset;
use prost::Message;
use tollgate_billing::CdrDecoder;
use tollgate_edge::{Applications, Decoder};
use tollgate_rating::{Cdr, LegTimes, Limits, Tariff, rate};
use tollgate_schema::time::from_proto;
use tollgate_schema::v1::{Authenticity, Leg};
use tollgate_spool::disk::RealDisk;
use tollgate_spool::{Encoded, Options, Request, Spool};
use tollgate_stream::embedded::{EmbeddedOptions, EmbeddedStream};
use tollgate_stream::{
    Decode, Deliveries, DeliveryError, EmbeddedSettings, Incoming, Outgoing, Position,
    ProducerKind, ReadFrom, Stream, Token, TopicPartition, TopicSpec,
};
use tollgate_user_state::fold::{Event, EventSet, Expiry, NumberLeg, derive, fold};
use tollgate_voicecall::{Record, Source, read};

const SAMPLE: &str = include_str!("../../rating/tariffs/sample.toml");
/// As many wait for one sync as the base cell of the edge has clients.
const CLIENTS: usize = 256;
/// As many records as a consumer takes in one transaction.
const RECORDS: usize = 500;

fn source() -> Source<'static> {
    Source {
        received_at: Timestamp::now(),
        edge_id: "edge-0",
        spool_epoch: 1,
        spool_sequence: 1,
        application: "",
        authenticity: Authenticity::Absent,
        zone: Offset::UTC,
    }
}

fn request(kind: Kind) -> Encoded {
    request_of(&bodies::bodies(kind, Timestamp::now())[0].1).encode()
}

fn request_of(body: &str) -> Request<'_> {
    Request {
        application: "",
        utc_offset_minutes: None,
        received_at_ms: Timestamp::now().as_millisecond(),
        edge_id: "edge-0",
        peer: "127.0.0.1",
        authorization: None,
        signature: None,
        body: body.as_bytes(),
    }
}

/// What the topics get of each message of one call.
fn published(kind: Kind) -> Vec<Incoming> {
    let decoder = Decoder::for_looking(Arc::new(Applications::default()));
    let messages = bodies::bodies(kind, Timestamp::now());
    let records =
        messages.iter().flat_map(|(_, body)| decoder.normalise(&request_of(body), None).records);
    let incoming = |(offset, record): (i64, Outgoing)| Incoming {
        partition: TopicPartition::new(record.topic, 0),
        offset,
        timestamp_ms: 0,
        key: record.key,
        value: record.value,
        headers: record.headers,
    };
    (0..).zip(records).map(incoming).collect()
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let decoder = Decoder::for_looking(Arc::new(Applications::default()));
    for (name, kind, records) in [("status", Kind::Status, 1), ("50 CDRs", Kind::Cdrs, BATCH)] {
        let encoded = request(kind);
        let request = encoded.request();
        let source = source();
        group.throughput(Throughput::Elements(records));
        group.bench_function(format!("{name}: read and normalise"), |bencher| {
            bencher.iter(|| read(black_box(request.body), &source));
        });
        group.bench_function(format!("{name}: and encode, with headers"), |bencher| {
            bencher.iter(|| decoder.normalise(black_box(&request), None));
        });
        let read = read(request.body, &source);
        group.bench_function(format!("{name}: protobuf alone"), |bencher| {
            bencher.iter(|| read.iter().map(encode).map(|bytes| bytes.len()).sum::<usize>());
        });
    }
}

fn encode(record: &Record) -> Vec<u8> {
    match record {
        Record::Status(event) => event.encode_to_vec(),
        Record::Cdr(cdr) => cdr.encode_to_vec(),
        Record::Quarantined(quarantined) => quarantined.encode_to_vec(),
    }
}

fn spool(criterion: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = tollgate_spool::Settings { dir: dir.path().join("spool"), ..Default::default() };
    let options = Options { settings, started_at_us: 1 };
    let (spool, reader) = Spool::open(options, Arc::new(RealDisk)).unwrap();
    let request = request(Kind::Status);
    let mut group = criterion.benchmark_group("spool");
    group.throughput(Throughput::Elements(CLIENTS as u64));
    group.bench_function("append a status, 256 at a time, synced", |bencher| {
        bencher.iter(|| {
            let appends = (0..CLIENTS).map(|_| spool.append(request.clone()));
            let done = runtime.block_on(join_all(appends));
            assert!(done.iter().all(Result::is_ok));
        });
    });
    drop(reader);
}

fn leg(leg: Option<&Leg>) -> Option<LegTimes<'_>> {
    let leg = leg?;
    let answered_at = leg.answered_at.as_ref().and_then(|at| from_proto(at).ok());
    Some(LegTimes { number: leg.number.as_deref(), answered_at })
}

fn rating(criterion: &mut Criterion) {
    let tariff = Tariff::parse(SAMPLE).unwrap();
    let item = CdrDecoder.decode(&published(Kind::Cdrs)[0]).unwrap();
    let record = item.content.record().clone();
    let cdr = Cdr {
        a_leg: leg(record.a_leg.as_ref()),
        b_leg: leg(record.b_leg.as_ref()),
        ended_at: record.ended_at.as_ref().and_then(|at| from_proto(at).ok()),
        failed_at: None,
        application: &record.app_key,
        service: None,
        received_at: Timestamp::now(),
        inbound: false,
        unreadable_times: false,
    };
    assert!(rate(&cdr, Some(&tariff), &Limits::default()).amount_micros > 0);
    criterion.bench_function("rating: a call with two legs", |bencher| {
        bencher.iter(|| rate(black_box(&cdr), Some(&tariff), &Limits::default()));
    });
}

fn state(criterion: &mut Criterion) {
    let decoder = tollgate_user_state::item::Decoder;
    let records = published(Kind::Whole);
    let events: Vec<Event> =
        records.iter().map(|record| decoder.decode(record).unwrap().event).collect();
    let expiry = Expiry { unanswered_ms: 300_000, answered_ms: 86_400_000 };
    let stored = {
        let mut set = EventSet::default();
        for event in &events[..4] {
            set.insert(event.clone());
        }
        set.encode()
    };
    let mut group = criterion.benchmark_group("state");
    group.bench_function("decode a record", |bencher| {
        bencher.iter(|| decoder.decode(black_box(&records[0])));
    });
    group.bench_function("add an event to a stored call, fold, store", |bencher| {
        bencher.iter(|| {
            let mut set = EventSet::decode(black_box(&stored)).unwrap();
            set.insert(events[4].clone());
            let legs = fold(&set, &expiry).0.legs;
            (legs, set.encode())
        });
    });
    let set: EventSet = events.into_iter().collect();
    let legs: Vec<NumberLeg> = fold(&set, &expiry)
        .0
        .legs
        .into_iter()
        .map(|leg| NumberLeg { session_key: [0; 16], session_id: String::new(), leg })
        .collect();
    group.bench_function("a number's state from its legs", |bencher| {
        bencher.iter(|| derive(black_box(&legs), 0));
    });
}

/// Says when a record has landed.
struct Landed(mpsc::Sender<()>);

impl Deliveries for Landed {
    fn delivered(&self, _token: Token, outcome: Result<Position, DeliveryError>) {
        outcome.unwrap();
        // Nobody waits any more at the end.
        let _ = self.0.send(());
    }
}

fn embedded(criterion: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = EmbeddedSettings { dir: dir.path().join("log"), ..Default::default() };
    let stream = EmbeddedStream::open(EmbeddedOptions::new(settings)).unwrap();
    let decoder = Decoder::for_looking(Arc::new(Applications::default()));
    let record = decoder.normalise(&request(Kind::Status).request(), None).records.remove(0);
    let topic = |name: &str| TopicSpec {
        name: name.to_owned(),
        partitions: 12,
        replication: 1,
        config: Vec::new(),
    };
    runtime.block_on(stream.create_topics(&[topic(&record.topic), topic("reading")])).unwrap();
    let (landed, landings) = mpsc::channel();
    let producer = stream.producer(ProducerKind::Spooled, Arc::new(Landed(landed))).unwrap();
    let append = |record: &Outgoing| {
        for token in 0..RECORDS {
            producer.send(record, token as Token).unwrap();
        }
        for _ in 0..RECORDS {
            landings.recv_timeout(Duration::from_secs(30)).unwrap();
        }
    };
    let mut group = criterion.benchmark_group("embedded log");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("append 500, synced", |bencher| bencher.iter(|| append(&record)));
    let reading = Outgoing { topic: "reading".into(), ..record.clone() };
    append(&reading);
    group.bench_function("read 500", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let mut reader = stream.reader(&["reading"], ReadFrom::Earliest).await.unwrap();
                let mut left = RECORDS;
                while left > 0 {
                    left -= reader.next(left, Duration::from_secs(30)).await.unwrap().len();
                }
            });
        });
    });
}

fn quick() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(30)
        .without_plots()
}

criterion_group! {
    name = benches;
    config = quick();
    targets = decode, spool, rating, state, embedded
}
criterion_main!(benches);
