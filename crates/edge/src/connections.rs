//! A connection between its requests: how long it may ask for nothing, what it keeps meanwhile,
//! how it ends.
//!
//! ```text
//!  accepted ─▶ serving ◀─────▶ resting: the socket and nothing else
//!                 │                │
//!                 └────▶ over ◀────┘  asked for nothing for too long, or the edge stops
//! ```
//!
//! actix-http times a connection's first head. What it does not time would hold a place for ever:
//! a second head that never ends, a refused body that is never finished, answers that nobody
//! reads. All of them have in common that no request is in progress, and that is what is timed
//! here, idleness between requests included: one timer for the life of a connection, where
//! actix-http would make one for each request.
//!
//! actix-http also keeps 16 KiB of buffers for a connection whatever it does, of which 8 become
//! resident. So its dispatcher is dropped when a connection rests, and made anew when something
//! comes: of 10,000 idle connections 50 MiB of memory are left, of 100. Nothing may be in those
//! buffers then; see [`ReadAhead::takes`].
//!
//! A connection is its worker's alone, so nothing here is locked.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_http::Request;
use actix_web::web::Bytes;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::idleness::{Idleness, Look, Patience, UNTIL_REST};
use crate::metrics::{CONNECTIONS, CONNECTIONS_ENDED, CONNECTIONS_RESTING};
use crate::read_ahead::ReadAhead;
use crate::socket::{Socket, Stream};

/// What the connections of one worker share.
pub struct Connections {
    patience: Patience,
    is_closing: Cell<bool>,
    closing: Notify,
    open: Gauge,
    resting: Gauge,
    cut: Counter,
    served: Counter,
    no_request: Counter,
}

/// One connection.
pub struct Connection {
    pub(crate) stream: RefCell<Stream>,
    /// Address of the sender, as text.
    peer: Box<str>,
    all: Rc<Connections>,
    idleness: RefCell<Idleness>,
    ahead: RefCell<ReadAhead>,
    /// Whether it was ended in the middle of something.
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
            resting: gauge!(CONNECTIONS_RESTING.name),
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
    pub fn new(stream: Stream, peer: Option<SocketAddr>, all: Rc<Connections>) -> Self {
        all.open.increment(1.0);
        Self {
            stream: RefCell::new(stream),
            peer: peer.map_or_else(Box::default, |peer| peer.ip().to_string().into()),
            all,
            idleness: RefCell::new(Idleness::new(Instant::now())),
            ahead: RefCell::new(ReadAhead::new()),
            is_cut: Cell::new(false),
        }
    }

    /// Notes what has come.
    pub fn hears(&self, bytes: &[u8]) {
        self.idleness.borrow_mut().hears();
        self.ahead.borrow_mut().reads(bytes);
    }

    /// Bytes that may be read before what has come is looked at.
    pub fn readable(&self) -> usize {
        self.ahead.borrow().readable()
    }

    /// Reads nothing until [`Self::go_on`].
    pub fn hold(&self) {
        self.ahead.borrow_mut().hold();
    }

    /// Reads again.
    pub fn go_on(&self) {
        let held_back = self.ahead.borrow_mut().go_on();
        if let Some(waker) = held_back {
            waker.wake();
        }
    }

    /// Where nothing is to be read now, what a reader is told: to wait, until that is over or the
    /// connection is broken off.
    pub fn poll_held(&self, cx: &mut Context<'_>) -> Option<Poll<io::Result<()>>> {
        if !self.ahead.borrow().is_held() {
            return None;
        }
        let stream = self.stream.borrow();
        if stream.may_have_something(cx) {
            self.ahead.borrow_mut().hold_back(cx.waker().clone());
            if let Some(error) = stream.broken_off() {
                return Some(Poll::Ready(Err(error)));
            }
        }
        Some(Poll::Pending)
    }

    /// Notes whether all that was written has reached the kernel.
    pub fn set_flushed(&self, is_flushed: bool) {
        self.idleness.borrow_mut().set_flushed(is_flushed);
    }

    /// Whether nothing more is to be read from it.
    pub fn is_over(&self) -> bool {
        self.all.is_closing.get() && self.idleness.borrow().since().is_some()
    }

    /// Lets `dispatch` serve it until either has had enough.
    pub async fn serve<F: Future>(self: Rc<Self>, dispatch: impl Fn(Socket) -> F) {
        let mut timer = pin!(sleep_until(Instant::now() + UNTIL_REST));
        let mut closing = pin!(self.all.closing.notified());
        let mut is_closing = false;
        loop {
            let mut serving = Some(Box::pin(dispatch(Socket::new(Rc::clone(&self)))));
            while let Some(dispatcher) = &mut serving {
                let step = poll_fn(|cx| {
                    self.ahead.borrow_mut().looked_at();
                    dispatcher.as_mut().poll(cx)
                });
                tokio::select! {
                    biased;
                    _ = step => return,
                    // It finds that it is over when it reads next.
                    () = &mut closing, if !is_closing => is_closing = true,
                    () = &mut timer => match self.look() {
                        Look::Again(then) => timer.as_mut().reset(then),
                        Look::Rests => serving = None,
                        Look::Over { cut } => {
                            self.is_cut.set(cut);
                            return;
                        }
                    }
                }
            }
            if self.is_over() || self.rest(timer.as_mut(), closing.as_mut()).await.is_break() {
                return;
            }
            timer.as_mut().reset(Instant::now() + UNTIL_REST);
        }
    }

    /// Waits until something comes.
    async fn rest(
        &self,
        mut timer: Pin<&mut Sleep>,
        closing: Pin<&mut Notified<'_>>,
    ) -> ControlFlow<()> {
        let since = self.idleness.borrow().since().unwrap_or_else(Instant::now);
        timer.as_mut().reset(since + self.all.patience.idle);
        self.all.resting.increment(1.0);
        let flow = tokio::select! {
            biased;
            () = poll_fn(|cx| self.stream.borrow().poll_read_ready(cx)) => ControlFlow::Continue(()),
            () = closing => ControlFlow::Break(()),
            () = timer => ControlFlow::Break(()),
        };
        self.all.resting.decrement(1.0);
        flow
    }

    fn look(&self) -> Look {
        let is_read_up = self.ahead.borrow().is_read_up();
        self.idleness.borrow().look(Instant::now(), self.all.patience, is_read_up)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.open.decrement(1.0);
        let end = match (self.is_cut.get(), self.idleness.borrow().has_served()) {
            (true, _) => &self.all.cut,
            (false, true) => &self.all.served,
            (false, false) => &self.all.no_request,
        };
        end.increment(1);
    }
}

impl Busy {
    /// Notes that this request is in progress on its connection.
    pub fn on(request: &Request) -> Self {
        let connection = request.conn_data::<Rc<Connection>>().cloned();
        if let Some(connection) = &connection {
            connection.idleness.borrow_mut().begins();
        }
        Self(connection)
    }

    /// Nothing more of the connection is needed until [`Self::go_on`], or until this ends:
    /// actix-http would read, decode and keep sixteen requests ahead with all their bodies.
    pub fn hold(&self) {
        if let Some(connection) = &self.0 {
            connection.hold();
        }
    }

    /// The rest of the body is wanted.
    pub fn go_on(&self) {
        if let Some(connection) = &self.0 {
            connection.go_on();
        }
    }

    /// Address it comes from, as text.
    pub fn peer(&self) -> &str {
        self.0.as_ref().map_or("", |connection| &connection.peer)
    }

    /// Notes a part of the request's body as actix-http hands it over.
    pub fn takes(&self, part: &Bytes) {
        if let Some(connection) = &self.0 {
            connection.ahead.borrow_mut().takes(part);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.idleness.borrow_mut().ends(Instant::now());
            connection.go_on();
        }
    }
}
