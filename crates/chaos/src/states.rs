//! What the topic of states says, beside the database and the query API.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use serde_json::Value;
use tollgate_schema::v1;
use tollgate_stream::{Incoming, Stream};

use crate::sequences::{read, same};

/// The last state of each number on the topic `user-states`. Fails unless each has the version that
/// the database says, and no earlier one a later version.
pub async fn states_are_topic(
    stream: &Arc<dyn Stream>,
    rows: &str,
) -> Result<BTreeMap<String, v1::UserState>> {
    let last = last_states(&read(stream, "user-states").await?)?;
    have_versions(&last, rows)?;
    Ok(last)
}

fn have_versions(states: &BTreeMap<String, v1::UserState>, rows: &str) -> Result<()> {
    let versions = states.values().map(|state| format!("{} {}", state.number, state.version));
    same("user-states", &versions.collect(), rows)
}

fn last_states(records: &[Incoming]) -> Result<BTreeMap<String, v1::UserState>> {
    let mut last = BTreeMap::<String, v1::UserState>::new();
    for record in records {
        let value = record.value.clone().context("a state has no value")?;
        let state = v1::UserState::decode(value)?;
        ensure!(record.key == state.number.as_bytes(), "the key of a state is not its number");
        let before = last.get(&state.number).map_or(0, |before| before.version);
        ensure!(
            before <= state.version,
            "version {} follows {before} at offset {} of {}",
            state.version,
            record.offset,
            record.partition
        );
        last.insert(state.number.clone(), state);
    }
    Ok(last)
}

/// What a state says, without the number.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    presence: String,
    /// Sessions of its calls, each with what it is there.
    calls: Vec<(String, String)>,
    /// Session, group and cause of the last one.
    last_call: Option<(String, String, i64)>,
}

impl Shown {
    /// As it is published.
    pub fn of_topic(state: &v1::UserState) -> Self {
        let presence = |presence: v1::Presence| {
            presence.as_str_name().trim_start_matches("PRESENCE_").to_lowercase()
        };
        let calls = state.calls.iter();
        let last = state.last_call.as_ref();
        Self {
            presence: presence(state.presence()),
            calls: calls.map(|call| (call.session_id.clone(), presence(call.presence()))).collect(),
            last_call: last.map(|call| {
                (call.session_id.clone(), call.group.clone(), call.cause.unwrap_or(0).into())
            }),
        }
    }

    /// As it is answered.
    pub fn of_answer(answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let calls = answer["calls"].as_array().into_iter().flatten();
        let last = answer["last_call"].as_object();
        Self {
            presence: text(&answer["presence"]),
            calls: calls.map(|call| (text(&call["session_id"]), text(&call["presence"]))).collect(),
            last_call: last.map(|call| {
                let cause = call["cause"].as_i64().unwrap_or(0);
                (text(&call["session_id"]), text(&call["group"]), cause)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tollgate_stream::TopicPartition;

    use super::*;

    fn state(number: &str, version: u64) -> Incoming {
        let state = v1::UserState { number: number.to_owned(), version, ..Default::default() };
        Incoming {
            partition: TopicPartition::new("user-states", 0),
            offset: 0,
            timestamp_ms: 0,
            key: number.to_owned().into(),
            value: Some(state.encode_to_vec().into()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn the_last_state_of_each_number_must_be_that_of_the_database() {
        let topic = [state("1", 1), state("2", 7), state("1", 3), state("1", 3)];
        let last = last_states(&topic).unwrap();
        have_versions(&last, "1 3\n2 7\n").unwrap();
        for rows in ["1 4\n2 7", "1 3", "1 3\n2 7\n3 1"] {
            assert!(have_versions(&last, rows).is_err(), "{rows}");
        }
        assert!(last_states(&[state("1", 3), state("2", 1), state("1", 2)]).is_err());
    }

    #[test]
    fn what_is_published_and_what_is_answered_is_compared_in_one_form() {
        let call = |session: &str, presence: v1::Presence| v1::ActiveCall {
            session_id: session.to_owned(),
            presence: presence.into(),
            ..Default::default()
        };
        let state = v1::UserState {
            presence: v1::Presence::InCall.into(),
            calls: vec![call("a", v1::Presence::InCall), call("b", v1::Presence::Ringing)],
            last_call: Some(v1::LastCall {
                session_id: "z".to_owned(),
                group: "success".to_owned(),
                cause: Some(16),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut answer = json!({
            "presence": "in_call",
            "calls": [
                {"session_id": "a", "presence": "in_call"},
                {"session_id": "b", "presence": "ringing"},
            ],
            "last_call": {"session_id": "z", "group": "success", "cause": 16},
        });
        assert_eq!(Shown::of_topic(&state), Shown::of_answer(&answer));
        answer["last_call"] = Value::Null;
        assert_ne!(Shown::of_topic(&state), Shown::of_answer(&answer));
        assert_eq!(Shown::of_answer(&answer).last_call, None);
    }
}
