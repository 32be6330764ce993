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
        let tcp = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        tcp.poll_read_ready(cx).map(drop)
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
        let before = into.filled().len();
        ready!(match &mut *self.0.stream.borrow_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        })?;
        if into.filled().len() > before {
            self.0.hears(into.filled());
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
