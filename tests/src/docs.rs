//! What the manual must keep up with.

mod monitoring;
mod troubleshooting;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::xtask::root;

/// What stands before the text of a reason in the code of the core.
const SAID: &[&str] = &["say_why(", "Start::Wait(", "Start::Refuse(", "self.reason = ", "let why = format!("];
/// The same in the HTTP handlers.
const ANSWERED: &[&str] = &["\"reason\", json!(", "view.reason.is_empty() { "];
/// How far behind such a place its text may stand, in bytes.
const NEAR: usize = 60;

/// The texts of all reasons for not being ready, each up to its first variable part.
fn reasons() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (folder, marks) in [("node/ha/src", SAID), ("node/daemon/src/http", ANSWERED)] {
        for text in sources(&root().join(folder))? {
            for mark in marks {
                let places = text.match_indices(mark).map(|(at, mark)| &text[at + mark.len()..]);
                found.extend(places.filter_map(literal));
            }
        }
    }
    let view = fs::read_to_string(root().join("node/ha/src/node/view.rs"))?;
    let body = view.split("fn why_not_ready").nth(1).and_then(|rest| rest.split("\n    }\n").next());
    let mut rest = body.context("the core has no why_not_ready")?;
    while let Some((_, after)) = rest.split_once('"') {
        let (text, after) = after.split_once('"').context("a text without an end")?;
        found.insert(text.to_owned());
        rest = after;
    }
    found.retain(|text| text.len() > 3);
    Ok(found)
}

/// Rust files of a folder and its folders, without their tests.
fn sources(folder: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            texts.extend(sources(&path)?);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            texts.push(fs::read_to_string(&path)?);
        }
    }
    Ok(texts)
}

/// The literal that begins right here, up to its first variable part.
fn literal(code: &str) -> Option<String> {
    let (before, after) = code.split_once('"')?;
    let plain = |c: char| c.is_whitespace() || "format!(&self.why".contains(c);
    if before.len() > NEAR || !before.chars().all(plain) {
        return None;
    }
    let text = after.split('"').next()?;
    Some(text.split('{').next()?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_explains_every_reason_for_not_being_ready() {
        let manual = fs::read_to_string(root().join("docs/operations.md")).unwrap();
        let rows: Vec<&str> = manual.lines().filter(|line| line.starts_with("| `")).collect();
        let reasons = reasons().unwrap();
        assert!(reasons.len() >= 20, "the search for reasons is broken: {reasons:?}");
        for reason in &reasons {
            assert!(
                rows.iter().any(|row| row.contains(reason.as_str())),
                "docs/operations.md has no row for '{reason}'"
            );
        }
    }

    #[test]
    fn the_manual_shows_the_status_page_as_it_is() {
        let page = fs::read_to_string(root().join("operator/tests/snapshots/page_waits.txt")).unwrap();
        let shown: String = page.lines().map(|line| format!("{}\n", format!("    {line}").trim_end())).collect();
        let manual = fs::read_to_string(root().join("docs/operator.md")).unwrap();
        assert!(manual.contains(&shown), "docs/operator.md shows another page than operator/tests/snapshots has");
    }

    #[test]
    fn texts_are_found_where_they_stand() {
        assert_eq!(literal("&format!(\"waiting for {x}\"))").as_deref(), Some("waiting for"));
        assert_eq!(literal("\n            \"plain\".to_owned(),").as_deref(), Some("plain"));
        assert_eq!(literal("reason)) \"other\""), None);
    }
}
