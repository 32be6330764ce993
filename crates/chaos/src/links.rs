//! Every path of the system's network, a proxy each.

use std::collections::BTreeMap;

use anyhow::Result;
use tollgate_testkit::{Kafka, KafkaOptions};

use crate::proxy::Proxy;
use crate::schedule::{BROKERS, How, Node, Path};

/// The proxies of a system.
pub struct Links {
    senders: BTreeMap<Node, Proxy>,
    brokers: BTreeMap<Node, Vec<Proxy>>,
    databases: BTreeMap<Node, Proxy>,
    /// Between brokers, by the one that is connected to.
    replication: Vec<Proxy>,
}

impl Links {
    /// Opens all of them; they lead nowhere yet.
    pub async fn open() -> Result<Self> {
        let mut links = Self {
            senders: BTreeMap::new(),
            brokers: BTreeMap::new(),
            databases: BTreeMap::new(),
            replication: Vec::new(),
        };
        for _ in 0..BROKERS {
            links.replication.push(Proxy::open().await?);
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
        let internal: Vec<u16> = self.replication.iter().map(Proxy::port).collect();
        let options = KafkaOptions::new().brokers(usize::from(BROKERS)).internal_behind(&internal);
        self.brokers.iter().fold(options, |options, (node, proxies)| {
            let ports: Vec<u16> = proxies.iter().map(Proxy::port).collect();
            options.listener(node.listener(), &ports)
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
                self.replication.get(usize::from(number)).into_iter().collect()
            }
        };
        for proxy in proxies {
            proxy.set(how);
        }
    }
}
