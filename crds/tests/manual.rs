//! Fields that the manual names exist.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::Value;

/// Pages about the resource.
const PAGES: &[&str] = &["install", "operator", "operations", "troubleshooting"];

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(format!("{name}.md"));
    std::fs::read_to_string(path).unwrap()
}

/// Paths such as `spec.primary.preferred` that stand in quotation marks of code.
fn paths(text: &str) -> Vec<String> {
    let starts = ["`spec.", "`status."].into_iter().flat_map(|start| text.match_indices(start));
    let path = |(at, _): (usize, &str)| -> String {
        text[at + 1..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect()
    };
    starts.map(path).map(|path| path.trim_end_matches('.').to_owned()).collect()
}

fn is_known(schema: &Value, path: &str) -> bool {
    let mut here = schema;
    for part in path.split('.') {
        while here["items"].is_object() {
            here = &here["items"];
        }
        if here["x-kubernetes-preserve-unknown-fields"] == true || here["additionalProperties"].is_object() {
            return true;
        }
        here = &here["properties"][part];
        if !here.is_object() {
            return false;
        }
    }
    true
}

#[test]
fn fields_that_the_manual_names_exist() {
    let crd = serde_json::to_value(ais_crds::crd()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut named: Vec<String> = PAGES.iter().flat_map(|name| paths(&page(name))).collect();
    // The left column of its tables is about the other operator.
    let migration = page("migration");
    let right = migration.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").nth(1));
    named.extend(right.flat_map(paths));
    assert!(named.len() > 40, "the search is broken: {named:?}");
    let unknown: Vec<_> = named.iter().filter(|path| !is_known(schema, path)).collect();
    assert!(unknown.is_empty(), "the manual names fields that are not there: {unknown:#?}");
    assert!(!is_known(schema, "spec.primary.preffered") && is_known(schema, "spec.gateways.template.labels.x"));
}
