//! The publisher's first half: reads the spool and makes records of what it holds, a little ahead of
//! the half that sends them and beside it on another core. What is not sent is at most three
//! readings of [`READ_BYTES`] each, and what their records take beyond their bodies: one being made,
//! one made, one being sent.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tollgate_spool::{Position, Reader, Stored};
use tollgate_stream::Outgoing;

use crate::background;
use crate::decode::Decoder;

/// Requests read from the spool at a time.
const READ_REQUESTS: usize = 1024;

/// Bytes read from the spool at a time.
const READ_BYTES: u64 = 1024 * 1024;

/// Longest wait for new requests.
const READ_WAIT: Duration = Duration::from_secs(5);

/// Pause after the spool's disk refused a read.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// A request's records, in order.
pub struct Prepared {
    pub request: Position,
    pub received_at_ms: i64,
    pub records: Vec<Outgoing>,
}

/// Where prepared requests come from, in the order of the spool.
pub struct Preparing {
    at_hand: VecDeque<Prepared>,
    ready: mpsc::Receiver<Vec<Prepared>>,
    is_over: bool,
    reading: oneshot::Receiver<Reader>,
}

impl Preparing {
    /// Begins where the reader stands.
    pub fn start(reader: Reader, decoder: Arc<Decoder>) -> io::Result<Self> {
        let (hand_over, ready) = mpsc::channel(1);
        let reading = background::spawn("prepare", prepare_all(reader, decoder, hand_over))?;
        Ok(Self { at_hand: VecDeque::new(), ready, is_over: false, reading })
    }

    /// Whether the next one is at hand.
    pub fn has_next(&self) -> bool {
        !self.at_hand.is_empty()
    }

    /// The next one, if it is at hand.
    pub fn next(&mut self) -> Option<Prepared> {
        self.at_hand.pop_front()
    }

    /// Whether the spool is closed and all of it was fetched.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Waits until more are at hand, or there will be none. Dropping the future loses nothing.
    pub async fn fetch(&mut self) {
        match self.ready.recv().await {
            Some(prepared) => self.at_hand.extend(prepared),
            None => self.is_over = true,
        }
    }

    /// Ends the reading and gives the reader back. What was prepared and not taken is not
    /// confirmed, and so stays in the spool.
    pub async fn stop(self) -> Reader {
        drop(self.ready);
        let Ok(reader) = self.reading.await else {
            std::panic::resume_unwind(Box::new("preparing has panicked"));
        };
        reader
    }
}

async fn prepare_all(
    mut reader: Reader,
    decoder: Arc<Decoder>,
    hand_over: mpsc::Sender<Vec<Prepared>>,
) -> Reader {
    while !reader.is_exhausted() {
        let read = tokio::select! {
            read = reader.next(READ_REQUESTS, READ_BYTES, READ_WAIT) => read,
            () = hand_over.closed() => break,
        };
        match read {
            Ok(stored) if stored.is_empty() => {}
            Ok(stored) => {
                let prepared = stored.iter().map(|stored| prepare(stored, &decoder)).collect();
                if hand_over.send(prepared).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                tracing::error!(%error, "spool cannot be read; trying again");
                tokio::time::sleep(DISK_PAUSE).await;
            }
        }
    }
    reader
}

fn prepare(stored: &Stored, decoder: &Decoder) -> Prepared {
    let Stored { position, request } = stored;
    let normalised = decoder.normalise(request, Some(*position));
    decoder.count(&normalised, request);
    Prepared {
        request: *position,
        received_at_ms: request.received_at_ms,
        records: normalised.records,
    }
}
