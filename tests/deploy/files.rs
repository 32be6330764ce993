//! The repository's files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_yaml_ng::Value;

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file by its path in the repository.
pub fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(root().join(path)).with_context(|| path.to_owned())
}

/// Whether there is such a file or directory.
pub fn exists(path: &str) -> bool {
    root().join(path).exists()
}

/// A YAML file with its merge keys (`<<`) resolved.
pub fn yaml(path: &str) -> Result<Value> {
    parse(&read(path)?).with_context(|| path.to_owned())
}

fn parse(text: &str) -> Result<Value> {
    let mut value: Value = serde_yaml_ng::from_str(text)?;
    // What is merged in may itself have a merge key: one level each time.
    while has_merge_key(&value) {
        value.apply_merge()?;
    }
    Ok(value)
}

fn has_merge_key(value: &Value) -> bool {
    match value {
        Value::Mapping(members) => members
            .iter()
            .any(|(name, member)| name.as_str() == Some("<<") || has_merge_key(member)),
        Value::Sequence(items) => items.iter().any(has_merge_key),
        _ => false,
    }
}

/// The items of a list.
pub fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_sequence().context("not a list")
}

/// A text, also where YAML sees a number or a truth value.
pub fn text_of(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        _ => anyhow::bail!("not a text: {value:?}"),
    }
}

/// All Rust sources of the crates that are shipped, without their tests' directories.
pub fn sources() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join("crates"))? {
        let entry = entry?;
        if entry.file_name() != "bench" {
            collect(&entry.path().join("src"), &mut found)?;
        }
    }
    Ok(found)
}

fn collect(dir: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[test]
fn merge_keys_are_resolved_also_within_what_is_merged_in() -> Result<()> {
    let value = parse("a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, z: {<<: *a}}\n")?;
    assert_eq!(value["c"]["x"].as_i64(), Some(1));
    assert_eq!(value["c"]["y"].as_i64(), Some(2));
    assert_eq!(value["c"]["z"]["y"].as_i64(), Some(1));
    Ok(())
}
