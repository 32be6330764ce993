//! Carries a schedule's faults out.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Result;
use tollgate_testkit::{Broker, Kafka};

use crate::damage::{Hit, Inflicted, inflict};
use crate::schedule::{BROKERS, Damage, Database, Event, Fault, Node};
use crate::server::Given;
use crate::system::System;

/// What was done, and what could not be.
#[derive(Debug, Default)]
pub struct Done {
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// What could not be done here, and why.
    pub skipped: Vec<String>,
    /// Acknowledged requests that a disk was made to lose.
    pub hits: Vec<Hit>,
    /// Requests of an edge, already published, whose bytes on disk were damaged.
    pub published: Vec<(Node, tollgate_spool::Position)>,
}

impl Done {
    fn count(&mut self, kind: &str) {
        *self.faults.entry(kind.to_owned()).or_default() += 1;
    }

    fn skip(&mut self, what: String) {
        if !self.skipped.contains(&what) {
            self.skipped.push(what);
        }
    }
}

impl System {
    fn process(&mut self, node: Node) -> Result<&mut crate::process::Process> {
        let process = self.processes.get_mut(&node);
        process.ok_or_else(|| anyhow::anyhow!("{} was never started", node.name()))
    }

    /// Begins a fault. `seed` says where a disk is damaged.
    pub fn begin(&mut self, event: &Event, seed: u64, done: &mut Done) -> Result<()> {
        match event.fault {
            Fault::Kill(node, damage) => {
                self.process(node)?.kill()?;
                if let Some(damage) = damage {
                    self.damage(node, damage, seed, done);
                }
            }
            Fault::Restart(node) => self.process(node)?.terminate(),
            Fault::Freeze(node) => self.process(node)?.freeze(),
            Fault::KillBroker(broker) => self.broker(broker, Broker::kill),
            Fault::RestartBroker(broker) => self.broker(broker, Broker::stop),
            Fault::FreezeBroker(broker) => self.broker(broker, Broker::pause),
            Fault::Database(what) => self.begin_database(what),
            Fault::Network(path, how) => self.links.set(path, Some(how)),
            Fault::DiskFull(node) => {
                let Some(tmpfs) = &self.tmpfs else {
                    let why = "user namespaces with mounts are not permitted here";
                    done.skip(format!("disk full under the spool of {}: {why}", node.name()));
                    return Ok(());
                };
                tmpfs.fill()?;
            }
            Fault::Clock(node, seconds) => {
                let Some(clock) = self.clocks.get(&node) else {
                    done.skip("clock steps: faketime is not installed".to_owned());
                    return Ok(());
                };
                fs::write(clock, format!("{seconds:+}\n"))?;
            }
        }
        done.count(event.fault.kind());
        Ok(())
    }

    /// Ends it. What restarts does so by itself; [`System::heal_servers`] and [`System::heal_processes`] wait for it.
    pub async fn end(&mut self, event: &Event) -> Result<()> {
        match event.fault {
            Fault::Kill(node, _) => self.process(node)?.start()?,
            Fault::Restart(node) => {
                let process = self.process(node)?;
                process.ended().await?;
                process.start()?;
            }
            Fault::Freeze(node) => self.process(node)?.thaw(),
            Fault::KillBroker(broker) | Fault::RestartBroker(broker) => {
                // Its failure is seen when all is healed.
                drop(self.restart_broker(broker));
            }
            Fault::FreezeBroker(broker) => self.broker(broker, Broker::resume),
            Fault::Database(Database::Pause) => drop(self.postgres.give(|it| {
                it.resume();
                Ok(())
            })),
            Fault::Database(_) => drop(self.postgres.give(|it| it.restart())),
            Fault::Network(path, _) => self.links.set(path, None),
            Fault::DiskFull(_) => self.tmpfs.as_ref().map_or(Ok(()), crate::tmpfs::Tmpfs::free)?,
            Fault::Clock(node, _) => {
                if let Some(clock) = self.clocks.get(&node) {
                    fs::write(clock, "+0\n")?;
                }
            }
        }
        Ok(())
    }

    /// Waits until every broker and the database are up again.
    pub async fn heal_servers(&self) -> Result<()> {
        for broker in 0..BROKERS {
            self.restart_broker(broker).done().await?;
        }
        self.postgres.give(|it| it.restart()).done().await
    }

    /// Waits until every process is up again.
    pub async fn heal_processes(&mut self) -> Result<()> {
        for process in self.processes.values_mut() {
            process.start()?;
        }
        for process in self.processes.values_mut() {
            process.ready().await?;
        }
        Ok(())
    }

    fn broker(&self, number: u8, what: impl FnOnce(&Broker) + Send + 'static) {
        let order = move |kafka: &std::sync::Arc<Kafka>| {
            what(kafka.broker(usize::from(number)));
            Ok(())
        };
        drop(self.kafka[usize::from(number)].give(order));
    }

    fn restart_broker(&self, number: u8) -> Given {
        let number = usize::from(number);
        self.kafka[number].give(move |kafka| kafka.broker(number).restart())
    }

    fn begin_database(&self, what: Database) {
        let database = self.database.clone();
        drop(self.postgres.give(move |postgres| {
            match what {
                Database::Kill => postgres.kill(),
                Database::Restart => postgres.stop(),
                Database::Pause => postgres.pause(),
                Database::EndSessions => {
                    postgres.sql(
                        &database,
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                         WHERE pid <> pg_backend_pid() AND datname = current_database()",
                    )?;
                }
            }
            Ok(())
        }));
    }

    fn damage(&self, edge: Node, damage: Damage, seed: u64, done: &mut Done) {
        let Some(dir) = self.spools.get(&edge) else { return };
        match inflict(edge, dir, damage, seed) {
            Ok(Inflicted::Nothing) => {}
            Ok(inflicted) => {
                done.count(&format!("spool: {damage:?}"));
                match inflicted {
                    Inflicted::Costs(hit) => done.hits.push(*hit),
                    Inflicted::Published(position) => done.published.push((edge, position)),
                    Inflicted::Nothing | Inflicted::Harmless => {}
                }
            }
            // For instance because its disk is full just now.
            Err(error) => done.skip(format!("{damage:?} on {}: {error:#}", edge.name())),
        }
    }
}
