//! `docker-compose.yml`, and the settings that its services run with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_yaml_ng::Value;

use crate::common::TOLLGATE;
use crate::files::{text_of, yaml};

const IMAGE: &str = "tollgate:latest";

/// The whole file.
pub struct Stack {
    /// In its order.
    pub services: Vec<Service>,
    /// Named volumes.
    pub volumes: BTreeSet<String>,
    /// Secrets and their files.
    pub secrets: BTreeMap<String, String>,
}

/// One service.
pub struct Service {
    /// Its name, which is its host name too.
    pub name: String,
    /// What it runs; of ours, the arguments.
    pub command: Vec<String>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// Published ports, as written.
    pub ports: Vec<String>,
    /// Volumes and mounted files.
    pub volumes: Vec<Volume>,
    /// Secrets given to it.
    pub secrets: Vec<String>,
    /// Services that it waits for.
    pub depends_on: Vec<String>,
    /// The page that its health check asks for.
    pub health_check: Option<String>,
    image: String,
    grace: Option<String>,
}

/// A volume of a service.
pub struct Volume {
    /// Name of a volume, or a path in the repository.
    pub source: String,
    /// Path in the container.
    pub target: String,
}

/// Settings in force: from the file, or the defaults.
pub struct Settings(serde_json::Value);

impl Stack {
    /// Reads the file.
    pub fn read() -> Result<Self> {
        let file = yaml("docker-compose.yml")?;
        let names = |value: &Value| -> Vec<String> {
            let members = value.as_mapping().into_iter().flatten();
            members.filter_map(|(name, _)| name.as_str().map(str::to_owned)).collect()
        };
        let mut services = Vec::new();
        for name in names(&file["services"]) {
            let service = Service::of(&name, &file["services"][name.as_str()]);
            services.push(service.with_context(|| format!("service {name}"))?);
        }
        let mut secrets = BTreeMap::new();
        for name in names(&file["secrets"]) {
            let path = text_of(&file["secrets"][name.as_str()]["file"])?;
            secrets.insert(name, path);
        }
        Ok(Self { services, volumes: names(&file["volumes"]).into_iter().collect(), secrets })
    }

    /// Those that run this program.
    pub fn ours(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(|service| service.image == IMAGE)
    }

    /// The edges.
    pub fn edges(&self) -> impl Iterator<Item = &Service> {
        self.ours().filter(|service| service.command == ["edge"])
    }

    /// The Kafka brokers.
    pub fn brokers(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(|service| service.image.starts_with("apache/kafka:"))
    }

    /// The service of this name.
    pub fn named(&self, name: &str) -> Result<&Service> {
        let found = self.services.iter().find(|service| service.name == name);
        found.with_context(|| format!("there is no service {name}"))
    }
}

impl Service {
    fn of(name: &str, value: &Value) -> Result<Self> {
        let texts = |value: &Value| -> Result<Vec<String>> {
            value.as_sequence().into_iter().flatten().map(text_of).collect()
        };
        let mut environment = Vec::new();
        for (name, value) in value["environment"].as_mapping().into_iter().flatten() {
            environment.push((text_of(name)?, text_of(value)?));
        }
        let mut volumes = Vec::new();
        for volume in texts(&value["volumes"])? {
            let mut parts = volume.split(':');
            let (source, target) = (parts.next(), parts.next());
            let (source, target) = source.zip(target).context("volume without a target")?;
            volumes.push(Volume { source: source.to_owned(), target: target.to_owned() });
        }
        let depends_on = match &value["depends_on"] {
            Value::Mapping(members) => members.keys().map(text_of).collect::<Result<_>>()?,
            other => texts(other)?,
        };
        let check = texts(&value["healthcheck"]["test"])?;
        Ok(Self {
            name: name.to_owned(),
            command: texts(&value["command"])?,
            environment,
            ports: texts(&value["ports"])?,
            volumes,
            secrets: texts(&value["secrets"])?,
            depends_on,
            health_check: check.into_iter().find(|word| word.starts_with("http://")),
            image: text_of(&value["image"])?,
            grace: value["stop_grace_period"].as_str().map(str::to_owned),
        })
    }

    /// The value of an environment variable.
    pub fn env(&self, name: &str) -> Result<&str> {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).with_context(|| format!("{}: no {name}", self.name))
    }

    /// Runs the binary with nothing but this service's environment and secrets; returns what it
    /// prints.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let mounted = tempfile::tempdir()?;
        for secret in &self.secrets {
            // Fits each of them.
            std::fs::write(mounted.path().join(secret), "postgres://user:password@host/database")?;
        }
        let place = format!("{}/", mounted.path().display());
        let mut command = Command::new(TOLLGATE);
        let environment = self
            .environment
            .iter()
            .map(|(name, value)| (name, value.replace("/run/secrets/", &place)));
        let output = command.env_clear().envs(environment).args(arguments).output()?;
        ensure!(
            output.status.success(),
            "service {}: tollgate {} ended with {}:\n{}",
            self.name,
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What it runs with.
    pub fn settings(&self) -> Result<Settings> {
        Ok(Settings(serde_json::from_str(&self.run(&["config", "show"])?)?))
    }

    /// Seconds between SIGTERM and SIGKILL.
    pub fn grace_seconds(&self) -> Result<u64> {
        let text = self.grace.as_deref().unwrap_or("10s");
        text.trim_end_matches('s').parse().with_context(|| format!("stop_grace_period {text}"))
    }
}

impl Settings {
    /// A text.
    pub fn text(&self, section: &str, name: &str) -> Result<String> {
        let value = self.0[section][name].as_str();
        Ok(value.with_context(|| format!("no text {section}.{name}"))?.to_owned())
    }

    /// A number.
    pub fn number(&self, section: &str, name: &str) -> Result<u64> {
        self.0[section][name].as_u64().with_context(|| format!("no number {section}.{name}"))
    }

    /// Port of a listener.
    pub fn port(&self, section: &str, name: &str) -> Result<u16> {
        Ok(self.address(section, name)?.port())
    }

    /// Port of a listener that other containers reach.
    pub fn open_port(&self, section: &str, name: &str) -> Result<u16> {
        let address = self.address(section, name)?;
        ensure!(!address.ip().is_loopback(), "{section}.{name} is {address}: nobody reaches it");
        Ok(address.port())
    }

    fn address(&self, section: &str, name: &str) -> Result<SocketAddr> {
        Ok(self.text(section, name)?.parse()?)
    }
}
