//! Publishes what a dead edge's spool still holds.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tollgate_spool::disk::Disk;
use tollgate_spool::{Adopted, Adoption, DeadLetters, Finding, Settings, SpoolError, Stored};
use tollgate_stream::{Producer, ProducerKind, Stream};

use crate::applications::Applications;
use crate::decode::Decoder;
use crate::flight::{Flight, Landed, Reports, Sent};
use crate::publisher::{keep, send};
use crate::service::EdgeError;

/// Requests read, published and confirmed together.
const CHUNK: usize = 500;

/// How often it is looked whether what failed can go again.
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
    let mut flight = Flight::new(reports);
    let decoder = Decoder::for_looking(applications);
    let mut adopted = adopted;
    let mut requests = 0;
    loop {
        let (chunk, back) = read(adopted).await?;
        adopted = back;
        if chunk.is_empty() {
            return Ok(Replayed { requests, findings: adopted.findings().to_vec() });
        }
        for stored in &chunk {
            publish(&decoder, &mut flight, producer.as_ref(), stored).await;
        }
        let done = wait_for_all(&mut flight, producer.as_ref(), &letters, chunk.len()).await?;
        adopted.confirm(&done)?;
        requests += chunk.len() as u64;
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

async fn publish(decoder: &Decoder, flight: &mut Flight, producer: &dyn Producer, stored: &Stored) {
    let records = decoder.normalise(&stored.request, Some(stored.position)).records;
    let of = flight.announce(stored.position, stored.request.received_at_ms, records.len());
    for record in records {
        send(flight, producer, Sent::new(of, record)).await;
    }
}

async fn wait_for_all(
    flight: &mut Flight,
    producer: &dyn Producer,
    letters: &DeadLetters,
    requests: usize,
) -> Result<Vec<tollgate_spool::Position>, EdgeError> {
    let mut positions = Vec::with_capacity(requests);
    while positions.len() < requests {
        let Landed { done, refused } = flight.landed();
        for (sent, reason) in refused {
            keep(letters, sent.record, sent.of.request, reason)?;
            flight.put_away(sent.of);
        }
        positions.extend(done.into_iter().map(|done| done.request));
        for sent in flight.take_again() {
            send(flight, producer, sent).await;
        }
        if positions.len() < requests {
            let _ = tokio::time::timeout(PAUSE, flight.news()).await;
        }
    }
    Ok(positions)
}
