//! All settings of the program in one structure; each part belongs to the crate that uses it.

use anyhow::Context;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_edge::{Application, Applications};
use tollgate_runtime::settings::{ListenerSettings, LogSettings, load};
use tollgate_stream::{ConsumerSettings, EmbeddedSettings};
use tollgate_user_state::keys::Pseudonyms;

use crate::cli::Cli;
use crate::commands::Refused;

/// The settings file. Every part may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Logging.
    pub log: LogSettings,
    /// Listeners of health, metrics and queries.
    pub listeners: ListenerSettings,
    /// The edge.
    pub edge: tollgate_edge::Settings,
    /// The edge's spool.
    pub spool: tollgate_spool::Settings,
    /// Applications at the platform.
    pub applications: Vec<Application>,
    /// The Kafka cluster.
    pub kafka: tollgate_kafka::Settings,
    /// The embedded log of `tollgate dev`.
    pub embedded: EmbeddedSettings,
    /// The database of a consumer. Billing and user-state may share a PostgreSQL database; a
    /// SQLite file belongs to one of them.
    pub database: tollgate_store::Settings,
    /// How consumers batch, retry and give up.
    pub consumer: ConsumerSettings,
    /// The billing consumer.
    pub billing: tollgate_billing::Settings,
    /// The user-state consumer.
    pub user_state: tollgate_user_state::Settings,
}

/// Which parts a command uses, so that only those are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Edge and spool.
    Edge,
    /// Kafka.
    Kafka,
    /// The embedded log.
    Embedded,
    /// The database of a consumer.
    Database,
    /// The query listener.
    Query,
    /// The billing consumer.
    Billing,
    /// The user-state consumer.
    UserState,
}

impl Part {
    /// Those of an edge.
    pub const OF_EDGE: &[Self] = &[Self::Edge, Self::Kafka];
    /// Those of billing.
    pub const OF_BILLING: &[Self] = &[Self::Kafka, Self::Database, Self::Query, Self::Billing];
    /// Those of user-state.
    pub const OF_USER_STATE: &[Self] = &[Self::Kafka, Self::Database, Self::Query, Self::UserState];
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Edge,
        Self::Kafka,
        Self::Embedded,
        Self::Database,
        Self::Query,
        Self::Billing,
        Self::UserState,
    ];
}

impl Config {
    /// Reads file, environment and flags.
    pub fn read(cli: &Cli, overrides: serde_json::Value) -> anyhow::Result<Self> {
        let mut overrides = overrides;
        if let Some(filter) = &cli.log {
            set(&mut overrides, "log.filter", filter.as_str().into());
        }
        for assignment in &cli.set {
            let Some((name, value)) = assignment.split_once('=') else {
                let hint = "expected NAME=VALUE, such as edge.listen=127.0.0.1:9000";
                return Err(Refused(format!("--set {assignment}: {hint}")).into());
            };
            set(&mut overrides, name, literal(value));
        }
        Ok(load(cli.config.as_deref(), &overrides)?)
    }

    /// Checks the parts that a command uses, and reads the files they name.
    pub fn validate(&self, parts: &[Part]) -> anyhow::Result<()> {
        let mut troubles = Vec::new();
        let mut check = |section: &str, result: Result<(), String>| {
            if let Err(reason) = result {
                troubles.push(format!("  {section}: {reason}"));
            }
        };
        check("listeners", self.listeners.validate());
        if parts.contains(&Part::Edge) {
            check("edge", self.edge.validate(self.applications.len(), self.spool.tail_bytes));
            check("spool", self.spool.validate());
            check("spool", tollgate_edge::check_room(&self.edge, &self.spool));
        }
        if parts.contains(&Part::Kafka) {
            check("kafka", self.kafka.validate());
        }
        if parts.contains(&Part::Embedded) {
            check("embedded", self.embedded.validate());
        }
        if parts.contains(&Part::Database) {
            check("database", self.database.validate());
        }
        if parts.contains(&Part::Billing) || parts.contains(&Part::UserState) {
            check("consumer", self.consumer.validate());
            check("consumer", self.check_deadline());
        }
        if parts.contains(&Part::Billing) {
            check("billing", self.billing.validate());
        }
        if parts.contains(&Part::UserState) {
            check("user_state", self.user_state.validate());
        }
        if troubles.is_empty() {
            return self.read_secrets(parts);
        }
        Err(Refused(format!("settings are refused:\n{}", troubles.join("\n"))).into())
    }

    fn check_deadline(&self) -> Result<(), String> {
        let (deadline, statement) =
            (self.consumer.store_deadline_ms, self.database.statement_timeout_ms);
        if deadline >= statement.saturating_mul(2) {
            return Ok(());
        }
        Err(format!(
            "store_deadline_ms = {deadline} is less than twice database.statement_timeout_ms = {statement}, and a call has several statements; raise it"
        ))
    }

    /// So that one that is missing is found before anything starts.
    fn read_secrets(&self, parts: &[Part]) -> anyhow::Result<()> {
        if parts.contains(&Part::Edge) {
            Applications::new(&self.applications, self.edge.public_url.as_deref())?;
            tollgate_edge::check_tls(&self.edge)?;
        }
        if parts.contains(&Part::Query) {
            self.listeners.query_token()?;
        }
        if parts.contains(&Part::UserState)
            && let Some(path) = &self.user_state.pseudonym_key_file
        {
            Pseudonyms::from_file(path)?;
        }
        Ok(())
    }

    /// The settings without secrets, and what follows from them.
    pub fn shown(&self) -> anyhow::Result<serde_json::Value> {
        let mut value = serde_json::to_value(self).context("settings cannot be shown")?;
        if let Some(applications) = value["applications"].as_array_mut() {
            for application in applications {
                if !application["path_secret"].is_null() {
                    application["path_secret"] = "(set, not shown)".into();
                }
            }
        }
        value["derived"] = serde_json::json!({
            "edge_max_connections": self.edge.max_connections(self.spool.tail_bytes),
        });
        Ok(value)
    }
}

/// Puts a value at a dotted name.
pub fn set(target: &mut serde_json::Value, name: &str, value: serde_json::Value) {
    let mut place = target;
    for part in name.split('.') {
        if !place.is_object() {
            *place = serde_json::json!({});
        }
        place = &mut place[part];
    }
    *place = value;
}

/// What a value on the command line means: a number, a truth value, or text.
fn literal(text: &str) -> serde_json::Value {
    match serde_json::from_str(text) {
        Ok(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => value,
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::Value;

    use super::*;

    /// Dotted names and values of everything that can be set.
    fn leaves(value: &Value, prefix: &str) -> Vec<(String, Value)> {
        let Value::Object(fields) = value else { return vec![(prefix.to_owned(), value.clone())] };
        let dot = if prefix.is_empty() { "" } else { "." };
        fields.iter().flat_map(|(name, it)| leaves(it, &format!("{prefix}{dot}{name}"))).collect()
    }

    fn number() -> impl Strategy<Value = Value> {
        let edges = [0, 1, 2, u64::from(u32::MAX), i64::MAX as u64, u64::MAX];
        prop_oneof![
            select(edges.to_vec()).prop_map(Value::from),
            any::<u32>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
        ]
    }

    fn text() -> impl Strategy<Value = Value> {
        let known = ["", " ", "delivered", "sasl_ssl", "0.0.0.0:0", "[::]:65535", ":,", "a:1,b:0"];
        prop_oneof![
            select(known.to_vec()).prop_map(Value::from),
            any::<String>().prop_map(Value::from)
        ]
    }

    /// Mostly of the kind that belongs there: what is not, is refused before it is looked at.
    fn instead_of(value: &Value) -> BoxedStrategy<Value> {
        let anything = || {
            let list = vec(any::<String>(), 0..3).prop_map(Value::from);
            prop_oneof![number(), text(), any::<bool>().prop_map(Value::from), list]
        };
        match value {
            Value::Number(_) => prop_oneof![20 => number(), 1 => anything()].boxed(),
            Value::String(_) => prop_oneof![20 => text(), 1 => anything()].boxed(),
            Value::Bool(is) => Just(Value::from(!is)).boxed(),
            _ => anything().boxed(),
        }
    }

    fn assignments() -> impl Strategy<Value = Vec<(String, Value)>> {
        let leaves = leaves(&serde_json::to_value(Config::default()).unwrap(), "");
        assert!(leaves.len() > 80, "{leaves:?}");
        let assignment = select(leaves).prop_flat_map(|(name, usual)| {
            instead_of(&usual).prop_map(move |it| (name.clone(), it))
        });
        vec(assignment, 1..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        /// Of those parts too whose crates take too long to build for the fuzzer.
        #[test]
        fn whatever_the_settings_say_is_taken_or_refused(assignments in assignments()) {
            let mut settings = serde_json::json!({});
            for (name, value) in assignments {
                set(&mut settings, &name, value);
            }
            if let Ok(config) = load::<Config>(None, &settings) {
                let _ = config.validate(Part::ALL);
                prop_assert!(config.shown().is_ok());
            }
        }
    }

    #[test]
    fn a_dotted_name_is_set_at_its_place() {
        let mut value = serde_json::json!({"edge": {"workers": 1}});
        set(&mut value, "edge.listen", literal("127.0.0.1:9"));
        set(&mut value, "edge.workers", literal("4"));
        assert_eq!(value, serde_json::json!({"edge": {"workers": 4, "listen": "127.0.0.1:9"}}));
    }

    #[test]
    fn shown_settings_contain_no_secret() {
        let mut config = Config::default();
        config.database.url = "postgres://user:hunter2@db/tollgate".into();
        config.applications.push(
            serde_json::from_value(serde_json::json!({
                "name": "a", "app_key": "k", "path_secret": "unguessable-segment",
            }))
            .unwrap(),
        );
        let shown = config.shown().unwrap().to_string();
        assert!(!shown.contains("hunter2") && !shown.contains("unguessable-segment"), "{shown}");
    }
}
