//! One broker, which is also a controller.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use super::jars::{Archive, Jars};
use crate::process::{Server, dies_with_us};

/// Long: on a busy machine three brokers that come back after each other's deaths take minutes.
const START: Duration = Duration::from_mins(4);
const STOP: Duration = Duration::from_secs(30);

/// One node of a [`Kafka`](crate::Kafka). Its ports and data survive its death.
#[derive(Debug)]
pub struct Broker {
    pub(super) jars: Jars,
    pub(super) number: usize,
    pub(super) client_port: u16,
    pub(super) internal_port: u16,
    pub(super) listener_ports: Vec<(String, u16)>,
    pub(super) properties: PathBuf,
    pub(super) log: PathBuf,
    pub(super) server: Mutex<Option<Server>>,
}

impl Broker {
    /// Starts the process without waiting for it.
    pub(super) fn launch(&self) -> Result<()> {
        self.launch_with(Archive::Use)
    }

    /// Runs once, so that the classes it loads are archived when it ends.
    pub(super) fn train(&self, archive: &Path) -> Result<()> {
        self.launch_with(Archive::WriteTo(archive))?;
        self.await_started()?;
        // Writing the archive is part of its end.
        self.stop();
        anyhow::ensure!(archive.exists(), "java has not written its class archive");
        Ok(())
    }

    fn launch_with(&self, archive: Archive<'_>) -> Result<()> {
        let mut wrapped = dies_with_us(self.jars.java())?.into_iter();
        let mut command = Command::new(wrapped.next().unwrap_or_default());
        command
            .args(wrapped)
            .args(self.jars.broker_arguments(archive))
            .arg(&self.properties)
            // The log directory that Kafka's own scripts would set; keeps it out of the tree.
            .current_dir(std::env::temp_dir());
        let server = Server::start(command, &self.log)?;
        *self.server() = Some(server);
        Ok(())
    }

    /// Waits until it serves.
    pub(super) fn await_started(&self) -> Result<()> {
        let mut server = self.server();
        let Some(running) = server.as_mut() else { return Ok(()) };
        let what = format!("Kafka broker {}", self.number);
        running.await_ready(&what, START, |server| server.output().contains("Kafka Server started"))
    }

    pub(super) fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `host:port` of its client listener.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// Port of its listener for other brokers, for the proxy that stands before it.
    pub fn internal_port(&self) -> u16 {
        self.internal_port
    }

    /// Port of its listener of this name, for the proxy that stands before it.
    ///
    /// # Panics
    ///
    /// When the cluster was started without such a listener.
    pub fn listener_port(&self, name: &str) -> u16 {
        let found = self.listener_ports.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("no listener {name}: see KafkaOptions::listener"), |it| it.1)
    }

    /// Stops it in good order (SIGTERM) and waits until it is gone.
    pub fn stop(&self) {
        if let Some(mut server) = self.server().take() {
            server.signal(Signal::TERM);
            server.signal(Signal::CONT);
            server.wait_or_kill(STOP);
        }
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&self) {
        *self.server() = None;
    }

    /// Starts it again, if it is not running, on the same ports and data, and waits until it
    /// serves.
    pub fn restart(&self) -> Result<()> {
        if self.server().is_none() {
            self.launch()?;
        }
        self.await_started()
    }

    /// Freezes it (SIGSTOP): connections stay open, nothing is answered.
    pub fn pause(&self) {
        if let Some(server) = self.server().as_ref() {
            server.signal(Signal::STOP);
        }
    }

    /// Lets it go on after [`Broker::pause`].
    pub fn resume(&self) {
        if let Some(server) = self.server().as_ref() {
            server.signal(Signal::CONT);
        }
    }

    /// Everything it has logged since its last start.
    pub fn log(&self) -> String {
        self.server().as_ref().map(Server::output).unwrap_or_default()
    }
}
