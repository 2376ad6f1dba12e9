//! Every reason that the operator gives has a row in the manual, and every phase a word.
//!
//! Reasons are literals in camel case. The same words are also types of conditions, actions of events and kinds of
//! operations; those are told apart by what stands before them, not by the word: a list of words would excuse a reason
//! that is called like a condition.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};

use super::sources;
use crate::xtask::root;

/// Words in the operator's code that look like reasons and never are one: what Kubernetes calls things, values and types
/// of conditions, types that print no keys, units, headers, states of a roll-out, flags and policies.
const WORDS: &str = "
    AISCluster AISClusterStatus ClusterFirstWithHostNet ClusterIP Host In Ingress Local None Normal OnDelete OnRootMismatch Opaque Parallel PersistentVolumeClaim
    Pod ReadWriteOnce RollingUpdate RuntimeDefault ScheduleAnyway Warning
    StatefulSet True False Unknown
    Pair SecretFact
    Ki Mi Gi Ti Pi Ei
    Accept Apply Request
    CrashLoopBackOff CreateContainerConfigError CreateContainerError ErrImageNeverPull ErrImagePull ImagePullBackOff
    InvalidImageName PodScheduled RunContainerError
    Completed Rolling Stuck
    NonElectable Retain
";
/// Types of conditions; some are reasons as well.
const TYPES: &str = "
    Available CertificatesValid ConfigValid Degraded HighlyAvailable MembershipConverged Paused PrimaryPreferred
    Progressing Ready RolloutPending ScaleDownBlocked StorageResized
";
/// What stands before a type of a condition. Tables have the type first.
const BEFORE_TYPE: &[&str] =
    &["kind = ", "type_ == ", "verdict(", "stopped(", "holds(", "is(", "became(", "fell(", "[(", "[ (", ", ("];
/// What stands before kinds of operations, actions, phases and flags of nodes.
const BEFORE_OTHERS: &[&str] = &[
    "const ACTION: &str = ",
    "o.kind == ",
    "remember(observed, ",
    "remember(self.observed, ",
    "phase = Some(",
    "phase: Some(",
    "\"phase\": ",
    "flags.push(",
];
/// Lines of which no word is a reason: types of objects, a list of types of conditions.
const LINES: &[&str] = &["\"kind\": ", "Kind::", "GOOD_WHEN_FALSE: "];
/// How much of what stands before a literal is looked at, in bytes.
const BEFORE_BYTES: usize = 240;

/// A literal in camel case.
struct Literal {
    word: String,
    /// What stands before it, white space folded, without its quote.
    before: String,
    line: String,
}

impl Literal {
    fn is_reason(&self) -> bool {
        let after = |marks: &[&str]| marks.iter().any(|mark| self.before.ends_with(mark));
        let is_type = TYPES.split_whitespace().any(|known| known == self.word) && after(BEFORE_TYPE);
        let is_known = WORDS.split_whitespace().any(|known| known == self.word);
        let line = || LINES.iter().any(|mark| self.line.contains(mark));
        !(is_type || is_known || after(BEFORE_OTHERS) || line() || self.is_action())
    }

    /// The second argument of a note.
    fn is_action(&self) -> bool {
        let note = ["Note::normal(", "Note::warning("].iter().filter_map(|call| {
            let at = self.before.rfind(call)? + call.len();
            Some(&self.before[at..])
        });
        note.min_by_key(|first| first.len())
            .is_some_and(|first| first.trim_end().ends_with(',') && first.matches([',', '(']).count() == 1)
    }
}

/// Literals in camel case, two letters and more, of one file without its comments and tests.
fn literals(text: &str) -> Vec<Literal> {
    let (mut found, mut above) = (Vec::new(), String::new());
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    for line in code.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        let parts: Vec<&str> = line.split('"').collect();
        for (at, word) in parts.iter().enumerate().filter(|(at, word)| at % 2 == 1 && is_camel(word)) {
            let before = format!("{above} {}", parts[..at].join("\""));
            found.push(Literal { word: (*word).to_owned(), before, line: line.to_owned() });
        }
        above = format!("{above} {line}");
        let cut = above.ceil_char_boundary(above.len().saturating_sub(BEFORE_BYTES));
        above.drain(..cut);
    }
    found
}

fn is_camel(word: &str) -> bool {
    let capitals = word.chars().filter(char::is_ascii_uppercase).count();
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphabetic())
        && capitals < word.len()
}

/// The function that makes one word of all conditions; a part of `status.rs`.
fn phase_function(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("\nfn phase(")?;
    rest.split_once("\n}\n").map(|(body, _)| body)
}

fn reasons() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for text in sources(&root().join("operator/src"))? {
        let text = phase_function(&text).map_or(text.clone(), |body| text.replace(body, ""));
        found.extend(literals(&text).into_iter().filter(Literal::is_reason).map(|literal| literal.word));
    }
    Ok(found)
}

/// The words of the column STATUS.
fn phases() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for text in sources(&root().join("operator/src"))? {
        let set = literals(&text).into_iter();
        found.extend(set.filter(|l| l.before.ends_with("phase = Some(")).map(|l| l.word));
        let said = phase_function(&text).map(literals).unwrap_or_default().into_iter();
        // Its conditions and their values.
        found.extend(said.filter(|l| !l.before.ends_with("is(") && l.word != "True").map(|l| l.word));
    }
    Ok(found)
}

fn manual() -> Result<String> {
    fs::read_to_string(root().join("docs/troubleshooting.md")).context("docs/troubleshooting.md")
}

/// First column of the manual's rows, and how many columns they fill.
fn rows() -> Result<Vec<(String, usize)>> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim().trim_matches('|').split(" | ").collect();
        let name = cells.first()?.trim().trim_matches('`').to_owned();
        Some((name, cells.iter().filter(|cell| !cell.trim().is_empty()).count()))
    };
    Ok(manual()?.lines().filter(|line| line.starts_with("| `")).filter_map(row).collect())
}

/// The phases that the manual explains: words in back quotes of the section's first part.
fn explained() -> Result<BTreeSet<String>> {
    let manual = manual()?;
    let (_, rest) = manual.split_once("\n## Phases\n").context("the manual has no phases")?;
    let section = rest.split("\n## ").next().unwrap_or_default();
    let words: BTreeSet<String> =
        section.split("\n* `").skip(1).filter_map(|item| Some(item.split_once('`')?.0.to_owned())).collect();
    ensure!(words.len() > 5, "the section has no list of phases: {section}");
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_row_and_every_row_a_reason() {
        let reasons = reasons().unwrap();
        assert!(reasons.len() > 50, "the search for reasons is broken: {reasons:?}");
        let rows = rows().unwrap();
        let listed: BTreeSet<String> = rows.iter().map(|(name, _)| name.clone()).collect();
        let missing: Vec<_> = reasons.difference(&listed).collect();
        assert!(
            missing.is_empty(),
            "docs/troubleshooting.md has no row for {missing:?} (or they are no reasons: then add them to WORDS, or what stands before them to the marks)"
        );
        let stale: Vec<_> = listed.difference(&reasons).collect();
        assert!(stale.is_empty(), "docs/troubleshooting.md explains what nothing says any more: {stale:?}");
        let hollow: Vec<_> = rows.iter().filter(|(_, cells)| *cells != 3).collect();
        assert!(hollow.is_empty(), "rows without meaning or advice: {hollow:?}");
    }

    #[test]
    fn every_phase_is_explained() {
        let phases = phases().unwrap();
        assert!(phases.contains("Paused") && phases.contains("Deleting"), "the search is broken: {phases:?}");
        assert_eq!(phases, explained().unwrap());
    }

    /// Regression: `Paused` and `Start` had no row, because a condition and an operation are called so, too; and the
    /// action `Switchover` had one.
    #[test]
    fn a_reason_is_known_by_its_place() {
        let said = |code: &str| -> Vec<String> {
            literals(code).into_iter().filter(Literal::is_reason).map(|literal| literal.word).collect()
        };
        assert_eq!(said(r#"verdict("Paused", true, "PausedBySpec", "spec.paused is set")"#), ["PausedBySpec"]);
        assert_eq!(said(r#"conclude(&mut decision, false, "Paused", "spec.paused is set");"#), ["Paused"]);
        assert_eq!(said(r#"State::Paused => verdict(kind, true, "Paused", message)"#), ["Paused"]);
        assert_eq!(said(r#"Closed { reason: "Paused", message }"#), ["Paused"]);
        assert_eq!(said(r#"operation::remember(observed, "Start", "", "x")"#), [""; 0]);
        assert_eq!(said(r#"record(decision, ended(s, leader, "", "Start"));"#), ["Start"]);
        assert_eq!(said(r#"Note::normal("SwitchoverStarted", "Switchover", message.clone())"#), ["SwitchoverStarted"]);
        assert_eq!(said("Note::warning(\n  \"Stuck\",\n  \"ScaleDown\",\n  text)"), [""; 0]);
        assert_eq!(said("Note::warning(\n  \"TooOld\",\n  \"ScaleDown\",\n  text)"), ["TooOld"]);
        assert_eq!(said(r#"[("Degraded", "NameConflict", "NameConflict"),"#), ["NameConflict", "NameConflict"]);
        assert_eq!(said(r#"Errand { reason: "ScaleDown", prefer }"#), ["ScaleDown"]);
    }

    /// A type or an action in the list would excuse a reason of that name.
    #[test]
    fn no_type_is_excused_by_its_word() {
        let types: BTreeSet<&str> = TYPES.split_whitespace().collect();
        assert!(WORDS.split_whitespace().all(|word| !types.contains(word)));
    }

    #[test]
    fn words_that_are_no_reasons_are_told_apart() {
        assert!(is_camel("NoPrimary") && is_camel("Idle") && !is_camel("ALL") && !is_camel("a") && !is_camel("No b"));
    }
}
