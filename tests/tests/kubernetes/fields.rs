//! A field of status that never moves says nothing: each is seen with two values of one cluster over the whole run.

use std::collections::{BTreeMap, BTreeSet};

use ais_tests::product::Watched;
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

/// There only while something is under way that the clusters beside are for: one value is a move.
const MEANWHILE: &[&str] = &[
    ".primary.waiting",
    ".primary.attempt.reason",
    ".primary.automaticFailbacks",
    ".operation.kind",
    ".operation.pod",
    ".operation.since",
    ".operation.waitsFor",
];

/// Nothing here moves it for sure, and why.
const UNMOVED: &[(&str, &str)] = &[
    (".gateways.maintenance", "the operator puts targets into maintenance only; a person may do it by AIStore's API"),
    (".primary.refusals", "a primary refuses for a moment, when its followers lack what was committed just then"),
    (".nodes[].flags", "who has one leaves the list, often with the same pass; see .targets.maintenance"),
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

    // By cluster: that two of them differ moves nothing.
    let mut found: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let beside = bed.beside.as_ref().map(Watched::versions).unwrap_or_default();
    for version in &beside {
        let uid = version["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        collect(&version["status"], "", found.entry(uid).or_default());
    }
    let mut conditions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let versions = bed.versions();
    for version in &versions {
        collect(&version["status"], "", found.entry(String::new()).or_default());
        for condition in version["status"]["conditions"].as_array().cloned().unwrap_or_default() {
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            conditions.entry(text("type")).or_default().insert(text("status"));
        }
    }
    let absent_first = versions.first().is_some_and(|version| version["status"].is_null());
    let most = |path: &str| found.values().filter_map(|one| one.get(path)).max_by_key(|values| values.len());
    let values = |path: &str| most(path).map_or(0, BTreeSet::len);
    let once = |path: &String| MEANWHILE.contains(&path.as_str()) || (absent_first && ONCE.contains(&path.as_str()));
    let unmoved: Vec<String> = paths
        .iter()
        .filter(|path| !UNMOVED.iter().any(|(unmoved, _)| unmoved == path))
        .filter(|path| values(path) < if once(path) { 1 } else { 2 })
        .map(|path| format!("{path}: {:?}", most(path).cloned().unwrap_or_default()))
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
    let (of, more) = (versions.len(), beside.len());
    Ok(format!(
        "{} fields, {} conditions, {of} versions of the resource, {more} of {} beside it",
        paths.len(),
        conditions.len(),
        found.len() - 1
    ))
}
