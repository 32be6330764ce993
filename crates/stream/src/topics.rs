//! Creates the topics of the catalogue, and says how a cluster's topics fall short of it.

use std::fmt;

use tollgate_schema::topics::{Need, Topic};

use crate::{Stream, StreamError, TopicDescription, TopicSpec};

/// One way in which a topic is weaker than the catalogue asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which topic.
    pub topic: String,
    /// What is wrong: `missing`, `partitions`, `replication` or the name of a topic setting.
    pub what: String,
    /// For a person: what is, what should be, why it matters, and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic {}: {}", self.topic, self.message)
    }
}

/// Creates the topics that are missing; existing ones are left as they are. `replication`
/// overrides the catalogue's number of copies. Returns the names that were created.
pub async fn create(
    stream: &dyn Stream,
    topics: &[Topic],
    replication: Option<i32>,
) -> Result<Vec<String>, StreamError> {
    let specs: Vec<_> = topics.iter().map(|topic| TopicSpec::of(topic, replication)).collect();
    stream.create_topics(&specs).await
}

/// Compares the cluster's topics with the catalogue. Empty means that all is as safe as it
/// should be. `replication` lowers what is asked to what a single broker can give.
pub async fn check(
    stream: &dyn Stream,
    topics: &[Topic],
    replication: Option<i32>,
) -> Result<Vec<Finding>, StreamError> {
    let names: Vec<_> = topics.iter().map(|topic| topic.name).collect();
    let found = stream.describe_topics(&names).await?;
    Ok(topics.iter().flat_map(|topic| compare(topic, replication, &found)).collect())
}

fn compare(topic: &Topic, replication: Option<i32>, found: &[TopicDescription]) -> Vec<Finding> {
    let finding = |what: &str, message: String| Finding {
        topic: topic.name.to_owned(),
        what: what.to_owned(),
        message,
    };
    let named = |name: &str| found.iter().find(|description| description.name == name);
    let Some(actual) = named(topic.name) else {
        return vec![finding("missing", "does not exist; run `tollgate topics create`".to_owned())];
    };

    let needs = topic.requirements();
    let copies = replication.unwrap_or(needs.replication_at_least);
    let mut findings = Vec::new();
    if actual.partitions < needs.partitions_at_least {
        findings.push(finding(
            "partitions",
            format!(
                "has {} partitions and needs at least {}; create it anew with more, since adding \
                 partitions to a topic in use moves keys to other partitions",
                actual.partitions, needs.partitions_at_least
            ),
        ));
    }
    if let Some(twin) = needs.same_partitions_as.and_then(named)
        && twin.partitions != actual.partitions
    {
        findings.push(finding(
            "partitions",
            format!(
                "has {} partitions and {} has {}; both are read together and must have the same \
                 number, so create one of them anew",
                actual.partitions, twin.name, twin.partitions
            ),
        ));
    }
    if actual.replication < copies {
        findings.push(finding(
            "replication",
            format!(
                "has {} copies of some partition and needs {copies}, or the loss of a broker loses \
                 records that were acknowledged; reassign its partitions with \
                 `kafka-reassign-partitions`",
                actual.replication
            ),
        ));
    }
    if actual.config.is_empty() {
        // A topic has dozens; who may not see them gets none.
        let message = "its settings are not shown to this user: allow DescribeConfigs on the topic";
        findings.push(finding("settings", message.to_owned()));
        return findings;
    }
    for (name, need) in needs.settings {
        let need = match (name, need) {
            ("min.insync.replicas", Need::AtLeast(least)) => {
                Need::AtLeast(least.min(copies.into()))
            }
            (_, need) => need,
        };
        let value = actual.config.iter().find(|(key, _)| key == name).map(|(_, value)| &**value);
        if !need.is_met_by(value) {
            findings.push(finding(name, explain(topic, name, need, value)));
        }
    }
    findings
}

fn explain(topic: &Topic, name: &str, need: Need, actual: Option<&str>) -> String {
    let why = match name {
        "min.insync.replicas" => "or one copy alone acknowledges a record and takes it with it",
        "unclean.leader.election.enable" => "or a copy that missed records may become the leader",
        "max.message.bytes" => "or large records are refused for good and diverted",
        "cleanup.policy" => "or records that readers count on are removed, or never are",
        "retention.ms" | "retention.bytes" => {
            "or records expire before slow readers have seen them"
        }
        "delete.retention.ms" => "or a reader that was away misses that a key was removed",
        _ => "as the catalogue says",
    };
    let target = need_as_value(topic, name, need);
    format!(
        "{name} is {} and must be {need}, {why}; run `kafka-configs --alter --entity-type topics \
         --entity-name {} --add-config {name}={target}`",
        actual.unwrap_or("not reported"),
        topic.name,
    )
}

fn need_as_value(topic: &Topic, name: &str, need: Need) -> String {
    match need {
        Need::AtLeast(least) => least.to_string(),
        _ => topic.setting(name).unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tollgate_schema::topics::{ALL, CALL_EVENTS, CDRS};

    use super::*;

    fn as_created(topic: &Topic, replication: Option<i32>) -> TopicDescription {
        let spec = TopicSpec::of(topic, replication);
        TopicDescription {
            name: spec.name,
            partitions: spec.partitions,
            replication: spec.replication,
            config: spec.config,
        }
    }

    fn set(description: &mut TopicDescription, name: &str, value: &str) {
        let setting = description.config.iter_mut().find(|(key, _)| key == name);
        setting.expect("a setting of the catalogue").1 = value.to_owned();
    }

    #[test]
    fn topics_made_from_the_catalogue_pass_the_check() {
        for replication in [None, Some(1), Some(2)] {
            let found: Vec<_> = ALL.iter().map(|topic| as_created(topic, replication)).collect();
            for topic in ALL {
                assert_eq!(compare(topic, replication, &found), []);
            }
        }
    }

    #[test]
    fn a_single_copy_is_weak_unless_it_was_asked_for() {
        let found = [as_created(&CDRS, Some(1)), as_created(&CALL_EVENTS, Some(1))];
        let whats: Vec<_> =
            compare(&CDRS, None, &found).into_iter().map(|finding| finding.what).collect();
        assert_eq!(whats, ["replication", "min.insync.replicas"]);
    }

    #[test]
    fn each_weaker_setting_is_found_and_the_message_says_how_to_mend_it() {
        for (name, value) in [
            ("cleanup.policy", "compact"),
            ("retention.ms", "1000"),
            ("max.message.bytes", "1048588"),
            ("min.insync.replicas", "1"),
            ("unclean.leader.election.enable", "true"),
        ] {
            let mut weak = as_created(&CDRS, None);
            set(&mut weak, name, value);
            let findings = compare(&CDRS, None, &[weak]);
            assert_eq!(findings.len(), 1, "{name}");
            assert_eq!(findings[0].what, name);
            let message = findings[0].to_string();
            let mend =
                format!("--entity-name cdrs --add-config {name}={}", CDRS.setting(name).unwrap());
            assert!(message.contains(&mend), "{message}");
        }
    }

    #[test]
    fn a_missing_topic_and_too_few_or_unequal_partitions_are_found() {
        assert_eq!(compare(&CDRS, None, &[])[0].what, "missing");
        let mut few = as_created(&CDRS, None);
        few.partitions = 3;
        assert_eq!(compare(&CDRS, None, &[few.clone()])[0].what, "partitions");
        let unequal = compare(&CALL_EVENTS, None, &[few, as_created(&CALL_EVENTS, None)]);
        assert_eq!(unequal.len(), 1);
        assert!(unequal[0].message.contains("cdrs has 3"));
    }
}
