//! The applications that a simulated platform has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an application was created for; a CDR does not say it by itself (P 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// The platform calls A, then B, and connects them.
    Callback,
    /// The platform calls A, plays, and may collect keys.
    Notification,
    /// The platform calls A and reads digits.
    VerificationCode,
}

impl Service {
    const ALL: [Self; 3] = [Self::Callback, Self::Notification, Self::VerificationCode];

    const fn name(self) -> &'static str {
        match self {
            Self::Callback => "callback",
            Self::Notification => "notification",
            Self::VerificationCode => "verification_code",
        }
    }
}

/// One application.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// What it was created for.
    pub service: Service,
    /// The platform's APP_Key.
    pub app_key: String,
    /// Secret path segment of its notification URLs; without one they are `/status` and `/fee`.
    pub segment: Option<String>,
}

impl App {
    /// One application per service, on the paths without a segment.
    pub fn usual() -> Vec<Self> {
        [
            (Service::Callback, "ka4kESI5simCallbackYnEm2aaa"),
            (Service::Notification, "Nt7f9A2CsimNotifyUss4jq0r57"),
            (Service::VerificationCode, "Vc3bQ81ZsimVerifyTt2x9LmKw0"),
        ]
        .map(|(service, key)| Self { service, app_key: key.to_owned(), segment: None })
        .into()
    }
}

impl FromStr for App {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = "give SERVICE=APP_KEY or SERVICE=APP_KEY/SEGMENT, SERVICE being callback, \
                     notification or verification_code";
        let (service, rest) = text.split_once('=').ok_or(usage)?;
        let service =
            Service::ALL.into_iter().find(|known| known.name() == service).ok_or(usage)?;
        let (app_key, segment) = match rest.split_once('/') {
            Some((key, segment)) => (key, Some(segment)),
            None => (rest, None),
        };
        let is_segment = |text: &str| {
            !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-')
        };
        if app_key.is_empty() || segment.is_some_and(|segment| !is_segment(segment)) {
            return Err(usage.to_owned());
        }
        Ok(Self { service, app_key: app_key.to_owned(), segment: segment.map(str::to_owned) })
    }
}

impl fmt::Display for App {
    /// Without the segment, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.service.name(), self.app_key)
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "App({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_is_read_with_and_without_its_path_segment() {
        let app: App = "callback=key/secret-16-letters".parse().unwrap();
        assert_eq!(app.segment.as_deref(), Some("secret-16-letters"));
        assert_eq!(app.to_string(), "callback=key");
        assert_eq!(format!("{app:?}"), "App(callback=key)");
        assert_eq!("notification=key".parse::<App>().unwrap().segment, None);
        for wrong in ["key", "fax=key", "callback=", "callback=key/", "callback=key/a_b"] {
            assert!(wrong.parse::<App>().is_err(), "{wrong}");
        }
    }
}
