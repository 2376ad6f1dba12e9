//! A field of status that never moves says nothing: each is seen with two values over the whole run.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::bed::Bed;

/// Values kept of one field; two are enough.
const VALUES_MAX: usize = 8;

/// Set once, for good, or once in this run: that they were absent before counts.
const ONCE: &[&str] = &[
    ".clusterID",
    ".endpoint",
    ".version",
    ".gateways.selector",
    ".targets.selector",
    ".smap.members",
    ".primary.nextAttemptTime",
    ".rollout.gatewayRevision",
    ".rollout.targetRevision",
    ".rollout.startedAt",
    ".rollout.finishedAt",
    ".rollout.of",
    ".rollout.returnTo",
    ".accessGateways.replicas",
    ".accessGateways.updated",
    ".primary.history[].message",
    ".primary.lastTransition.message",
];

/// Cannot be moved by anything that a test can do in this version, and why.
const UNMOVED: &[(&str, &str)] = &[
    (".foundingAttempt", "moved on a cluster of its own, see `founding`"),
    (".primary.waiting", "moved on a cluster of its own, see `automatic`"),
    (".primary.attempt.reason", "moved on a cluster of its own, see `automatic`"),
    (".primary.automaticFailbacks", "moved on a cluster of its own, see `automatic`"),
    (".operation.kind", "moved on a cluster of its own, see `scale`"),
    (".operation.pod", "moved on a cluster of its own, see `scale`"),
    (".operation.since", "moved on a cluster of its own, see `scale`"),
    (".operation.waitsFor", "moved on a cluster of its own, see `scale`"),
    (".nodes[].flags", "moved on a cluster of its own (Retain), see `scale`"),
    (".gateways.maintenance", "see .nodes[].flags"),
    (".targets.maintenance", "see .nodes[].flags"),
];

/// Paths of all leaves that the schema knows.
fn leaves(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        properties.iter().for_each(|(name, schema)| leaves(schema, &format!("{path}.{name}"), found));
    } else if schema["items"]["properties"].is_object() {
        leaves(&schema["items"], &format!("{path}[]"), found);
    } else {
        found.insert(path.to_owned());
    }
}

fn collect(value: &Value, path: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| collect(value, &format!("{path}.{name}"), found)),
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.iter().for_each(|value| collect(value, &format!("{path}[]"), found));
        }
        _ => {
            let values = found.entry(path.to_owned()).or_default();
            if values.len() < VALUES_MAX {
                values.insert(value.to_string());
            }
        }
    }
}

pub(crate) fn every_status_field_moved(bed: &mut Bed) -> Result<String> {
    let crd = bed.product.admin.get("crd/aisclusters.aiscluster.dev")?;
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    let mut paths = BTreeSet::new();
    leaves(schema, "", &mut paths);
    ensure!(paths.len() > 40, "the schema of status has {} fields only", paths.len());

    let mut found = BTreeMap::new();
    let mut conditions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let versions = bed.versions();
    for version in &versions {
        collect(&version["status"], "", &mut found);
        for condition in version["status"]["conditions"].as_array().cloned().unwrap_or_default() {
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            conditions.entry(text("type")).or_default().insert(text("status"));
        }
    }
    let absent_first = versions.first().is_some_and(|version| version["status"].is_null());
    let values = |path: &str| found.get(path).map_or(0, BTreeSet::len);
    let unmoved: Vec<String> = paths
        .iter()
        .filter(|path| !UNMOVED.iter().any(|(unmoved, _)| unmoved == path))
        .filter(|path| values(path) < if ONCE.contains(&path.as_str()) && absent_first { 1 } else { 2 })
        .map(|path| format!("{path}: {:?}", found.get(path.as_str()).cloned().unwrap_or_default()))
        .collect();
    ensure!(unmoved.is_empty(), "fields of status that did not move: {unmoved:#?}");
    // Volumes never shrink back: that one has a cluster of its own.
    ensure!(conditions.remove("StorageResized").is_some(), "no condition StorageResized");
    // This cluster has no TLS; the ones of `tls` lose and get back valid certificates.
    ensure!(conditions.remove("CertificatesValid").is_some(), "no condition CertificatesValid");
    for (kind, seen) in &conditions {
        ensure!(seen.contains("True") && seen.contains("False"), "condition {kind} was {seen:?} only");
    }
    ensure!(conditions.len() == 11, "conditions seen: {:?}", conditions.keys());
    Ok(format!("{} fields, {} conditions, {} versions of the resource", paths.len(), conditions.len(), versions.len()))
}
