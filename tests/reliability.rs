//! The table of `docs/reliability.md`: every invariant has its tests, they exist, and they say
//! which invariant they hold up.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Invariant, file and name of each test that the table names.
fn named(page: &str) -> Vec<(String, String, String)> {
    let rows = page.lines().filter_map(|line| {
        let (invariant, rest) = line.strip_prefix("| I")?.split_once(" |")?;
        Some((format!("I{invariant}"), rest.to_owned()))
    });
    rows.flat_map(|(invariant, rest)| {
        let quoted: Vec<String> = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        quoted.into_iter().filter_map(move |text| {
            let (file, name) = text.split_once("::")?;
            Some((invariant.clone(), file.to_owned(), name.to_owned()))
        })
    })
    .collect()
}

/// Whether a text names the invariant, and not one that begins alike.
fn names(text: &str, invariant: &str) -> bool {
    let is_end = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_digit());
    text.match_indices(invariant).any(|(at, _)| is_end(&text[at + invariant.len()..]))
}

#[test]
fn each_invariant_has_tests_that_exist_and_name_it() -> Result<()> {
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/reliability.md"))?;
    let named = named(&page);
    for (invariant, file, name) in &named {
        let source = std::fs::read_to_string(Path::new(ROOT).join(file))
            .with_context(|| format!("docs/reliability.md names {file}"))?;
        ensure!(source.contains(&format!("fn {name}(")), "{file} has no test {name}");
        ensure!(names(&source, invariant), "{file} does not say that it holds up {invariant}");
    }
    let found: BTreeSet<&str> = named.iter().map(|(invariant, ..)| invariant.as_str()).collect();
    let expected: Vec<String> = (1..=12).map(|number| format!("I{number}")).collect();
    let missing: Vec<_> = expected.iter().filter(|it| !found.contains(it.as_str())).collect();
    ensure!(missing.is_empty(), "no test is named for {missing:?}");
    Ok(())
}

fn is_source(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == "rs")
}

/// Name and file of each test that the page names in its text: the one in quotes, the other in
/// quotes and brackets behind it.
fn told(page: &str) -> Vec<(&str, &str)> {
    let pieces: Vec<&str> = page.split('`').collect();
    let pairs = pieces.windows(3).skip(1).step_by(2);
    pairs
        .filter(|pair| pair[1].trim() == "(" && is_source(pair[2]))
        .map(|pair| (pair[0], pair[2]))
        .collect()
}

#[test]
fn each_test_that_is_told_of_a_defect_exists() -> Result<()> {
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/reliability.md"))?;
    let (_, defects) = page.split_once("## Defects found").context("a list of defects")?;
    let told = told(defects);
    ensure!(!told.is_empty(), "no defect names its test");
    for (name, file) in told {
        let source = std::fs::read_to_string(Path::new(ROOT).join(file))
            .with_context(|| format!("docs/reliability.md names {file}"))?;
        ensure!(source.contains(&format!("fn {name}(")), "{file} has no test {name}");
    }
    Ok(())
}
