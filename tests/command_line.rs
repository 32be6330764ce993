//! The command line as its users type it.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use common::{TOLLGATE, succeed, tollgate};
use serde_json::Value;

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../voicecall/tests/samples");

fn explain(body: &[u8]) -> Result<Value> {
    let mut child = Command::new(TOLLGATE)
        .args(["explain", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(body)?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "explain ended with {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn explain_shows_legs_minutes_and_charge_of_a_callback() -> Result<()> {
    let text = succeed(&["explain", &format!("{SAMPLES}/08-fee-callback-single.json")], &[])?;
    let document: Value = serde_json::from_str(&text)?;
    let record = &document["records"][0];
    ensure!(record["topic"] == "cdrs");
    ensure!(record["event"]["a_leg"]["number"] == "+8613800000021");
    let legs: Vec<_> = record["legs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|leg| (leg["seconds"].as_i64(), leg["billed_minutes"].as_i64()))
        .collect();
    ensure!(legs == [(Some(102), Some(2)), (Some(95), Some(2))], "{legs:?}");
    ensure!(record["charge"]["amount"] == "0.720000", "{}", record["charge"]);
    ensure!(document["quarantined"].as_array().is_some_and(Vec::is_empty));
    Ok(())
}

#[test]
fn explain_takes_every_sample() -> Result<()> {
    for sample in std::fs::read_dir(SAMPLES)? {
        let path = sample?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = succeed(&["explain", &path.display().to_string()], &[])?;
        let document: Value = serde_json::from_str(&text)?;
        ensure!(!document["records"][0].is_null(), "{} has no record", path.display());
        ensure!(document["quarantined"] == serde_json::json!([]), "{}", path.display());
    }
    Ok(())
}

#[test]
fn explain_says_what_is_quarantined_and_why() -> Result<()> {
    let document =
        explain(br#"{"eventType":"fee","feeLst":[{"sessionId":{}},{"sessionId":"s"}]}"#)?;
    let bad = &document["quarantined"][0];
    ensure!(bad["reason"] == "QUARANTINE_REASON_UNREADABLE_RECORD", "{bad}");
    ensure!(bad["location"] == "feeLst[0].sessionId", "{bad}");
    ensure!(document["records"][0]["index"] == 1);
    let document = explain(b"no json")?;
    ensure!(document["quarantined"][0]["reason"] == "QUARANTINE_REASON_MALFORMED_BODY");
    Ok(())
}

#[test]
fn the_same_record_has_the_same_ids_wherever_it_stands() -> Result<()> {
    let single = succeed(&["explain", &format!("{SAMPLES}/08-fee-callback-single.json")], &[])?;
    let again = succeed(&["explain", &format!("{SAMPLES}/45-fee-redelivery-overlap.json")], &[])?;
    let single: Value = serde_json::from_str(&single)?;
    let again: Value = serde_json::from_str(&again)?;
    let id = single["records"][0]["event_id"].as_str().unwrap_or_default();
    let ids: Vec<_> =
        again["records"].as_array().into_iter().flatten().map(|it| &it["event_id"]).collect();
    ensure!(!id.is_empty() && ids.iter().any(|other| other.as_str() == Some(id)), "{ids:?}");
    Ok(())
}

#[test]
fn an_unknown_setting_is_refused_with_its_name_and_exit_code_2() -> Result<()> {
    let output = tollgate(&["config", "check"], &[("TOLLGATE_EDGE__LISTN", "127.0.0.1:1".into())])?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{}: {text}", output.status);
    ensure!(text.to_lowercase().contains("listn"), "{text}");
    Ok(())
}

#[test]
fn a_contradiction_is_refused_with_both_names() -> Result<()> {
    let output = tollgate(&["config", "check"], &[("TOLLGATE_EDGE__LISTEN", "0.0.0.0:1".into())])?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{}: {text}", output.status);
    ensure!(text.contains("edge.listen") && text.contains("edge.allow_open_ingest"), "{text}");
    Ok(())
}

#[test]
fn settings_are_shown_without_secrets_and_with_what_follows_from_them() -> Result<()> {
    let text = succeed(
        &["config", "show"],
        &[("TOLLGATE_DATABASE__URL", "postgres://me:hunter2@db/tollgate".into())],
    )?;
    ensure!(!text.contains("hunter2"), "{text}");
    let shown: Value = serde_json::from_str(&text)?;
    ensure!(
        shown["derived"]["edge_max_connections"].as_u64().is_some_and(|it| it > 1000),
        "{shown}"
    );
    Ok(())
}

#[test]
fn a_tariff_is_checked_and_a_wrong_one_refused() -> Result<()> {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../rating/tariffs/sample.toml");
    let text = succeed(&["tariff", "check", sample], &[])?;
    ensure!(text.contains("CNY") && text.contains("0.18"), "{text}");
    let dir = tempfile::tempdir()?;
    let wrong = dir.path().join("wrong.toml");
    std::fs::write(&wrong, "name = \"x\"\ncurrency = \"YUAN\"\n")?;
    let output = tollgate(&["tariff", "check", &wrong.display().to_string()], &[])?;
    ensure!(output.status.code() == Some(2), "{}", output.status);
    Ok(())
}

#[test]
fn a_spool_that_is_not_there_and_a_topic_that_is_not_are_named() -> Result<()> {
    let output = tollgate(&["spool", "inspect", "--dir", "/no/such/spool"], &[])?;
    ensure!(!output.status.success());
    ensure!(String::from_utf8_lossy(&output.stderr).contains("/no/such/spool"));
    let output = tollgate(&["tail", "cdr"], &[])?;
    ensure!(output.status.code() == Some(2));
    ensure!(String::from_utf8_lossy(&output.stderr).contains("cdrs"));
    Ok(())
}
