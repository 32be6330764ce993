//! The publisher's position, as a simulation: brokers that confirm, lose and refuse in any order,
//! an edge that restarts, and a power cut at any moment, all drawn from a seed.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use common::{Bench, Mode, Node, Report, bodies, eventually};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tollgate_schema::v1::CallDetailRecord;
use tollgate_spool::disk::{FaultyDisk, Loss};
use tollgate_spool::{Adopted, Adoption, dead_letters};

const SEEDS: u64 = 30;
const STEPS: usize = 60;

type Names = BTreeSet<String>;

/// What the platform and the brokers know. Every record has a session of its own for its name.
#[derive(Default)]
struct Known {
    /// Records of each request that was answered 200.
    acknowledged: Vec<Names>,
    confirmed: Names,
    refused: Names,
}

impl Known {
    /// Requests that the position must not have passed.
    fn open_requests(&self) -> impl Iterator<Item = &Names> {
        let landed = |name| self.confirmed.contains(name) || self.refused.contains(name);
        self.acknowledged.iter().filter(move |names| !names.iter().all(landed))
    }
}

struct Simulation {
    dice: StdRng,
    disk: FaultyDisk,
    bench: Bench,
    known: Known,
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let disk = FaultyDisk::new(seed);
        let mut bench = Bench::new().await;
        bench.make_small();
        bench.disk = Arc::new(disk.clone());
        bench.settings.workers = 1;
        bench.settings.flush_deadline_ms = 1;
        bench.stream.set(Mode::Stall);
        Self { dice: StdRng::seed_from_u64(seed), disk, bench, known: Known::default() }
    }

    async fn post(&mut self, node: &Node, step: usize) {
        let records = self.dice.random_range(0..4);
        let names: Vec<String> = (0..records.max(1)).map(|n| format!("r-{step}-{n}-")).collect();
        let items: Vec<_> = names.iter().map(|name| bodies::item("app", name, "")).collect();
        match records {
            0 => node.give("/status", bodies::status(&names[0])).await,
            _ => node.give("/fee", bodies::fee(&items)).await,
        }
        self.known.acknowledged.push(names.into_iter().collect());
    }

    /// Something must be in flight as long as anything is open: a publisher that sleeps with work
    /// to do is found here.
    async fn report(&mut self) {
        if self.known.open_requests().next().is_none() {
            return;
        }
        let stream = Arc::clone(&self.bench.stream);
        eventually("what is open is sent", || stream.stalled() > 0).await;
        let report = match self.dice.random_range(0..20) {
            0 => Report::Refused,
            1..5 => Report::Lost,
            _ => Report::Confirmed,
        };
        let record = stream.report(|count| self.dice.random_range(0..count), report).unwrap();
        let name = String::from_utf8(record.key.to_vec()).unwrap();
        match report {
            Report::Confirmed => drop(self.known.confirmed.insert(name)),
            Report::Refused => drop(self.known.refused.insert(name)),
            Report::Lost => {}
        }
    }

    /// If the power went now, the next start would still have all that is not confirmed.
    fn cut_the_power(&mut self) {
        let after = self.disk.fork();
        after.power_cut(if self.dice.random() { Loss::Everything } else { Loss::Random });
        let (kept, letters) = what_is_left(&after, &self.bench.spool.dir);
        for request in self.known.open_requests() {
            let is_kept = kept.iter().any(|body| request.iter().all(|name| body.contains(name)));
            assert!(is_kept, "the position has passed {request:?}");
        }
        for name in &self.known.refused {
            let is_kept = kept.iter().any(|body| body.contains(name));
            assert!(is_kept || letters.contains(name), "{name} is neither kept nor a dead letter");
        }
    }

    async fn run(&mut self) {
        let mut node = self.bench.start();
        for step in 0..STEPS {
            match self.dice.random_range(0..20) {
                0..7 => self.post(&node, step).await,
                7..16 => self.report().await,
                16..19 => self.cut_the_power(),
                _ => {
                    node.stop().await;
                    node = self.bench.start();
                }
            }
        }
        self.cut_the_power();
        // From here on brokers confirm everything, and the log has it.
        self.bench.stream.set(Mode::Pass);
        node.settled().await;
        node.stop().await;
        let topics = self.bench.topics().await;
        let mut landed: Names = topics.sessions().into_iter().collect();
        landed.extend(topics.charged_sessions());
        landed.extend(self.known.confirmed.iter().cloned());
        let (kept, letters) = what_is_left(&self.disk.fork(), &self.bench.spool.dir);
        landed.extend(letters);
        for name in self.known.acknowledged.iter().flatten() {
            assert!(landed.contains(name), "{name} is lost");
        }
        assert!(kept.is_empty(), "what is confirmed is not sent again");
    }
}

/// Bodies that the next start would publish, and names of dead letters.
fn what_is_left(disk: &FaultyDisk, dir: &Path) -> (Vec<String>, Names) {
    let disk = Arc::new(disk.clone());
    let letters = dead_letters::list(disk.as_ref(), dir).unwrap().letters;
    let adopted = Adopted::open(dir, disk, Adoption::ReadOnly).unwrap();
    let kept = adopted
        .map(|stored| String::from_utf8(stored.unwrap().request().body.to_vec()).unwrap())
        .collect();
    let names = letters.into_iter().map(|it| String::from_utf8(it.key.to_vec()).unwrap());
    (kept, names.collect())
}

/// I1, I5: a request leaves the spool only when each of its records is confirmed or kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_position_never_passes_what_is_not_confirmed_whatever_is_reported_in_whatever_order() {
    for seed in 0..SEEDS {
        let ended = tokio::spawn(async move { Simulation::new(seed).await.run().await }).await;
        assert!(ended.is_ok(), "seed {seed} failed, see above");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_takes_nothing_holds_up_itself_alone_and_goes_on_in_order() {
    let bench = Bench::new().await;
    let node = bench.start();
    bench.stream.set(Mode::Without("cdrs"));
    for index in 0..20 {
        node.give("/fee", bodies::cdr("app", "the same")).await;
        node.give("/status", bodies::status(&index.to_string())).await;
    }
    eventually("statuses are published", || node.counts().published == 20).await;
    bench.stream.set(Mode::Pass);
    node.settled().await;
    node.stop().await;
    let sequences = |cdr: &CallDetailRecord| cdr.provenance.as_ref().unwrap().spool_sequence;
    let cdrs: Vec<_> = bench.topics().await.cdrs.iter().map(sequences).collect();
    assert_eq!(cdrs.len(), 20);
    assert!(cdrs.is_sorted(), "{cdrs:?}");
}
