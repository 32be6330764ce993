//! Holds spool segments back while the topics they were published to are not what the catalogue
//! asks for: a confirmation by a weak topic is no reason to forget.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tollgate_schema::topics::{CALL_EVENTS, CDRS, QUARANTINE};
use tollgate_spool::Spool;
use tollgate_stream::{Stream, topics};

use crate::metrics::TOPICS_CHECKED;

const AFTER_FAILURE: Duration = Duration::from_secs(5);
const AFTER_SUCCESS: Duration = Duration::from_mins(1);

/// Checks now and again until stopped.
pub fn spawn(stream: Arc<dyn Stream>, spool: Spool, allow_weak: bool, stop: CancellationToken) {
    spool.set_allow_removal(allow_weak);
    tokio::spawn(async move {
        let mut last = None;
        loop {
            let trouble = trouble(stream.as_ref()).await;
            let fine = trouble.is_none() || allow_weak;
            spool.set_allow_removal(fine);
            metrics::gauge!(TOPICS_CHECKED.name).set(f64::from(u8::from(fine)));
            if trouble != last {
                report(trouble.as_deref(), allow_weak);
                last.clone_from(&trouble);
            }
            let pause = if trouble.is_none() { AFTER_SUCCESS } else { AFTER_FAILURE };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    });
}

/// What is wrong with the topics that this edge publishes to.
async fn trouble(stream: &dyn Stream) -> Option<String> {
    match topics::check(stream, &[CALL_EVENTS, CDRS, QUARANTINE], None).await {
        Ok(findings) if findings.is_empty() => None,
        Ok(findings) => {
            let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            Some(lines.join("; "))
        }
        Err(error) => Some(error.to_string()),
    }
}

fn report(trouble: Option<&str>, allow_weak: bool) {
    match trouble {
        None => tracing::info!("topics are as the catalogue asks"),
        Some(trouble) if allow_weak => {
            tracing::info!(
                trouble,
                "topics are weaker than the catalogue asks; allowed by edge.allow_weak_topics"
            );
        }
        Some(trouble) => {
            tracing::warn!(
                trouble,
                "topics cannot be relied on; spool segments are kept until they can, see `tollgate topics check`"
            );
        }
    }
}
