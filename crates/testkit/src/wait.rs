//! Waiting on conditions, never on time.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

/// Between two looks at the condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks again and again until `check` answers `Ok`, and returns what it answered.
///
/// # Panics
///
/// When the deadline has passed, with the last error.
pub async fn eventually<T, E: Display>(
    deadline: Duration,
    mut check: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < end, "not within {deadline:?}: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Like [`eventually`], for a condition without a value; `what` says what is awaited.
///
/// # Panics
///
/// When the deadline has passed.
pub async fn eventually_true(what: &str, deadline: Duration, mut check: impl AsyncFnMut() -> bool) {
    eventually(deadline, async || if check().await { Ok(()) } else { Err(what) }).await;
}

/// The same for a thread that may block. Returns whether the condition came true in time.
pub fn blocking_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = std::time::Instant::now() + deadline;
    while !condition() {
        if std::time::Instant::now() > end {
            return false;
        }
        #[expect(clippy::disallowed_methods, reason = "this is where conditions are waited on")]
        std::thread::sleep(PAUSE);
    }
    true
}
