//! Whose notification is it: the configured applications and how a request names one.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::PathBuf;

use jiff::tz::Offset;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tollgate_runtime::settings::{SettingsError, read_secret};

use crate::settings::{Ack, check_url_length};

/// The platform's service an application was created for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Voice callback.
    Callback,
    /// Voice notification.
    Notification,
    /// Voice verification code.
    Verification,
    /// PrivateNumber AX.
    PrivateAx,
    /// PrivateNumber AXB.
    PrivateAxb,
}

/// One application at the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// A short name for people, dashboards and labels.
    pub name: String,
    /// The platform's APP_Key.
    pub app_key: String,
    /// The service it was created for; a CDR does not tell a notification from a verification
    /// code. Default: none.
    #[serde(default)]
    pub service: Option<Service>,
    /// Unguessable path segment of its notification URLs: letters, digits and hyphens, 16 at
    /// least. Prefer `path_secret_file`. Default: none, the paths are `/status` and `/fee`.
    #[serde(default)]
    pub path_secret: Option<String>,
    /// File that holds the path segment. Default: none.
    #[serde(default)]
    pub path_secret_file: Option<PathBuf>,
    /// File that holds the platform's APP_Secret, by which X-AKSK is verified. Default: none,
    /// nothing is verified.
    #[serde(default)]
    pub app_secret_file: Option<PathBuf>,
    /// Answer 403 to what is not verified. A refused status is lost for good: think twice.
    /// Default false.
    #[serde(default)]
    pub enforce_authentication: bool,
    /// What a 200 means for this application. Default: as `edge.ack`.
    #[serde(default)]
    pub ack: Option<Ack>,
    /// Minutes that this source's clock texts are ahead of UTC, 480 for a relay that converts to
    /// Beijing time. Applies to what comes by the application's own path, so it needs a path
    /// secret. Default 0, as the platform documents.
    #[serde(default)]
    pub utc_offset_minutes: i16,
}

impl Application {
    /// Refuses what contradicts itself.
    fn check(&self, has_path_secret: bool) -> Result<(), &'static str> {
        if self.enforce_authentication && self.app_secret_file.is_none() {
            return Err("enforce_authentication needs app_secret_file");
        }
        if self.utc_offset_minutes.unsigned_abs() > 14 * 60 {
            return Err("utc_offset_minutes is beyond 14 hours");
        }
        if self.utc_offset_minutes != 0 && !has_path_secret {
            return Err(
                "utc_offset_minutes needs path_secret_file, since only the path tells a source before its times are read",
            );
        }
        Ok(())
    }

    fn refused(&self, reason: &str) -> SettingsError {
        refused(format!("application {}: {reason}", self.name))
    }
}

/// An application with its secrets read.
#[derive(Clone)]
pub struct Known {
    /// As configured; the secrets in it are not used.
    pub settings: Application,
    /// APP_Secret.
    pub app_secret: Option<String>,
    /// The URLs that the platform may have signed: status, then fee.
    pub urls: Vec<String>,
}

/// The applications by path secret and by key.
#[derive(Clone, Default)]
pub struct Applications {
    known: Vec<Known>,
    by_path: HashMap<[u8; 32], usize>,
    by_key: HashMap<String, usize>,
}

impl Applications {
    /// Reads the secrets and refuses what is ambiguous.
    pub fn new(
        configured: &[Application],
        public_url: Option<&str>,
    ) -> Result<Self, SettingsError> {
        let mut this = Self::default();
        for application in configured {
            this.add(application, public_url)?;
        }
        Ok(this)
    }

    fn add(
        &mut self,
        application: &Application,
        public_url: Option<&str>,
    ) -> Result<(), SettingsError> {
        let path_secret = path_secret(application)?;
        if application.app_key.is_empty() || application.name.is_empty() {
            return Err(refused("applications need a name and an app_key"));
        }
        application
            .check(path_secret.is_some())
            .and_then(|()| self.enter(application, path_secret.as_deref()))
            .map_err(|reason| application.refused(reason))?;
        let urls = urls(public_url, path_secret.as_deref());
        for url in &urls {
            check_url_length(url, &application.name).map_err(refused)?;
        }
        let app_secret = application
            .app_secret_file
            .as_deref()
            .map(|path| read_secret("applications.app_secret_file", path))
            .transpose()?;
        self.known.push(Known { settings: application.clone(), app_secret, urls });
        Ok(())
    }

    /// Enters what an application is found by, which must be its own, as its name must.
    fn enter(
        &mut self,
        application: &Application,
        path_secret: Option<&str>,
    ) -> Result<(), &'static str> {
        let index = self.known.len();
        if self.by_key.insert(application.app_key.clone(), index).is_some() {
            return Err("its app_key is taken");
        }
        if self.known.iter().any(|other| other.settings.name == application.name) {
            return Err("its name is taken");
        }
        if let Some(secret) = path_secret
            && self.by_path.insert(digest(secret), index).is_some()
        {
            return Err("its path_secret is taken");
        }
        Ok(())
    }

    /// The application of a path's secret segment. Takes as long for a near miss as for any
    /// other: digests are compared, not the text.
    pub fn by_path_secret(&self, segment: &str) -> Option<&Known> {
        self.by_path.get(&digest(segment)).map(|index| &self.known[*index])
    }

    /// The application of an APP_Key.
    pub fn by_key(&self, app_key: &str) -> Option<&Known> {
        self.by_key.get(app_key).map(|index| &self.known[*index])
    }

    /// Whether any application refuses what is not verified.
    pub fn any_enforces(&self) -> bool {
        self.known.iter().any(|known| known.settings.enforce_authentication)
    }

    /// Zone of an application's clock texts that name none; UTC for one that is not configured.
    pub fn zone(&self, app_key: &str) -> Offset {
        zone(self.by_key(app_key).map_or(0, |known| known.settings.utc_offset_minutes))
    }

    /// All of them.
    pub fn all(&self) -> &[Known] {
        &self.known
    }
}

/// East of UTC by so many minutes.
pub fn zone(utc_offset_minutes: i16) -> Offset {
    Offset::from_seconds(i32::from(utc_offset_minutes) * 60).unwrap_or(Offset::UTC)
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn refused(reason: impl Display) -> SettingsError {
    SettingsError::Refused(format!("  {reason}"))
}

fn path_secret(application: &Application) -> Result<Option<String>, SettingsError> {
    let refuse = |reason| Err(application.refused(reason));
    let secret = match (&application.path_secret, &application.path_secret_file) {
        (Some(_), Some(_)) => return refuse("path_secret and path_secret_file exclude each other"),
        (Some(secret), None) => secret.clone(),
        (None, Some(path)) => read_secret("applications.path_secret_file", path)?,
        (None, None) => return Ok(None),
    };
    if secret.len() < 16 || !secret.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return refuse("its path secret must be 16 or more letters, digits and hyphens");
    }
    Ok(Some(secret))
}

fn urls(public_url: Option<&str>, secret: Option<&str>) -> Vec<String> {
    let Some(base) = public_url else { return Vec::new() };
    let base = base.trim_end_matches('/');
    let segment = secret.map_or_else(String::new, |secret| format!("/{secret}"));
    ["status", "fee"].map(|kind| format!("{base}{segment}/{kind}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(name: &str, secret: Option<&str>) -> Application {
        Application {
            name: name.into(),
            app_key: format!("key-{name}"),
            service: None,
            path_secret: secret.map(Into::into),
            path_secret_file: None,
            app_secret_file: None,
            enforce_authentication: false,
            ack: None,
            utc_offset_minutes: 0,
        }
    }

    #[test]
    fn a_path_secret_names_its_application_and_no_other() {
        let applications = Applications::new(
            &[application("one", Some("a-long-enough-secret")), application("two", None)],
            Some("https://voice.example.com"),
        )
        .unwrap();
        let known = applications.by_path_secret("a-long-enough-secret").unwrap();
        assert_eq!(known.settings.name, "one");
        assert_eq!(known.urls[1], "https://voice.example.com/a-long-enough-secret/fee");
        assert!(applications.by_path_secret("a-long-enough-secreT").is_none());
        assert_eq!(applications.by_key("key-two").unwrap().settings.name, "two");
        assert!(applications.by_key("anything").is_none());
    }

    #[test]
    fn a_zone_needs_a_path_that_tells_its_source() {
        let mut relay = application("relay", None);
        relay.utc_offset_minutes = 480;
        assert!(Applications::new(&[relay.clone()], None).is_err());
        relay.path_secret = Some("a-long-enough-secret".into());
        assert!(Applications::new(&[relay], None).is_ok());
    }

    #[test]
    fn what_is_weak_doubled_or_contradictory_is_refused_by_name() {
        let one = || application("one", Some("a-long-enough-secret"));
        let other = Application { name: "other".into(), app_key: "key-other".into(), ..one() };
        let cases = [
            (
                vec![Application { app_key: String::new(), ..one() }],
                "applications need a name and an app_key",
            ),
            (
                vec![Application { path_secret_file: Some("file".into()), ..one() }],
                "application one: path_secret and path_secret_file exclude each other",
            ),
            (
                vec![application("one", Some("short"))],
                "application one: its path secret must be 16 or more letters, digits and hyphens",
            ),
            (
                vec![application("one", Some("under_score_under_score"))],
                "application one: its path secret must be 16 or more letters, digits and hyphens",
            ),
            (
                vec![Application { enforce_authentication: true, ..one() }],
                "application one: enforce_authentication needs app_secret_file",
            ),
            (
                vec![Application { utc_offset_minutes: 841, ..one() }],
                "application one: utc_offset_minutes is beyond 14 hours",
            ),
            (
                vec![Application { utc_offset_minutes: 840, ..application("one", None) }],
                "application one: utc_offset_minutes needs path_secret_file, since only the path tells a source before its times are read",
            ),
            (
                vec![one(), Application { app_key: one().app_key, ..other.clone() }],
                "application other: its app_key is taken",
            ),
            (
                vec![one(), Application { name: one().name, ..other.clone() }],
                "application one: its name is taken",
            ),
            (vec![one(), other], "application other: its path_secret is taken"),
        ];
        for (configured, reason) in cases {
            let Err(SettingsError::Refused(said)) = Applications::new(&configured, None) else {
                panic!("not refused: {reason}");
            };
            assert_eq!(said, format!("  {reason}"));
        }
    }
}
