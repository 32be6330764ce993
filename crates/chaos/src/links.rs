//! Every path of the system's network, a proxy each.

use std::collections::BTreeMap;

use anyhow::Result;
use tollgate_testkit::{Kafka, KafkaOptions, free_port};

use crate::proxy::Proxy;
use crate::schedule::{BROKERS, How, Node, Path};

/// The proxies of a system.
pub struct Links {
    senders: BTreeMap<Node, Proxy>,
    brokers: BTreeMap<Node, Vec<Proxy>>,
    databases: BTreeMap<Node, Proxy>,
    /// Between brokers, by the one that is connected to.
    replication: Vec<Proxy>,
    /// Between controllers and from brokers to controllers, by the one that is connected to.
    controllers: Vec<Proxy>,
    /// Where they listen.
    controller_ports: Vec<u16>,
}

impl Links {
    /// Opens all of them; but for the controllers' they lead nowhere yet.
    pub async fn open() -> Result<Self> {
        let mut links = Self {
            senders: BTreeMap::new(),
            brokers: BTreeMap::new(),
            databases: BTreeMap::new(),
            replication: Vec::new(),
            controllers: Vec::new(),
            controller_ports: Vec::new(),
        };
        for _ in 0..BROKERS {
            links.replication.push(Proxy::open().await?);
            // A cluster starts when its controllers find each other.
            let (controller, port) = (Proxy::open().await?, free_port());
            controller.lead_to(port);
            links.controllers.push(controller);
            links.controller_ports.push(port);
        }
        for node in Node::ALL {
            for _ in 0..BROKERS {
                links.brokers.entry(node).or_default().push(Proxy::open().await?);
            }
        }
        for node in Node::EDGES {
            links.senders.insert(node, Proxy::open().await?);
        }
        for node in Node::CONSUMERS {
            links.databases.insert(node, Proxy::open().await?);
        }
        Ok(links)
    }

    /// A cluster with a listener for each process, behind its proxies.
    pub fn kafka(&self) -> KafkaOptions {
        let ports = |proxies: &[Proxy]| proxies.iter().map(Proxy::port).collect::<Vec<_>>();
        let voters = self.controllers.iter().map(Proxy::port);
        let controllers: Vec<_> = self.controller_ports.iter().copied().zip(voters).collect();
        let options = KafkaOptions::new()
            .brokers(usize::from(BROKERS))
            .internal_behind(&ports(&self.replication))
            .controllers_behind(&controllers);
        self.brokers.iter().fold(options, |options, (node, proxies)| {
            options.listener(node.listener(), &ports(proxies))
        })
    }

    /// Leads the proxies to where the servers listen.
    pub fn lead_to(&self, kafka: &Kafka, database: u16) {
        for (node, proxies) in &self.brokers {
            for (number, proxy) in proxies.iter().enumerate() {
                proxy.lead_to(kafka.broker(number).listener_port(node.listener()));
            }
        }
        for (number, proxy) in self.replication.iter().enumerate() {
            proxy.lead_to(kafka.broker(number).internal_port());
        }
        self.databases.values().for_each(|proxy| proxy.lead_to(database));
    }

    /// Leads the platform's way to where an edge listens.
    pub fn lead_to_edge(&self, edge: Node, port: u16) {
        if let Some(proxy) = self.senders.get(&edge) {
            proxy.lead_to(port);
        }
    }

    /// Where the platform sends to.
    pub fn edges(&self) -> Vec<String> {
        self.senders.values().map(|proxy| format!("http://127.0.0.1:{}", proxy.port())).collect()
    }

    /// Where a process finds the brokers.
    pub fn bootstrap(&self, node: Node) -> String {
        let proxies = self.brokers.get(&node).into_iter().flatten();
        let addresses: Vec<_> =
            proxies.map(|proxy| format!("127.0.0.1:{}", proxy.port())).collect();
        addresses.join(",")
    }

    /// Where a consumer finds the database.
    pub fn database(&self, node: Node) -> Option<u16> {
        self.databases.get(&node).map(Proxy::port)
    }

    /// Makes trouble on a path, or none.
    pub fn set(&self, path: Path, how: Option<How>) {
        let proxies: Vec<&Proxy> = match path {
            Path::Sender(node) => self.senders.get(&node).into_iter().collect(),
            Path::Database(node) => self.databases.get(&node).into_iter().collect(),
            Path::Brokers(node) => self.brokers.get(&node).into_iter().flatten().collect(),
            Path::Broker(node, number) => {
                let all = self.brokers.get(&node).into_iter().flatten();
                all.skip(usize::from(number)).take(1).collect()
            }
            Path::Replication(number) => {
                let number = usize::from(number);
                self.replication
                    .get(number)
                    .into_iter()
                    .chain(self.controllers.get(number))
                    .collect()
            }
        };
        for proxy in proxies {
            proxy.set(how);
        }
    }
}
