//! Pauses between tries: doubling, bounded, and a little random, so that all partitions of all
//! processes do not come back at the same instant.

use std::time::Duration;

use rand::Rng as _;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone)]
pub(super) struct Backoff {
    /// All in milliseconds.
    first: u64,
    max: u64,
    step: u64,
}

impl Backoff {
    pub(super) fn new(first: u64, max: u64) -> Self {
        Self { first, max, step: first }
    }

    /// After a success the next pause is short again.
    pub(super) fn reset(&mut self) {
        self.step = self.first;
    }

    /// The next pause: between half and all of the step.
    pub(super) fn next(&mut self) -> Duration {
        let step = self.step;
        self.step = step.saturating_mul(2).min(self.max);
        Duration::from_millis(rand::rng().random_range(step.div_ceil(2)..=step))
    }

    /// Waits for the next pause. False when cancelled meanwhile.
    pub(super) async fn wait(&mut self, cancel: &CancellationToken) -> bool {
        let pause = self.next();
        tokio::select! {
            () = cancel.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(100, 350);
        for step in [100, 200, 350, 350] {
            let pause = backoff.next().as_millis() as u64;
            assert!((step / 2..=step).contains(&pause), "{pause} of {step}");
        }
        backoff.reset();
        assert!(backoff.next().as_millis() <= 100);
    }
}
