//! Sends one request after the other.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::hostile;
use super::job::{Answer, Job, Kind, path};
use super::link::{Link, Prepared};
use super::sign::Signer;
use crate::App;
use crate::script::Delivery;

/// What all workers know.
pub(super) struct Shared {
    pub applications: Vec<App>,
    pub signer: Signer,
    /// A new connection for each request.
    pub short: bool,
}

/// A request that has been dealt with.
pub(super) struct Done {
    pub worker: usize,
    pub job: Job,
    pub answer: Answer,
    pub at: Instant,
}

/// Works until there is nothing more to come.
pub(super) async fn work(
    worker: usize,
    mut link: Link,
    shared: Arc<Shared>,
    mut jobs: mpsc::Receiver<(Job, usize)>,
    done: mpsc::UnboundedSender<Done>,
) {
    while let Some((job, target)) = jobs.recv().await {
        let prepared = prepare(&job, target, &link, &shared);
        let answer = match job.delivery {
            Delivery::SlowBody => hostile::slow_body(&link, &prepared).await,
            Delivery::CloseAfterSending => hostile::close_after_sending(&link, &prepared).await,
            Delivery::Plain | Delivery::Chunked | Delivery::OtherConnection => {
                link.send(&prepared).await
            }
        };
        if done.send(Done { worker, job, answer, at: Instant::now() }).is_err() {
            return;
        }
    }
}

fn prepare(job: &Job, target: usize, link: &Link, shared: &Shared) -> Prepared {
    let edge = &link.targets[target];
    let application = shared.applications.get(job.application);
    let path = path(&edge.base, application.and_then(|it| it.segment.as_deref()), job.kind);
    let signature = application.and_then(|application| {
        let nonce = format!("{:032X}", rand::random::<u128>());
        let now = jiff::Timestamp::now().as_second();
        shared.signer.sign(&application.app_key, &edge.origin, &path, &nonce, now)
    });
    Prepared {
        target,
        path,
        body: job.body.clone(),
        signature,
        chunked: job.delivery == Delivery::Chunked,
        closes: shared.short != (job.delivery == Delivery::OtherConnection),
    }
}

impl Kind {
    /// Whether a failed request comes again.
    pub const fn is_repeated(self) -> bool {
        matches!(self, Self::Fee)
    }
}
