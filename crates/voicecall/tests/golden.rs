//! Every sample and every edge case, and what is published for it.
//!
//! A change of these files is a change of the public contract. To accept one, run with
//! `INSTA_UPDATE=always` and look at the difference.

mod common;

use tollgate_schema::json::message_to_json;
use tollgate_voicecall::Record;

fn check(cases: Vec<(String, Vec<u8>)>, folder: &str) {
    assert!(!cases.is_empty());
    for (name, body) in cases {
        let records: Vec<serde_json::Value> = common::records(&body)
            .iter()
            .map(|record| match record {
                Record::Status(event) => message_to_json(event),
                Record::Cdr(cdr) => message_to_json(cdr),
                Record::Quarantined(quarantined) => message_to_json(quarantined),
            })
            .map(Result::unwrap)
            .collect();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(format!("golden/{folder}"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_json_snapshot!(name, records));
    }
}

#[test]
fn every_sample_is_published_as_written_down() {
    check(common::samples(), "samples");
}

#[test]
fn every_edge_case_is_published_as_written_down() {
    check(common::edges(), "edge");
}
