//! A connection's socket as actix-http sees it: tells the connection what comes and goes.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connections::Connection;

/// The bytes' way.
pub enum Stream {
    /// As they are.
    Plain(TcpStream),
    /// Encrypted. Apart, since it is large and most deployments have a proxy do it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Waits until the peer has sent something or is gone.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.tcp().poll_read_ready(cx).map(drop)
    }

    /// Why the connection is broken, if it is; one whose peer only sends no more is not.
    pub fn broken_off(&self) -> Option<io::Error> {
        self.tcp().take_error().unwrap_or_else(Some)
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Whether a read could bring something.
    pub fn may_have_something(&self, cx: &mut Context<'_>) -> bool {
        // What is decrypted already, the kernel does not know of.
        matches!(self, Self::Tls(_)) || self.poll_read_ready(cx).is_ready()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

/// To be dropped when a connection rests: the stream is the connection's.
pub struct Socket(Rc<Connection>);

impl Socket {
    pub fn new(connection: Rc<Connection>) -> Self {
        Self(connection)
    }

    pub fn connection(&self) -> &Rc<Connection> {
        &self.0
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.is_over() {
            // As if the peer had closed its side: what is written is still flushed.
            return Poll::Ready(Ok(()));
        }
        if let Some(held) = self.0.poll_held(cx) {
            return held;
        }
        let readable = self.0.readable();
        if readable == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = into.filled().len();
        let stream = &mut *self.0.stream.borrow_mut();
        if into.remaining() <= readable {
            ready!(stream.poll_read(cx, into))?;
        } else {
            let mut part = ReadBuf::new(into.initialize_unfilled_to(readable));
            ready!(stream.poll_read(cx, &mut part))?;
            let read = part.filled().len();
            into.advance(read);
        }
        if into.filled().len() > before {
            self.0.hears(&into.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.set_flushed(false);
        match &mut *self.0.stream.borrow_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(match &mut *self.0.stream.borrow_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        })?;
        self.0.set_flushed(true);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.stream.borrow_mut() {
            // actix-http has done with it then, and closing it says the same to the peer.
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::connections::Connections;
    use crate::idleness::Patience;
    use crate::read_ahead::READ_AT_ONCE;

    /// A connection, and its other end.
    async fn accepted() -> (Rc<Connection>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let patience = Duration::from_mins(1);
        let all = Rc::new(Connections::new(Patience { idle: patience, most: patience }));
        (Rc::new(Connection::new(Stream::Plain(stream), Some(peer), all)), sender)
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn nothing_is_read_while_it_is_held_and_what_has_come_is_read_afterwards() {
        let (connection, mut sender) = accepted().await;
        sender.write_all(b"next").await.unwrap();
        poll_fn(|cx| connection.stream.borrow().poll_read_ready(cx)).await;
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut buffer = [0; 64];
        let mut into = ReadBuf::new(&mut buffer);
        let mut socket = Socket::new(Rc::clone(&connection));

        connection.hold();
        assert!(Pin::new(&mut socket).poll_read(&mut cx, &mut into).is_pending());
        assert!(!woken.0.load(Ordering::Relaxed), "it would be asked again and again");
        connection.go_on();
        assert!(woken.0.load(Ordering::Relaxed));
        assert!(Pin::new(&mut socket).poll_read(&mut cx, &mut into).is_ready());
        assert_eq!(into.filled(), b"next");
    }

    #[tokio::test]
    async fn what_comes_at_once_is_looked_at_in_portions() {
        const FLOOD: usize = 4 * READ_AT_ONCE;
        let (connection, mut sender) = accepted().await;
        sender.write_all(&vec![b' '; FLOOD]).await.unwrap();
        let portions = Rc::new(RefCell::new(Vec::new()));
        // Reads whatever it gets whenever it is polled, as actix-http's dispatcher does.
        let dispatcher = |mut socket: Socket| {
            let portions = Rc::clone(&portions);
            poll_fn(move |cx| {
                let mut buffer = [0; 5000];
                let mut portion = 0;
                loop {
                    let mut into = ReadBuf::new(&mut buffer);
                    match Pin::new(&mut socket).poll_read(cx, &mut into) {
                        Poll::Ready(read) => read.unwrap(),
                        Poll::Pending => break,
                    }
                    portion += into.filled().len();
                }
                portions.borrow_mut().push(portion);
                let is_all = portions.borrow().iter().sum::<usize>() == FLOOD;
                if is_all { Poll::Ready(()) } else { Poll::Pending }
            })
        };
        connection.serve(dispatcher).await;
        let largest = portions.borrow().iter().copied().max();
        assert!(largest <= Some(READ_AT_ONCE), "{portions:?}");
    }
}
