//! `kubectl explain` has words for every field, and the columns are those that are documented.
#![allow(clippy::unwrap_used)]

use serde_json::Value;

fn version() -> Value {
    serde_json::to_value(ais_crds::crd()).unwrap()["spec"]["versions"][0].clone()
}

/// Paths of fields without a description.
fn silent(schema: &Value, path: &str, found: &mut Vec<String>, seen: &mut usize) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        *seen += 1;
        if field["description"].as_str().is_none_or(|text| text.trim().len() < 5) {
            found.push(path.clone());
        }
        silent(field, &path, found, seen);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            silent(&schema[inner], &format!("{path}[]"), found, seen);
        }
    }
}

#[test]
fn every_field_is_explained() {
    let schema = version()["schema"]["openAPIV3Schema"].clone();
    let (mut found, mut seen) = (Vec::new(), 0);
    assert!(schema["description"].as_str().is_some());
    for part in ["spec", "status"] {
        assert!(schema["properties"][part]["description"].as_str().is_some(), "{part}");
        silent(&schema["properties"][part], part, &mut found, &mut seen);
    }
    assert!(seen > 150, "{seen} fields only");
    assert!(found.is_empty(), "fields without a word: {found:#?}");
}

#[test]
fn every_field_of_the_spec_has_a_bound() {
    // Without bounds the API server rejects rules for their estimated cost, and stored objects may be of any size.
    fn unbounded(schema: &Value, path: &str, found: &mut Vec<String>) {
        let kind = schema["type"].as_str().unwrap_or_default();
        let free = schema["x-kubernetes-preserve-unknown-fields"] == true;
        if kind == "array" && schema["maxItems"].is_null() {
            found.push(path.to_owned());
        }
        if kind == "object" && schema["additionalProperties"].is_object() && schema["maxProperties"].is_null() && !free
        {
            found.push(path.to_owned());
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            unbounded(field, &format!("{path}.{name}"), found);
        }
        if schema["items"].is_object() {
            unbounded(&schema["items"], &format!("{path}[]"), found);
        }
    }
    let mut found = Vec::new();
    unbounded(&version()["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec", &mut found);
    assert!(found.is_empty(), "without a bound: {found:#?}");
}

#[test]
fn columns_are_the_documented_ones() {
    let columns = version()["additionalPrinterColumns"].clone();
    let columns: Vec<String> = columns
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            format!(
                "{} {} {}",
                c["name"].as_str().unwrap(),
                c["priority"].as_i64().unwrap_or(0),
                c["jsonPath"].as_str().unwrap()
            )
        })
        .collect();
    expect_test::expect![[r#"
        [
            "Ready 0 .status.conditions[?(@.type==\"Ready\")].status",
            "Status 0 .status.phase",
            "Primary 0 .status.primary.current",
            "Gateways 0 .status.gateways.summary",
            "Targets 0 .status.targets.summary",
            "Version 0 .status.version",
            "Age 0 .metadata.creationTimestamp",
            "Preferred 1 .status.primary.preferred",
            "Smap 1 .status.smap.summary",
            "Cluster-ID 1 .status.clusterID",
            "Reason 1 .status.conditions[?(@.type==\"Ready\")].reason",
        ]
    "#]]
    .assert_debug_eq(&columns);
}
