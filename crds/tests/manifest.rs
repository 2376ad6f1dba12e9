//! The file beside this crate is what the types say.

use std::path::Path;

/// `UPDATE_EXPECT=1 cargo test -p ais-crds` writes it anew.
#[test]
fn the_committed_definition_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("aiscluster.yaml");
    let made = ais_crds::manifest().unwrap();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == made, "crds/aiscluster.yaml is stale: run `ais-operator crd > crds/aiscluster.yaml`");
}

/// The chart renders the same file, from its own directory because Helm reads nothing outside.
#[test]
fn the_chart_has_the_same_definition() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../charts/aiscluster-operator/files/aiscluster.yaml");
    let made = ais_crds::manifest().unwrap();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap_or_default() == made, "the chart's copy of the definition is stale");
}
