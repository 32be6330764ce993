//! What senders may do that mean no good.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What every attacker does on each of its connections.
#[derive(Debug, Clone)]
pub enum Attack {
    /// Connects, and says nothing.
    Idle,
    /// A head that never ends.
    SlowHead,
    /// A body that comes a little at a time.
    SlowBody,
    /// A body of 1 GiB, announced.
    Huge,
    /// A body without end, in chunks of this size.
    Chunks(usize),
    /// One request behind the other; answers are not awaited.
    Pipelined,
    /// A body that is within the limit, and meant to be expensive.
    Body(Arc<String>),
}

impl Attack {
    /// Returns whether it has reached its aim: a body is taken. The others have none.
    pub async fn on(&self, mut stream: TcpStream) -> std::io::Result<bool> {
        match self {
            Self::Idle => {}
            Self::SlowHead => {
                stream.write_all(b"POST /status HTTP/1.1\r\nX-Slow: ").await?;
                loop {
                    stream.write_all(b"a").await?;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
            Self::SlowBody => {
                stream.write_all(&head("Content-Length: 1048576")).await?;
                for _ in 0..1024 {
                    stream.write_all(&[b' '; 1024]).await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Self::Huge => {
                stream.write_all(&head("Content-Length: 1073741824")).await?;
                let some = " ".repeat(65536);
                loop {
                    stream.write_all(some.as_bytes()).await?;
                }
            }
            Self::Chunks(size) => {
                stream.write_all(&head("Transfer-Encoding: chunked")).await?;
                // Of small ones as many as can be.
                let extension = if *size > 1 { ";an=extension" } else { "" };
                let mut chunk = format!("{size:x}{extension}\r\n").into_bytes();
                chunk.resize(chunk.len() + size, b' ');
                chunk.extend_from_slice(b"\r\n");
                let many = chunk.repeat(65536 / chunk.len() + 1);
                loop {
                    stream.write_all(&many).await?;
                }
            }
            Self::Pipelined => {
                let (mut answers, mut requests) = stream.split();
                // As much as actix-http holds of a body.
                let mut request = head("Content-Length: 32000");
                request.resize(request.len() + 32_000, b' ');
                let flood = async {
                    loop {
                        requests.write_all(&request).await?;
                    }
                };
                let mut ignored = tokio::io::sink();
                tokio::select! {
                    ended = flood => return ended,
                    ended = tokio::io::copy(&mut answers, &mut ignored) => ended?,
                };
                return Ok(false);
            }
            Self::Body(body) => {
                let length = format!("Connection: close\r\nContent-Length: {}", body.len());
                stream.write_all(&head(&length)).await?;
                stream.write_all(body.as_bytes()).await?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await?;
                let answer = String::from_utf8_lossy(&answer);
                // Refused for the moment, or because a machine with so much to do is too slow.
                let answers = ["HTTP/1.1 200 ", "HTTP/1.1 503 ", "HTTP/1.1 408 "];
                assert!(answers.iter().any(|it| answer.starts_with(it)), "{answer}");
                return Ok(answer.starts_with(answers[0]));
            }
        }
        stream.read_to_end(&mut Vec::new()).await?;
        Ok(false)
    }
}

fn head(headers: &str) -> Vec<u8> {
    format!("POST /fee HTTP/1.1\r\nHost: edge\r\n{headers}\r\n\r\n").into_bytes()
}
