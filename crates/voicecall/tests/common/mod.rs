//! Bodies to read, and how to read them.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::Path;

use jiff::tz::Offset;
use tollgate_schema::v1::{Authenticity, CallDetailRecord, CallEvent, Quarantined};
use tollgate_voicecall::{Record, Source, read};

/// The files of a folder under `tests`, by name, in order.
pub fn bodies(folder: &str, extension: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut bodies: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    bodies.sort();
    bodies
}

/// The vendor's sample bodies.
pub fn samples() -> Vec<(String, Vec<u8>)> {
    bodies("samples", "json")
}

/// Bodies at the edges of what is tolerated.
pub fn edges() -> Vec<(String, Vec<u8>)> {
    bodies("edge", "body")
}

/// A sample body by the number its name starts with.
pub fn sample(number: &str) -> Vec<u8> {
    samples().into_iter().find(|(name, _)| name.starts_with(number)).unwrap().1
}

/// A body of `edge` by its name.
pub fn edge(name: &str) -> Vec<u8> {
    edges().into_iter().find(|(found, _)| found == name).unwrap().1
}

pub fn source() -> Source<'static> {
    Source {
        received_at: "2026-01-27T04:00:00.25Z".parse().unwrap(),
        edge_id: "edge-1",
        spool_epoch: 3,
        spool_sequence: 1024,
        application: "",
        authenticity: Authenticity::VerifiedP2,
        zone: Offset::UTC,
    }
}

pub fn records(body: impl AsRef<[u8]>) -> Vec<Record> {
    read(body.as_ref(), &source())
}

pub fn cdrs(body: impl AsRef<[u8]>) -> Vec<CallDetailRecord> {
    let cdr = |record| match record {
        Record::Cdr(cdr) => cdr,
        other => panic!("expected CDRs, found {other:?}"),
    };
    records(body).into_iter().map(cdr).collect()
}

pub fn cdr(body: impl AsRef<[u8]>) -> CallDetailRecord {
    let [cdr] = cdrs(body).try_into().unwrap();
    cdr
}

pub fn status(body: impl AsRef<[u8]>) -> CallEvent {
    match <[Record; 1]>::try_from(records(body)) {
        Ok([Record::Status(event)]) => event,
        other => panic!("expected one status, found {other:?}"),
    }
}

pub fn quarantined(body: impl AsRef<[u8]>) -> Quarantined {
    match <[Record; 1]>::try_from(records(body)) {
        Ok([Record::Quarantined(quarantined)]) => quarantined,
        other => panic!("expected one body in quarantine, found {other:?}"),
    }
}

/// Record id and event id of everything that has them.
pub fn ids(records: &[Record]) -> Vec<(String, String)> {
    let ids = |record: &Record| match record {
        Record::Status(event) => Some((event.record_id.clone(), event.event_id.clone())),
        Record::Cdr(cdr) => Some((cdr.record_id.clone(), cdr.event_id.clone())),
        Record::Quarantined(_) => None,
    };
    records.iter().filter_map(ids).collect()
}
