//! A connection's socket as actix-web sees it: tells the connection what comes.

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

/// A stream and whose it is.
pub struct Socket {
    stream: Stream,
    connection: Rc<Connection>,
}

impl Socket {
    pub fn new(stream: Stream, connection: Rc<Connection>) -> Self {
        Self { stream, connection }
    }

    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.connection.is_over() {
            // Reads as if the peer had closed its side: what is written is still flushed.
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        ready!(match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        })?;
        if into.filled().len() > before {
            self.connection.hears();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            // actix-web drops it next, and closing it says the same to the peer.
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
