//! The command line: what can be asked of `tollgate`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Takes the notifications of a cloud voice platform, loses none, and makes events, money and
/// presence of them.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, propagate_version = true)]
#[command(
    after_help = "Settings: flags win over the environment (TOLLGATE_EDGE__LISTEN), which wins over the file.\nExit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 a check found something, or a replay left something out.\nFirst look: `tollgate dev --simulate`"
)]
pub struct Cli {
    /// Settings file (TOML).
    #[arg(long, short, global = true, env = "TOLLGATE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Log filter, such as `info` or `warn,tollgate_edge=debug`.
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// Set one setting, such as `edge.listen=127.0.0.1:9000`; may be repeated.
    #[arg(long = "set", global = true, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process, for a first look: embedded log and SQLite, or real servers.
    Dev(Dev),
    /// Run an edge: take notifications, publish events.
    Edge,
    /// Run a billing consumer and its query API.
    Billing,
    /// Run a user-state consumer and its query API.
    UserState,
    /// Play the platform: send calls to an edge and verify what became of them.
    Simulate(Box<Simulate>),
    /// Create or check the topics.
    #[command(subcommand)]
    Topics(Topics),
    /// Look into a spool directory, verify it, or publish what a dead edge left.
    #[command(subcommand)]
    Spool(Spool),
    /// List what was quarantined, or publish again what can be read now.
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Check, activate or list tariffs.
    #[command(subcommand)]
    Tariff(Tariff),
    /// Print a topic's records as JSON, one a line.
    Tail(Tail),
    /// Check or show the settings.
    #[command(subcommand)]
    Config(Config),
    /// Print what Tollgate makes of one notification body, as one JSON document.
    Explain(Explain),
}

#[derive(Debug, Args)]
pub struct Dev {
    /// Where everything is kept; without it, in `data`, and the log where embedded.dir says.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Send simulated traffic to the edge.
    #[arg(long)]
    pub simulate: bool,
    /// Simulated calls a second.
    #[arg(long, default_value_t = 5.0, value_name = "CALLS")]
    pub rate: f64,
    /// Use this Kafka cluster instead of the embedded log.
    #[arg(long, value_name = "HOST:PORT,…")]
    pub brokers: Option<String>,
    /// Use this PostgreSQL database instead of SQLite.
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// Address that takes notifications.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Address of the query API.
    #[arg(long, value_name = "ADDRESS")]
    pub query: Option<SocketAddr>,
    /// Address of health and metrics.
    #[arg(long, value_name = "ADDRESS")]
    pub health: Option<SocketAddr>,
    /// Print no live line.
    #[arg(long)]
    pub quiet: bool,
}

impl Dev {
    /// Where everything is kept that no setting puts elsewhere.
    pub fn data(&self) -> &Path {
        self.data.as_deref().unwrap_or(Path::new("data"))
    }
}

#[derive(Debug, Subcommand)]
pub enum Topics {
    /// Create the topics that are missing; existing ones stay as they are.
    Create {
        /// Copies of each partition, where the cluster has fewer brokers than the catalogue asks
        /// for.
        #[arg(long, value_name = "N")]
        replication: Option<i32>,
    },
    /// Compare the topics with the catalogue; exit code 3 if they differ.
    Check,
}

#[derive(Debug, Subcommand)]
pub enum Spool {
    /// Epochs, sequences, what is unconfirmed, damage, dead letters, and whether it may be deleted.
    Inspect {
        /// The spool's directory.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Read every byte; exit code 3 if something is damaged or missing.
    Verify {
        /// The spool's directory.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// List the records that their topic refused for good.
    DeadLetters {
        /// The spool's directory.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Show keys and values; they may hold phone numbers.
        #[arg(long)]
        reveal: bool,
    },
    /// Print what can be read of a file of `damaged/`, compressed requests unpacked.
    Salvage {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Show phone numbers.
        #[arg(long)]
        reveal: bool,
    },
    /// Publish what a dead edge's spool still holds, then confirm it there; exit code 3 if something
    /// cannot be read, or is refused by its topic for good.
    Replay {
        /// The spool's directory; no edge may be using it.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// Print what is in quarantine, one JSON object a line.
    List {
        /// Show the contents; they may hold phone numbers.
        #[arg(long)]
        reveal: bool,
    },
    /// Publish again what can be read now; what was replayed before is left alone. Exit code 3 if a
    /// topic refuses something for good.
    Replay {
        /// Only this quarantine id; without it, all.
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Tariff {
    /// Read a tariff file and say what it means, or what is wrong with it.
    Check {
        /// The tariff (TOML).
        file: PathBuf,
    },
    /// Register a tariff and make it the one that is in force.
    Activate {
        /// The tariff (TOML).
        file: PathBuf,
        /// For calls billed from this instant on (RFC 3339), or `beginning`; without it, now.
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
    },
    /// List registered tariffs.
    List,
}

#[derive(Debug, Args)]
pub struct Tail {
    /// call-events, cdrs, quarantine, rated-cdrs or user-states.
    pub topic: String,
    /// Begin with the oldest record instead of the next one.
    #[arg(long)]
    pub from_beginning: bool,
    /// Stop at the end of what is there now.
    #[arg(long)]
    pub until_end: bool,
    /// Show phone numbers and contents whole.
    #[arg(long)]
    pub reveal: bool,
    /// Ask a running `tollgate dev` at this query address instead of Kafka.
    #[arg(long, value_name = "URL")]
    pub dev: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Read the settings and say whether they can be used.
    Check {
        /// By this service; without it, by all: also the secrets of the others must be there. Only a
        /// database may be missing, which an edge does without; the answer says so then.
        service: Option<Service>,
    },
    /// Print the settings in force, and what follows from them; secrets stay out.
    Show,
}

/// What runs as a process of its own.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Service {
    Edge,
    Billing,
    UserState,
}

#[derive(Debug, Args)]
pub struct Explain {
    /// The body, as it would be POSTed; `-` reads standard input.
    pub file: PathBuf,
    /// Tariff (TOML) to rate CDRs by; without it the sample tariff.
    #[arg(long, value_name = "FILE")]
    pub tariff: Option<PathBuf>,
    /// The application of the path it came by (its app_key).
    #[arg(long, default_value = "", value_name = "APP_KEY")]
    pub application: String,
    /// When it was received (RFC 3339); without it, now.
    #[arg(long, value_name = "TIME")]
    pub received_at: Option<String>,
    /// Show phone numbers and contents whole.
    #[arg(long)]
    pub reveal: bool,
}

#[derive(Debug, Args)]
pub struct Simulate {
    #[command(flatten)]
    pub options: tollgate_simulator::Options,
    /// Read the topics from the Kafka cluster of the settings instead of a `tollgate dev`.
    #[arg(long, help_heading = "Verification")]
    pub kafka: bool,
}
