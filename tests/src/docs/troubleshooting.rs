//! Every reason that the operator gives has a row in the manual.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

use super::sources;
use crate::xtask::root;

/// Words in the operator's code that look like reasons and are none: what Kubernetes calls things, values and types of
/// conditions, types that print no keys, units, actions of events, phases and states (the manual has a list of its own),
/// flags and policies.
const WORDS: &str = "
    AISCluster AISClusterStatus ClusterFirstWithHostNet ClusterIP Host In Ingress Local None Normal OnDelete OnRootMismatch Opaque Parallel PersistentVolumeClaim
    Pod ReadWriteOnce RollingUpdate RuntimeDefault ScheduleAnyway Warning
    StatefulSet True False Unknown
    Pair SecretFact
    Ki Mi Gi Ti Pi Ei
    CertificatesValid
    ConfigValid Degraded MembershipConverged Paused PrimaryPreferred Progressing RolloutPending StorageResized
    Accept Adopt Apply Decommission Delete Elect Found Observe Read Refound Request Resize RotateCertificate RotateSecret SetConfig Start Stop
    Validate
    CrashLoopBackOff CreateContainerConfigError CreateContainerError ErrImageNeverPull ErrImagePull ImagePullBackOff
    InvalidImageName PodScheduled RunContainerError
    Completed Creating Rolling Running Scaling Stuck Updating
    Maintenance NonElectable Retain
";
/// Types of objects stand where these are before them on the line.
const TYPED: &[&str] = &["\"kind\": ", "Kind::"];

/// Words that could be reasons: literals in camel case, two letters and more.
fn reasons() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for text in sources(&root().join("operator/src"))? {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (at, part) in line.split('"').enumerate().filter(|(at, _)| at % 2 == 1) {
                let before: String = line.split('"').take(at).collect::<Vec<_>>().join("\"");
                if is_camel(part) && !TYPED.iter().any(|mark| format!("{before}\"").contains(mark)) {
                    found.insert(part.to_owned());
                }
            }
        }
    }
    found.retain(|word| WORDS.split_whitespace().all(|known| known != word));
    Ok(found)
}

fn is_camel(word: &str) -> bool {
    let capitals = word.chars().filter(char::is_ascii_uppercase).count();
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphabetic())
        && capitals < word.len()
}

/// First column of the manual's rows, and how many columns they fill.
fn rows() -> Result<Vec<(String, usize)>> {
    let manual = fs::read_to_string(root().join("docs/troubleshooting.md")).context("docs/troubleshooting.md")?;
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim().trim_matches('|').split(" | ").collect();
        let name = cells.first()?.trim().trim_matches('`').to_owned();
        Some((name, cells.iter().filter(|cell| !cell.trim().is_empty()).count()))
    };
    Ok(manual.lines().filter(|line| line.starts_with("| `")).filter_map(row).collect())
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
            "docs/troubleshooting.md has no row for {missing:?} (or they are no reasons: then add them to WORDS)"
        );
        let stale: Vec<_> = listed.difference(&reasons).collect();
        assert!(stale.is_empty(), "docs/troubleshooting.md explains what nothing says any more: {stale:?}");
        let hollow: Vec<_> = rows.iter().filter(|(_, cells)| *cells != 3).collect();
        assert!(hollow.is_empty(), "rows without meaning or advice: {hollow:?}");
    }

    #[test]
    fn words_that_are_no_reasons_are_told_apart() {
        assert!(is_camel("NoPrimary") && is_camel("Idle") && !is_camel("ALL") && !is_camel("a") && !is_camel("No b"));
    }
}
