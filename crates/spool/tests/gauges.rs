//! What the gauges say of the disk, to those who look from outside. Alone in its process: the
//! recorder of metrics is the process'.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use common::*;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use tollgate_spool::disk::FaultyDisk;
use tollgate_spool::metrics::{DISK_ASKED, WRITABLE};

static GAUGES: LazyLock<Mutex<HashMap<String, Arc<AtomicU64>>>> = LazyLock::new(Mutex::default);

struct Recorder;

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut gauges = GAUGES.lock().unwrap();
        Gauge::from_arc(Arc::clone(gauges.entry(key.name().into()).or_default()))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn gauge(name: &str) -> f64 {
    let gauges = GAUGES.lock().unwrap();
    gauges.get(name).map_or(f64::NAN, |bits| f64::from_bits(bits.load(Ordering::Relaxed)))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn a_silent_disk_is_timed_by_the_wall_clock_and_a_closed_spool_does_not_accuse_it() {
    metrics::set_global_recorder(Recorder).unwrap();
    let disk = FaultyDisk::new(1);
    // Opened when the wall clock stood in 1970.
    let (spool, _reader) = open(&disk);
    let before = now();
    let held_syncs = disk.held_syncs();
    let append = spool.append(request(1));
    eventually("a sync waits", || disk.syncs_waiting() == 1);
    let asked = gauge(DISK_ASKED.name);
    assert!((before..=now()).contains(&asked), "{asked}");
    drop(held_syncs);
    append.wait().unwrap();
    spool.close();
    assert!(gauge(WRITABLE.name) > 0.0);
    assert!(gauge(DISK_ASKED.name) <= 0.0);
}
