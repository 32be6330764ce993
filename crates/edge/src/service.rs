//! The edge as a whole: what starts in which order, and what stops in which.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tollgate_runtime::listener::bind;
use tollgate_runtime::{Health, limits};
use tollgate_spool::disk::Disk;
use tollgate_spool::{DeadLetters, Reader, Spool, SpoolError, Usage};
use tollgate_stream::{ProducerKind, Stream, StreamError};

use crate::ack::Acknowledger;
use crate::applications::{Application, Applications};
use crate::decode::Decoder;
use crate::delivered::Delivery;
use crate::error::EdgeError;
use crate::flight::{Flight, Reports};
use crate::publisher::Publisher;
use crate::quota::Quota;
use crate::receive::Receiver;
use crate::sending::Sending;
use crate::settings::{Ack, Settings};
use crate::{background, server, tls, topics_guard};

/// A disk that takes longer for a write hangs: others had better get the notifications.
const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// What an edge is started with.
pub struct Edge {
    /// Settings of the edge.
    pub settings: Settings,
    /// Settings of its spool.
    pub spool: tollgate_spool::Settings,
    /// Applications at the platform.
    pub applications: Vec<Application>,
    /// Where events go.
    pub stream: Arc<dyn Stream>,
    /// The spool's way to the disk.
    pub disk: Arc<dyn Disk>,
    /// Where the edge adds its readiness.
    pub health: Health,
}

/// A running edge.
pub struct Running {
    /// The address it takes notifications at.
    pub address: SocketAddr,
    watch: Watch,
    supervisor: JoinHandle<Result<(), EdgeError>>,
}

/// What an edge has done since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Notifications that came.
    pub taken: u64,
    /// Notifications answered 200.
    pub acknowledged: u64,
    /// Records confirmed by the stream.
    pub published: u64,
}

/// Watches a running edge.
#[derive(Clone)]
pub struct Watch {
    spool: Spool,
    receiver: Arc<Receiver>,
    reports: Arc<Reports>,
    delivery: Option<Arc<Delivery>>,
}

impl Watch {
    /// What the edge has done so far.
    pub fn counts(&self) -> Counts {
        let delivered = self.delivery.as_ref().map_or(0, |delivery| delivery.published());
        Counts {
            taken: self.receiver.taken(),
            acknowledged: self.receiver.acknowledged(),
            published: self.reports.published() + delivered,
        }
    }

    /// How full the spool is.
    pub fn spool_usage(&self) -> Usage {
        self.spool.usage()
    }
}

impl Running {
    /// For those who watch it.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Waits until the edge has stopped, in order or by a failure.
    pub async fn stopped(self) -> Result<(), EdgeError> {
        self.supervisor.await?
    }
}

impl Edge {
    /// Opens spool and port and starts to serve. Needs neither Kafka nor a topic. Cancelling
    /// `stop` shuts down in order: unready, pause, no new requests, last answers, flush. Call it
    /// inside the runtime that is to run it.
    pub fn start(self, stop: CancellationToken) -> Result<Running, EdgeError> {
        let Self { settings, spool: spool_settings, applications, stream, disk, health } = self;
        settings
            .validate(applications.len(), spool_settings.tail_bytes)
            .map_err(EdgeError::Inconsistent)?;
        check_room(&settings, &spool_settings).map_err(EdgeError::Inconsistent)?;
        let applications =
            Arc::new(Applications::new(&applications, settings.public_url.as_deref())?);
        let listener = bind("notifications", settings.listen, settings.backlog)?;
        let address = listener.local_addr()?;
        let connections = admitted(settings.max_connections(spool_settings.tail_bytes));

        let (spool, reader, dead_letters) = open_spool(spool_settings, disk)?;
        let quota = Arc::new(Quota::new(settings.malformed_quota_bytes));
        let decoder = Arc::new(Decoder::new(Arc::clone(&applications), Arc::clone(&quota)));
        let reports = Arc::new(Reports::default());
        let producer = background::client(|| {
            stream.producer(ProducerKind::Spooled, Arc::clone(&reports) as _)
        })?;
        let delivery = delivery(&settings, &applications, stream.as_ref())?;

        let on_their_way = TaskTracker::new();
        let acknowledger = Acknowledger {
            spool: spool.clone(),
            decoder: Arc::clone(&decoder),
            delivery: delivery.clone(),
            dead_letters: Arc::clone(&dead_letters),
            fallback: settings.delivered_fallback,
            on_their_way: on_their_way.clone(),
            runtime: Handle::current(),
        };
        let receiver = Arc::new(Receiver::new(
            &settings,
            applications,
            quota,
            Arc::clone(&decoder),
            acknowledger,
        ));
        let closing = CancellationToken::new();
        let server = server::serve(&settings, connections, listener, &receiver, closing.clone())?;
        let sending = Sending::new(decoder, producer, Flight::new(Arc::clone(&reports)));
        let publisher = Publisher::new(&settings, reader, sending, dead_letters, delivery.clone());
        add_health(&health, spool.clone(), &receiver);
        let weak = settings.allow_weak_topics;
        topics_guard::spawn(Arc::clone(&stream), spool.clone(), weak, stop.clone());
        let parts = Parts {
            server,
            closing,
            publisher,
            spool: spool.clone(),
            receiver: receiver.clone(),
            on_their_way,
            _stream: stream,
        };
        let drain_delay = Duration::from_millis(settings.drain_delay_ms);
        let supervisor = tokio::spawn(supervise(parts, drain_delay, stop));
        Ok(Running { address, watch: Watch { spool, receiver, reports, delivery }, supervisor })
    }
}

/// Whether certificate and key can be used, if they are named.
pub fn check_tls(settings: &Settings) -> Result<(), EdgeError> {
    tls::config(settings).map(drop)
}

/// A body of the largest size, with its headers, must fit the spool.
pub fn check_room(settings: &Settings, spool: &tollgate_spool::Settings) -> Result<(), String> {
    // Peer, edge and application beside two headers that may grow threefold when they are made
    // text, and the encoding.
    const AROUND: u64 = 32 * 1024;
    let needed = (settings.max_body_bytes as u64).saturating_add(AROUND);
    let refuse = |name: &str| {
        Err(format!(
            "spool.{name} is too small for edge.max_body_bytes and its headers, {needed} bytes; raise it"
        ))
    };
    if spool.max_record_bytes() < needed {
        return refuse("segment_bytes");
    }
    if spool.queue_bytes < needed {
        return refuse("queue_bytes");
    }
    Ok(())
}

struct Parts {
    server: Server,
    /// Ends the server's connections.
    closing: CancellationToken,
    publisher: Publisher,
    spool: Spool,
    receiver: Arc<Receiver>,
    on_their_way: TaskTracker,
    /// Lives as long as its producers are needed.
    _stream: Arc<dyn Stream>,
}

/// Runs the parts and takes them down in order.
async fn supervise(
    parts: Parts,
    drain_delay: Duration,
    stop: CancellationToken,
) -> Result<(), EdgeError> {
    let Parts { server, closing, publisher, spool, receiver, on_their_way, _stream } = parts;
    let handle = server.handle();
    let mut serving = tokio::spawn(server);
    let stop_publishing = CancellationToken::new();
    let haste = publisher.haste();
    let publishing = publisher.run(stop_publishing.clone());
    let mut publishing = background::spawn("publisher", publishing, haste)
        .map_err(|_| EdgeError::Ended("publisher"))?;

    let failed = tokio::select! {
        () = stop.cancelled() => None,
        ended = &mut serving => Some(match ended {
            Ok(Ok(())) => EdgeError::Ended("http server"),
            Ok(Err(error)) => error.into(),
            Err(error) => error.into(),
        }),
        _ = &mut publishing => Some(EdgeError::Ended("publisher")),
    };
    receiver.drain();
    if let Some(error) = &failed {
        tracing::error!(%error, "edge stops");
    } else {
        tokio::time::sleep(drain_delay).await;
    }
    // The rest of the parts is taken down in the same order, so that what they hold is kept.
    closing.cancel();
    stop_serving(&handle, &receiver).await;
    // Each ends by itself: their deadline has passed with the last answer.
    on_their_way.close();
    on_their_way.wait().await;
    let closing = spool.clone();
    tokio::task::spawn_blocking(move || closing.close()).await?;
    stop_publishing.cancel();
    if !publishing.is_terminated() {
        // Also when it has panicked: the spool keeps what it had.
        let _ = publishing.await;
    }
    tracing::info!(
        unconfirmed = spool.usage().records,
        "edge has stopped; the spool keeps what is unconfirmed"
    );
    failed.map_or(Ok(()), Err)
}

async fn stop_serving(handle: &ServerHandle, receiver: &Receiver) {
    handle.stop(true).await;
    let open = receiver.open();
    if open > 0 {
        tracing::warn!(
            open,
            "requests were cut off by the shutdown's time limit; none of them was answered 200"
        );
    }
}

fn open_spool(
    settings: tollgate_spool::Settings,
    disk: Arc<dyn Disk>,
) -> Result<(Spool, Reader, Arc<DeadLetters>), SpoolError> {
    let (dir, letters_max_bytes) = (settings.dir.clone(), settings.dead_letters_max_bytes);
    let started_at_us = jiff::Timestamp::now().as_microsecond() as u64;
    let options = tollgate_spool::Options { settings, started_at_us };
    let (spool, reader) = Spool::open(options, Arc::clone(&disk))?;
    let dead_letters = DeadLetters::open(&dir, letters_max_bytes, disk)?;
    Ok((spool, reader, Arc::new(dead_letters)))
}

fn delivery(
    settings: &Settings,
    applications: &Applications,
    stream: &dyn Stream,
) -> Result<Option<Arc<Delivery>>, StreamError> {
    let needed = settings.ack == Ack::Delivered
        || applications.all().iter().any(|known| known.settings.ack == Some(Ack::Delivered));
    if !needed {
        return Ok(None);
    }
    let deadline = Duration::from_millis(settings.delivered_deadline_ms);
    Ok(Some(Arc::new(Delivery::new(stream, deadline, settings.delivered_fallback)?)))
}

fn add_health(health: &Health, spool: Spool, receiver: &Arc<Receiver>) {
    health.add("spool", move || {
        let silence = spool.disk_silence();
        if !spool.is_writable() {
            Err("its disk fails; see the log, then look at space and hardware".into())
        } else if silence > DISK_PATIENCE {
            let seconds = silence.as_secs();
            Err(format!("its disk has not answered for {seconds} s; see what it waits for"))
        } else {
            Ok(())
        }
    });
    let receiver = receiver.clone();
    health.add("edge", move || {
        if receiver.is_draining() {
            return Err("draining".into());
        }
        Ok(())
    });
}

/// As many connections as there are open files for: the spool needs one for its next segment.
fn admitted(connections: usize) -> usize {
    let admitted = limits::within_open_files(connections);
    if admitted < connections {
        tracing::warn!(
            admitted,
            wanted = connections,
            "the limit of open files admits fewer connections than edge.memory_bytes; raise it (ulimit -n, LimitNOFILE)"
        );
    }
    admitted
}
