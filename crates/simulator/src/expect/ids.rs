//! The ids of `proto/tollgate/v1/ids.md`, written anew.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::script::{Call, Kind, Status};

/// 128 bits of SHA-256.
pub(crate) type Id = [u8; 16];

/// A record's identity, and its content's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub record: Id,
    pub event: Id,
}

/// The form in messages.
pub(crate) fn hex_id(id: &Id) -> String {
    hex::encode(id)
}

/// Reads the form in messages.
pub(crate) fn parse_id(text: &str) -> Option<Id> {
    hex::decode(text).ok()?.try_into().ok()
}

/// Hashes parts, each after its length.
fn hash(parts: &[&[u8]]) -> Id {
    let mut sha256 = Sha256::new();
    for part in parts {
        sha256.update((part.len() as u64).to_be_bytes());
        sha256.update(part);
    }
    first_half(&sha256.finalize())
}

fn first_half(digest: &[u8]) -> Id {
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

/// Of bytes that cannot be read.
pub(crate) fn quarantine_id(bytes: &[u8]) -> Id {
    first_half(&Sha256::digest(bytes))
}

/// What has ids: a status or the record of a call, and the text it was sent as.
pub(crate) fn record_ids(call: &Call, status: Option<&Status>, text: &str) -> Ids {
    let record = match status {
        Some(status) => of_status(call, status),
        None => of_cdr(call),
    };
    let content = Sha256::digest(canonical(text).as_bytes());
    Ids { record, event: hash(&[b"tollgate.v1.event", &record, &content]) }
}

fn of_status(call: &Call, status: &Status) -> Id {
    let name = match &status.kind {
        Kind::Unknown(name) => name.to_ascii_lowercase(),
        known => known.name().to_owned(),
    };
    let digits = match &status.kind {
        Kind::CollectInfo(keys) => keys.as_str(),
        _ => "",
    };
    hash(&[
        b"tollgate.v1.record",
        b"status",
        b"status-by-event",
        call.session_id.as_bytes(),
        name.as_bytes(),
        status.called.as_deref().unwrap_or_default().as_bytes(),
        millis(status.at).as_bytes(),
        digits.as_bytes(),
    ])
}

fn of_cdr(call: &Call) -> Id {
    let head: [&[u8]; 2] = [b"tollgate.v1.record", b"cdr"];
    if let Some(icid) = &call.icid {
        return hash(&[head[0], head[1], b"cdr-by-icid", call.app_key.as_bytes(), icid.as_bytes()]);
    }
    let b = call.number_b.as_deref().filter(|_| call.course.b.is_some()).unwrap_or_default();
    let begins = call.course.a.map(|leg| millis(call.begins_at + leg.started)).unwrap_or_default();
    hash(&[
        head[0],
        head[1],
        b"cdr-by-session",
        call.app_key.as_bytes(),
        call.session_id.as_bytes(),
        b"0",
        call.number_a.as_bytes(),
        b.as_bytes(),
        begins.as_bytes(),
        // callEndTime, or the time of failure where there is none: the same instant.
        millis(call.begins_at + call.course.ends).as_bytes(),
    ])
}

fn millis(seconds: i64) -> String {
    (seconds * 1000).to_string()
}

/// The canonical form of a JSON text of this simulator: no doubled keys, and numbers that are
/// written as they are kept.
fn canonical(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Cannot fail for a text that this simulator wrote; another would get an id that is found
    // nowhere, and be reported.
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    write_sorted(&value, &mut out);
    out
}

fn write_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| key.as_bytes());
            out.push('{');
            for (index, (key, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_sorted(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_sorted(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors() -> Value {
        let text = include_str!("../../../../proto/tollgate/v1/ids.json");
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn record_ids_agree_with_the_published_vectors() {
        for vector in vectors()["records"].as_array().unwrap() {
            let mut parts = vec!["tollgate.v1.record"];
            parts.push(vector["kind"].as_str().unwrap());
            parts.push(vector["rule"].as_str().unwrap());
            parts
                .extend(vector["fields"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()));
            let parts: Vec<&[u8]> = parts.into_iter().map(str::as_bytes).collect();
            assert_eq!(hex_id(&hash(&parts)), vector["record_id"].as_str().unwrap());
        }
    }

    #[test]
    fn event_ids_agree_with_the_published_vectors() {
        for vector in vectors()["events"].as_array().unwrap() {
            let record = parse_id(vector["record_id"].as_str().unwrap()).unwrap();
            let canonical = vector["canonical"].as_str().unwrap();
            let event =
                hash(&[b"tollgate.v1.event", &record, &Sha256::digest(canonical.as_bytes())]);
            assert_eq!(hex_id(&event), vector["event_id"].as_str().unwrap());
        }
        for vector in vectors()["quarantined"].as_array().unwrap() {
            let bytes = hex::decode(vector["bytes_hex"].as_str().unwrap()).unwrap();
            let expected = vector["quarantine_id"].as_str().unwrap();
            assert_eq!(hex_id(&quarantine_id(&bytes)), expected);
        }
    }

    #[test]
    fn the_canonical_text_is_sorted_and_free_of_needless_escapes() {
        let text = r#"{ "b" : [1, {"z":null,"a":"\u8ba2\ud83d\ude42\/\u001f"}], "a": "\n" }"#;
        assert_eq!(
            canonical(text),
            "{\"a\":\"\\n\",\"b\":[1,{\"a\":\"订🙂/\\u001f\",\"z\":null}]}"
        );
    }
}
