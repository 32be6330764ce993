//! Known fields of one object, read with the two tiers of damage.
//!
//! Tier 1, [`Damage`]: the value has a JSON type that cannot be meant, or is no Unicode text. The
//! record as a whole is not believed and goes to quarantine. Tier 2: the type is right and the
//! content unreadable (a time that is no time). The record is published without that field,
//! which is named in its `unreadable_fields`.

use std::borrow::Cow;

use jiff::tz::Offset;
use tollgate_schema::json_text::{JsonText, Kind};

use crate::names::Names;
use crate::time;

/// Why a record is not believed. Names a known field and types, never a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The field as the platform spells it; empty where it is the record itself or unknown.
    pub(crate) field: &'static str,
    pub(crate) expected: &'static str,
    pub(crate) found: &'static str,
}

pub(crate) const LONE_SURROGATE: &str = "a lone surrogate, which is no Unicode text";

/// One of an object's known members. Made by [`name!`], which looks it up while compiling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    pub(crate) text: &'static str,
    slot: usize,
}

impl Name {
    /// Finds a name in a list; compiling fails when it is not there.
    pub(crate) const fn of(text: &'static str, names: &Names) -> Self {
        Self { text, slot: names.number_of(text) }
    }
}

/// A [`Name`] out of the module's `NAMES`.
macro_rules! name {
    ($text:literal) => {
        const { $crate::field::Name::of($text, &NAMES) }
    };
}
pub(crate) use name;

/// The known members of one object. Of doubled keys the last counts, as in the canonical text.
pub(crate) struct Fields<'a> {
    values: Vec<Option<JsonText<'a>>>,
    zone: Offset,
    unreadable: Vec<String>,
}

impl<'a> Fields<'a> {
    /// Finds the members called `names` in an object. `zone` is that of times which
    /// name none.
    pub(crate) fn of(object: JsonText<'a>, names: &Names, zone: Offset) -> Self {
        let mut values = vec![None; names.len()];
        for (key, value) in object.members() {
            let slot = key.decode().and_then(|key| names.find(&key));
            if let Some(slot) = slot {
                values[slot] = Some(value);
            }
        }
        Self { values, zone, unreadable: Vec::new() }
    }

    /// No members at all.
    pub(crate) fn none(zone: Offset) -> Self {
        Self { values: Vec::new(), zone, unreadable: Vec::new() }
    }

    /// Text; absent, null and "" are the same.
    pub(crate) fn text(&mut self, name: Name) -> Result<Option<String>, Damage> {
        Ok(self.text_or_empty(name)?.filter(|text| !text.is_empty()))
    }

    /// Text where "" says something; absent and null are the same.
    pub(crate) fn text_or_empty(&mut self, name: Name) -> Result<Option<String>, Damage> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match value.kind() {
            Kind::Text => Ok(Some(decode(name, value, "text")?.into_owned())),
            kind => Err(Damage { field: name.text, expected: "text", found: kind.name() }),
        }
    }

    /// A whole number of 32 bits, as a number or as text. Blank text is absent.
    pub(crate) fn integer(&mut self, name: Name) -> Result<Option<i32>, Damage> {
        self.scalar(name, "an integer, as a number or as text", |text, _| text.parse().ok())
    }

    /// An instant in milliseconds since 1970, UTC. Blank text is absent.
    pub(crate) fn time(&mut self, name: Name) -> Result<Option<i64>, Damage> {
        self.scalar(name, "a time, as text or as epoch seconds or milliseconds", time::parse)
    }

    /// A flag 0 or 1, as a number or as text.
    pub(crate) fn flag(&mut self, name: Name) -> Result<Option<bool>, Damage> {
        self.scalar(name, "0 or 1, as a number or as text", |text, _| match text.parse() {
            Ok(0) => Some(false),
            Ok(1) => Some(true),
            _ => None,
        })
    }

    /// Whether the field says anything, readable or not.
    pub(crate) fn says_something(&self, name: Name) -> bool {
        self.value(name).is_some_and(|value| !value.is_blank())
    }

    /// The fields of tier 2 met so far.
    pub(crate) fn into_unreadable(self) -> Vec<String> {
        self.unreadable
    }

    /// Null is absent.
    fn value(&self, name: Name) -> Option<JsonText<'a>> {
        let value = *self.values.get(name.slot)?;
        value.filter(|value| value.kind() != Kind::Null)
    }

    fn scalar<T>(
        &mut self,
        name: Name,
        expected: &'static str,
        read: impl FnOnce(&str, Offset) -> Option<T>,
    ) -> Result<Option<T>, Damage> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let text = match value.kind() {
            Kind::Number => Cow::Borrowed(value.as_str()),
            Kind::Text => decode(name, value, expected)?,
            kind => return Err(Damage { field: name.text, expected, found: kind.name() }),
        };
        let text = trim(&text);
        if text.is_empty() {
            return Ok(None);
        }
        let value = read(text, self.zone);
        if value.is_none() {
            self.unreadable.push(name.text.to_owned());
        }
        Ok(value)
    }
}

/// As [`str::trim`], which takes eight times as long where there is nothing to trim.
fn trim(text: &str) -> &str {
    let ends = [text.as_bytes().first(), text.as_bytes().last()];
    let is_bare = ends.iter().all(|end| end.is_some_and(u8::is_ascii_graphic));
    if is_bare { text } else { text.trim() }
}

/// The characters of a string, or the damage that it is no Unicode text.
fn decode<'a>(
    name: Name,
    value: JsonText<'a>,
    expected: &'static str,
) -> Result<Cow<'a, str>, Damage> {
    value.decode().ok_or(Damage { field: name.text, expected, found: LONE_SURROGATE })
}

#[cfg(test)]
mod tests {
    use tollgate_schema::json_text::Json;

    use super::*;

    const NAMES: Names = Names::of(&["a", "b", "c"]);

    fn json(object: &str) -> Json<'_> {
        Json::parse(object).unwrap()
    }

    fn fields<'a>(object: &'a Json<'_>) -> Fields<'a> {
        Fields::of(object.value(), &NAMES, Offset::UTC)
    }

    #[test]
    fn absent_null_and_empty_text_are_the_same() {
        let json = json(r#"{"a":null,"b":""}"#);
        let mut fields = fields(&json);
        for name in [name!("a"), name!("b"), name!("c")] {
            assert_eq!(fields.text(name), Ok(None));
            assert_eq!(fields.integer(name), Ok(None));
            assert_eq!(fields.time(name), Ok(None));
            assert!(!fields.says_something(name));
        }
        assert!(fields.into_unreadable().is_empty());
    }

    #[test]
    fn empty_text_is_told_from_absence_only_on_request() {
        let json = json(r#"{"a":null,"b":""}"#);
        let mut fields = fields(&json);
        assert_eq!(fields.text_or_empty(name!("a")), Ok(None));
        assert_eq!(fields.text_or_empty(name!("b")), Ok(Some(String::new())));
        assert_eq!(fields.text_or_empty(name!("c")), Ok(None));
    }

    #[test]
    fn blanks_are_absent_as_numbers_and_times_and_kept_as_text() {
        let json = json(r#"{"a":" \t "}"#);
        let mut fields = fields(&json);
        assert_eq!(fields.integer(name!("a")), Ok(None));
        assert_eq!(fields.time(name!("a")), Ok(None));
        assert_eq!(fields.text(name!("a")), Ok(Some(" \t ".to_owned())));
        assert!(fields.into_unreadable().is_empty());
    }

    #[test]
    fn integers_are_read_from_numbers_and_from_text_with_blanks() {
        let json = json(r#"{"a":-7,"b":" 0016 ","c":"-2147483648"}"#);
        let mut fields = fields(&json);
        assert_eq!(fields.integer(name!("a")), Ok(Some(-7)));
        assert_eq!(fields.integer(name!("b")), Ok(Some(16)));
        assert_eq!(fields.integer(name!("c")), Ok(Some(i32::MIN)));
    }

    #[test]
    fn a_fraction_an_exponent_and_an_overflow_are_named_and_left_out() {
        let json = json(r#"{"a":1.5,"b":1e3,"c":"2147483648"}"#);
        let mut fields = fields(&json);
        for name in [name!("a"), name!("b"), name!("c")] {
            assert_eq!(fields.integer(name), Ok(None));
        }
        assert_eq!(fields.into_unreadable(), ["a", "b", "c"]);
    }

    #[test]
    fn a_wrong_type_is_damage_that_names_field_and_types() {
        let json = json(r#"{"a":{},"b":[],"c":true}"#);
        let mut fields = fields(&json);
        assert_eq!(
            fields.text(name!("a")),
            Err(Damage { field: "a", expected: "text", found: "an object" })
        );
        assert_eq!(fields.integer(name!("b")).unwrap_err().found, "an array");
        assert_eq!(fields.time(name!("c")).unwrap_err().found, "a boolean");
    }

    #[test]
    fn a_number_is_no_text_but_may_be_a_time() {
        let json = json(r#"{"a":1716174264}"#);
        let mut fields = fields(&json);
        assert_eq!(fields.text(name!("a")).unwrap_err().found, "a number");
        assert_eq!(fields.time(name!("a")), Ok(Some(1_716_174_264_000)));
    }

    #[test]
    fn times_are_read_from_text_with_blanks() {
        let json = json(r#"{"a":"  2024-05-20 03:04:24  ","b":" 1716174264\u3000"}"#);
        let mut fields = fields(&json);
        assert_eq!(fields.time(name!("a")), Ok(Some(1_716_174_264_000)));
        assert_eq!(fields.time(name!("b")), Ok(Some(1_716_174_264_000)));
    }

    #[test]
    fn of_doubled_keys_the_last_counts_however_it_is_escaped() {
        let json = json(r#"{"a":{},"b":"x","\u0061":"y"}"#);
        let mut fields = fields(&json);
        assert_eq!(fields.text(name!("a")), Ok(Some("y".to_owned())));
    }
}
