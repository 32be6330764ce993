//! A database whose host is gone without a word: no answer, no end of the connection.

mod common;
#[path = "common/dev.rs"]
mod dev;

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use dev::{Dev, Platform};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tollgate_testkit::{Postgres, PostgresOptions, TestDir};

/// Answers that a connection still gets: to the pool's question whether it lives, and to the first
/// statement.
const LAST_ANSWERS: usize = 2;

/// Carries connections to a database; from `silent` on those of before get two answers more and then
/// neither an answer nor an end. New ones are carried as ever.
async fn carry(listener: TcpListener, database: u16, silent: watch::Receiver<bool>) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, database)).await else {
            continue;
        };
        let is_new = *silent.borrow();
        let silent = silent.clone();
        tokio::spawn(async move {
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let forth = tokio::io::copy(&mut from_client, &mut to_server);
            let back = async {
                let (mut answer, mut answers_left) = (vec![0; 64 * 1024], LAST_ANSWERS);
                while let Ok(length @ 1..) = from_server.read(&mut answer).await {
                    if *silent.borrow() && !is_new {
                        match answers_left.checked_sub(1) {
                            Some(left) => answers_left = left,
                            None => std::future::pending().await,
                        }
                    }
                    if to_client.write_all(&answer[..length]).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(forth, back)
        });
    }
}

/// I3. What was under way is given up, and goes on over other connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_go_on_when_their_connections_fall_silent() -> Result<()> {
    let dir = TestDir::new("silence")?;
    let postgres =
        tokio::task::spawn_blocking(|| Postgres::start(&PostgresOptions::new())).await??;
    let url = postgres.create_database("tollgate")?;
    let database: u16 = url
        .rsplit(':')
        .next()
        .and_then(|rest| rest.split('/').next())
        .context("the url has a port")?
        .parse()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let carried = listener.local_addr()?.port();
    let url = url.replace(&format!(":{database}/"), &format!(":{carried}/"));
    let (falls_silent, silent) = watch::channel(false);
    tokio::spawn(carry(listener, database, silent));

    let environment = [
        ("TOLLGATE_CONSUMER__STORE_DEADLINE_MS", "3000".to_owned()),
        ("TOLLGATE_DATABASE__CONNECT_TIMEOUT_MS", "5000".to_owned()),
        ("TOLLGATE_DATABASE__STATEMENT_TIMEOUT_MS", "1500".to_owned()),
        ("TOLLGATE_DATABASE__LOCK_TIMEOUT_MS", "1200".to_owned()),
        ("TOLLGATE_DATABASE__IDLE_IN_TRANSACTION_TIMEOUT_MS", "1000".to_owned()),
    ];
    let mut dev = Dev::start(dir.path(), &["--database", &url], &environment).await?;
    let load = ["--seed", "5", "--calls", "120", "--rate", "30"];
    let platform = Platform::start(&dev, dir.path(), &load);
    platform.acknowledged(&dev, 100.0).await?;
    falls_silent.send_replace(true);
    platform.verify(&dev).await?;
    dev.process.stop().await
}
