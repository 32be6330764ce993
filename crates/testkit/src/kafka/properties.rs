//! A broker's `server.properties`.

use std::fmt::{self, Write as _};
use std::path::Path;

use super::tls::Tls;
use super::{KafkaOptions, Listener, USER};
use crate::ports::free_port;

/// Ports of one broker.
#[derive(Debug, Clone)]
pub struct Ports {
    pub client: u16,
    pub internal: u16,
    /// By the name of the listener.
    pub further: Vec<(String, u16)>,
    controller: u16,
    /// Where the others connect to its controller.
    voter: u16,
}

impl Ports {
    pub fn choose(number: usize, options: &KafkaOptions) -> Self {
        let listeners = options.listeners.iter();
        let further = listeners.map(|it| (it.name.clone(), free_port())).collect();
        let behind = options.controllers_behind.as_ref().map(|ports| ports[number]);
        let (controller, voter) = behind.unwrap_or_else(|| {
            let port = free_port();
            (port, port)
        });
        Self { client: free_port(), internal: free_port(), further, controller, voter }
    }
}

/// What goes into the file.
pub struct Properties<'a> {
    pub number: usize,
    pub ports: &'a [Ports],
    pub listeners: &'a [Listener],
    /// Port that other brokers connect to, where it is not this one's own.
    pub behind: Option<u16>,
    pub data: &'a Path,
    pub tls: Option<&'a Tls>,
    pub extra: &'a [(String, String)],
}

impl fmt::Display for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network(f)?;
        self.sizes(f)?;
        if let Some(tls) = self.tls {
            secured(f, tls)?;
        }
        // Of doubled keys java takes the last.
        self.extra.iter().try_for_each(|(name, value)| writeln!(f, "{name}={value}"))
    }
}

impl Properties<'_> {
    fn network(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ports { client, internal, further, controller, .. } = &self.ports[self.number];
        let voters: Vec<String> = self
            .ports
            .iter()
            .zip(1..)
            .map(|(ports, id)| format!("{id}@127.0.0.1:{}", ports.voter))
            .collect();
        let protocol = if self.tls.is_some() { "SASL_SSL" } else { "PLAINTEXT" };
        let own = |internal| format!("CLIENT://127.0.0.1:{client},INTERNAL://127.0.0.1:{internal}");
        let (mut listeners, mut advertised) =
            (own(*internal), own(self.behind.unwrap_or(*internal)));
        let mut protocols = String::new();
        for ((name, port), listener) in further.iter().zip(self.listeners) {
            write!(listeners, ",{name}://127.0.0.1:{port}")?;
            write!(advertised, ",{name}://127.0.0.1:{}", listener.advertised[self.number])?;
            write!(protocols, ",{name}:PLAINTEXT")?;
        }
        writeln!(f, "process.roles=broker,controller")?;
        writeln!(f, "node.id={}", self.number + 1)?;
        writeln!(f, "controller.quorum.voters={}", voters.join(","))?;
        writeln!(f, "listeners={listeners},CONTROLLER://127.0.0.1:{controller}")?;
        writeln!(f, "advertised.listeners={advertised}")?;
        writeln!(
            f,
            "listener.security.protocol.map=CLIENT:{protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}"
        )?;
        writeln!(f, "controller.listener.names=CONTROLLER")?;
        writeln!(f, "inter.broker.listener.name=INTERNAL")?;
        writeln!(f, "log.dirs={}", self.data.display())
    }

    /// Small and quick, but otherwise as a real broker: topics are created on demand, unless the
    /// client asks not to, and messages are limited to 1 MiB, unless the topic says more.
    fn sizes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copies = self.ports.len();
        let in_sync = if copies == 1 { 1 } else { 2 };
        for topic in ["offsets.topic", "transaction.state.log", "share.coordinator.state.topic"] {
            writeln!(f, "{topic}.replication.factor={copies}")?;
            writeln!(f, "{topic}.num.partitions=4")?;
        }
        writeln!(f, "transaction.state.log.min.isr={in_sync}")?;
        writeln!(f, "share.coordinator.state.topic.min.isr={in_sync}")?;
        writeln!(f, "group.initial.rebalance.delay.ms=0")?;
        writeln!(f, "group.min.session.timeout.ms=1000")?;
        writeln!(f, "group.consumer.min.session.timeout.ms=1000")?;
        writeln!(f, "group.consumer.min.heartbeat.interval.ms=100")?;
        writeln!(f, "group.consumer.heartbeat.interval.ms=300")?;
        writeln!(f, "group.consumer.assignment.interval.ms=0")?;
        // An abandoned transaction is aborted soon after its time is up.
        writeln!(f, "transaction.abort.timed.out.transaction.cleanup.interval.ms=500")?;
        // A killed broker is missed soon, and let in again: until its session has ended the
        // controller takes its restart for a double. One that is only slow must not be missed.
        let session_ms = 3000;
        writeln!(f, "broker.heartbeat.interval.ms={}", session_ms / 8)?;
        writeln!(f, "broker.session.timeout.ms={session_ms}")?;
        if copies == 1 {
            writeln!(f, "controller.quorum.election.timeout.ms=200")?;
        }
        writeln!(f, "num.network.threads=2")?;
        writeln!(f, "num.io.threads=4")?;
        writeln!(f, "log.cleaner.dedupe.buffer.size=2097152")
    }
}

fn secured(f: &mut fmt::Formatter<'_>, tls: &Tls) -> fmt::Result {
    let listener = "listener.name.client";
    writeln!(f, "{listener}.ssl.keystore.type=PEM")?;
    writeln!(f, "{listener}.ssl.keystore.location={}", tls.key_store.display())?;
    writeln!(f, "{listener}.sasl.enabled.mechanisms=SCRAM-SHA-512")?;
    writeln!(
        f,
        "{listener}.scram-sha-512.sasl.jaas.config=\
         org.apache.kafka.common.security.scram.ScramLoginModule required;"
    )?;
    writeln!(f, "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer")?;
    writeln!(f, "super.users=User:{USER};User:ANONYMOUS")?;
    writeln!(f, "allow.everyone.if.no.acl.found=false")
}
