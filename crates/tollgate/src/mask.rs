//! Hides phone numbers in what the command line prints, unless `--reveal` is given.

use serde_json::Value;

/// Fields that hold a phone number or a text with one in it.
const NUMBERS: [&str; 10] = [
    "number",
    "number_shown",
    "caller",
    "called",
    "business_number",
    "dialled_number",
    "session_id",
    "key",
    "extension",
    "digits",
];

/// Fields that may hold anything, numbers included.
const CONTENTS: [&str; 5] = ["original_json", "envelope_json", "user_data", "content", "ivr_path"];

/// From so many digits in a row a text may hold a phone number.
const LONG_RUN: usize = 7;

/// Hides numbers in place.
pub fn hide(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                match member {
                    Value::String(text) if NUMBERS.contains(&name.as_str()) => {
                        *text = hide_digits(text);
                    }
                    Value::String(text) if CONTENTS.contains(&name.as_str()) => {
                        *text = format!(
                            "({} characters hidden; --reveal shows them)",
                            text.chars().count()
                        );
                    }
                    _ => hide(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}

/// Hides the middle of each long run of digits.
pub fn hide_digits(text: &str) -> String {
    let mut hidden = String::with_capacity(text.len());
    let mut run = String::new();
    for character in text.chars().chain(['\0']) {
        if character.is_ascii_digit() || (character == '+' && run.is_empty()) {
            run.push(character);
            continue;
        }
        hidden.push_str(&if run.len() >= LONG_RUN { mask(&run) } else { run.clone() });
        run.clear();
        if character == '+' {
            run.push('+');
        } else if character != '\0' {
            hidden.push(character);
        }
    }
    hidden
}

/// A run of digits with its middle hidden: the first four and the last two stay.
fn mask(run: &str) -> String {
    if run.len() < 8 {
        return "*".repeat(run.len());
    }
    let (head, tail) = (&run[..4], &run[run.len() - 2..]);
    format!("{head}{}{tail}", "*".repeat(run.len() - 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_long_number_is_left_wherever_it_hides() {
        let mut value = serde_json::json!({
            "session_id": "+8613800000021_+8613800007021_4_627e5c1f_963036_669_1_0",
            "a_leg": {"number": "+8613800000021", "cause": 16},
            "original_json": "{\"calleeNum\":\"+8613800000021\"}",
            "events": [{"called": "+8613800000021"}],
            "offset": 5,
        });
        hide(&mut value);
        let text = value.to_string();
        assert!(!text.contains("13800000021") && !text.contains("13800007021"), "{text}");
        assert!(text.contains("+861********21"), "{text}");
        assert_eq!(value["offset"], 5);
    }

    #[test]
    fn a_masked_number_keeps_its_ends_only() {
        assert_eq!(mask("+8613800000021"), "+861********21");
        assert_eq!(mask("1234567"), "*******");
    }

    #[test]
    fn what_is_hidden_whole_is_counted_in_characters() {
        let mut value = serde_json::json!({"content": "你好"});
        hide(&mut value);
        assert_eq!(value["content"], "(2 characters hidden; --reveal shows them)");
    }
}
