//! Publishes what a dead edge's spool still holds.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tollgate_spool::disk::Disk;
use tollgate_spool::{Adopted, Adoption, DeadLetters, Finding, Settings, SpoolError, Stored};
use tollgate_stream::{ProducerKind, Stream};

use crate::applications::Applications;
use crate::decode::Decoder;
use crate::flight::{Flight, Landed, Reports};
use crate::publisher::keep;
use crate::sending::{Refused, Sending};
use crate::service::EdgeError;

/// Requests read, published and confirmed together.
const CHUNK: usize = 500;

/// How long what failed waits before it goes again.
const PAUSE: Duration = Duration::from_millis(50);

/// How a replay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Requests published and confirmed.
    pub requests: u64,
    /// What could not be read.
    pub findings: Vec<Finding>,
}

/// Publishes every unconfirmed request of a directory that no edge has open, and confirms it
/// there. Broken off, it goes on where it was. `progress` is told how many requests are done.
pub async fn replay(
    dir: &Path,
    disk: Arc<dyn Disk>,
    stream: &dyn Stream,
    applications: Arc<Applications>,
    progress: impl Fn(u64),
) -> Result<Replayed, EdgeError> {
    let adopted = Adopted::open(dir, Arc::clone(&disk), Adoption::Exclusive)?;
    let bound = Settings::default().dead_letters_max_bytes;
    let letters = Arc::new(DeadLetters::open(dir, bound, disk)?);
    let reports = Arc::new(Reports::default());
    let producer = stream.producer(ProducerKind::Spooled, Arc::clone(&reports) as _)?;
    let decoder = Arc::new(Decoder::for_looking(applications));
    let mut sending = Sending::new(decoder, producer, Flight::new(reports));
    let mut adopted = adopted;
    let mut requests = 0;
    loop {
        let (chunk, back) = read(adopted).await?;
        adopted = back;
        if chunk.is_empty() {
            return Ok(Replayed { requests, findings: adopted.findings().to_vec() });
        }
        let count = chunk.len();
        for stored in chunk {
            sending.publish(stored).await;
        }
        let done = wait_for_all(&mut sending, &letters, count).await?;
        adopted.confirm(&done)?;
        requests += count as u64;
        progress(requests);
    }
}

async fn read(mut adopted: Adopted) -> Result<(Vec<Stored>, Adopted), EdgeError> {
    let read = tokio::task::spawn_blocking(move || {
        let chunk: Result<Vec<Stored>, SpoolError> = adopted.by_ref().take(CHUNK).collect();
        chunk.map(|chunk| (chunk, adopted))
    });
    Ok(read.await??)
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
            if sending.flight.must_repeat() {
                tokio::time::sleep(PAUSE).await;
            } else {
                sending.news().await;
            }
        }
    }
    Ok(positions)
}
