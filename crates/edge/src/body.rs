//! Reads one request's body within its limits.

use std::time::Duration;

use actix_http::Payload;
use actix_http::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use crate::admission::{Budget, Share};
use crate::connections::Busy;
use crate::refusal::Refusal;
use crate::settings::FREE_BYTES;

/// A bit of the budget at a time, where the length is not announced.
const STEP: usize = 64 * 1024;

/// Limits of a body.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Bytes.
    pub max_bytes: usize,
    /// From the end of the head to the end of the body.
    pub deadline: Duration,
}

/// A complete body, and its share of the budget.
pub struct Body {
    /// As received. It may hold the connection's whole buffer in memory: to be dropped soon.
    pub bytes: Bytes,
    /// To be held until somebody else accounts for the bytes.
    pub share: Share,
}

/// Why there is no body.
pub enum NoBody {
    /// Answer this.
    Refused(Refusal),
    /// Nobody is there to be answered.
    Aborted,
}

impl From<Refusal> for NoBody {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Reads to the end. One whose length is announced may wait for its share of the budget before
/// anything of it is read. One that comes in chunks may not in between: while nobody takes them,
/// actix-http holds 32 KiB of them and 32 bytes for each, a mebibyte where they are of one byte.
///
/// With `only_small` a body past [`FREE_BYTES`] counts as a CDR and is refused.
pub async fn read(
    payload: &mut Payload,
    announced: Option<usize>,
    limits: Limits,
    budget: &Budget,
    only_small: bool,
    busy: &Busy,
) -> Result<Body, NoBody> {
    let deadline = Instant::now() + limits.deadline;
    let mut room = Room { share: budget.share(), bytes: FREE_BYTES, limits, only_small };
    let expected = announced.unwrap_or(0);
    room.admit(expected)?;
    if expected > room.bytes {
        busy.hold();
        room.wait_for(expected, deadline).await?;
        busy.go_on();
    }
    let mut body = Gathered::default();
    while let Some(chunk) = next(payload, deadline).await? {
        busy.takes(&chunk);
        let length = body.len() + chunk.len();
        room.admit(length)?;
        room.grow_to(length)?;
        body.push(chunk, if length > expected { room.bytes } else { expected });
    }
    busy.hold();
    Ok(Body { bytes: body.into_bytes(), share: room.share })
}

/// What a body may have, and has of it.
struct Room {
    share: Share,
    /// What came with the connection, and the share.
    bytes: usize,
    limits: Limits,
    only_small: bool,
}

impl Room {
    /// Whether a body may be so long.
    fn admit(&self, length: usize) -> Result<(), Refusal> {
        if length > self.limits.max_bytes {
            Err(Refusal::TooLarge)
        } else if length > FREE_BYTES && self.only_small {
            Err(Refusal::Reserved)
        } else {
            Ok(())
        }
    }

    async fn wait_for(&mut self, length: usize, deadline: Instant) -> Result<(), Refusal> {
        match timeout_at(deadline, self.share.grow(length - self.bytes)).await {
            Ok(true) => self.bytes = length,
            Ok(false) | Err(_) => return Err(Refusal::Overloaded),
        }
        Ok(())
    }

    fn grow_to(&mut self, length: usize) -> Result<(), Refusal> {
        while length > self.bytes {
            let step = STEP.min(self.limits.max_bytes - self.bytes);
            if !self.share.try_grow(step) {
                return Err(Refusal::Overloaded);
            }
            self.bytes += step;
        }
        Ok(())
    }
}

/// What has come of a body.
#[derive(Default)]
struct Gathered {
    /// All of it in one piece, as nearly always.
    whole: Bytes,
    pieces: Vec<u8>,
}

impl Gathered {
    fn len(&self) -> usize {
        self.whole.len() + self.pieces.len()
    }

    /// `enough` is as much as is announced or was paid for; growing by doubling would take more.
    fn push(&mut self, chunk: Bytes, enough: usize) {
        let length = self.len() + chunk.len();
        if length == enough && length == chunk.len() {
            self.whole = chunk;
            return;
        }
        if length > self.pieces.capacity() {
            self.pieces.reserve_exact(enough - self.pieces.len());
        }
        self.pieces.extend_from_slice(&std::mem::take(&mut self.whole));
        self.pieces.extend_from_slice(&chunk);
    }

    fn into_bytes(self) -> Bytes {
        if self.whole.is_empty() { self.pieces.into() } else { self.whole }
    }
}

/// The next part of a body; `None` at its end.
async fn next(payload: &mut Payload, deadline: Instant) -> Result<Option<Bytes>, NoBody> {
    match timeout_at(deadline, payload.next()).await {
        Err(_) => Err(Refusal::SlowBody.into()),
        Ok(chunk) => chunk.transpose().map_err(|error| broken(&error)),
    }
}

fn broken(error: &PayloadError) -> NoBody {
    match error {
        PayloadError::Incomplete(_) | PayloadError::Io(_) => NoBody::Aborted,
        PayloadError::Overflow => NoBody::Refused(Refusal::TooLarge),
        _ => NoBody::Refused(Refusal::BrokenBody),
    }
}
