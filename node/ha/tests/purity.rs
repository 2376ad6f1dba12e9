//! Architecture invariant 1: the core has no IO, no clock, no randomness, so it depends on nothing that could.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; the bans are for the core")]

use std::collections::BTreeSet;

/// Names under `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let path = format!("{}/{manifest}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let section = text.split("[dependencies]\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|l| !l.starts_with('['));
    let names = lines.filter_map(|l| l.split(['.', '=', ' ']).next()).filter(|n| !n.is_empty() && !n.starts_with('#'));
    names.map(str::to_owned).collect()
}

#[test]
fn the_core_depends_on_values_only() {
    let allowed = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    let core = dependencies("Cargo.toml");
    assert!(core.is_subset(&allowed(&["ais-meta", "imbl", "serde", "thiserror"])), "{core:?}");
    let meta = dependencies("../meta/Cargo.toml");
    let pure = [
        "bytes",
        "hmac",
        "imbl",
        "rmp-serde",
        "rmpv",
        "serde",
        "serde_json",
        "sha2",
        "strsim",
        "thiserror",
        "xxhash-rust",
    ];
    assert!(meta.is_subset(&allowed(&pure)), "{meta:?}");
}
