//! The objects a cluster consists of. Pure and infallible: `validate` already refused what cannot be built.
//!
//! The pod template depends on nothing that moves by itself: not on the primary, not on who founds. A
//! failover must not make pods look outdated.

mod access;
mod config;
pub use config::{DISCOVERY_KEY, SECRET_KEY};
mod network;
mod placement;
mod pod;
mod services;
mod tls;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::facts::{Kind, ObjectKey, Observed};
use crate::names::{ANNOTATION_APPLIED, ANNOTATION_TEMPLATE, Role};
use crate::plan::Plan;
use crate::plan::refound::Refound;
use crate::validate::{Valid, hex};

/// An object as it shall be, without what others own.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its kind and name.
    pub key: ObjectKey,
    /// Apply configuration.
    pub object: Value,
}

/// Builds everything, in the order in which it is applied.
#[must_use]
pub fn build(valid: &Valid, observed: &Observed, plan: &Plan) -> Vec<Wanted> {
    let mut wanted = vec![
        config::secret(valid, observed, plan),
        config::discovery(valid, observed, plan),
        config::primary(valid, observed, plan),
    ];
    wanted.extend(tls::all(valid, observed));
    wanted.extend(services::all(valid, observed));
    wanted.extend(services::budget(valid, observed));
    wanted.extend(network::policy(valid, observed));
    wanted.extend(network::monitor(valid, observed));
    if !plan.refound.as_ref().is_some_and(Refound::stops_workloads) {
        wanted.extend(access::all(valid, observed, plan));
        wanted.extend(workloads::all(valid, observed, plan));
    }
    wanted.sort_by(|a, b| a.key.cmp(&b.key));
    wanted
}

/// StatefulSets that are not there yet as they shall be, by the digest of what was applied last: what the server or
/// others add to them, or change in them for a while, does not count.
#[must_use]
pub fn unapplied(valid: &Valid, observed: &Observed, plan: &Plan) -> Vec<String> {
    let is_due = |w: &Wanted| observed.live.get(&w.key).is_none_or(|live| applied(live) != applied(&w.object));
    let due = workloads::all(valid, observed, plan).into_iter().filter(is_due);
    due.map(|w| w.key.1).collect()
}

/// Roles whose StatefulSet does not have the template of this pass's spec yet: what it says of revisions is about another.
#[must_use]
pub fn outdated(valid: &Valid, observed: &Observed) -> BTreeSet<Role> {
    let is_due = |role: &Role| {
        let live = observed.live.get(&(Kind::StatefulSet, valid.names.set(*role)));
        let applied = live.and_then(|set| set["metadata"]["annotations"][ANNOTATION_TEMPLATE].as_str());
        applied != Some(&workloads::template_digest(valid, observed, *role))
    };
    Role::ALL.into_iter().filter(is_due).collect()
}

/// True until the controller of the access gateways has seen them as they shall be: its counts are about others.
#[must_use]
pub fn access_unseen(valid: &Valid, observed: &Observed, plan: &Plan) -> bool {
    let generation = |of: &Value| of.as_i64().unwrap_or_default();
    let is_unseen = |w: &Wanted| {
        observed.live.get(&w.key).is_none_or(|live| {
            applied(live) != applied(&w.object)
                || generation(&live["status"]["observedGeneration"]) < generation(&live["metadata"]["generation"])
        })
    };
    let is_workload = |w: &&Wanted| matches!(w.key.0, Kind::Deployment | Kind::DaemonSet);
    access::all(valid, observed, plan).iter().filter(is_workload).any(is_unseen)
}

/// Digest of what was applied.
fn applied(object: &Value) -> &Value {
    &object["metadata"]["annotations"][ANNOTATION_APPLIED]
}

/// Short digest of a value; maps are sorted, so equal values give equal digests.
#[must_use]
pub fn digest(value: &Value) -> String {
    hex(&Sha256::digest(value.to_string()), 8)
}

fn meta(observed: &Observed, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: observed.cluster.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![OwnerReference {
            api_version: "aiscluster.dev/v1alpha1".into(),
            kind: "AISCluster".into(),
            name: observed.cluster.metadata.name.clone().unwrap_or_default(),
            uid: observed.uid().to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}

/// Turns a typed object into an apply configuration that carries its own digest.
fn wanted<T: Serialize>(kind: Kind, name: String, typed: &T) -> Wanted {
    // These types serialize by construction; a defect would show as an object the server refuses.
    let mut object = serde_json::to_value(typed).unwrap_or(Value::Null);
    strip_nulls(&mut object);
    let digest = digest(&object);
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = meta.entry("annotations").or_insert_with(|| json!({}));
        annotations[ANNOTATION_APPLIED] = Value::String(digest);
    }
    Wanted { key: (kind, name), object }
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}
