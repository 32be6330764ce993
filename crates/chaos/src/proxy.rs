//! A TCP proxy that loses, holds back and delays: a network that can be cut without privileges.
//!
//! What is held back is not lost: TCP would send it again, and it arrives when the path is open
//! again.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Duration, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tollgate_testkit::free_port;

use crate::schedule::How;

/// Bytes that travel at a time.
const PIECE: usize = 16 * 1024;

/// One way through the network. Closed, with all its connections, on drop.
pub struct Proxy {
    port: u16,
    upstream: Arc<AtomicU16>,
    condition: watch::Sender<Option<How>>,
    _stop: DropGuard,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forth,
    Back,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1. Connections are refused until there is an upstream.
    pub async fn open() -> Result<Self> {
        let listener = listen().await?;
        let port = listener.local_addr()?.port();
        let upstream = Arc::new(AtomicU16::new(0));
        let (condition, watched) = watch::channel(None);
        let stop = CancellationToken::new();
        let accepting = accept(listener, Arc::clone(&upstream), watched);
        let token = stop.clone();
        tokio::spawn(async move { token.run_until_cancelled(accepting).await });
        Ok(Self { port, upstream, condition, _stop: stop.drop_guard() })
    }

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of 127.0.0.1 it leads to.
    pub fn lead_to(&self, port: u16) {
        self.upstream.store(port, Ordering::Release);
    }

    /// Makes trouble on it, or none.
    pub fn set(&self, how: Option<How>) {
        self.condition.send_replace(how);
    }
}

async fn listen() -> Result<TcpListener> {
    let mut last = None;
    for _ in 0..5 {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).await {
            Ok(listener) => return Ok(listener),
            // Somebody took the port in the meantime.
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("no port was tried"), Into::into))
}

async fn accept(
    listener: TcpListener,
    upstream: Arc<AtomicU16>,
    condition: watch::Receiver<Option<How>>,
) {
    // Ends its connections when it is dropped.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let port = upstream.load(Ordering::Acquire);
                connections.spawn(carry(client, port, condition.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(client: TcpStream, port: u16, mut condition: watch::Receiver<Option<How>>) {
    if !passes(&mut condition, Direction::Forth).await {
        return;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut refused = condition.clone();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let both = async {
        tokio::join!(
            pump(from_client, to_server, condition.clone(), Direction::Forth),
            pump(from_server, to_client, condition.clone(), Direction::Back),
        )
    };
    tokio::select! {
        _ = both => {}
        _ = refused.wait_for(|how| *how == Some(How::Refused)) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut condition: watch::Receiver<Option<How>>,
    direction: Direction,
) {
    let mut buffer = vec![0; PIECE];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        // An end travels like everything else.
        if !passes(&mut condition, direction).await {
            return;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}

/// Waits until something may pass; whether it still can.
async fn passes(condition: &mut watch::Receiver<Option<How>>, direction: Direction) -> bool {
    loop {
        let how = *condition.borrow_and_update();
        match how {
            Some(How::Refused) => return false,
            Some(How::Delayed(ms)) => {
                sleep(Duration::from_millis(ms)).await;
                return true;
            }
            Some(How::Stalled) => {}
            Some(How::Deaf) if direction == Direction::Back => {}
            Some(How::Deaf) | None => return true,
        }
        if condition.changed().await.is_err() {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection through a proxy, and its other end.
    async fn connected() -> (Proxy, TcpStream, TcpStream) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Proxy::open().await.unwrap();
        proxy.lead_to(server.local_addr().unwrap().port());
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
        let (accepted, _) = server.accept().await.unwrap();
        (proxy, client, accepted)
    }

    async fn hears(stream: &mut TcpStream) -> u8 {
        stream.read_u8().await.unwrap()
    }

    #[tokio::test]
    async fn what_a_stalled_path_holds_back_arrives_when_it_is_open_again() {
        let (proxy, mut client, mut server) = connected().await;
        client.write_u8(1).await.unwrap();
        assert_eq!(hears(&mut server).await, 1);
        proxy.set(Some(How::Stalled));
        client.write_u8(2).await.unwrap();
        let mut byte = [0];
        let wait = Duration::from_millis(100);
        assert!(tokio::time::timeout(wait, server.read(&mut byte)).await.is_err());
        proxy.set(None);
        assert_eq!(hears(&mut server).await, 2);
    }

    #[tokio::test]
    async fn a_deaf_path_carries_requests_and_no_answers() {
        let (proxy, mut client, mut server) = connected().await;
        proxy.set(Some(How::Deaf));
        client.write_u8(1).await.unwrap();
        assert_eq!(hears(&mut server).await, 1);
        server.write_u8(2).await.unwrap();
        let mut byte = [0];
        let wait = Duration::from_millis(100);
        assert!(tokio::time::timeout(wait, client.read(&mut byte)).await.is_err());
        proxy.set(None);
        assert_eq!(hears(&mut client).await, 2);
    }

    #[tokio::test]
    async fn a_refusing_path_breaks_connections_and_makes_none() {
        let (proxy, mut client, mut server) = connected().await;
        proxy.set(Some(How::Refused));
        let mut byte = [0];
        assert!(matches!(client.read(&mut byte).await, Ok(0) | Err(_)));
        assert!(matches!(server.read(&mut byte).await, Ok(0) | Err(_)));
        let mut again = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
        assert!(matches!(again.read(&mut byte).await, Ok(0) | Err(_)));
    }
}
