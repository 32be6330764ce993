//! How long a connection may ask for nothing, and how it ended.
//!
//! actix-http times a connection's first head. What it does not time would hold a place for ever:
//! a second head that never ends, a refused body that is never finished, answers that nobody
//! reads. All of them have in common that no request is in progress, and that is what is timed
//! here, idleness between requests included: one timer for the life of a connection, where
//! actix-http would make one for each request. A connection is its worker's alone, so nothing
//! here is locked.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use actix_web::HttpRequest;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::metrics::{CONNECTIONS, CONNECTIONS_ENDED};

/// How long a connection may ask for nothing.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// When not a byte has come since the last answer.
    pub idle: Duration,
    /// In all; must exceed the time for a head and `idle` together.
    pub most: Duration,
}

/// What the connections of one worker share.
pub struct Connections {
    patience: Patience,
    is_closing: Cell<bool>,
    closing: Notify,
    open: Gauge,
    cut: Counter,
    served: Counter,
    no_request: Counter,
}

/// One connection.
pub struct Connection {
    all: Rc<Connections>,
    /// None while a request is in progress.
    idle_since: Cell<Option<Instant>>,
    /// Whether anything has come since.
    has_heard: Cell<bool>,
    has_served: Cell<bool>,
    is_cut: Cell<bool>,
}

/// A request in progress on a connection; ends when dropped.
pub struct Busy(Option<Rc<Connection>>);

impl Connections {
    pub fn new(patience: Patience) -> Self {
        let ended = |end: &'static str| counter!(CONNECTIONS_ENDED.name, "end" => end);
        Self {
            patience,
            is_closing: Cell::new(false),
            closing: Notify::new(),
            open: gauge!(CONNECTIONS.name),
            cut: ended("cut"),
            served: ended("served"),
            no_request: ended("no_request"),
        }
    }

    /// Lets every connection end with the request that is in progress on it.
    pub fn close(&self) {
        self.is_closing.set(true);
        self.closing.notify_waiters();
    }
}

impl Connection {
    pub fn new(all: Rc<Connections>) -> Self {
        all.open.increment(1.0);
        Self {
            all,
            idle_since: Cell::new(Some(Instant::now())),
            has_heard: Cell::new(false),
            has_served: Cell::new(false),
            is_cut: Cell::new(false),
        }
    }

    /// Notes that bytes have come.
    pub fn hears(&self) {
        self.has_heard.set(true);
    }

    /// Whether nothing more is to be read from it.
    pub fn is_over(&self) -> bool {
        self.all.is_closing.get() && self.idle_since.get().is_some()
    }

    /// Waits for the end of `serving`, which is all that is done for this connection, or until
    /// the connection has asked for nothing for too long. Dropping `serving` then closes it.
    pub async fn serve(&self, mut serving: Pin<&mut impl Future>) {
        let mut timer = pin!(sleep_until(Instant::now() + self.all.patience.idle));
        let mut closing = pin!(self.all.closing.notified());
        let mut is_told = false;
        loop {
            tokio::select! {
                biased;
                _ = &mut serving => return,
                // It finds that it is over when it reads next.
                () = &mut closing, if !is_told => is_told = true,
                () = &mut timer => match self.deadline() {
                    Some(deadline) => timer.as_mut().reset(deadline),
                    None => return,
                }
            }
        }
    }

    /// When to look at it again; None if its time is over.
    fn deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        let patience = self.all.patience;
        let Some(since) = self.idle_since.get() else { return Some(now + patience.idle) };
        let is_quiet = self.has_served.get() && !self.has_heard.get();
        let deadline = since + if is_quiet { patience.idle } else { patience.most };
        if now < deadline {
            return Some(deadline);
        }
        self.is_cut.set(!is_quiet);
        None
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.open.decrement(1.0);
        let end = match (self.is_cut.get(), self.has_served.get()) {
            (true, _) => &self.all.cut,
            (false, true) => &self.all.served,
            (false, false) => &self.all.no_request,
        };
        end.increment(1);
    }
}

impl Busy {
    /// Notes that this request is in progress on its connection.
    pub fn on(request: &HttpRequest) -> Self {
        let connection = request.conn_data::<Rc<Connection>>().cloned();
        if let Some(connection) = &connection {
            connection.idle_since.set(None);
            connection.has_served.set(true);
        }
        Self(connection)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.idle_since.set(Some(Instant::now()));
            connection.has_heard.set(false);
        }
    }
}
