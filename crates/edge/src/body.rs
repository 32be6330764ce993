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
    let refuse = |refusal| Err(NoBody::Refused(refusal));
    let too_long = |length| {
        if length > limits.max_bytes {
            Some(Refusal::TooLarge)
        } else if length > FREE_BYTES && only_small {
            Some(Refusal::Reserved)
        } else {
            None
        }
    };
    let expected = announced.unwrap_or(0);
    if let Some(refusal) = too_long(expected) {
        return refuse(refusal);
    }
    let deadline = Instant::now() + limits.deadline;
    let mut share = budget.share();
    let mut room = FREE_BYTES;
    if expected > room {
        busy.hold();
        grow(&mut share, expected - room, deadline).await?;
        busy.go_on();
        room = expected;
    }
    let mut whole = Bytes::new();
    let mut bytes = Vec::new();
    loop {
        let chunk = match timeout_at(deadline, payload.next()).await {
            Err(_) => return refuse(Refusal::SlowBody),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(broken(&error)),
            Ok(Some(Ok(chunk))) => chunk,
        };
        busy.takes(&chunk);
        let length = whole.len() + bytes.len() + chunk.len();
        if let Some(refusal) = too_long(length) {
            return refuse(refusal);
        }
        while length > room {
            let step = STEP.min(limits.max_bytes - room);
            if !share.try_grow(step) {
                return refuse(Refusal::Overloaded);
            }
            room += step;
        }
        if length == expected && length == chunk.len() {
            // All of it in one piece, as nearly always.
            whole = chunk;
            continue;
        }
        if length > bytes.capacity() {
            // As much as is announced or was paid for; growing by doubling would take more.
            let enough = if length > expected { room } else { expected };
            bytes.reserve_exact(enough - bytes.len());
        }
        bytes.extend_from_slice(&std::mem::take(&mut whole));
        bytes.extend_from_slice(&chunk);
    }
    busy.hold();
    let bytes = if whole.is_empty() { bytes.into() } else { whole };
    Ok(Body { bytes, share })
}

async fn grow(share: &mut Share, bytes: usize, deadline: Instant) -> Result<(), NoBody> {
    match timeout_at(deadline, share.grow(bytes)).await {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(NoBody::Refused(Refusal::Overloaded)),
    }
}

fn broken(error: &PayloadError) -> NoBody {
    match error {
        PayloadError::Incomplete(_) | PayloadError::Io(_) => NoBody::Aborted,
        PayloadError::Overflow => NoBody::Refused(Refusal::TooLarge),
        _ => NoBody::Refused(Refusal::BrokenBody),
    }
}
