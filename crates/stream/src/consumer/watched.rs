//! A consumer whose client may lock itself up: its calls come to an end all the same.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use crate::{Consumer, Event, StreamError, TopicPartition};

/// A client that does not come back from a call for so long never will.
const HUNG: Duration = Duration::from_mins(2);
/// Waited for in slices: a process that was stopped for an hour has not waited an hour.
const SLICE: Duration = Duration::from_secs(5);

/// Once a call has hung, this and every later one is a fatal error.
pub(super) struct Watched {
    consumer: Box<dyn Consumer>,
    hangs: bool,
}

impl Watched {
    pub(super) fn new(consumer: Box<dyn Consumer>) -> Self {
        Self { consumer, hangs: false }
    }

    async fn watch<'a, T>(
        &'a mut self,
        call: impl FnOnce(&'a mut dyn Consumer) -> BoxFuture<'a, Result<T, StreamError>>,
    ) -> Result<T, StreamError> {
        let Self { consumer, hangs } = self;
        if !*hangs {
            let mut call = call(consumer.as_mut());
            let mut waited = Duration::ZERO;
            while waited < HUNG {
                if let Ok(answer) = timeout(SLICE, &mut call).await {
                    return answer;
                }
                waited += SLICE;
            }
            *hangs = true;
        }
        Err(StreamError::Fatal("its client hangs; start this process again".to_owned()))
    }
}

#[async_trait]
impl Consumer for Watched {
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Event, StreamError> {
        self.watch(|consumer| consumer.next(max, wait)).await
    }

    async fn start(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), StreamError> {
        self.watch(|consumer| consumer.start(partition, offset)).await
    }

    async fn pause(&mut self, partition: &TopicPartition) -> Result<(), StreamError> {
        self.watch(|consumer| consumer.pause(partition)).await
    }

    async fn resume(&mut self, partition: &TopicPartition) -> Result<(), StreamError> {
        self.watch(|consumer| consumer.resume(partition)).await
    }

    async fn stop(&mut self, partition: &TopicPartition) -> Result<(), StreamError> {
        self.watch(|consumer| consumer.stop(partition)).await
    }

    async fn report_progress(&mut self, offsets: &[(TopicPartition, i64)]) {
        self.consumer.report_progress(offsets).await;
    }

    async fn close(self: Box<Self>) {
        self.consumer.close().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    /// Locks itself up when it is told to pause.
    struct Fragile;

    #[async_trait]
    impl Consumer for Fragile {
        async fn next(&mut self, _: usize, _: Duration) -> Result<Event, StreamError> {
            Ok(Event::Idle)
        }

        async fn start(&mut self, _: &TopicPartition, _: i64) -> Result<(), StreamError> {
            Ok(())
        }

        async fn pause(&mut self, _: &TopicPartition) -> Result<(), StreamError> {
            pending().await
        }

        async fn resume(&mut self, _: &TopicPartition) -> Result<(), StreamError> {
            Ok(())
        }

        async fn stop(&mut self, _: &TopicPartition) -> Result<(), StreamError> {
            Ok(())
        }

        async fn report_progress(&mut self, _: &[(TopicPartition, i64)]) {}

        async fn close(self: Box<Self>) {}
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_call_hangs_is_the_last_that_is_waited_for() {
        let mut consumer = Watched::new(Box::new(Fragile));
        let partition = TopicPartition::new("t", 0);
        assert!(matches!(consumer.next(1, HUNG).await, Ok(Event::Idle)));
        let began = Instant::now();
        assert!(matches!(consumer.pause(&partition).await, Err(StreamError::Fatal(_))));
        assert_eq!(began.elapsed().as_secs(), HUNG.as_secs());
        assert!(matches!(consumer.next(1, HUNG).await, Err(StreamError::Fatal(_))));
        assert!(matches!(consumer.stop(&partition).await, Err(StreamError::Fatal(_))));
        assert_eq!(began.elapsed().as_secs(), HUNG.as_secs());
    }
}
