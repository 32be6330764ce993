//! Cuts connections that hold a place and ask for nothing.
//!
//! actix-web times a connection's first head and its idleness, and nothing else: a second head
//! that never ends, a refused body that is never finished, or answers that nobody reads would
//! hold their connection's place for ever. All of them have in common that no request is in
//! progress, and that is what is timed here.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use rustix::net::{Shutdown, shutdown};
use tokio_util::sync::CancellationToken;

use crate::metrics::{CONNECTIONS, CONNECTIONS_ENDED};

/// Stands for "a request is in progress".
const BUSY: u64 = u64::MAX;

/// Every open connection, and how long it may ask for nothing.
pub struct Connections {
    patience: Duration,
    started: Instant,
    open: Mutex<Vec<Weak<Connection>>>,
}

/// One connection. Lives as long as actix-web's own state of it, so that the second handle on
/// the socket is closed together with the first.
pub struct Connection {
    socket: OwnedFd,
    started: Instant,
    /// Milliseconds after `started`, or [`BUSY`].
    idle_since: AtomicU64,
    served: AtomicBool,
    cut: AtomicBool,
}

/// A request in progress on a connection; ends when dropped.
pub struct Busy(Option<Arc<Connection>>);

impl Connections {
    /// `patience` must exceed the keep-alive time and the deadline of a head together, or honest
    /// connections are cut.
    pub fn new(patience: Duration) -> Self {
        Self { patience, started: Instant::now(), open: Mutex::default() }
    }

    /// To be called by actix-web with each new connection.
    pub fn opened(&self, stream: &dyn Any, data: &mut Extensions) {
        let tcp = stream
            .downcast_ref::<TcpStream>()
            .or_else(|| Some(stream.downcast_ref::<TlsStream<TcpStream>>()?.get_ref().0));
        // Without a second handle, for want of descriptors, the connection is only not watched.
        let Some(Ok(socket)) = tcp.map(|tcp| tcp.as_fd().try_clone_to_owned()) else { return };
        let connection = Arc::new(Connection {
            socket,
            started: self.started,
            idle_since: AtomicU64::new(millis(self.started.elapsed())),
            served: AtomicBool::new(false),
            cut: AtomicBool::new(false),
        });
        metrics::gauge!(CONNECTIONS.name).increment(1.0);
        self.lock().push(Arc::downgrade(&connection));
        data.insert(connection);
    }

    /// Cuts what has asked for nothing for too long, until told to stop.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut every = tokio::time::interval((self.patience / 4).min(Duration::from_secs(1)));
        loop {
            tokio::select! {
                _ = every.tick() => self.cut_idle(),
                () = stop.cancelled() => return,
            }
        }
    }

    fn cut_idle(&self) {
        let now = millis(self.started.elapsed());
        let patience = millis(self.patience);
        self.lock().retain(|connection| {
            let Some(connection) = connection.upgrade() else { return false };
            let idle_since = connection.idle_since.load(Ordering::Relaxed);
            if idle_since == BUSY || now.saturating_sub(idle_since) < patience {
                return true;
            }
            connection.cut.store(true, Ordering::Relaxed);
            // actix-web sees the end and lets go; a socket that is gone already needs nothing.
            let _ = shutdown(&connection.socket, Shutdown::Both);
            false
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Connection>>> {
        // Pushes and removals leave whole entries behind.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Busy {
    /// Notes that this request is in progress on its connection.
    pub fn on(request: &HttpRequest) -> Self {
        let connection = request.conn_data::<Arc<Connection>>().cloned();
        if let Some(connection) = &connection {
            connection.idle_since.store(BUSY, Ordering::Relaxed);
            connection.served.store(true, Ordering::Relaxed);
        }
        Self(connection)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            let now = millis(connection.started.elapsed());
            connection.idle_since.store(now, Ordering::Relaxed);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let end = match (self.cut.load(Ordering::Relaxed), self.served.load(Ordering::Relaxed)) {
            (true, _) => "cut",
            (false, true) => "served",
            (false, false) => "no_request",
        };
        metrics::gauge!(CONNECTIONS.name).decrement(1.0);
        metrics::counter!(CONNECTIONS_ENDED.name, "end" => end).increment(1);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(BUSY - 1)
}
