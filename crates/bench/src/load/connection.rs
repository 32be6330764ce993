//! One connection of the generator.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

/// Source addresses, so that short connections do not run out of ports.
const SOURCES: usize = 8;

pub struct Connection {
    target: SocketAddr,
    index: usize,
    stream: Option<TcpStream>,
    /// What could not be written yet.
    outbox: Vec<u8>,
    inbox: Vec<u8>,
    /// When the request on its way was due.
    due: Option<Instant>,
    /// When it was sent.
    sent: Instant,
}

pub enum Step {
    /// Nothing to do before the next event.
    Waiting,
    Answered {
        status: u16,
        due: Instant,
        sent: Instant,
    },
    Broken,
}

impl Connection {
    pub fn new(target: SocketAddr, index: usize) -> Self {
        Self {
            target,
            index,
            stream: None,
            outbox: Vec::new(),
            inbox: Vec::new(),
            due: None,
            sent: Instant::now(),
        }
    }

    pub fn is_busy(&self) -> bool {
        self.due.is_some()
    }

    /// Sends a request, over a new connection if there is none.
    pub fn post(&mut self, poll: &Poll, request: &[u8], due: Instant) -> io::Result<()> {
        self.due = Some(due);
        self.sent = Instant::now();
        self.inbox.clear();
        self.outbox.clear();
        let Some(stream) = &mut self.stream else {
            self.outbox.extend_from_slice(request);
            return self.connect(poll).inspect_err(|_| self.due = None);
        };
        let written = match stream.write(request) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            // The event that follows says so.
            Err(_) => request.len(),
        };
        self.outbox.extend_from_slice(&request[written..]);
        Ok(())
    }

    fn connect(&mut self, poll: &Poll) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if self.target.ip().is_loopback() {
            let last = 2 + (self.index % SOURCES) as u8;
            let source = SocketAddr::new(IpAddr::from([127, 0, 0, last]), 0);
            socket.bind(&source.into())?;
        }
        match socket.connect(&self.target.into()) {
            Err(error)
                if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
            {
                return Err(error);
            }
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(self.index), interest)?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Writes and reads what can be.
    pub fn advance(&mut self, short: bool) -> Step {
        let (Some(due), Some(stream)) = (self.due, &mut self.stream) else {
            // Closed by the server while idle.
            return self.look_for_close();
        };
        match flush(stream, &mut self.outbox) {
            Ok(true) => {}
            Ok(false) => return Step::Waiting,
            Err(_) => return self.broken(),
        }
        let Ok(ended) = fill(stream, &mut self.inbox, short) else { return self.broken() };
        match answer(&self.inbox) {
            Some(status) if !short || ended => {
                if short || ended {
                    self.stream = None;
                }
                self.due = None;
                Step::Answered { status, due, sent: self.sent }
            }
            _ if ended => self.broken(),
            _ => Step::Waiting,
        }
    }

    fn look_for_close(&mut self) -> Step {
        if let Some(stream) = &mut self.stream
            && !matches!(fill(stream, &mut self.inbox, true), Ok(false))
        {
            self.stream = None;
        }
        Step::Waiting
    }

    fn broken(&mut self) -> Step {
        self.stream = None;
        self.due = None;
        Step::Broken
    }
}

/// Whether everything is written.
fn flush(stream: &mut TcpStream, outbox: &mut Vec<u8>) -> io::Result<bool> {
    while !outbox.is_empty() {
        match stream.write(outbox) {
            Ok(written) => {
                outbox.drain(..written);
            }
            Err(error) if is_later(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Reads what is there; whether the other side has ended. An end that has come already is seen only
/// `to_the_end`; it has no event of its own.
fn fill(stream: &mut TcpStream, inbox: &mut Vec<u8>, to_the_end: bool) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(count) => {
                inbox.extend_from_slice(&buffer[..count]);
                if count < buffer.len() && !to_the_end {
                    return Ok(false);
                }
            }
            Err(error) if is_later(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

/// The status, once the answer is complete.
fn answer(bytes: &[u8]) -> Option<u16> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).ok()? else { return None };
    let is_length =
        |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("content-length");
    let length = response.headers.iter().find(is_length)?.value;
    let length: usize = std::str::from_utf8(length).ok()?.trim().parse().ok()?;
    (bytes.len() >= head + length).then_some(response.code?)
}
