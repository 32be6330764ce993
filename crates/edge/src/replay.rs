//! Publishes what a dead edge's spool still holds.

use std::sync::Arc;
use std::time::Duration;

use tollgate_spool::disk::Disk;
use tollgate_spool::{Adopted, Adoption, DeadLetters, Finding, Settings, SpoolError, Stored};
use tollgate_stream::{ProducerKind, Stream};

use crate::applications::Applications;
use crate::dead_letters::keep;
use crate::decode::Decoder;
use crate::error::EdgeError;
use crate::flight::{Flight, Landed, Reports};
use crate::sending::{Refused, Sending};

/// Requests read, published and confirmed together.
const CHUNK: usize = 500;
/// Or so many bytes of them.
const CHUNK_BYTES: u64 = 16 * 1024 * 1024;

/// How long a disk that fails is left alone.
const DISK_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1000 });

/// How often in a row it may fail: more often than it takes to give up what cannot be read.
const DISK_FAILURES: u32 = 100;

/// How a replay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Requests published and confirmed.
    pub requests: u64,
    /// Records that their topic refuses for good, of these requests or of earlier ones: they are
    /// nowhere but in the directory.
    pub dead_letters: u64,
    /// What could not be read.
    pub findings: Vec<Finding>,
}

/// Publishes every unconfirmed request of the spool's directory, which no edge has open, and confirms
/// it there. Broken off, it goes on where it was. `progress` is told how many requests are done.
pub async fn replay(
    spool: &Settings,
    disk: Arc<dyn Disk>,
    stream: &dyn Stream,
    applications: Arc<Applications>,
    progress: impl Fn(u64),
) -> Result<Replayed, EdgeError> {
    let how = Adoption::Exclusive { damaged_max_bytes: spool.damaged_max_bytes };
    let adopted = Adopted::open(&spool.dir, Arc::clone(&disk), how)?;
    let bound = spool.dead_letters_max_bytes;
    let letters = DeadLetters::open(&spool.dir, bound, disk)?;
    let reports = Arc::new(Reports::default());
    let producer = stream.producer(ProducerKind::Spooled, Arc::clone(&reports) as _)?;
    let decoder = Arc::new(Decoder::for_looking(applications));
    let mut sending = Sending::new(decoder, producer, Flight::new(reports));
    let mut adopted = adopted;
    let (mut requests, mut failures) = (0, 0);
    loop {
        let (chunk, failed, back) = read(adopted).await?;
        adopted = back;
        if chunk.is_empty() && failed.is_none() {
            return Ok(Replayed {
                requests,
                dead_letters: letters.count(),
                findings: adopted.findings().to_vec(),
            });
        }
        let count = chunk.len();
        for stored in chunk {
            sending.publish(stored).await;
        }
        let done = wait_for_all(&mut sending, &letters, count).await?;
        adopted.confirm(&done)?;
        requests += count as u64;
        progress(requests);
        failures = if count > 0 { 0 } else { failures };
        if let Some(error) = failed {
            failures += 1;
            if !error.is_transient() || failures == DISK_FAILURES {
                return Err(error.into());
            }
            tracing::warn!(%error, "spool cannot be read; trying again");
            tokio::time::sleep(DISK_PAUSE).await;
        }
    }
}

/// The next requests, and what kept more from being read.
async fn read(
    mut adopted: Adopted,
) -> Result<(Vec<Stored>, Option<SpoolError>, Adopted), EdgeError> {
    let read = tokio::task::spawn_blocking(move || {
        let mut chunk = Vec::new();
        let mut weight = 0;
        while chunk.len() < CHUNK && weight < CHUNK_BYTES {
            match adopted.next() {
                Some(Ok(stored)) => {
                    weight += stored.encoded.weight();
                    chunk.push(stored);
                }
                Some(Err(error)) => return (chunk, Some(error), adopted),
                None => break,
            }
        }
        (chunk, None, adopted)
    });
    Ok(read.await?)
}

async fn wait_for_all(
    sending: &mut Sending,
    letters: &DeadLetters,
    requests: usize,
) -> Result<Vec<tollgate_spool::Position>, EdgeError> {
    let mut positions = Vec::with_capacity(requests);
    while positions.len() < requests {
        let Landed { done, refused } = sending.landed();
        for Refused { part, record, request, reason } in sending.refused(refused) {
            keep(letters, record, request, reason)?;
            sending.flight.put_away(part);
        }
        positions.extend(done.into_iter().map(|done| done.request));
        sending.repeat().await;
        if positions.len() < requests {
            sending.news().await;
        }
    }
    Ok(positions)
}

#[cfg(test)]
mod tests {
    use tollgate_spool::disk::{FaultPlan, FaultyDisk, Injected, Operation};
    use tollgate_spool::{FindingKind, Options, Request, Spool};
    use tollgate_stream::TopicSpec;
    use tollgate_stream::embedded::{EmbeddedOptions, EmbeddedStream};
    use tollgate_stream::settings::EmbeddedSettings;

    use super::*;

    const REQUESTS: u64 = 40;

    fn settings() -> Settings {
        let (segment_bytes, group_bytes) = (1 << 20, 1 << 20);
        Settings { dir: "/spool".into(), segment_bytes, group_bytes, ..Settings::default() }
    }

    /// The disk of a dead edge, with the requests it has left.
    fn dead_edge() -> FaultyDisk {
        let disk = FaultyDisk::new(1);
        let options = Options { settings: settings(), started_at_us: 1 };
        let (spool, _reader) = Spool::open(options, Arc::new(disk.clone())).unwrap();
        let body = [b'.'; 1000];
        for _ in 0..REQUESTS {
            spool.append(Request { body: &body, ..Request::default() }.encode()).wait().unwrap();
        }
        spool.close();
        disk.kill();
        disk
    }

    async fn replayed(disk: &FaultyDisk) -> Result<Replayed, EdgeError> {
        let log = EmbeddedSettings {
            dir: "/stream".into(),
            segment_bytes: 16 << 20,
            max_bytes: 256 << 20,
        };
        let other = Arc::new(FaultyDisk::new(1));
        let stream = EmbeddedStream::open(EmbeddedOptions { settings: log, disk: other }).unwrap();
        stream.create_topics(&TopicSpec::catalogue(Some(1))).await.unwrap();
        let disk = Arc::new(disk.clone());
        replay(&settings(), disk, &*stream, Arc::default(), |_| {}).await
    }

    #[tokio::test]
    async fn a_replay_goes_on_behind_a_bad_sector_and_names_what_it_cost() {
        let disk = dead_edge();
        let segment = disk.paths().into_iter().find(|path| path.extension().is_some()).unwrap();
        disk.spoil(&segment, 20_000, 1);
        let replayed = replayed(&disk).await.unwrap();
        let lost: u64 = replayed.findings.iter().map(|lost| lost.last - lost.first + 1).sum();
        assert!(replayed.findings.iter().all(|lost| lost.kind == FindingKind::Damaged));
        assert!((1..=6).contains(&lost), "one block of 4 KiB hits no more: {lost}");
        assert_eq!(replayed.requests + lost, REQUESTS);
    }

    #[tokio::test]
    async fn a_replay_outlasts_a_volume_that_comes_back_and_no_other() {
        // The start finds the segment, and nobody can open it then.
        let away = |times| {
            FaultPlan { skip: 1, times, ..FaultPlan::all(Operation::Open, Injected::Eio) }
                .on(".segment")
        };
        let disk = dead_edge();
        disk.arm(away(20));
        let whole = Replayed { requests: REQUESTS, dead_letters: 0, findings: Vec::new() };
        assert_eq!(replayed(&disk).await.unwrap(), whole);
        let disk = dead_edge();
        disk.arm(away(u64::MAX));
        assert!(matches!(replayed(&disk).await, Err(EdgeError::Spool(_))));
    }
}
