//! Bodies to send.

use std::path::Path;

/// The vendor's sample bodies, by name.
pub fn samples() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../voicecall/tests/samples");
    let mut bodies: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == "json"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    bodies.sort();
    assert_eq!(bodies.len(), 46);
    bodies
}

/// A status notification; `session` tells it from others.
pub fn status(session: &str) -> String {
    status_with(session, "")
}

/// A status notification with this userData.
pub fn status_with(session: &str, user_data: &str) -> String {
    format!(
        r#"{{"eventType":"callout","statusInfo":{{"timestamp":"2024-09-12 01:00:00","sessionId":"{session}","caller":"+8675528000002","called":"+8613800000021","userData":"{user_data}"}}}}"#
    )
}

/// One item of a feeLst.
pub fn item(app_key: &str, session: &str, user_data: &str) -> String {
    format!(
        r#"{{"direction":0,"appKey":"{app_key}","icid":"icid-{session}","sessionId":"{session}","calleeNum":"+8613800000021","callOutStartTime":"2024-09-12 01:00:00","callEndTime":"2024-09-12 01:00:36","userData":"{user_data}"}}"#
    )
}

/// A CDR notification of one record.
pub fn cdr(app_key: &str, session: &str) -> String {
    fee(&[item(app_key, session, "")])
}

/// A CDR notification.
pub fn fee(items: &[String]) -> String {
    format!(r#"{{"eventType":"fee","feeLst":[{}]}}"#, items.join(","))
}
