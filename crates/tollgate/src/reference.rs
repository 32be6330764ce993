//! The reference pages, made from the types and constants they describe. The tests compare them
//! with what is committed; `make docs` writes them anew.

use std::fmt::Write;

use schemars::schema_for;
use serde_json::Value;
use tollgate_telemetry::Kind;

use crate::compose::METRICS;
use crate::config::Config;

const HOW: &str = "Made from the code by `make docs`; do not edit.";

/// `docs/metrics.md`
fn metrics_page() -> String {
    let mut page = format!(
        "# Metrics\n\n{HOW}\n\nEvery service answers `GET /metrics` on its health listener \
         (`listeners.health`). Process figures (`process_*`) are the usual ones. A metric appears \
         with its first value. Names and labels never contain a phone number, a session id or a \
         path secret.\n\n| metric | kind | labels | meaning |\n|--|--|--|--|\n"
    );
    let mut metrics: Vec<_> = METRICS.iter().copied().flatten().collect();
    metrics.sort_by_key(|metric| metric.name);
    for metric in metrics {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        line(
            &mut page,
            &format!("| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help),
        );
    }
    page
}

/// `docs/settings.md`
fn settings_page() -> String {
    let schema = schema_for!(Config).to_value();
    let mut page = format!(
        "# Settings\n\n{HOW}\n\nA TOML file named by `--config` or `TOLLGATE_CONFIG`; over it the \
         environment (`TOLLGATE_EDGE__LISTEN` is `edge.listen`); over it flags and `--set \
         NAME=VALUE`. Unknown names and contradictions are refused at start. `tollgate config \
         check` reads them without starting anything, `tollgate config show` prints what is in \
         force. Secrets are given as files.\n"
    );
    let empty = serde_json::Map::new();
    for (section, property) in schema["properties"].as_object().unwrap_or(&empty) {
        let (target, is_list) = match property.get("items") {
            Some(items) => (resolve(&schema, items), true),
            None => (resolve(&schema, property), false),
        };
        let heading = if is_list { format!("[[{section}]]") } else { format!("[{section}]") };
        line(&mut page, &format!("\n## `{heading}`\n\n{}\n", text(property)));
        line(&mut page, "| setting | type | meaning |\n|--|--|--|");
        for (name, setting) in target["properties"].as_object().unwrap_or(&empty) {
            let row = format!("| `{name}` | {} | {} |", type_name(&schema, setting), text(setting));
            line(&mut page, &row);
        }
    }
    page
}

fn resolve<'a>(schema: &'a Value, property: &'a Value) -> &'a Value {
    let reference = property["$ref"].as_str().and_then(|it| it.strip_prefix("#/$defs/"));
    reference.map_or(property, |name| &schema["$defs"][name])
}

fn text(property: &Value) -> String {
    property["description"].as_str().unwrap_or("").replace('\n', " ")
}

fn type_name(schema: &Value, property: &Value) -> String {
    if let Some(choices) = property["anyOf"].as_array() {
        let names: Vec<String> = choices
            .iter()
            .filter(|choice| choice["type"] != "null")
            .map(|choice| type_name(schema, choice))
            .collect();
        return names.join(" or ");
    }
    let resolved = resolve(schema, property);
    let variants = resolved["oneOf"].as_array().map(|all| {
        all.iter()
            .filter_map(|it| it["const"].as_str())
            .map(|it| format!("`{it}`"))
            .collect::<Vec<_>>()
    });
    if let Some(variants) = variants.filter(|it| !it.is_empty()) {
        return variants.join(", ");
    }
    if let Some(all) = resolved["enum"].as_array() {
        let names: Vec<String> =
            all.iter().filter_map(|it| it.as_str()).map(|it| format!("`{it}`")).collect();
        return names.join(", ");
    }
    match &resolved["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .find(|name| *name != "null")
            .unwrap_or("")
            .to_owned(),
        _ => String::new(),
    }
}

fn line(page: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{text}");
}

fn compare(file: &str, page: &str) {
    let path = format!("{}/../../docs/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/{file} is not what the code says; run `make docs` and look at the change"
    );
}

#[test]
fn the_metrics_page_is_what_the_code_says() {
    compare("metrics.md", &metrics_page());
}

#[test]
fn the_settings_page_is_what_the_code_says() {
    compare("settings.md", &settings_page());
}

#[test]
fn every_setting_is_described() {
    let page = settings_page();
    let bare: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| `") && line.ends_with("|  |")).collect();
    assert!(bare.is_empty(), "settings without a description: {bare:#?}");
}

#[test]
fn metric_names_follow_the_conventions_and_are_unique() {
    let mut names = std::collections::HashSet::new();
    for metric in METRICS.iter().copied().flatten() {
        assert!(metric.name.starts_with("tollgate_"), "{}", metric.name);
        assert!(names.insert(metric.name), "{} is declared twice", metric.name);
        assert_eq!(
            metric.kind == Kind::Counter,
            metric.name.ends_with("_total"),
            "{}",
            metric.name
        );
        assert!(!metric.help.ends_with('.') && !metric.help.is_empty(), "{}", metric.name);
        assert!(!metric.name.ends_with("_ms"), "{}: seconds are the base unit", metric.name);
    }
}
