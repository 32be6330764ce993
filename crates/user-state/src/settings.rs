//! What an operator may choose.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fold::Expiry;

/// Settings of the user-state service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Consumer group. Default `user-state`.
    pub group: String,
    /// A leg that is being called or rings is given up this long after the call's last event, in
    /// seconds. A change applies to events that come after it. Default 300.
    pub unanswered_expiry_seconds: u32,
    /// An answered leg is given up this long after the call's last event, in seconds.
    /// Default 86400.
    pub answered_expiry_seconds: u32,
    /// Calls are forgotten this many days after anything new was heard of them; 0 keeps them for
    /// ever. Longer than the 30 days that topics are kept, so that a replay changes nothing.
    /// Default 92.
    pub keep_days: u32,
    /// File with a secret key of at least 16 bytes: numbers and session ids in topic
    /// `user-states`, and in the live feed made from it, are then keyed hashes. No default: they
    /// are shown as they are.
    pub pseudonym_key_file: Option<PathBuf>,
    /// How often the number of calling, ringing and busy numbers is counted for the metrics, in
    /// seconds. Default 15.
    pub census_interval_seconds: u32,
    /// Clients of the live feed at a time; one more is answered 503. Default 1000.
    pub changes_max_clients: u32,
    /// Changes kept, once for all clients of the live feed, for those that read slowly; beyond, a
    /// client is told and disconnected. A change takes 1 KiB as a rule and 140 KiB at most.
    /// Default 1024.
    pub changes_buffer: u32,
    /// A comment is sent to a silent client of the live feed this often, in seconds. Default 15.
    pub changes_keep_alive_seconds: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            group: "user-state".to_owned(),
            unanswered_expiry_seconds: 300,
            answered_expiry_seconds: 86_400,
            keep_days: 92,
            pseudonym_key_file: None,
            census_interval_seconds: 15,
            changes_max_clients: 1_000,
            changes_buffer: 1_024,
            changes_keep_alive_seconds: 15,
        }
    }
}

impl Settings {
    /// Checks what serde cannot; names the settings in a conflict.
    pub fn validate(&self) -> Result<(), String> {
        if self.group.is_empty() || self.group.len() > 200 {
            return Err("group must be 1 to 200 bytes".to_owned());
        }
        for (name, value) in [
            ("unanswered_expiry_seconds", self.unanswered_expiry_seconds),
            ("answered_expiry_seconds", self.answered_expiry_seconds),
            ("census_interval_seconds", self.census_interval_seconds),
            ("changes_max_clients", self.changes_max_clients),
            ("changes_keep_alive_seconds", self.changes_keep_alive_seconds),
        ] {
            if value == 0 {
                return Err(format!("{name} must be at least 1"));
            }
        }
        if !(2..=65_536).contains(&self.changes_buffer) {
            return Err("changes_buffer must be between 2 and 65536".to_owned());
        }
        if self.answered_expiry_seconds < self.unanswered_expiry_seconds {
            return Err("answered_expiry_seconds must not be less than \
                        unanswered_expiry_seconds: answering would shorten a call's life"
                .to_owned());
        }
        let keep_seconds = u64::from(self.keep_days) * 86_400;
        if self.keep_days > 0 && keep_seconds <= u64::from(self.answered_expiry_seconds) {
            return Err("keep_days must be longer than answered_expiry_seconds, or calls are \
                        forgotten while they last"
                .to_owned());
        }
        if self.keep_days > 36_500 {
            return Err("keep_days must be at most 36500; 0 keeps calls for ever".to_owned());
        }
        Ok(())
    }

    /// How long calls live.
    pub fn expiry(&self) -> Expiry {
        Expiry {
            unanswered_ms: i64::from(self.unanswered_expiry_seconds) * 1000,
            answered_ms: i64::from(self.answered_expiry_seconds) * 1000,
        }
    }

    /// How long a call is kept after its last event, milliseconds; `None` is for ever.
    pub fn keep_ms(&self) -> Option<i64> {
        (self.keep_days > 0).then(|| i64::from(self.keep_days) * 86_400_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_conflicts_name_both_settings() {
        assert_eq!(Settings::default().validate(), Ok(()));
        let shorter = Settings { answered_expiry_seconds: 10, ..Settings::default() };
        let error = shorter.validate().unwrap_err();
        assert!(error.contains("answered_expiry_seconds"), "{error}");
        assert!(error.contains("unanswered_expiry_seconds"), "{error}");
        let forgetful = Settings { keep_days: 1, ..Settings::default() };
        let error = forgetful.validate().unwrap_err();
        assert!(error.contains("keep_days") && error.contains("answered_expiry"), "{error}");
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        assert!(serde_json::from_str::<Settings>(r#"{"grup":"x"}"#).is_err());
    }
}
