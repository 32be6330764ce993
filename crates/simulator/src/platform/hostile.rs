//! Requests that no well-behaved client sends, byte by byte.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::job::Answer;
use super::link::{JSON, Link, Prepared};

/// Pause between the pieces of a slow body.
const PAUSE: Duration = Duration::from_millis(120);
/// Pieces of a slow body.
const PIECES: usize = 5;

/// The body comes in pieces with pauses.
pub(super) async fn slow_body(link: &Link, prepared: &Prepared) -> Answer {
    let Ok(mut stream) = link.connect(prepared.target).await else { return Answer::NotSent };
    let sent = async {
        stream.write_all(&head(link, prepared)).await?;
        for piece in prepared.body.chunks(prepared.body.len().div_ceil(PIECES).max(1)) {
            stream.flush().await?;
            sleep(PAUSE).await;
            stream.write_all(piece).await?;
        }
        stream.flush().await
    };
    // Whatever broke off may still have been answered: an edge that has heard enough may say so.
    let _: std::io::Result<()> = sent.await;
    match timeout(link.timeout, status(&mut stream)).await {
        Ok(Some(status)) => Answer::Status(status),
        _ => Answer::None,
    }
}

/// The connection is closed after the last byte, and nobody waits for the answer.
pub(super) async fn close_after_sending(link: &Link, prepared: &Prepared) -> Answer {
    let Ok(mut stream) = link.connect(prepared.target).await else { return Answer::NotSent };
    let mut bytes = head(link, prepared);
    bytes.extend_from_slice(&prepared.body);
    // Sent or broken off: nobody will know.
    let _ = timeout(link.timeout, stream.write_all(&bytes)).await;
    Answer::None
}

fn head(link: &Link, prepared: &Prepared) -> Vec<u8> {
    let mut head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: {JSON}\r\nContent-Length: {}\r\n",
        prepared.path,
        link.targets[prepared.target].authority,
        prepared.body.len()
    );
    if let Some(signature) = &prepared.signature {
        let (name, token) = (signature.token_name, &signature.token);
        // Cannot fail: a String takes whatever is written.
        let _ = write!(head, "Authorization: {}\r\n{name}: {token}\r\n", signature.authorization);
    }
    head += "Connection: close\r\n\r\n";
    head.into_bytes()
}

/// The status of the answer.
async fn status(stream: &mut TcpStream) -> Option<u16> {
    let mut answer = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let length = stream.read(&mut buffer).await.ok()?;
        answer.extend_from_slice(&buffer[..length]);
        if let Some(end) = answer.windows(2).position(|pair| pair == b"\r\n") {
            let line = std::str::from_utf8(&answer[..end]).ok()?;
            return line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok();
        }
        if length == 0 {
            return None;
        }
    }
}
