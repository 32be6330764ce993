//! Apache Kafka in KRaft mode, from its jars.

mod broker;
mod jars;
mod properties;
mod tls;

use std::fs;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use anyhow::{Context, Result, ensure};

pub use broker::Broker;
use jars::Jars;
use properties::{Ports, Properties};
use tls::Tls;

use crate::machine;
use crate::run_dir::TestDir;

/// Account of a secured cluster that may do everything.
pub const USER: &str = "tollgate";
/// Account of a secured cluster that may do nothing.
pub const STRANGER: &str = "stranger";
/// Password of both.
pub const PASSWORD: &str = "open-sesame-1912";

/// What kind of cluster to start. The default is one broker without security.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    brokers: usize,
    secured: bool,
    listeners: Vec<Listener>,
    /// What brokers tell each other to connect to, where that is not their own ports.
    internal_behind: Option<Vec<u16>>,
    /// Of each controller, where it listens and what the others are told to connect to.
    controllers_behind: Option<Vec<(u16, u16)>>,
    properties: Vec<(String, String)>,
}

/// A further plaintext listener, which clients are told to reach by other ports than its own.
#[derive(Debug, Clone)]
struct Listener {
    name: String,
    /// The port that each broker tells clients.
    advertised: Vec<u16>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: 1,
            secured: false,
            listeners: Vec::new(),
            internal_behind: None,
            controllers_behind: None,
            properties: Vec::new(),
        }
    }
}

impl KafkaOptions {
    /// One broker, plaintext.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of brokers, 1 or 3; with 3, internal topics have three copies.
    #[must_use]
    pub fn brokers(mut self, brokers: usize) -> Self {
        self.brokers = brokers;
        self
    }

    /// SASL_SSL with SCRAM-SHA-512, a private authority, and an authorizer that lets [`USER`] do
    /// everything and [`STRANGER`] nothing.
    #[must_use]
    pub fn sasl_ssl(mut self) -> Self {
        self.secured = true;
        self
    }

    /// A further plaintext listener behind proxies: each broker listens on a port of its own
    /// ([`Broker::listener_port`]), and tells clients to connect to the proxy's.
    ///
    /// # Panics
    ///
    /// When the name is not of capital letters and digits.
    #[must_use]
    pub fn listener(mut self, name: &str, advertised: &[u16]) -> Self {
        let is_name = name.bytes().all(|it| it.is_ascii_uppercase() || it.is_ascii_digit());
        assert!(is_name, "a listener's name is of capital letters and digits: {name}");
        self.listeners.push(Listener { name: name.to_owned(), advertised: advertised.to_vec() });
        self
    }

    /// Brokers reach each other through proxies on these ports, which lead to
    /// [`Broker::internal_port`].
    #[must_use]
    pub fn internal_behind(mut self, ports: &[u16]) -> Self {
        self.internal_behind = Some(ports.to_vec());
        self
    }

    /// Controllers listen on the first port of each pair, and are reached through a proxy on the
    /// second one. The proxies must lead there before the cluster starts.
    #[must_use]
    pub fn controllers_behind(mut self, ports: &[(u16, u16)]) -> Self {
        self.controllers_behind = Some(ports.to_vec());
        self
    }

    /// One more line for `server.properties`; wins over what stands there already.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running cluster. Stopped and removed on drop, or when the test process dies.
#[derive(Debug)]
pub struct Kafka {
    brokers: Vec<Broker>,
    tls: Option<Tls>,
    cluster_id: String,
    // Last: the directory goes after the processes that write into it.
    _dir: TestDir,
}

impl Kafka {
    /// Starts a cluster and waits until it serves. Blocks for some seconds; the very first time
    /// on a machine Maven fetches the jars.
    pub fn start(options: &KafkaOptions) -> Result<Self> {
        ensure!(matches!(options.brokers, 1 | 3), "a test cluster has 1 or 3 brokers");
        for Listener { name, advertised } in &options.listeners {
            let ports = advertised.len();
            ensure!(ports == options.brokers, "listener {name} advertises {ports} ports");
        }
        let internal = options.internal_behind.as_ref().map_or(options.brokers, Vec::len);
        ensure!(internal == options.brokers, "{internal} ports for the brokers' own listener");
        let controllers = options.controllers_behind.as_ref().map_or(options.brokers, Vec::len);
        ensure!(controllers == options.brokers, "{controllers} pairs of ports for the controllers");
        let jars = Jars::find()?;
        // Only for speed: without it brokers start all the same.
        let _ = machine::once(&jars.class_archive(), |archive| Self::train(&jars, archive));
        let mut last = None;
        for _ in 0..5 {
            match Self::try_start(options, &jars) {
                Ok(kafka) => return Ok(kafka),
                // Somebody took a port in the meantime.
                Err(error) if format!("{error:#}").contains("Address already in use") => {
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.context("no attempt was made")?)
    }

    /// The one plaintext single-broker cluster of this test binary, started at first use. Use
    /// topic, group and transaction names of your own, and neither stop nor kill it.
    ///
    /// # Panics
    ///
    /// When it cannot be started, with the reason.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| {
            Self::start(&KafkaOptions::new())
                .unwrap_or_else(|error| panic!("cannot start Kafka: {error:#}"))
        })
    }

    fn train(jars: &Jars, archive: &Path) -> Result<()> {
        let dir = TestDir::new("kafka-training")?;
        let options = KafkaOptions::new();
        let ports = [Ports::choose(0, &options)];
        Self::prepare(0, &options, jars, &ports, None, &random_id(), dir.path())?.train(archive)
    }

    fn try_start(options: &KafkaOptions, jars: &Jars) -> Result<Self> {
        let dir = TestDir::new("kafka")?;
        let tls = options.secured.then(|| Tls::create(dir.path())).transpose()?;
        let cluster_id = random_id();
        let ports: Vec<Ports> =
            (0..options.brokers).map(|number| Ports::choose(number, options)).collect();
        let mut brokers = Vec::new();
        for number in 0..options.brokers {
            brokers.push(Self::prepare(
                number,
                options,
                jars,
                &ports,
                tls.as_ref(),
                &cluster_id,
                dir.path(),
            )?);
        }
        let kafka = Self { brokers, tls, cluster_id, _dir: dir };
        kafka.restart()?;
        Ok(kafka)
    }

    fn prepare(
        number: usize,
        options: &KafkaOptions,
        jars: &Jars,
        ports: &[Ports],
        tls: Option<&Tls>,
        cluster_id: &str,
        dir: &Path,
    ) -> Result<Broker> {
        let data = dir.join(format!("data-{number}"));
        let properties = dir.join(format!("server-{number}.properties"));
        let listeners = &options.listeners;
        let extra = &options.properties;
        let behind = options.internal_behind.as_ref().map(|ports| ports[number]);
        let text = Properties { number, ports, listeners, behind, data: &data, tls, extra };
        fs::write(&properties, text.to_string())?;
        if tls.is_some() {
            let users: Vec<String> = [USER, STRANGER]
                .into_iter()
                .flat_map(|user| {
                    [
                        "--add-scram".to_owned(),
                        format!("SCRAM-SHA-512=[name={user},password={PASSWORD}]"),
                    ]
                })
                .collect();
            jars.format(cluster_id, &properties, &users)?;
        } else {
            jars.format_from_template(cluster_id, &properties, number + 1, &data)?;
        }
        Ok(Broker {
            jars: jars.clone(),
            number,
            client_port: ports[number].client,
            internal_port: ports[number].internal,
            listener_ports: ports[number].further.clone(),
            properties,
            log: dir.join(format!("broker-{number}.log")),
            server: Mutex::new(None),
        })
    }

    /// `host:port` of all client listeners, separated by commas.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.brokers.iter().map(Broker::address).collect();
        addresses.join(",")
    }

    /// The same for the listeners between brokers: plaintext and allowed everything, also in a
    /// secured cluster. For preparing topics.
    pub fn internal_bootstrap(&self) -> String {
        let addresses: Vec<String> = self
            .brokers
            .iter()
            .map(|broker| format!("127.0.0.1:{}", broker.internal_port))
            .collect();
        addresses.join(",")
    }

    /// The cluster's identity.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// PEM file of the authority that signed the brokers' certificates.
    ///
    /// # Panics
    ///
    /// When the cluster is not secured.
    pub fn ca_file(&self) -> &Path {
        &self.tls().ca
    }

    /// PEM file of an authority that did not.
    ///
    /// # Panics
    ///
    /// When the cluster is not secured.
    pub fn other_ca_file(&self) -> &Path {
        &self.tls().other_ca
    }

    #[expect(
        clippy::expect_used,
        reason = "to ask a cluster that is not secured is a mistake in the test"
    )]
    fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("this cluster is not secured: use KafkaOptions::sasl_ssl")
    }

    /// The broker with this number, from 0.
    pub fn broker(&self, number: usize) -> &Broker {
        &self.brokers[number]
    }

    /// How often a node has become the active controller.
    pub fn elections(&self) -> usize {
        let of = |log| fs::read_to_string(log).unwrap_or_default();
        let elected = "Becoming the active controller";
        self.brokers.iter().map(|broker| of(&broker.log).matches(elected).count()).sum()
    }

    /// Stops all brokers in good order.
    pub fn stop(&self) {
        for broker in self.brokers.iter().rev() {
            broker.stop();
        }
    }

    /// Kills all brokers.
    pub fn kill(&self) {
        self.brokers.iter().for_each(Broker::kill);
    }

    /// Starts all brokers that are not running, on the same ports and data.
    pub fn restart(&self) -> Result<()> {
        for broker in &self.brokers {
            if broker.server().is_none() {
                broker.launch()?;
            }
        }
        self.brokers.iter().try_for_each(Broker::await_started)
    }

    /// Freezes all brokers.
    pub fn pause(&self) {
        self.brokers.iter().for_each(Broker::pause);
    }

    /// Lets all brokers go on.
    pub fn resume(&self) {
        self.brokers.iter().for_each(Broker::resume);
    }
}

/// A random id as Kafka writes them: 16 bytes in URL-safe base64 without padding.
fn random_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = RandomState::new();
    let digits = (0..21).map(|index: u64| bits.hash_one(index) % 64);
    // The last digit carries two bits only, and a leading dash would look like an option.
    std::iter::once(b'T')
        .chain(digits.take(20).map(|digit| ALPHABET[digit as usize]))
        .chain(std::iter::once(b'A'))
        .map(char::from)
        .collect()
}
