//! A way to the broker on which somebody meddles with what is said.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tollgate_testkit::{Kafka, KafkaOptions};

/// Name of the listener that is behind the way.
const LISTENER: &str = "MEDDLED";

/// Who meddles. Messages begin with their length.
pub trait Meddler: Send + Sync + 'static {
    /// Hears a request.
    fn request(&self, _key: u16, _request: &[u8]) {}

    /// What becomes of an answer; `None` loses it.
    fn answer(&self, key: u16, answer: Vec<u8>) -> Option<Vec<u8>>;
}

/// The way, for one broker.
pub struct Path<M> {
    port: u16,
    upstream: AtomicU16,
    cut: Notify,
    pub meddler: M,
}

impl<M: Meddler> Path<M> {
    /// Starts a broker, and a way to it.
    pub async fn to_new_broker(meddler: M) -> Result<(Kafka, Arc<Self>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let path =
            Arc::new(Self { port, upstream: AtomicU16::new(0), cut: Notify::new(), meddler });
        let kafka = Kafka::start(&KafkaOptions::new().listener(LISTENER, &[port]))?;
        path.upstream.store(kafka.broker(0).listener_port(LISTENER), Ordering::Release);
        let accepting = Arc::clone(&path);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&accepting).carry(client));
            }
        });
        Ok((kafka, path))
    }

    /// Where clients connect.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends the connections there are.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }

    async fn carry(self: Arc<Self>, client: TcpStream) -> Result<()> {
        let upstream = self.upstream.load(Ordering::Acquire);
        let (from_broker, to_broker) =
            TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await?.into_split();
        let (from_client, to_client) = client.into_split();
        // Requests are answered in order, so the keys of those under way say what an answer is to.
        let (asked, answered) = mpsc::unbounded_channel();
        tokio::select! {
            () = self.cut.notified() => Ok(()),
            done = self.forth(from_client, to_broker, asked) => done,
            done = self.back(from_broker, to_client, answered) => done,
        }
    }

    async fn forth(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        asked: mpsc::UnboundedSender<u16>,
    ) -> Result<()> {
        loop {
            let request = message(&mut from).await?;
            let key = u16::from_be_bytes([request[4], request[5]]);
            asked.send(key)?;
            self.meddler.request(key, &request);
            to.write_all(&request).await?;
        }
    }

    async fn back(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        mut asked: mpsc::UnboundedReceiver<u16>,
    ) -> Result<()> {
        loop {
            let answer = message(&mut from).await?;
            let Some(key) = asked.recv().await else { return Ok(()) };
            if let Some(answer) = self.meddler.answer(key, answer) {
                to.write_all(&answer).await?;
            }
        }
    }
}

async fn message(from: &mut OwnedReadHalf) -> Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.resize(4 + length as usize, 0);
    from.read_exact(&mut bytes[4..]).await?;
    Ok(bytes)
}
