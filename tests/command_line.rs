//! The command line as its users type it.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use common::{TOLLGATE, succeed, tollgate};
use serde_json::Value;
use tollgate_spool::disk::RealDisk;
use tollgate_spool::{Options, Request, Settings, Spool};
use tollgate_store::{Migration, Schema};
use tollgate_testkit::Postgres;

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../voicecall/tests/samples");

fn explain(body: &[u8], arguments: &[&str]) -> Result<Value> {
    let mut child = Command::new(TOLLGATE)
        .args(["explain", "-"])
        .args(arguments)
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
    ensure!(record["event"]["a_leg"]["number"] == "+861********21");
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

/// I12.
#[test]
fn explain_shows_numbers_and_contents_to_who_asks_for_them() -> Result<()> {
    let numbered = br#"{"eventType":"answer","statusInfo":{"timestamp":"2026-11-23 07:00:00",
        "sessionId":"+8613800000021_+8613800007021_4_627e5c1f_963036_669_1_0",
        "called":"+8613800000021","userData":"13800000021"}}"#;
    for body in [&numbered[..], br#"{"feeLst":[{"sessionId":{},"calleeNum":"+8613800000021"}]}"#] {
        let hidden = explain(body, &[])?.to_string();
        ensure!(!hidden.contains("13800000021") && hidden.contains("--reveal"), "{hidden}");
    }
    let whole = explain(numbered, &["--reveal"])?;
    let event = &whole["records"][0]["event"];
    ensure!(event["called"] == "+8613800000021" && event["user_data"] == "13800000021", "{event}");
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
        explain(br#"{"eventType":"fee","feeLst":[{"sessionId":{}},{"sessionId":"s"}]}"#, &[])?;
    let bad = &document["quarantined"][0];
    ensure!(bad["reason"] == "QUARANTINE_REASON_UNREADABLE_RECORD", "{bad}");
    ensure!(bad["location"] == "feeLst[0].sessionId", "{bad}");
    ensure!(document["records"][0]["index"] == 1);
    let document = explain(b"no json", &[])?;
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

/// Its settings are refused, in words that contain each of these.
fn refused(arguments: &[&str], environment: &[(&str, String)], words: &[&str]) -> Result<()> {
    // What is not refused does not go on either: this port is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let health = ("TOLLGATE_LISTENERS__HEALTH", taken.local_addr()?.to_string());
    let output = tollgate(arguments, &[environment, &[health]].concat())?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{arguments:?} ended with {}: {text}", output.status);
    for word in words {
        ensure!(text.contains(word), "{word} is not in: {text}");
    }
    Ok(())
}

#[test]
fn an_unknown_setting_is_refused_with_its_name_and_exit_code_2() -> Result<()> {
    let value = || "127.0.0.1:1".to_owned();
    let check = ["config", "check"];
    refused(&check, &[("TOLLGATE_EDGE__LISTN", value())], &["`listn`", "TOLLGATE_EDGE__LISTN"])?;
    refused(&check, &[("TOLLGATE_EDGE_LISTEN", value())], &["TOLLGATE_EDGE_LISTEN"])
}

#[test]
fn what_is_set_on_the_command_line_and_refused_is_said_to_come_from_there() -> Result<()> {
    refused(&["config", "check", "--set", "edge.lisen=1"], &[], &["edge.lisen", "--set"])?;
    refused(&["config", "check", "--log", "warning"], &[], &["`warning`", "warn", "debug"])?;
    refused(&["config", "check", "--set", "log.filter=inof"], &[], &["`inof`", "info"])?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().display().to_string();
    refused(&["config", "check", "--config", &path], &[], &[&path, "is a directory"])
}

#[test]
fn what_a_check_of_all_has_not_checked_is_said() -> Result<()> {
    let text = succeed(&["config", "check"], &[])?;
    ensure!(text.contains("not checked: the database") && text.contains("billing"), "{text}");
    let url = [("TOLLGATE_DATABASE__URL", "postgres://db/tollgate".to_owned())];
    let text = succeed(&["config", "check"], &url)?;
    ensure!(text.trim() == "settings can be used", "{text}");
    refused(&["config", "check", "billing"], &[], &["database"])
}

#[test]
fn a_contradiction_is_refused_with_both_names() -> Result<()> {
    let environment = [("TOLLGATE_EDGE__LISTEN", "0.0.0.0:1".into())];
    refused(&["config", "check"], &environment, &["edge.listen", "edge.allow_open_ingest"])?;
    let environment = [("TOLLGATE_SPOOL__QUEUE_BYTES", "100000".into())];
    refused(&["config", "check"], &environment, &["spool.queue_bytes", "edge.max_body_bytes"])
}

#[test]
fn what_kubernetes_says_of_a_service_of_our_name_is_no_setting() -> Result<()> {
    let environment = [
        ("TOLLGATE_EDGE_SERVICE_HOST", "10.0.0.1".to_owned()),
        ("TOLLGATE_EDGE_SERVICE_PORT", "80".to_owned()),
        ("TOLLGATE_EDGE_SERVICE_PORT_HTTP", "80".to_owned()),
        ("TOLLGATE_EDGE_PORT", "tcp://10.0.0.1:80".to_owned()),
        ("TOLLGATE_EDGE_PORT_80_TCP_ADDR", "10.0.0.1".to_owned()),
    ];
    succeed(&["config", "check"], &environment).map(drop)
}

/// A file that this setting names is read by `config check` and by these commands.
fn is_read_first(setting: &str, commands: &[&str], with: &[(&str, String)]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (absent, empty) = (path("absent"), path("empty"));
    File::create(&empty)?;
    let variable = format!("TOLLGATE_{}", setting.replace('.', "__").to_uppercase());
    let names = |file: &str| [with, &[(variable.as_str(), file.to_owned())]].concat();
    let (_, setting) = setting.split_once('.').context("a setting has two levels")?;
    for command in [&["config", "check"][..]].into_iter().chain(commands.chunks(1)) {
        refused(command, &names(&absent), &[setting, &absent])?;
        refused(command, &names(&empty), &[setting])?;
    }
    Ok(())
}

#[test]
fn a_secret_that_cannot_be_used_is_named_before_anything_starts() -> Result<()> {
    let database = [("TOLLGATE_DATABASE__URL", "postgres://db/tollgate".to_owned())];
    let sasl = [
        ("TOLLGATE_KAFKA__SECURITY_PROTOCOL", "sasl_plaintext".to_owned()),
        ("TOLLGATE_KAFKA__SASL_USERNAME", "me".to_owned()),
        database[0].clone(),
    ];
    is_read_first("database.url_file", &["billing", "user-state"], &[])?;
    is_read_first("listeners.query_token_file", &["billing", "user-state"], &database)?;
    is_read_first("user_state.pseudonym_key_file", &["user-state"], &database)?;
    is_read_first("kafka.sasl_password_file", &["edge", "billing", "user-state"], &sasl)?;
    let url = [("TOLLGATE_DATABASE__URL", "postgres://me:pa/ss@db/tollgate".to_owned())];
    refused(&["config", "check"], &url, &["database", "url"])
}

#[test]
fn settings_of_all_hosts_are_checked_for_one_service_without_the_secrets_of_the_others()
-> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("tollgate.toml").display().to_string();
    let absent = |name: &str| dir.path().join(name).display().to_string();
    let (path_secret, url, key) = (absent("path_secret"), absent("url"), absent("key"));
    fs::write(
        &file,
        format!(
            "database.url_file = \"{url}\"\nuser_state.pseudonym_key_file = \"{key}\"\n\
             [[applications]]\nname = \"a\"\napp_key = \"k\"\npath_secret_file = \"{path_secret}\"\n"
        ),
    )?;
    let check = ["--config", &file, "config", "check"];
    let of = |service| [&check[..], &[service]].concat();
    refused(&of("edge"), &[], &[&path_secret])?;
    fs::write(&path_secret, "a-long-enough-secret")?;
    succeed(&of("edge"), &[])?;
    refused(&of("billing"), &[], &[&url])?;
    fs::write(&url, "postgres://db/tollgate")?;
    succeed(&of("billing"), &[])?;
    refused(&of("user-state"), &[], &[&key])?;
    refused(&check, &[], &[&key])
}

#[test]
fn applications_that_an_edge_would_refuse_are_refused_beforehand() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("tollgate.toml");
    let name = file.display().to_string();
    let absent = dir.path().join("absent").display().to_string();
    for (text, word) in [
        ("path_secret = \"twelve-chars\"", "path secret"),
        (&format!("path_secret_file = \"{absent}\""), absent.as_str()),
        (&format!("app_secret_file = \"{absent}\""), absent.as_str()),
        ("\n[[applications]]\nname = \"b\"\napp_key = \"k\"", "app_key is taken"),
    ] {
        fs::write(&file, format!("[[applications]]\nname = \"a\"\napp_key = \"k\"\n{text}\n"))?;
        for command in [&["config", "check"][..], &["edge"], &["dev", "--quiet"]] {
            refused(&[&["--config", &name], command].concat(), &[], &[word])?;
        }
    }
    Ok(())
}

#[test]
fn dev_refuses_settings_that_contradict_each_other_and_a_database_it_would_not_use() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data").display().to_string();
    let dev = ["dev", "--quiet", "--data", &data];
    for (setting, word) in [
        ("database.schema=Trial", "schema"),
        ("database.max_connections=0", "max_connections"),
        ("consumer.batch_records=0", "batch_records"),
        ("billing.max_leg_seconds=0", "max_leg_seconds"),
        ("user_state.changes_buffer=1", "changes_buffer"),
        ("embedded.segment_bytes=1", "segment_bytes"),
        ("database.url=postgres://db/production", "--database"),
        ("database.url_file=/run/secrets/url", "--database"),
    ] {
        refused(&[&dev[..], &["--set", setting]].concat(), &[], &[word])?;
    }
    let on_postgres = ["--database", "postgres://db/trial", "--set", "database.schema=Trial"];
    refused(&[&dev[..], &on_postgres].concat(), &[], &["schema"])
}

/// What it says to a standard output like this, which is not read.
fn prints_to(stdout: impl Into<Stdio>, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(TOLLGATE);
    Ok(command.args(arguments).stdout(stdout).stderr(Stdio::piped()).output()?)
}

fn full_disk() -> Result<File> {
    Ok(File::options().write(true).open("/dev/full")?)
}

/// A pipe whose reader has seen enough.
fn closed_pipe() -> Result<std::io::PipeWriter> {
    let (_, writer) = std::io::pipe()?;
    Ok(writer)
}

/// Makes a spool in which a record that was acknowledged cannot be read any more.
fn damaged_spool(dir: &Path) -> Result<()> {
    let text = b"a notification of +8613800000021";
    let settings = Settings { dir: dir.to_owned(), ..Settings::default() };
    let (spool, reader) = Spool::open(Options { settings, started_at_us: 1 }, Arc::new(RealDisk))?;
    for _ in 0..3 {
        let request = Request { body: text, ..Request::default() };
        spool.append(request.encode()).wait()?;
    }
    spool.close();
    drop((spool, reader));
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Ok(mut bytes) = fs::read(&path) else { continue };
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
            bytes[at] ^= 1;
            fs::write(&path, bytes)?;
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_printed_is_a_failure_unless_its_reader_has_seen_enough() -> Result<()> {
    let explain = ["explain", &format!("{SAMPLES}/08-fee-callback-single.json")];
    let output = prints_to(full_disk()?, &explain)?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{}: {text}", output.status);
    ensure!(text.contains("standard output cannot be written"), "{text}");
    let output = prints_to(closed_pipe()?, &explain)?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(output.stderr.is_empty(), "{output:?}");
    Ok(())
}

#[test]
fn what_a_check_found_stands_whoever_reads_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let spool = dir.path().join("spool");
    damaged_spool(&spool)?;
    let verify = ["spool", "verify", "--dir", &spool.display().to_string()];
    let output = tollgate(&verify, &[])?;
    ensure!(output.status.code() == Some(3), "{output:?}");
    let output = prints_to(closed_pipe()?, &verify)?;
    ensure!(output.status.code() == Some(3), "{output:?}");
    let output = prints_to(full_disk()?, &verify)?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    Ok(())
}

#[test]
fn what_is_left_of_a_damaged_request_is_shown_and_its_numbers_on_request() -> Result<()> {
    let dir = tempfile::tempdir()?;
    damaged_spool(dir.path())?;
    // Whoever reads it keeps the bytes.
    let settings = Settings { dir: dir.path().to_owned(), ..Settings::default() };
    let options = Options { settings, started_at_us: 1 };
    let (spool, mut reader) = Spool::open(options, Arc::new(RealDisk))?;
    while !reader.next_blocking(10, 1 << 20)?.is_empty() {}
    drop((spool, reader));
    let kept = fs::read_dir(dir.path().join("damaged"))?.next().context("nothing is kept")??;
    let file = kept.path().display().to_string();
    let hidden = succeed(&["spool", "salvage", &file], &[])?;
    ensure!(hidden.contains("notification of +861") && !hidden.contains("13800000021"), "{hidden}");
    let shown = succeed(&["spool", "salvage", &file, "--reveal"], &[])?;
    ensure!(shown.contains("notification of +8613800000021"), "{shown}");
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
    let text = succeed(&["tariff", "check", SAMPLE_TARIFF], &[])?;
    ensure!(text.contains("CNY") && text.contains("0.18"), "{text}");
    let dir = tempfile::tempdir()?;
    let wrong = dir.path().join("wrong.toml");
    std::fs::write(&wrong, "name = \"x\"\ncurrency = \"YUAN\"\n")?;
    let output = tollgate(&["tariff", "check", &wrong.display().to_string()], &[])?;
    ensure!(output.status.code() == Some(2), "{}", output.status);
    Ok(())
}

const SAMPLE_TARIFF: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../rating/tariffs/sample.toml");

/// Tariffs are listed only where billing's tables are.
fn lists_nothing(database: &[(&str, String)], words: &[&str]) -> Result<()> {
    refused(&["tariff", "list"], database, &[words, &["no tables of billing"]].concat())
}

/// Says where a tariff is kept, and whether anybody uses it.
fn activates(database: &[(&str, String)], place: &str) -> Result<()> {
    let text = succeed(&["tariff", "activate", SAMPLE_TARIFF], database)?;
    ensure!(text.contains(&format!("this stands in {place}")), "{text}");
    ensure!(text.contains("no billing consumer (group tollgate-billing)"), "{text}");
    let listed = succeed(&["tariff", "list"], database)?;
    ensure!(listed.contains("sample") && listed.contains("activated"), "{listed}");
    Ok(())
}

#[test]
fn listing_tariffs_makes_no_schema_and_activating_one_says_in_which_it_is() -> Result<()> {
    let url = Postgres::shared().create_database("tariffs")?;
    let database =
        [("TOLLGATE_DATABASE__URL", url), ("TOLLGATE_DATABASE__SCHEMA", "tolgate".to_owned())];
    for _ in 0..2 {
        lists_nothing(&database, &["schema tolgate of postgres://", "database.schema"])?;
    }
    activates(&database, "schema tolgate of postgres://")
}

#[tokio::test]
async fn listing_tariffs_makes_no_file_and_the_file_of_another_service_is_left_alone() -> Result<()>
{
    let dir = tempfile::tempdir()?;
    let at = |name: &str| {
        let url = format!("sqlite:{}", dir.path().join(name).display());
        [("TOLLGATE_DATABASE__URL", url)]
    };
    lists_nothing(&at("billing.sqlite"), &["SQLite file", "billing.sqlite"])?;
    ensure!(fs::read_dir(dir.path())?.next().is_none(), "a file was made");
    activates(&at("billing.sqlite"), "SQLite file")?;

    let other = at("user-state.sqlite");
    let step = Migration { postgres: "", sqlite: "CREATE TABLE calls (id INTEGER) STRICT" };
    let database = tollgate_store::connect(&tollgate_store::Settings::for_url(&other[0].1))?;
    Schema::new("user-state", &["calls"], vec![step].leak()).ensure(&database).await?;
    database.close().await;
    lists_nothing(&other, &["user-state.sqlite"])?;
    refused(&["tariff", "activate", SAMPLE_TARIFF], &other, &["is the file of user-state"])?;
    lists_nothing(&other, &["user-state.sqlite"])
}

#[test]
fn a_command_names_the_brokers_it_does_not_reach_and_promises_nothing() -> Result<()> {
    let brokers = common::address().to_string();
    let output = tollgate(&["tail", "cdrs"], &[("TOLLGATE_KAFKA__BROKERS", brokers.clone())])?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{}: {text}", output.status);
    for word in [&brokers, "kafka.brokers", "--dev http://"] {
        ensure!(text.contains(word), "{word} is not in: {text}");
    }
    ensure!(!text.contains("tried again"), "{text}");
    Ok(())
}

#[test]
fn a_directory_that_is_no_spool_is_named_and_nothing_is_written_into_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let spool = dir.path().join("spool");
    damaged_spool(&spool)?;
    let (parent, spool) = (dir.path().display().to_string(), spool.display().to_string());
    for command in ["inspect", "verify", "replay", "dead-letters"] {
        let output = tollgate(&["spool", command, "--dir", &parent], &[])?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{command}: {}: {text}", output.status);
        ensure!(text.contains("no spool directory"), "{command}: {text}");
        ensure!(text.contains(&format!("{spool} is one")), "{command}: {text}");
        ensure!(fs::read_dir(&parent)?.count() == 1, "{command} has written something");
        let output = tollgate(&["spool", command, "--dir", "/no/such/spool"], &[])?;
        ensure!(output.status.code() == Some(1), "{command}: {output:?}");
    }
    Ok(())
}

#[test]
fn tail_says_which_address_of_dev_it_wants() -> Result<()> {
    for address in ["127.0.0.1:8081", "localhost:8081", "http://"] {
        refused(&["tail", "cdrs", "--dev", address], &[], &["--dev", "http://127.0.0.1:8081"])?;
    }
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
