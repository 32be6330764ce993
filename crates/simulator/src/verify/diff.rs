//! Which fields of two messages differ. Names only: values are personal data.

use prost::{Message, Name};
use serde_json::Value;
use tollgate_schema::json::message_to_json;

/// Fields that are named at most.
const NAMED: usize = 6;

/// Names the fields in which two messages differ.
pub(super) fn fields<M: Message + Name>(expected: &M, found: &M) -> String {
    let shown = |message: &M| message_to_json(message).unwrap_or_default();
    let mut names = Vec::new();
    collect("", &shown(expected), &shown(found), &mut names);
    if names.is_empty() {
        // Equal as JSON, and still not equal: fields this version does not know.
        return "an unknown field".to_owned();
    }
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

fn collect(path: &str, expected: &Value, found: &Value, names: &mut Vec<String>) {
    if expected == found {
        return;
    }
    let (Value::Object(one), Value::Object(other)) = (expected, found) else {
        names.push(if path.is_empty() { "message".to_owned() } else { path.to_owned() });
        return;
    };
    let absent = Value::Null;
    let mut keys: Vec<_> = one.keys().chain(other.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let dot = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{dot}{key}");
        let value = |of: &serde_json::Map<String, Value>| of.get(key).cloned();
        collect(
            &path,
            &value(one).unwrap_or_else(|| absent.clone()),
            &value(other).unwrap_or_else(|| absent.clone()),
            names,
        );
    }
}

#[cfg(test)]
mod tests {
    use tollgate_schema::v1;

    use super::*;

    #[test]
    fn fields_are_named_by_their_path_and_values_are_not_shown() {
        let leg = |number: &str| v1::Leg { number: Some(number.into()), ..v1::Leg::default() };
        let one = v1::CallDetailRecord { a_leg: Some(leg("+861")), ..Default::default() };
        let other = v1::CallDetailRecord {
            a_leg: Some(leg("+862")),
            app_key: "k".into(),
            ..Default::default()
        };
        assert_eq!(fields(&one, &other), "a_leg.number, app_key");
    }
}
