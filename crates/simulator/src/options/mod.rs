//! What can be asked of a run.

mod app;
mod faults;
mod price;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};

use crate::SimulatorError;

pub use app::{App, Service};
pub use faults::{Fault, Faults};
pub use price::Price;

/// Options of a run.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where an edge takes notifications; may be repeated, and receivers then take turns.
    #[arg(long = "edge", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub edges: Vec<String>,
    /// An application that makes calls: callback, notification or verification_code, its APP_Key
    /// and, after a slash, the secret path segment; may be repeated. Without it: one of each,
    /// without a segment.
    #[arg(long = "app", value_name = "SERVICE=APP_KEY[/SEGMENT]")]
    pub apps: Vec<App>,
    /// Calls that begin each second, whatever the edges answer.
    #[arg(long, default_value_t = 10.0, value_name = "CALLS")]
    pub rate: f64,
    /// How long calls begin, in seconds; the last ones are then played to their end.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    pub duration: f64,
    /// Number of calls, instead of a duration.
    #[arg(long, value_name = "N")]
    pub calls: Option<u64>,
    /// Makes a run repeatable: the same seed gives the same calls, whatever the faults.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// How much faster than the clock a call is played: at 60 a call of a minute takes a second.
    #[arg(long, default_value_t = 60.0, value_name = "TIMES")]
    pub speed: f64,
    /// Phone numbers that take part, 4 to 100000.
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub numbers: u32,

    /// Connections at a time.
    #[arg(long, default_value_t = 64, value_name = "N", help_heading = "Connections")]
    pub connections: usize,
    /// A new connection for each request, as the platform makes them.
    #[arg(long, help_heading = "Connections")]
    pub short: bool,
    /// Source addresses from 127.0.0.2 on, for more connections than one address has ports; 0
    /// leaves the choice to the system.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Connections")]
    pub sources: u32,
    /// How long an answer is waited for, in seconds.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS", help_heading = "Connections")]
    pub timeout: f64,

    /// `all`, `none`, or a list such as `duplicate,chunked=0.2`, with probabilities.
    #[arg(long, default_value = "none", value_name = "LIST", help_heading = "Platform")]
    pub faults: Faults,
    /// When a CDR message that was not answered 200 comes again, in seconds. Default: an hour,
    /// divided by the speed.
    #[arg(long, value_name = "SECONDS", help_heading = "Platform")]
    pub repeat_after: Option<f64>,
    /// Which product's spacing of repeats.
    #[arg(long, value_enum, default_value_t = Spacing::VoiceCall, help_heading = "Platform")]
    pub repeat_spacing: Spacing,
    /// File that takes CDR messages after their last attempt; written only then.
    #[arg(
        long,
        default_value = "undelivered-cdrs.jsonl",
        value_name = "FILE",
        help_heading = "Platform"
    )]
    pub undelivered: PathBuf,
    /// Formula by which notifications are signed.
    #[arg(long, value_enum, default_value_t = Scheme::None, help_heading = "Platform")]
    pub sign: Scheme,
    /// Sign in the older header, X-WSSE.
    #[arg(long, help_heading = "Platform")]
    pub wsse: bool,
    /// File with the APP_Secret to sign with.
    #[arg(long, value_name = "FILE", help_heading = "Platform")]
    pub app_secret_file: Option<PathBuf>,
    /// Base of the notification URLs as configured at the platform, where it differs from the
    /// edges' own; part of what P1 and P2 sign.
    #[arg(long, value_name = "URL", help_heading = "Platform")]
    pub public_url: Option<String>,

    /// Send only, compare nothing.
    #[arg(long, help_heading = "Verification")]
    pub no_verify: bool,
    /// Send nothing; verify the run that the journal is of.
    #[arg(long, requires = "journal", conflicts_with = "no_verify", help_heading = "Verification")]
    pub verify_only: bool,
    /// File that the outcome of each notification is appended to.
    #[arg(long, value_name = "FILE", help_heading = "Verification")]
    pub journal: Option<PathBuf>,
    /// Nobody else has ever sent to this system: a call in it that this run did not make is wrong,
    /// as is a record that a consumer gave up, whosever it is.
    #[arg(long, help_heading = "Verification")]
    pub alone: bool,
    /// How long results may take after the last notification, in seconds.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS", help_heading = "Verification")]
    pub settle: f64,
    /// Price of a started minute of a leg in the tariff that is active.
    #[arg(long, default_value = "0.18", value_name = "AMOUNT", help_heading = "Verification")]
    pub price: Price,
    /// Currency of that tariff.
    #[arg(long, default_value = "CNY", value_name = "ISO", help_heading = "Verification")]
    pub currency: String,
    /// Query API to read topics, ledger and states from.
    #[arg(long, value_name = "URL", help_heading = "Verification")]
    pub query: Option<String>,
    /// Query API of billing, where it is another one.
    #[arg(long, value_name = "URL", help_heading = "Verification")]
    pub billing: Option<String>,
    /// Query API of user-state, where it is another one.
    #[arg(long, value_name = "URL", help_heading = "Verification")]
    pub user_state: Option<String>,
    /// File with the query APIs' bearer token.
    #[arg(long, value_name = "FILE", help_heading = "Verification")]
    pub token_file: Option<PathBuf>,
    /// Show no progress.
    #[arg(long)]
    pub quiet: bool,
}

/// When CDR messages come again (P 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Spacing {
    /// Six times, an hour apart.
    VoiceCall,
    /// 1, 4, 9, 106, 203 and 300 minutes after the attempt before.
    PrivateNumber,
}

/// How notifications are signed (P 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scheme {
    /// Not at all.
    None,
    /// HMAC over URL, nonce and time.
    P1,
    /// HMAC over URL, nonce and Beijing time, on lines of their own.
    P2,
    /// HMAC over nonce and time.
    P3,
    /// SHA-256 over nonce, time and secret.
    P4,
}

#[derive(Parser)]
struct Alone {
    #[command(flatten)]
    options: Options,
}

impl Default for Options {
    /// What the command line's defaults say.
    fn default() -> Self {
        // `parse_from` ends the process on bad usage, which a name alone is not: every option has
        // a default, as a test shows.
        Alone::parse_from(["simulate"]).options
    }
}

impl Options {
    /// Refuses what cannot be used; names the options in a conflict.
    pub fn validate(&self) -> Result<(), SimulatorError> {
        let refuse = |text: &str| Err(SimulatorError::Options(text.to_owned()));
        let positive = [
            ("--rate", self.rate),
            ("--duration", self.duration),
            ("--timeout", self.timeout),
            ("--repeat-after", self.repeat_after.unwrap_or(1.0)),
        ];
        for (name, value) in positive {
            if !(value.is_finite() && value > 0.0 && value <= 1e7) {
                return refuse(&format!("{name} must be more than 0"));
            }
        }
        if !(self.settle.is_finite() && (0.0..=1e7).contains(&self.settle)) {
            return refuse("--settle must be 0 or more");
        }
        if !(1.0..=10_000.0).contains(&self.speed) {
            return refuse("--speed must be between 1 and 10000");
        }
        if !(4..=100_000).contains(&self.numbers) {
            return refuse("--numbers must be between 4 and 100000");
        }
        if !(1..=60_000).contains(&self.connections) {
            return refuse("--connections must be between 1 and 60000");
        }
        if self.sources > 60_000 {
            return refuse("--sources must be at most 60000");
        }
        if self.sign != Scheme::None && self.app_secret_file.is_none() {
            return refuse("--sign needs --app-secret-file");
        }
        if self.verify_only && self.journal.is_none() {
            return refuse("--verify-only needs --journal");
        }
        if self.verify_only && self.no_verify {
            return refuse("--verify-only and --no-verify exclude each other");
        }
        Ok(())
    }

    /// The applications that make calls.
    pub fn applications(&self) -> Vec<App> {
        if self.apps.is_empty() { App::usual() } else { self.apps.clone() }
    }

    /// How many calls there are.
    pub fn total_calls(&self) -> u64 {
        self.calls.unwrap_or_else(|| (self.rate * self.duration).ceil() as u64)
    }

    /// How long an answer is waited for.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout)
    }

    /// The waits before the repeats of a CDR message, in order.
    pub(crate) fn repeats(&self) -> [Duration; 6] {
        let hour = self.repeat_after.unwrap_or(3600.0 / self.speed);
        let minutes = match self.repeat_spacing {
            Spacing::VoiceCall => [60.0; 6],
            Spacing::PrivateNumber => [1.0, 4.0, 9.0, 106.0, 203.0, 300.0],
        };
        minutes.map(|minutes| Duration::from_secs_f64(hour * minutes / 60.0))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_its_defaults_can_be_used() {
        Alone::command().debug_assert();
        let options = Options::default();
        options.validate().unwrap();
        assert_eq!(options.total_calls(), 300);
        assert_eq!(options.applications().len(), 3);
        assert_eq!(options.price.micros, 180_000);
    }

    #[test]
    fn repeats_are_an_hour_apart_by_the_simulated_clock_or_as_asked() {
        let mut options = Options { speed: 1.0, ..Options::default() };
        assert_eq!(options.repeats(), [Duration::from_hours(1); 6]);
        options.speed = 60.0;
        assert_eq!(options.repeats()[0], Duration::from_mins(1));
        options.repeat_after = Some(3600.0);
        options.repeat_spacing = Spacing::PrivateNumber;
        assert_eq!(options.repeats()[0], Duration::from_mins(1));
        assert_eq!(options.repeats()[5], Duration::from_hours(5));
    }

    #[test]
    fn options_that_make_no_sense_are_refused_by_name() {
        let refused = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options.validate().unwrap_err().to_string()
        };
        assert!(refused(|it| it.rate = 0.0).contains("--rate"));
        assert!(refused(|it| it.rate = f64::NAN).contains("--rate"));
        assert!(refused(|it| it.speed = 0.5).contains("--speed"));
        assert!(refused(|it| it.numbers = 3).contains("--numbers"));
        assert!(refused(|it| it.sign = Scheme::P3).contains("--app-secret-file"));
        assert!(refused(|it| it.verify_only = true).contains("--journal"));
    }
}
