//! Reads one request's body within its limits.

use std::time::Duration;

use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::admission::Budget;
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

/// A complete body, and its share of the budget, which is given back with it.
pub struct Body {
    /// As received.
    pub bytes: Bytes,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Body {
    /// Whether it draws on the budget.
    pub fn is_large(&self) -> bool {
        !self.permits.is_empty()
    }
}

/// Why there is no body.
pub enum NoBody {
    /// Answer this.
    Refused(Refusal),
    /// Nobody is there to be answered.
    Aborted,
}

/// Reads to the end. With `only_small` a body past [`FREE_BYTES`] counts as a CDR and is refused.
pub async fn read(
    mut payload: Payload,
    announced: Option<usize>,
    limits: Limits,
    budget: &Budget,
    only_small: bool,
) -> Result<Body, NoBody> {
    let refuse = |refusal| Err(NoBody::Refused(refusal));
    let expected = announced.unwrap_or(0);
    if expected > limits.max_bytes {
        return refuse(Refusal::TooLarge);
    }
    if expected > FREE_BYTES && only_small {
        return refuse(Refusal::Reserved);
    }
    let deadline = Instant::now() + limits.deadline;
    let mut room = FREE_BYTES;
    let mut permits = Vec::new();
    if expected > FREE_BYTES {
        take(budget, expected - FREE_BYTES, deadline, &mut permits).await?;
        room = expected;
    }
    let mut bytes = BytesMut::with_capacity(expected);
    loop {
        let chunk = match timeout_at(deadline, payload.next()).await {
            Err(_) => return refuse(Refusal::SlowBody),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(broken(&error)),
            Ok(Some(Ok(chunk))) => chunk,
        };
        let length = bytes.len() + chunk.len();
        if length > limits.max_bytes {
            return refuse(Refusal::TooLarge);
        }
        if length > FREE_BYTES && only_small {
            return refuse(Refusal::Reserved);
        }
        while length > room {
            let step = STEP.min(limits.max_bytes - room);
            take(budget, step, deadline, &mut permits).await?;
            room += step;
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body { bytes: bytes.freeze(), permits })
}

async fn take(
    budget: &Budget,
    bytes: usize,
    deadline: Instant,
    permits: &mut Vec<OwnedSemaphorePermit>,
) -> Result<(), NoBody> {
    match timeout_at(deadline, budget.take(bytes)).await {
        Ok(Some(permit)) => {
            permits.push(permit);
            Ok(())
        }
        Ok(None) | Err(_) => Err(NoBody::Refused(Refusal::Overloaded)),
    }
}

fn broken(error: &actix_web::error::PayloadError) -> NoBody {
    use actix_web::error::PayloadError;
    match error {
        PayloadError::Incomplete(_) | PayloadError::Io(_) => NoBody::Aborted,
        PayloadError::Overflow => NoBody::Refused(Refusal::TooLarge),
        _ => NoBody::Refused(Refusal::BrokenBody),
    }
}
