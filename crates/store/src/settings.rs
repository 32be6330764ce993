//! Where the database is and how long it may take.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use sqlx::postgres::PgConnectOptions;
use tollgate_stream::StoreError;

/// The database of one consumer.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `postgres://user:password@host:port/database` or `sqlite:path`. One of `url` and
    /// `url_file` is needed. TLS of PostgreSQL is set by the parameters `sslmode` and
    /// `sslrootcert` of the url. No default.
    #[serde(serialize_with = "without_password")]
    pub url: String,
    /// File that contains the url, for a mounted secret. No default.
    pub url_file: Option<PathBuf>,
    /// PostgreSQL schema that holds the tables; created when missing. Lower-case letters, digits
    /// and underscores. Default `tollgate`.
    pub schema: String,
    /// `application_name` that PostgreSQL shows for the sessions. Default `tollgate`.
    pub application_name: String,
    /// Connections of the PostgreSQL pool, or reading connections to the SQLite file (writes have
    /// one of their own). 1 to 1000. Default 8.
    pub max_connections: u32,
    /// How long a caller waits for a connection, including making one, in milliseconds.
    /// Default 5000.
    pub connect_timeout_ms: u64,
    /// PostgreSQL ends a statement that takes longer, in milliseconds. Default 30000.
    pub statement_timeout_ms: u64,
    /// PostgreSQL ends a statement that waits longer for a lock, in milliseconds; for SQLite, how
    /// long a writer waits for another process. Longer than `idle_in_transaction_timeout_ms`, so
    /// that a takeover outlasts a stopped holder. Default 10000.
    pub lock_timeout_ms: u64,
    /// PostgreSQL ends a session that sits in a transaction without a statement, in milliseconds:
    /// what a stopped process holds is released after this. Default 5000.
    pub idle_in_transaction_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: String::new(),
            url_file: None,
            schema: "tollgate".to_owned(),
            application_name: "tollgate".to_owned(),
            max_connections: 8,
            connect_timeout_ms: 5_000,
            statement_timeout_ms: 30_000,
            lock_timeout_ms: 10_000,
            idle_in_transaction_timeout_ms: 5_000,
        }
    }
}

impl Settings {
    /// Settings for this url, the rest at its defaults.
    pub fn for_url(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Checks what serde cannot, and reads `url_file`; names the settings in a conflict.
    pub fn validate(&self) -> Result<(), String> {
        match (self.url.is_empty(), &self.url_file) {
            (true, None) => return Err("set url or url_file: where the database is".to_owned()),
            (false, Some(_)) => return Err("url and url_file are both set: keep one".to_owned()),
            _ => {
                self.read_target()?;
            }
        }
        let first_is_digit = self.schema.starts_with(|c: char| c.is_ascii_digit());
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if self.schema.is_empty()
            || self.schema.len() > 63
            || first_is_digit
            || self.schema.starts_with("pg_")
            || !self.schema.chars().all(plain)
        {
            return Err("schema must be 1 to 63 lower-case letters, digits and underscores, not \
                        begin with a digit, and not with pg_"
                .to_owned());
        }
        if self.application_name.is_empty()
            || self.application_name.len() > 63
            || !self.application_name.chars().all(|c| c.is_ascii_graphic())
        {
            return Err("application_name must be 1 to 63 printable characters".to_owned());
        }
        if !(1..=1000).contains(&self.max_connections) {
            return Err("max_connections must be between 1 and 1000".to_owned());
        }
        for (name, value) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("statement_timeout_ms", self.statement_timeout_ms),
            ("lock_timeout_ms", self.lock_timeout_ms),
            ("idle_in_transaction_timeout_ms", self.idle_in_transaction_timeout_ms),
        ] {
            if !(1..=3_600_000).contains(&value) {
                return Err(format!("{name} must be between 1 and 3600000"));
            }
        }
        if self.lock_timeout_ms <= self.idle_in_transaction_timeout_ms {
            return Err(
                "lock_timeout_ms must be greater than idle_in_transaction_timeout_ms, or a \
                        takeover gives up before a stopped holder is thrown out"
                    .to_owned(),
            );
        }
        if self.statement_timeout_ms < self.lock_timeout_ms {
            return Err("statement_timeout_ms must not be less than lock_timeout_ms, which could \
                        never be reached"
                .to_owned());
        }
        Ok(())
    }

    /// Where the tables are, for people: without password.
    pub fn place(&self) -> Result<String, StoreError> {
        Ok(match self.target()? {
            Target::Postgres(url) => format!("schema {} of {}", self.schema, redact(&url)),
            Target::Sqlite(path) => format!("SQLite file {}", path.display()),
        })
    }

    /// The url in force, read from its file when it is there.
    pub(crate) fn target(&self) -> Result<Target, StoreError> {
        self.read_target().map_err(StoreError::Refused)
    }

    fn read_target(&self) -> Result<Target, String> {
        let Some(file) = &self.url_file else { return Target::parse(self.url.trim()) };
        let names = format!("url_file names {}", file.display());
        let text = fs::read_to_string(file)
            .map_err(|error| format!("{names}, which cannot be read: {error}"))?;
        Target::parse(text.trim()).map_err(|reason| format!("{names}: {reason}"))
    }
}

/// Which database a url names.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The url as given.
    Postgres(String),
    /// The file.
    Sqlite(PathBuf),
}

impl Target {
    fn parse(url: &str) -> Result<Self, String> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // The parser's own message may quote the url, and the url contains the password.
            PgConnectOptions::from_str(url).map_err(|_| {
                "url of PostgreSQL cannot be parsed; write %-codes for characters such as / # @ \
                 in user and password"
                    .to_owned()
            })?;
            return Ok(Self::Postgres(url.to_owned()));
        }
        let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
        match path {
            Some("" | ":memory:") => {
                Err("url names no file: write sqlite:path, a database in memory would be lost"
                    .to_owned())
            }
            Some(path) if path.contains(['?', '\0']) => {
                Err("url of SQLite takes no parameters: write sqlite:path".to_owned())
            }
            Some(path) => Ok(Self::Sqlite(PathBuf::from(path))),
            None => Err("url must begin with postgres:// or sqlite:".to_owned()),
        }
    }
}

/// The url with its password replaced.
fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    // A password may also stand among the parameters; none of them is worth the risk.
    let (rest, parameters) = match rest.split_once('?') {
        Some((rest, _)) => (rest, "?***"),
        None => (rest, ""),
    };
    match rest.rsplit_once('@') {
        Some((login, host)) => {
            let user = login.split_once(':').map_or(login, |(user, _)| user);
            format!("{scheme}://{user}:***@{host}{parameters}")
        }
        None => format!("{scheme}://{rest}{parameters}"),
    }
}

fn without_password<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&redact(url))
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("url", &redact(&self.url))
            .field("url_file", &self.url_file)
            .field("schema", &self.schema)
            .field("application_name", &self.application_name)
            .field("max_connections", &self.max_connections)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("statement_timeout_ms", &self.statement_timeout_ms)
            .field("lock_timeout_ms", &self.lock_timeout_ms)
            .field("idle_in_transaction_timeout_ms", &self.idle_in_transaction_timeout_ms)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_with_a_url_are_valid_and_without_one_are_not() {
        assert_eq!(Settings::for_url("sqlite:/tmp/x.db").validate(), Ok(()));
        assert_eq!(Settings::for_url("postgres://a@b/c").validate(), Ok(()));
        assert!(Settings::default().validate().is_err_and(|e| e.contains("url_file")));
    }

    #[test]
    fn each_conflict_names_both_settings() {
        let good = Settings::for_url("sqlite:x");
        let both = Settings { url_file: Some("x".into()), ..good.clone() };
        assert!(both.validate().is_err_and(|e| e.contains("url and url_file")));
        let lock = Settings { lock_timeout_ms: 5_000, ..good.clone() };
        assert!(lock.validate().is_err_and(
            |e| e.contains("lock_timeout_ms") && e.contains("idle_in_transaction_timeout_ms")
        ));
        let statement = Settings { statement_timeout_ms: 9_999, ..good };
        assert!(statement.validate().is_err_and(
            |e| e.contains("statement_timeout_ms") && e.contains("lock_timeout_ms")
        ));
    }

    #[test]
    fn odd_values_are_refused() {
        let good = Settings::for_url("sqlite:x");
        for bad in ["", "1a", "Tollgate", "a;b", "pg_x", "a\"b", &"x".repeat(64)] {
            let settings = Settings { schema: bad.to_owned(), ..good.clone() };
            assert!(settings.validate().is_err(), "schema {bad:?}");
        }
        for bad in ["mysql://x", "sqlite:", "sqlite::memory:", "sqlite:x?mode=rw", "x"] {
            assert!(Settings::for_url(bad).validate().is_err(), "url {bad:?}");
        }
        assert!(Settings { max_connections: 0, ..good.clone() }.validate().is_err());
        assert!(Settings { connect_timeout_ms: 0, ..good.clone() }.validate().is_err());
        assert!(Settings { application_name: "a b".into(), ..good }.validate().is_err());
    }

    #[test]
    fn a_password_is_neither_shown_nor_serialized() {
        let settings = Settings::for_url("postgres://me:s3c@ret@db:5432/x?password=other&a=b");
        let shown = format!("{settings:?}{}", serde_json::to_string(&settings).unwrap());
        for part in ["s3c", "ret@", "other"] {
            assert!(!shown.contains(part), "{part} in {shown}");
        }
        assert!(shown.contains("postgres://me:***@db:5432/x?***"));
        let place = settings.place().unwrap();
        assert_eq!(place, "schema tollgate of postgres://me:***@db:5432/x?***");
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        let read = serde_json::from_str::<Settings>(r#"{"url":"sqlite:x","max_conections":3}"#);
        assert!(read.is_err());
    }
}
