//! What the manual must keep up with.

mod monitoring;
mod troubleshooting;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::xtask::root;

/// What stands before the text of a reason in the code of the core.
const SAID: &[&str] = &[
    "say_why(",
    "Start::Wait(",
    "Start::Refuse(",
    "self.reason = ",
    "let why = format!(",
    "self.join.refused.clone().unwrap_or_else(",
];
/// The same in the HTTP handlers.
const ANSWERED: &[&str] = &["\"reason\", json!(", "view.reason.is_empty() { "];
/// How far behind such a place its text may stand, in bytes.
const NEAR: usize = 60;
/// A part that differs from case to case, in the manual and here.
const ANY: &str = "...";

/// The texts of all reasons for not being ready, with [`ANY`] for each variable part.
fn reasons() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (folder, marks) in [("node/ha/src", SAID), ("node/daemon/src/http", ANSWERED)] {
        for text in sources(&root().join(folder))? {
            found.extend(texts(&text, marks));
        }
    }
    let part = |file: &str, from: &str, to: &str| -> Result<String> {
        let text = fs::read_to_string(root().join(file)).with_context(|| format!("cannot read {file}"))?;
        let part = text.split(from).nth(1).and_then(|rest| rest.split(to).next());
        Ok(part.with_context(|| format!("{file} has no '{from}'"))?.to_owned())
    };
    // What a founder waits for is made elsewhere than it is said.
    found.extend(texts(&part("node/ha/src/genesis.rs", "impl Attempt<", "\n}\n")?, &["Err("]));
    found.extend(texts(&part("node/ha/src/node/view.rs", "fn why_not_ready", "\n    }\n")?, &["return ", "{"]));
    let runner = part("node/daemon/src/runner.rs", "impl Runner {", "\nimpl Place {")?;
    found.extend(texts(&runner, &["view.reason = "]));
    // These continue what the core says.
    found.extend(texts(&runner, &["let why = "]).iter().map(|why| format!("cannot write the state directory: {why}")));
    let locked_out = part("node/daemon/src/peers/mod.rs", "fn locked_out", "let links")?;
    found.extend(texts(&locked_out, &["&str = "]).iter().map(|why| format!("{ANY}; {why}")));
    found.retain(|text| text.len() > 3);
    Ok(found)
}

/// The texts that follow marks in this code.
fn texts(code: &str, marks: &[&str]) -> Vec<String> {
    let behind = marks.iter().flat_map(|mark| code.match_indices(mark).map(|(at, mark)| &code[at + mark.len()..]));
    behind.filter_map(literal).collect()
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

/// The literal that begins right here, with [`ANY`] for what is filled in.
fn literal(code: &str) -> Option<String> {
    let (before, after) = code.split_once('"')?;
    let plain = |c: char| c.is_whitespace() || "|Errformat!(&self.why".contains(c);
    if before.len() > NEAR || !before.chars().all(plain) {
        return None;
    }
    let mut text = String::new();
    let mut pieces = after.split('"').next()?.split("\\\n");
    text.push_str(pieces.next()?);
    pieces.for_each(|piece| text.push_str(piece.trim_start()));
    let mut parts = text.split('{');
    let first = parts.next()?.to_owned();
    Some(parts.fold(first, |text, part| text + ANY + part.split_once('}').map_or("", |(_, rest)| rest)))
}

/// The reasons that the manual explains.
fn rows(manual: &str) -> Vec<&str> {
    let table = manual.split("### What each reason means").nth(1).and_then(|rest| rest.split("\n## ").next());
    let lines = table.into_iter().flat_map(str::lines);
    let cells = lines.filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    cells.map(|(text, _)| text).collect()
}

/// Whether a row is about a reason: its parts stand in the reason, in their order, the first one at its beginning.
fn tells(row: &str, reason: &str) -> bool {
    let mut rest = reason;
    for (i, part) in row.split(ANY).enumerate() {
        match rest.find(part) {
            Some(at) if i > 0 || at == 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    row.ends_with(ANY) || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_explains_every_reason_for_not_being_ready_and_no_other() {
        let manual = fs::read_to_string(root().join("docs/operations.md")).unwrap();
        let (rows, reasons) = (rows(&manual), reasons().unwrap());
        assert!(reasons.len() >= 30, "the search for reasons is broken: {reasons:#?}");
        let mut wrong = Vec::new();
        for reason in &reasons {
            if !rows.iter().any(|row| tells(row, reason)) {
                wrong.push(format!("no row for '{reason}'"));
            }
        }
        let twice = rows.iter().enumerate().filter(|(i, row)| rows[..*i].contains(*row));
        wrong.extend(twice.map(|(_, row)| format!("two rows for '{row}'")));
        let stale = rows.iter().filter(|row| !reasons.iter().any(|reason| tells(row, reason)));
        wrong.extend(stale.map(|row| format!("no code says '{row}'")));
        assert!(wrong.is_empty(), "docs/operations.md: {wrong:#?}");
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
        assert_eq!(literal("&format!(\"waiting for {x}\"))").as_deref(), Some("waiting for ..."));
        assert_eq!(literal("\n            \"plain\".to_owned(),").as_deref(), Some("plain"));
        assert_eq!(literal("format!(\"two {} \\\n        lines\")").as_deref(), Some("two ... lines"));
        assert_eq!(literal("reason)) \"other\""), None);
    }

    #[test]
    fn a_row_tells_of_the_reasons_that_it_has_all_parts_of() {
        let reason = "founding: ... is bound to offer ... of ...; found anew";
        assert!(tells("founding: ... is bound to offer ...", reason) && tells("...; found anew", reason));
        assert!(!tells("founding: offer ... names disks that are gone; found anew", reason));
        assert!(!tells("is bound to offer ...", reason), "it begins otherwise");
        assert!(!tells("founding: ... is bound to offer", reason), "it goes on");
    }
}
