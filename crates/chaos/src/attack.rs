//! Senders that mean no good, while calls are made: none of them may be told that it was heard.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections at a time that send a head or a body byte by byte, to each edge.
const SLOW: usize = 20;
/// Between two bytes, and between two attacks.
const PAUSE: Duration = Duration::from_millis(300);
/// More than an edge takes.
const TOO_LARGE: usize = 3 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// Attackers of some edges, until dropped.
pub struct Attack {
    _tasks: JoinSet<()>,
    heard: Arc<AtomicU64>,
    attempts: Arc<AtomicU64>,
}

impl Attack {
    /// Begins.
    pub fn begin(edges: impl IntoIterator<Item = SocketAddr>) -> Self {
        let (heard, attempts) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        for edge in edges {
            for number in 0..SLOW + 2 {
                let (heard, attempts) = (Arc::clone(&heard), Arc::clone(&attempts));
                tasks.spawn(async move {
                    loop {
                        let answer = match number {
                            0 => too_large(edge).await,
                            1 => endless_chunks(edge).await,
                            _ => slow(edge, number % 2 == 0).await,
                        };
                        attempts.fetch_add(1, Ordering::Relaxed);
                        if answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                            heard.fetch_add(1, Ordering::Relaxed);
                        }
                        sleep(PAUSE).await;
                    }
                });
            }
        }
        Self { _tasks: tasks, heard, attempts }
    }

    /// Attacks so far.
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Attacks that were answered 200.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }
}

fn head(length: usize) -> String {
    format!("POST /status HTTP/1.1\r\nHost: edge\r\nContent-Length: {length}\r\n\r\n")
}

/// A head, or a body, that comes byte by byte and never ends.
async fn slow(edge: SocketAddr, is_head: bool) -> io::Result<String> {
    let mut stream = TcpStream::connect(edge).await?;
    let start = if is_head { "POST /status HTTP/1.1\r\nX-Slow: ".to_owned() } else { head(1000) };
    stream.write_all(start.as_bytes()).await?;
    loop {
        let answer = timeout(PAUSE, answer(&mut stream)).await;
        if let Ok(answer) = answer {
            return answer;
        }
        stream.write_all(b"a").await?;
    }
}

/// A body larger than an edge takes, announced as such.
async fn too_large(edge: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(edge).await?;
    stream.write_all(head(TOO_LARGE).as_bytes()).await?;
    flood(&mut stream, &vec![b'a'; 64 * 1024]).await
}

/// The same without announcement.
async fn endless_chunks(edge: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(edge).await?;
    let head = "POST /fee HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let mut chunk = b"8000\r\n".to_vec();
    chunk.resize(chunk.len() + 0x8000, b'a');
    chunk.extend_from_slice(b"\r\n");
    flood(&mut stream, &chunk).await
}

async fn flood(stream: &mut TcpStream, piece: &[u8]) -> io::Result<String> {
    for _ in 0..TOO_LARGE / piece.len() {
        // An edge that has heard enough says so, and hangs up.
        match timeout(PATIENCE, stream.write_all(piece)).await {
            Ok(Ok(())) => {}
            _ => break,
        }
    }
    timeout(PATIENCE, answer(stream)).await?
}

async fn answer(stream: &mut TcpStream) -> io::Result<String> {
    let mut buffer = [0; 256];
    let read = stream.read(&mut buffer).await?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
}
