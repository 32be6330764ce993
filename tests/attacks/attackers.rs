//! Attackers, in processes of their own: one may have only so many files open.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tollgate_testkit::{Server, dies_with_us};

use crate::attack::Attack;
use crate::scale::Scale;

/// Makes a process of this test one of attackers: number of the attack, connections, target,
/// number of the process.
const CALL: &str = "ATTACKERS";

/// Files that a process keeps for other things than connections.
const KEPT: usize = 512;

/// Pause of an attacker that was thrown out.
const PAUSE: Duration = Duration::from_millis(100);

/// Killed when dropped.
pub struct Attackers(Vec<Server>);

impl Attackers {
    /// Starts as many processes as it takes. Each calls `test` of this binary, which is to call
    /// `called`.
    pub fn start(
        test: &str,
        attack: usize,
        connections: usize,
        target: SocketAddr,
        dir: &Path,
    ) -> Result<Self> {
        let most = most_connections();
        let program = dies_with_us(&std::env::current_exe()?)?;
        let start = |(number, first): (usize, usize)| {
            let connections = most.min(connections - first);
            let mut command = Command::new(&program[0]);
            command.args(&program[1..]).args([test, "--exact", "--nocapture"]);
            command.env(CALL, format!("{attack} {connections} {target} {number}"));
            Server::start(command, &dir.join(format!("attackers-{number}.log")))
        };
        (0..connections).step_by(most).enumerate().map(start).collect::<Result<_>>().map(Self)
    }

    /// Waits until all have reached their aim.
    pub async fn join(&mut self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        for server in &mut self.0 {
            let ended = loop {
                if let Some(ended) = server.exited() {
                    break ended;
                }
                ensure!(Instant::now() < end, "attackers go on:\n{}", server.output());
                sleep(PAUSE).await;
            };
            ensure!(ended.success(), "attackers ended with {ended}:\n{}", server.output());
        }
        Ok(())
    }

    /// Fails if some have ended that have no aim.
    pub fn go_on(&mut self) -> Result<()> {
        for server in &mut self.0 {
            let ended = server.exited();
            ensure!(ended.is_none(), "attackers ended ({ended:?}):\n{}", server.output());
        }
        Ok(())
    }
}

/// Attacks, if this process was started for it; returns whether it was.
pub async fn called() -> Result<bool> {
    let Ok(call) = std::env::var(CALL) else { return Ok(false) };
    let words: Vec<&str> = call.split(' ').collect();
    let [attack, connections, target, number] = words[..] else {
        anyhow::bail!("{CALL} has four parts: {call}")
    };
    let (_, _, attack) =
        Scale::of_environment().attacks().into_iter().nth(attack.parse()?).context("an attack")?;
    // Each process has an address of its own, and so as many ports as there are.
    let source = Ipv4Addr::new(127, 0, 1, number.parse()?);
    most_connections();
    let mut attackers = JoinSet::new();
    for _ in 0..connections.parse()? {
        attackers.spawn(go_on(attack.clone(), source, target.parse()?));
    }
    attackers.join_all().await;
    Ok(true)
}

/// Comes again as often as it is thrown out, until it has reached its aim.
async fn go_on(attack: Attack, source: Ipv4Addr, target: SocketAddr) {
    loop {
        if let Ok(stream) = connect(source, target).await
            && attack.on(stream).await.unwrap_or(false)
        {
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn connect(source: Ipv4Addr, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect(target).await
}

/// Raises the limit of open files as far as it goes.
fn most_connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let most = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| most as usize);
    most.saturating_sub(KEPT).max(1)
}
