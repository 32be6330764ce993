//! Settings: a TOML file, over it the environment, over it the flags; unknown names refused.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Prefix of every environment variable that is a setting.
pub const ENV_PREFIX: &str = "TOLLGATE_";

/// Separates the levels of a setting in an environment variable: `TOLLGATE_EDGE__LISTEN`.
pub const ENV_SEPARATOR: &str = "__";

/// Environment variables with the prefix that are read by the command line and are no settings.
const NOT_SETTINGS: [&str; 1] = ["config"];

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file that was named cannot be read.
    #[error("settings file {path} {reason}; name another with --config, or leave it out")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A name is unknown, or a value does not fit; one line each.
    #[error("settings are refused:\n{0}")]
    Refused(String),
    /// A file that holds a secret cannot be read, or is empty.
    #[error("{setting} names {path}, which {reason}")]
    Secret {
        /// Which setting.
        setting: String,
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Reads the settings. `overrides` come from flags and win over everything; a flag that was not
/// given must not be in them.
pub fn load<T: DeserializeOwned>(
    file: Option<&Path>,
    overrides: &serde_json::Value,
) -> Result<T, SettingsError> {
    let mut figment = Figment::new();
    if let Some(path) = file {
        check_file(path).map_err(|reason| SettingsError::File { path: path.to_owned(), reason })?;
        figment = figment.merge(Toml::file_exact(path));
    }
    let environment = Env::prefixed(ENV_PREFIX)
        .ignore(&NOT_SETTINGS)
        .filter(|name| !is_of_a_service(name.as_str()))
        .split(ENV_SEPARATOR);
    figment
        .merge(environment)
        .merge(Serialized::globals(overrides))
        .extract()
        .map_err(|errors| SettingsError::Refused(describe(errors)))
}

/// Refuses what is not a file that can be read, and says what it is.
fn check_file(path: &Path) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let found = std::fs::metadata(path).map_err(cannot)?;
    if found.is_dir() {
        return Err("is a directory".to_owned());
    }
    if !found.is_file() {
        return Err("is not a regular file".to_owned());
    }
    std::fs::File::open(path).map(drop).map_err(cannot)
}

/// Whether Kubernetes has set this variable, given without the prefix. It tells each pod the
/// addresses of the services of its namespace: one called `tollgate-edge` makes
/// `TOLLGATE_EDGE_SERVICE_HOST`, `TOLLGATE_EDGE_SERVICE_PORT_HTTP`, `TOLLGATE_EDGE_PORT` and
/// `TOLLGATE_EDGE_PORT_80_TCP_ADDR`.
fn is_of_a_service(name: &str) -> bool {
    let name = format!("_{name}");
    let is_of_a_port = name.split("_PORT_").skip(1).any(|it| it.starts_with(char::is_numeric));
    !name.contains(ENV_SEPARATOR)
        && (name.ends_with("_SERVICE_HOST")
            || name.ends_with("_PORT")
            || name.contains("_SERVICE_PORT_")
            || is_of_a_port)
}

fn describe(errors: figment::Error) -> String {
    let mut lines: Vec<String> = errors
        .into_iter()
        .map(|error| {
            let place = error.path.join(".");
            let source = error.metadata.as_ref().map_or_else(String::new, |metadata| {
                format!(" (from {})", source_of(metadata, &error))
            });
            // The value itself may be a secret: `kind` of an invalid type quotes it, so only the
            // names and the expectation are shown.
            format!(
                "  {}{source}: {}",
                if place.is_empty() { "settings" } else { &place },
                kind(&error.kind)
            )
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

fn source_of(metadata: &figment::Metadata, error: &figment::Error) -> String {
    match &metadata.source {
        Some(figment::Source::File(path)) => path.display().to_string(),
        _ if metadata.name.contains("environment") => {
            format!("{ENV_PREFIX}{}", error.path.join(ENV_SEPARATOR).to_uppercase())
        }
        // Only the flags come from code.
        Some(figment::Source::Code(_)) => "--set or a flag".to_owned(),
        _ => metadata.name.to_string(),
    }
}

fn kind(kind: &figment::error::Kind) -> String {
    use figment::error::Kind;
    match kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            format!("does not fit; expected {expected}")
        }
        Kind::UnknownField(name, known) => {
            format!("unknown setting `{name}`; known here: {}", known.join(", "))
        }
        Kind::UnknownVariant(_, known) => format!("expected one of {}", known.join(", ")),
        Kind::MissingField(name) => format!("missing setting `{name}`"),
        other => other.to_string(),
    }
}

/// Reads a secret from its file, less a line end. `setting` is named in the error.
pub fn read_secret(setting: &str, path: &Path) -> Result<String, SettingsError> {
    let refused = |reason: String| SettingsError::Secret {
        setting: setting.to_owned(),
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| refused(format!("cannot be read: {error}")))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    // Everybody knows it.
    if secret.is_empty() {
        return Err(refused("is empty".to_owned()));
    }
    Ok(secret.to_owned())
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Filter in the form of `tracing-subscriber`, such as `info` or `info,tollgate_edge=debug`:
    /// levels (`off`, `error`, `warn`, `info`, `debug`, `trace`) and MODULE=LEVEL, by commas.
    /// Default `info`.
    pub filter: String,
    /// `text` for people, `json` for collectors. Default `text`.
    pub format: LogFormat,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text }
    }
}

/// The listeners besides ingest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerSettings {
    /// Address of health and metrics: `/livez`, `/readyz`, `/metrics`. They hold no personal
    /// data. Default `127.0.0.1:9090`.
    pub health: std::net::SocketAddr,
    /// Address of the query API. Beyond loopback it needs `query_token_file`. Default
    /// `127.0.0.1:8081`.
    pub query: std::net::SocketAddr,
    /// File that holds the bearer token of the query API. Default: none, loopback only.
    pub query_token_file: Option<PathBuf>,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            health: ([127, 0, 0, 1], 9090).into(),
            query: ([127, 0, 0, 1], 8081).into(),
            query_token_file: None,
        }
    }
}

impl ListenerSettings {
    /// Reads the bearer token of the query API, if one is set.
    pub fn query_token(&self) -> Result<Option<String>, SettingsError> {
        let file = self.query_token_file.as_deref();
        file.map(|path| read_secret("listeners.query_token_file", path)).transpose()
    }

    /// Refuses a query listener that anybody could ask.
    pub fn validate(&self) -> Result<(), String> {
        if !self.query.ip().is_loopback() && self.query_token_file.is_none() {
            return Err(format!(
                "listeners.query is {}, which is not loopback, and listeners.query_token_file is not set; set it, or bind the query API to 127.0.0.1",
                self.query
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        log: LogSettings,
        listeners: ListenerSettings,
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn an_unknown_setting_is_refused_with_its_name_and_file() {
        let file = file("[log]\nfilterr = \"debug\"\n");
        let error = load::<Sample>(Some(file.path()), &serde_json::json!({})).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("filterr"), "{text}");
        assert!(text.contains(&file.path().display().to_string()), "{text}");
    }

    #[test]
    fn variables_that_kubernetes_sets_for_a_service_are_known() {
        let set = [
            "EDGE_SERVICE_HOST",
            "EDGE_SERVICE_PORT",
            "EDGE_SERVICE_PORT_HTTP",
            "EDGE_PORT",
            "EDGE_PORT_80_TCP",
            "EDGE_PORT_80_TCP_PROTO",
            "EDGE_PORT_80_TCP_PORT",
            "EDGE_PORT_80_TCP_ADDR",
            "SERVICE_HOST",
            "PORT",
            "PORT_443_TCP_ADDR",
        ];
        for name in set {
            assert!(is_of_a_service(name), "{name}");
        }
        for name in ["EDGE_LISTEN", "EDGE__LISTEN", "EDGE__PORT", "PORTS", "LOG_FILTER"] {
            assert!(!is_of_a_service(name), "{name}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = file("[log]\nfilter = \"debug\"\n");
        let sample: Sample =
            load(Some(file.path()), &serde_json::json!({"log": {"filter": "warn"}})).unwrap();
        assert_eq!(sample.log.filter, "warn");
    }

    #[test]
    fn a_refused_value_is_not_quoted() {
        let file = file("[listeners]\nhealth = \"s3cret\"\n");
        let error = load::<Sample>(Some(file.path()), &serde_json::json!({})).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert!(error.to_string().contains("listeners.health"), "{error}");
    }

    #[test]
    fn what_a_flag_sets_wrongly_is_said_of_the_flag() {
        let flags = serde_json::json!({"log": {"filterr": "debug"}});
        let text = load::<Sample>(None, &flags).unwrap_err().to_string();
        assert!(text.contains("log.filterr (from --set or a flag): unknown setting"), "{text}");
    }

    #[test]
    fn a_settings_file_that_cannot_be_read_is_named_with_the_reason() {
        let refused = |path: &Path| {
            load::<Sample>(Some(path), &serde_json::json!({})).unwrap_err().to_string()
        };
        let absent = refused(Path::new("/no/such.toml"));
        assert!(absent.contains("/no/such.toml cannot be read: No such file"), "{absent}");
        let dir = tempfile::tempdir().unwrap();
        let text = refused(dir.path());
        assert!(text.contains(&format!("{} is a directory", dir.path().display())), "{text}");
    }

    #[test]
    fn an_open_query_listener_needs_a_token() {
        let mut sample = Sample::default();
        assert!(sample.listeners.validate().is_ok());
        sample.listeners.query = ([0, 0, 0, 0], 8081).into();
        let reason = sample.listeners.validate().unwrap_err();
        assert!(reason.contains("listeners.query") && reason.contains("query_token_file"));
    }
}
