//! Connections to edges, from a chosen source address.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

use super::job::{Answer, Target};
use super::sign::Signature;

type Body = BoxBody<Bytes, Infallible>;

/// Content type of every notification.
pub(super) const JSON: &str = "application/json;charset=UTF-8";

/// A request, ready to be written.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub target: usize,
    pub path: String,
    pub body: Bytes,
    pub signature: Option<Signature>,
    pub chunked: bool,
    /// The connection ends with the answer.
    pub closes: bool,
}

/// One worker's connections: one at a time to each edge.
pub(super) struct Link {
    pub targets: Arc<[Target]>,
    pub source: Option<Ipv4Addr>,
    pub timeout: Duration,
    open: Vec<Option<SendRequest<Body>>>,
}

impl Link {
    pub fn new(targets: Arc<[Target]>, source: Option<Ipv4Addr>, timeout: Duration) -> Self {
        let open = targets.iter().map(|_| None).collect();
        Self { targets, source, timeout, open }
    }

    /// Opens a socket to an edge.
    pub async fn connect(&self, target: usize) -> io::Result<TcpStream> {
        let Target { host, port, .. } = &self.targets[target];
        let stream = timeout(self.timeout, self.open_socket(host, *port))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn open_socket(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let Some(source) = self.source else {
            return TcpStream::connect((host, port)).await;
        };
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in lookup_host((host, port)).await?.filter(SocketAddr::is_ipv4) {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind((source, 0).into())?;
            match socket.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends a request and waits for its answer.
    pub async fn send(&mut self, prepared: &Prepared) -> Answer {
        let mut request = self.request(prepared);
        let mut reused = self.open[prepared.target].take();
        loop {
            let is_reused = reused.is_some();
            let mut sender = match reused.take() {
                Some(sender) => sender,
                None => match self.open(prepared.target).await {
                    Ok(sender) => sender,
                    Err(_) => return Answer::NotSent,
                },
            };
            if sender.ready().await.is_err() {
                if is_reused {
                    continue;
                }
                return Answer::NotSent;
            }
            match timeout(self.timeout, exchange(&mut sender, request)).await {
                Ok(Exchange::Answered(status)) => {
                    if !prepared.closes {
                        self.open[prepared.target] = Some(sender);
                    }
                    return Answer::Status(status);
                }
                // Closed by the edge before a byte was written: the next connection, as any
                // client does.
                Ok(Exchange::NotSent(unsent)) if is_reused => request = *unsent,
                Ok(Exchange::NotSent(_)) => return Answer::NotSent,
                Ok(Exchange::Broken) | Err(_) => return Answer::None,
            }
        }
    }

    async fn open(&self, target: usize) -> io::Result<SendRequest<Body>> {
        let stream = self.connect(target).await?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Ends by itself when the sender is dropped or the edge closes.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, prepared: &Prepared) -> Request<Body> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(prepared.path.as_str())
            .header(HOST, &self.targets[prepared.target].authority)
            .header(CONTENT_TYPE, JSON);
        if let Some(signature) = &prepared.signature {
            request = request
                .header(AUTHORIZATION, signature.authorization)
                .header(signature.token_name, &signature.token);
        }
        if prepared.closes {
            request = request.header(CONNECTION, "close");
        }
        let body = body(prepared);
        request.body(body).unwrap_or_else(|_| {
            // Only an application's key that no header can hold comes here: sent without.
            Request::new(Full::new(prepared.body.clone()).boxed())
        })
    }
}

fn body(prepared: &Prepared) -> Body {
    if !prepared.chunked {
        return Full::new(prepared.body.clone()).boxed();
    }
    // A body of unknown length goes out in chunks; their borders fall anywhere in the text.
    let size = (prepared.body.len() / 3).max(1);
    let chunks: Vec<_> = prepared
        .body
        .chunks(size)
        .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))))
        .collect();
    StreamBody::new(stream::iter(chunks)).boxed()
}

/// How an exchange on an open connection went.
enum Exchange {
    Answered(u16),
    NotSent(Box<Request<Body>>),
    Broken,
}

async fn exchange(sender: &mut SendRequest<Body>, request: Request<Body>) -> Exchange {
    match sender.try_send_request(request).await {
        Ok(response) => {
            let status = response.status().as_u16();
            // The status is the answer; a body that breaks off changes nothing.
            let _ = response.into_body().collect().await;
            Exchange::Answered(status)
        }
        Err(mut error) => match error.take_message() {
            Some(request) => Exchange::NotSent(Box::new(request)),
            None => Exchange::Broken,
        },
    }
}
