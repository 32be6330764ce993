//! What the catalogue asks of a cluster's topic, in a form that can be compared.

use std::fmt;

/// What a topic must be like at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// Fewest partitions.
    pub partitions_at_least: i32,
    /// The topic that must have the same number of partitions.
    pub same_partitions_as: Option<&'static str>,
    /// Fewest copies of each partition.
    pub replication_at_least: i32,
    /// Topic settings and what each must be.
    pub settings: Vec<(&'static str, Need)>,
}

/// What a topic setting must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// This text.
    Exactly(&'static str),
    /// This number or a greater one.
    AtLeast(i64),
    /// This number or a greater one, -1 being without limit.
    AtLeastOrUnlimited(i64),
    /// -1, without limit.
    Unlimited,
    /// This number or a smaller one.
    AtMost(i64),
}

impl Need {
    /// The need behind a setting of the catalogue: what may be exceeded without harm, may be.
    pub(super) fn of_setting(name: &str, value: &'static str) -> Self {
        let number = value.parse::<i64>().ok();
        match (name, number) {
            (_, Some(-1)) => Self::Unlimited,
            ("retention.ms", Some(least)) => Self::AtLeastOrUnlimited(least),
            ("max.message.bytes" | "min.insync.replicas" | "delete.retention.ms", Some(least)) => {
                Self::AtLeast(least)
            }
            ("segment.ms", Some(most)) => Self::AtMost(most),
            _ => Self::Exactly(value),
        }
    }

    /// Whether a cluster's value will do; `None` is a setting the cluster does not report.
    pub fn is_met_by(self, actual: Option<&str>) -> bool {
        let Some(actual) = actual.map(str::trim) else { return false };
        let number = || actual.parse::<i64>().ok();
        match self {
            Self::Exactly(value) => actual == value,
            Self::AtLeast(least) => number().is_some_and(|number| number >= least),
            Self::AtLeastOrUnlimited(least) => {
                number().is_some_and(|number| number == -1 || number >= least)
            }
            Self::Unlimited => number() == Some(-1),
            Self::AtMost(most) => number().is_some_and(|number| number <= most),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(value) => write!(f, "{value}"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::AtLeastOrUnlimited(least) => write!(f, "at least {least}, or -1 for unlimited"),
            Self::Unlimited => write!(f, "-1 for unlimited"),
            Self::AtMost(most) => write!(f, "at most {most}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_may_grant_more_but_not_less() {
        let retention = Need::of_setting("retention.ms", "1000");
        assert!(retention.is_met_by(Some("1000")));
        assert!(retention.is_met_by(Some("1001")));
        assert!(retention.is_met_by(Some("-1")));
        assert!(!retention.is_met_by(Some("999")));
        assert!(!retention.is_met_by(Some("soon")));

        let in_sync = Need::of_setting("min.insync.replicas", "2");
        assert!(in_sync.is_met_by(Some("3")));
        assert!(!in_sync.is_met_by(Some("1")));
        assert!(!in_sync.is_met_by(Some("-1")));

        let roll = Need::of_setting("segment.ms", "1000");
        assert!(roll.is_met_by(Some("999")));
        assert!(!roll.is_met_by(Some("1001")));
    }

    #[test]
    fn what_may_not_differ_is_compared_exactly() {
        let unclean = Need::of_setting("unclean.leader.election.enable", "false");
        assert!(unclean.is_met_by(Some("false")));
        assert!(!unclean.is_met_by(Some("true")));

        let policy = Need::of_setting("cleanup.policy", "compact");
        assert!(!policy.is_met_by(Some("compact,delete")));

        let bytes = Need::of_setting("retention.bytes", "-1");
        assert!(bytes.is_met_by(Some("-1")));
        assert!(!bytes.is_met_by(Some("1073741824")));
    }
}
