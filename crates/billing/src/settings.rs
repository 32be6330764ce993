//! What an operator may choose.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_rating::Limits;

use crate::applications::{Application, Applications};
use crate::calendar::Calendar;
use crate::rules::{BillBy, Rules};

/// Billing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Consumer group. Default `tollgate-billing`.
    pub group: String,
    /// Time zone, by IANA name, that hours, days and months are cut in. Cannot be changed under
    /// a database that holds charges. Default `Asia/Shanghai`.
    pub time_zone: String,
    /// Which instant assigns a call to its hour: `end` of the call, or `answer` of the party
    /// called last. Default `end`.
    pub bill_by: BillBy,
    /// A leg that is longer is implausible and not charged, in seconds. Default 86400.
    pub max_leg_seconds: u32,
    /// A call that ends further after its receipt is implausible and not charged, in seconds.
    /// Default 3600.
    pub max_ahead_seconds: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            group: "tollgate-billing".to_owned(),
            time_zone: "Asia/Shanghai".to_owned(),
            bill_by: BillBy::End,
            max_leg_seconds: 24 * 3600,
            max_ahead_seconds: 3600,
        }
    }
}

impl Settings {
    /// Whether the values can work.
    pub fn validate(&self) -> Result<(), String> {
        if self.group.is_empty() {
            return Err("group must not be empty".to_owned());
        }
        if self.max_leg_seconds == 0 {
            return Err("max_leg_seconds must be at least 1".to_owned());
        }
        Calendar::new(&self.time_zone).map(drop)
    }

    /// The rules that follow, for these applications.
    pub fn rules(&self, applications: Vec<Application>) -> Result<Rules, String> {
        Ok(Rules {
            applications: Applications::new(applications),
            calendar: Calendar::new(&self.time_zone)?,
            bill_by: self.bill_by,
            limits: Limits {
                max_leg_seconds: self.max_leg_seconds.into(),
                max_ahead_seconds: self.max_ahead_seconds.into(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_what_cannot_work_is_refused_by_name() {
        let good = Settings::default();
        assert_eq!(good.validate(), Ok(()));
        let refused = |settings: Settings| settings.validate().expect_err("refused");
        let zone = Settings { time_zone: "Nowhere".into(), ..good.clone() };
        assert!(refused(zone).contains("time_zone"));
        assert!(refused(Settings { group: String::new(), ..good.clone() }).contains("group"));
        let leg = Settings { max_leg_seconds: 0, ..good.clone() };
        assert!(refused(leg).contains("max_leg_seconds"));
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        assert!(serde_json::from_str::<Settings>(r#"{"timezone":"UTC"}"#).is_err());
    }
}
