//! Kafka's jars, fetched once by Maven, and how java is called.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result};

use crate::machine;

const VERSION: &str = "4.3.1";
const POM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kafka/pom.xml");

/// A small heap and the fast compiler: brokers of tests live for seconds.
const FLAGS: [&str; 7] = [
    "-Xmx384m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    // Whoever reads the log of a failed test wants to know when.
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
];

/// What to do with the archive of loaded classes.
#[derive(Debug, Clone, Copy)]
pub enum Archive<'a> {
    /// Use it if it is there.
    Use,
    /// Make it when the broker ends.
    WriteTo(&'a Path),
}

/// A Kafka that is ready to be run.
#[derive(Debug, Clone)]
pub struct Jars {
    java: PathBuf,
    home: PathBuf,
}

impl Jars {
    /// Finds java and the jars, and fetches the jars when this is the first time.
    pub fn find() -> Result<Self> {
        let java = machine::program("java", "openjdk-17-jre-headless")?;
        let home = machine::target_dir().join(format!("kafka-{VERSION}"));
        machine::once(&home.join("libs"), |libs| {
            let maven = machine::program("mvn", "maven")?;
            machine::run(
                Command::new(maven)
                    .args(["-q", "-B", "-f", POM, "dependency:copy-dependencies"])
                    .arg(format!("-DoutputDirectory={}", libs.display())),
            )
            .context("cannot fetch Kafka's jars")?;
            Ok(())
        })?;
        Ok(Self { java, home })
    }

    /// Path of java.
    pub fn java(&self) -> &Path {
        &self.java
    }

    /// Where the archive of loaded classes is; a broker starts in half the time with it.
    pub fn class_archive(&self) -> PathBuf {
        self.home.join("classes.jsa")
    }

    /// Arguments of java up to and with the main class of a broker.
    pub fn broker_arguments(&self, archive: Archive<'_>) -> Vec<OsString> {
        let (flag, path) = match archive {
            Archive::Use => ("-XX:SharedArchiveFile=", self.class_archive()),
            Archive::WriteTo(path) => ("-XX:ArchiveClassesAtExit=", path.to_owned()),
        };
        let mut arguments = vec!["-Xshare:auto".into()];
        // An archive that is missing or of another JVM is only warned of; the warning is no news.
        arguments.push("-Xlog:disable".into());
        arguments.push("-Xlog:all=error:stderr".into());
        let mut flag = OsString::from(flag);
        flag.push(path);
        arguments.push(flag);
        arguments.extend(self.arguments("kafka.Kafka"));
        arguments
    }

    fn arguments(&self, class: &str) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = FLAGS.iter().map(OsString::from).collect();
        arguments.push("-cp".into());
        arguments.push(self.home.join("libs").join("*").into());
        arguments.push(class.into());
        arguments
    }

    /// Runs Kafka's StorageTool on a properties file.
    pub fn format(&self, cluster: &str, properties: &Path, extra: &[String]) -> Result<()> {
        let mut tool = Command::new(&self.java);
        tool.args(self.arguments("kafka.tools.StorageTool"))
            .args(["format", "-t", cluster, "-c"])
            .arg(properties)
            .args(extra);
        machine::run(&mut tool).context("cannot format Kafka's storage")?;
        Ok(())
    }

    /// The same as [`Jars::format`] without users, from a template: formatting takes a JVM two
    /// seconds, and only the names in `meta.properties` differ.
    pub fn format_from_template(
        &self,
        cluster: &str,
        properties: &Path,
        node: usize,
        data: &Path,
    ) -> Result<()> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock();
        let template = self.home.join("bootstrap.checkpoint");
        machine::once(&template, |unfinished| {
            self.format(cluster, properties, &[])?;
            std::fs::copy(data.join("bootstrap.checkpoint"), unfinished)?;
            std::fs::remove_dir_all(data)?;
            Ok(())
        })?;
        std::fs::create_dir_all(data)?;
        std::fs::copy(&template, data.join("bootstrap.checkpoint"))?;
        let directory = super::random_id();
        std::fs::write(
            data.join("meta.properties"),
            format!("version=1\ncluster.id={cluster}\nnode.id={node}\ndirectory.id={directory}\n"),
        )?;
        Ok(())
    }
}
