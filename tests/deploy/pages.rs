//! What the pages say about commands, settings, paths and each other.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::common::succeed;
use crate::files::{exists, read, sources};

const SECTIONS: [&str; 10] = [
    "billing",
    "consumer",
    "database",
    "edge",
    "embedded",
    "kafka",
    "listeners",
    "log",
    "spool",
    "user_state",
];

/// Texts between backticks, and the lines of code blocks.
fn code(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut prose = String::new();
    let mut in_block = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            found.push(line.to_owned());
        } else {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    found.extend(prose.split('`').skip(1).step_by(2).map(|text| text.replace('\n', " ")));
    found
}

/// Calls of the program: their arguments.
pub fn commands(page: &str) -> Vec<String> {
    let call = |text: String| {
        let text = text.split('#').next()?.to_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        let at = words.iter().position(|it| *it == "tollgate" || it.ends_with("/tollgate"))?;
        let rest = words[at + 1..].join(" ");
        rest.starts_with(|c: char| c.is_ascii_lowercase()).then_some(rest)
    };
    code(page).into_iter().filter_map(call).collect()
}

/// Whether the program has this command and its flags.
pub fn check_command(arguments: &str) -> Result<()> {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let mut help = succeed(&[words[0], "--help"], &[])?;
    if help.contains("\nCommands:\n") {
        let which = words.get(1).context("which of its commands?")?;
        let outer = help;
        help = String::new();
        for which in which.split('|') {
            ensure!(outer.contains(&format!("\n  {which} ")), "there is no {which}");
            help.push_str(&succeed(&[words[0], which, "--help"], &[])?);
        }
    }
    for flag in words.iter().filter(|word| word.starts_with("--")) {
        ensure!(
            help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")),
            "{flag}"
        );
    }
    Ok(())
}

/// Names of settings, such as `edge.listen`.
pub fn settings(page: &str) -> Vec<String> {
    let name = |text: String| {
        let name = text.split([' ', '=']).next()?.to_owned();
        let (section, rest) = name.split_once('.')?;
        let plain = rest.chars().all(|c| c.is_ascii_lowercase() || "_*".contains(c));
        (SECTIONS.contains(&section) && plain && !rest.is_empty()).then_some(name)
    };
    code(page).into_iter().filter_map(name).collect()
}

/// Whether `config show` knows it; a star stands for any end.
pub fn is_setting(shown: &Value, name: &str) -> bool {
    let Some((section, rest)) = name.split_once('.') else { return false };
    let Some(known) = shown[section].as_object() else { return false };
    match rest.strip_suffix('*') {
        Some(start) => known.keys().any(|it| it.starts_with(start)),
        None => known.contains_key(rest),
    }
}

/// Targets of links that stay within the repository.
pub fn links(page: &str) -> Vec<String> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|it| !it.contains("://") && !it.contains(' ')).map(str::to_owned).collect()
}

/// Whether a link on a page leads somewhere.
pub fn check_link(page: &str, link: &str) -> Result<()> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = if file.is_empty() { page.to_owned() } else { format!("{folder}/{file}") };
    let path = path.trim_start_matches('/');
    ensure!(exists(path), "{path} does not exist");
    if !anchor.is_empty() {
        let anchors: Vec<_> = headings(&read(path)?).iter().map(|it| anchor_of(it)).collect();
        ensure!(anchors.iter().any(|it| it == anchor), "{path} has no section {anchor}");
    }
    Ok(())
}

/// The headings of a page.
pub fn headings(page: &str) -> Vec<String> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in page.lines() {
        in_block ^= line.trim_start().starts_with("```");
        if !in_block && let Some(rest) = line.strip_prefix('#') {
            found.push(rest.trim_start_matches('#').trim().to_owned());
        }
    }
    found
}

/// As the usual renderers make it.
fn anchor_of(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Every path that a listener serves.
pub fn routes() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for source in sources()? {
        let source = source.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
        // As in `.service(get("/livez", …))`.
        for rest in source.split(".service(").skip(1) {
            let path = rest.split_once('(').and_then(|(_, it)| it.trim_start().strip_prefix('"'));
            let path = path.and_then(|it| it.split('"').next());
            found.extend(path.filter(|it| it.starts_with('/')).map(str::to_owned));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

#[test]
fn what_a_page_says_is_found_in_it() {
    let page = "Run `tollgate spool\nverify --dir D`, see [x](y.md#a-b).\n\n```\n$ x/tollgate tail cdrs # c\n```\n\n\
                `edge.listen` and `kafka.ssl_*`, not `edge.rs` in `tollgate.v1`.\n# A b's\n";
    assert_eq!(commands(page), ["tail cdrs", "spool verify --dir D"]);
    assert_eq!(settings(page), ["edge.listen", "kafka.ssl_*", "edge.rs"]);
    assert_eq!(links(page), ["y.md#a-b"]);
    assert_eq!(anchor_of(&headings(page)[0]), "a-bs");
}

#[test]
fn a_command_a_flag_or_a_link_that_does_not_exist_is_found() {
    assert!(check_command("spool verify --dir D").is_ok());
    assert!(check_command("spool inspect|verify").is_ok());
    for wrong in ["spoil verify", "spool mend --dir D", "spool verify --folder D", "spool"] {
        assert!(check_command(wrong).is_err(), "{wrong}");
    }
    assert!(check_link("docs/operations.md", "api.md#queries").is_ok());
    for wrong in ["nothing.md", "api.md#nothing", "#nothing"] {
        assert!(check_link("docs/operations.md", wrong).is_err(), "{wrong}");
    }
}
