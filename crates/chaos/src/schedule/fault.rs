//! The faults and what they hit.

use std::fmt;

use serde::Serialize;

/// A process of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Node {
    /// Takes notifications; its spool is on the disk.
    Edge1,
    /// Takes notifications; its spool is in a small file system of its own, where permitted.
    Edge2,
    /// Consumer of CDRs.
    Billing1,
    /// Consumer of CDRs.
    Billing2,
    /// Consumer of events and CDRs.
    UserState1,
    /// Consumer of events and CDRs.
    UserState2,
}

impl Node {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Edge1,
        Self::Edge2,
        Self::Billing1,
        Self::Billing2,
        Self::UserState1,
        Self::UserState2,
    ];
    /// The edges.
    pub const EDGES: [Self; 2] = [Self::Edge1, Self::Edge2];
    /// The consumers.
    pub const CONSUMERS: [Self; 4] =
        [Self::Billing1, Self::Billing2, Self::UserState1, Self::UserState2];

    /// Its name in logs, directories and members' names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edge1 => "edge-1",
            Self::Edge2 => "edge-2",
            Self::Billing1 => "billing-1",
            Self::Billing2 => "billing-2",
            Self::UserState1 => "user-state-1",
            Self::UserState2 => "user-state-2",
        }
    }

    /// Name of the brokers' listener that it alone connects to.
    pub const fn listener(self) -> &'static str {
        match self {
            Self::Edge1 => "EDGE1",
            Self::Edge2 => "EDGE2",
            Self::Billing1 => "BILLING1",
            Self::Billing2 => "BILLING2",
            Self::UserState1 => "USERSTATE1",
            Self::UserState2 => "USERSTATE2",
        }
    }

    /// Whether it takes notifications.
    pub const fn is_edge(self) -> bool {
        matches!(self, Self::Edge1 | Self::Edge2)
    }
}

/// A way through the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// From the platform to an edge.
    Sender(Node),
    /// From a process to one broker.
    Broker(Node, u8),
    /// From a process to all brokers.
    Brokers(Node),
    /// From a consumer to PostgreSQL.
    Database(Node),
    /// From the other nodes to one of the cluster: what it leads is not replicated, and if it is the
    /// active controller the others have to elect another.
    Replication(u8),
}

impl Path {
    fn overlaps(self, other: Self) -> bool {
        let brokers = |path| match path {
            Self::Broker(node, _) | Self::Brokers(node) => Some(node),
            Self::Sender(_) | Self::Database(_) | Self::Replication(_) => None,
        };
        self == other || (brokers(self).is_some() && brokers(self) == brokers(other))
    }
}

/// What happens on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Nothing comes through, and nobody is told.
    Stalled,
    /// Requests arrive; their answers do not.
    Deaf,
    /// Connections break and are refused.
    Refused,
    /// Everything takes this many milliseconds longer.
    Delayed(u64),
}

/// What happens to PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Database {
    /// SIGKILL; down until it is over.
    Kill,
    /// Stopped in good order; down until it is over.
    Restart,
    /// The postmaster is frozen: open sessions go on, new ones wait.
    Pause,
    /// All sessions are ended, wherever they are.
    EndSessions,
}

/// What is done to a spool while its edge is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// The beginning of a request that was being written stands behind the last one.
    TornTail,
    /// A bit is flipped in a request that is published already.
    FlipPublished,
    /// A bit is flipped in a synced request that is not published. Costs that request.
    FlipUnpublished,
    /// A bit is flipped in a copy of a segment's header.
    FlipHeader,
    /// Bits are flipped in both slots of the position file.
    FlipPosition,
}

impl Damage {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::TornTail,
        Self::FlipPublished,
        Self::FlipUnpublished,
        Self::FlipHeader,
        Self::FlipPosition,
    ];
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL; down until it is over, and its disk may suffer meanwhile.
    Kill(Node, Option<Damage>),
    /// SIGTERM; down until it is over.
    Restart(Node),
    /// SIGSTOP until it is over.
    Freeze(Node),
    /// SIGKILL of a broker; down until it is over.
    KillBroker(u8),
    /// A broker stops in good order, so that its partitions' leaders move; down until it is over.
    RestartBroker(u8),
    /// SIGSTOP of a broker until it is over.
    FreezeBroker(u8),
    /// PostgreSQL.
    Database(Database),
    /// A network path.
    Network(Path, How),
    /// No byte is left on the file system under the spool.
    DiskFull(Node),
    /// The clock of a process goes wrong by this many seconds.
    Clock(Node, i64),
}

impl Fault {
    /// Its kind, for figures.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Kill(..) => "process killed",
            Self::Restart(_) => "process restarted",
            Self::Freeze(_) => "process frozen",
            Self::KillBroker(_) => "broker killed",
            Self::RestartBroker(_) => "broker restarted",
            Self::FreezeBroker(_) => "broker frozen",
            Self::Database(Database::Kill) => "database killed",
            Self::Database(Database::Restart) => "database restarted",
            Self::Database(Database::Pause) => "database frozen",
            Self::Database(Database::EndSessions) => "database sessions ended",
            Self::Network(_, How::Stalled) => "network stalled",
            Self::Network(_, How::Deaf) => "answers lost",
            Self::Network(_, How::Refused) => "connections refused",
            Self::Network(_, How::Delayed(_)) => "network delayed",
            Self::DiskFull(_) => "disk full",
            Self::Clock(..) => "clock stepped",
        }
    }

    /// Whether two faults cannot happen at a time, because one would undo the other.
    pub(crate) fn excludes(self, other: Self) -> bool {
        let process = |fault| match fault {
            Self::Kill(node, _) | Self::Restart(node) | Self::Freeze(node) => Some(node),
            _ => None,
        };
        let broker = |fault| match fault {
            Self::KillBroker(it) | Self::RestartBroker(it) | Self::FreezeBroker(it) => Some(it),
            _ => None,
        };
        let same = |one: Option<u8>, two: Option<u8>| one.is_some() && one == two;
        match (self, other) {
            (Self::Database(_), Self::Database(_)) => true,
            (Self::Network(one, _), Self::Network(two, _)) => one.overlaps(two),
            (Self::DiskFull(one), Self::DiskFull(two))
            | (Self::Clock(one, _), Self::Clock(two, _)) => one == two,
            _ => {
                same(broker(self), broker(other))
                    || (process(self).is_some() && process(self) == process(other))
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self {
            Self::Kill(node, damage) => {
                write!(f, ": {}", node.name())?;
                damage.map_or(Ok(()), |damage| write!(f, ", its spool: {damage:?}"))
            }
            Self::Restart(node) | Self::Freeze(node) | Self::DiskFull(node) => {
                write!(f, ": {}", node.name())
            }
            Self::KillBroker(broker) | Self::RestartBroker(broker) | Self::FreezeBroker(broker) => {
                write!(f, ": {broker}")
            }
            Self::Database(_) => Ok(()),
            Self::Network(path, how) => {
                match path {
                    Path::Sender(node) => write!(f, ": platform to {}", node.name()),
                    Path::Broker(node, broker) => write!(f, ": {} to broker {broker}", node.name()),
                    Path::Brokers(node) => write!(f, ": {} to all brokers", node.name()),
                    Path::Database(node) => write!(f, ": {} to the database", node.name()),
                    Path::Replication(broker) => {
                        write!(f, ": nodes of the cluster to node {broker}")
                    }
                }?;
                match how {
                    How::Delayed(ms) => write!(f, " by {ms} ms"),
                    _ => Ok(()),
                }
            }
            Self::Clock(node, seconds) => write!(f, ": {} by {seconds} s", node.name()),
        }
    }
}
