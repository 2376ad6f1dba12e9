//! The operator dies after any of its steps, and its heir ends what it began: the result is that of an operator that
//! did not die, and on the way nothing happens that may not.
//!
//! A step is one write to the API server or one call to a node. What survives are the server's objects and the nodes;
//! what an operator remembers is lost with it. On Kubernetes some of this is shown with processes that are killed.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "killed/model.rs"]
mod model;

use ais_crds::ClusterState;
use ais_operator::facts::{ClaimFact, ClaimKind, Step};
use ais_operator::names::{ANNOTATION_REFOUND, Role};
use model::{Deaths, Model, Pods};
use serde_json::json;

/// A procedure from its beginning to its end.
type Procedure = fn(&Deaths) -> Model;

/// Runs it once undisturbed and then with every death; the steps it has.
fn dies_anywhere(procedure: Procedure) -> usize {
    dies(procedure, &[1, 2, 3])
}

/// The same of a procedure that has steps in pairs: a move of the primary is in status before it is asked for, and
/// whoever finds it there waits for its end. Operators that all die between these two would never get there.
fn dies_where_the_primary_moves(procedure: Procedure) -> usize {
    dies(procedure, &[2])
}

fn dies(procedure: Procedure, lives: &[usize]) -> usize {
    let whole = procedure(&Deaths::default());
    let (steps, picture) = (whole.steps, whole.picture());
    assert!(steps > 3, "too little to die in: {steps} steps");
    let same = |deaths: &Deaths| {
        let model = procedure(deaths);
        let cut = model.picture();
        let differs = cut.as_object().unwrap().iter().filter(|(key, value)| picture[key.as_str()] != **value);
        let differs: Vec<String> =
            differs.map(|(key, value)| format!("{key}: {value}\nnot {}", picture[key])).collect();
        assert!(differs.is_empty(), "{deaths:?}: {}", differs.join("\n"));
    };
    for first in 1..=steps {
        for absent in [0, 4] {
            same(&Deaths { after: vec![first], absent, forever: false });
        }
        // And the heir as well, soon after.
        for second in [1, 3, 8] {
            same(&Deaths { after: vec![first, second], absent: 1, forever: false });
        }
    }
    // None of them lives longer than this.
    for life in lives {
        same(&Deaths { after: vec![*life], absent: 0, forever: true });
    }
    steps
}

fn is_whole(model: &Model) {
    let o = &model.world.observed;
    assert_eq!((o.pods.len(), model.founded.len()), (5, 1));
    assert!(o.pods.iter().all(|p| p.ready) && o.volumes.iter().all(|v| v.formed));
    assert!(o.cluster.status.as_ref().unwrap().conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    assert!(model.world.pass().writes.is_empty(), "there is still something to do");
}

#[test]
fn during_the_founding() {
    let found: Procedure = |deaths| {
        let mut model = Model::new(json!({}), deaths);
        model.rest();
        is_whole(&model);
        model
    };
    assert!(dies_anywhere(found) > 15);
}

/// A founding that cannot be completed is given up for the next one.
#[test]
fn while_a_founding_is_made_anew() {
    let again: Procedure = |deaths| {
        let mut model = Model::new(json!({"ha": {"foundingTimeoutSeconds": 3600}}), deaths);
        model.blocked.insert("demo-gateway-2".to_owned());
        model.until("a founding that waits", |m| m.world.observed.pods.len() == 5);
        model.rest();
        let first = model.world.observed.primary_map.as_ref().unwrap().cluster_uuid.clone();
        assert!(model.founded.is_empty());
        let annotations = [(ANNOTATION_REFOUND.to_owned(), "2".to_owned())].into();
        model.world.observed.cluster.metadata.annotations = Some(annotations);
        model.pods = Pods::Go;
        model.blocked.clear();
        model.until("the second founding", |m| !m.founded.is_empty());
        model.pods = Pods::Stay;
        model.rest();
        is_whole(&model);
        assert_ne!(model.founded, [first], "the founding that was given up was completed");
        model
    };
    assert!(dies_anywhere(again) > 30);
}

#[test]
fn while_the_cluster_is_stopped_and_started_again() {
    let stop: Procedure = |deaths| {
        let mut model = Model::settled(json!({}), deaths);
        model.pods = Pods::Stop;
        model.world.set_spec(json!({"state": "Stopped"}));
        model.rest();
        let o = &model.world.observed;
        assert!(o.pods.is_empty() && o.cluster.spec.state == ClusterState::Stopped);
        assert_eq!(o.claims.len(), 7, "the volumes stay");
        model.world.set_spec(json!({"state": "Running"}));
        model.until("pods", |m| m.world.observed.pods.len() == 5);
        model.pods = Pods::Stay;
        model.rest();
        is_whole(&model);
        model
    };
    assert!(dies_anywhere(stop) > 8);
}

/// Deletion with the data: the claims of the cluster go after its pods, and no other claim does.
#[test]
fn while_the_cluster_and_its_data_are_deleted() {
    let delete: Procedure = |deaths| {
        let mut model = Model::settled(json!({"deletionPolicy": "Delete", "deletionConfirmation": "demo"}), deaths);
        let foreign = ClaimFact { cluster_id: Some("another".to_owned()), ..claim("data-demo-target-9", 9) };
        model.world.observed.claims.push(foreign);
        model.pods = Pods::Go;
        model.delete();
        model.rest();
        assert!(!model.exists && model.world.observed.pods.is_empty());
        let left: Vec<&str> = model.world.observed.claims.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(left, ["data-demo-target-9"]);
        model
    };
    assert!(dies_anywhere(delete) > 8);
}

/// The same without the data, announced as a stop is.
#[test]
fn while_the_cluster_is_deleted_and_its_data_kept() {
    let delete: Procedure = |deaths| {
        let mut model = Model::settled(json!({}), deaths);
        model.pods = Pods::Stop;
        model.delete();
        model.rest();
        assert!(!model.exists && model.world.observed.pods.is_empty());
        assert_eq!(model.world.observed.claims.len(), 7);
        model
    };
    assert!(dies_anywhere(delete) > 3);
}

fn claim(name: &str, ordinal: i32) -> ClaimFact {
    ClaimFact {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        kind: ClaimKind::Data,
        role: Role::Target,
        ordinal,
        cluster_id: None,
        removed: false,
        retained: false,
        deleting: false,
        requested: "1Gi".to_owned(),
        capacity: Some("1Gi".to_owned()),
    }
}

/// The member secret is replaced: at every step everybody accepts what everybody signs with, and no pod is restarted.
#[test]
fn while_the_member_secret_is_rotated() {
    let rotate: Procedure = |deaths| {
        let mut model = Model::settled(json!({}), deaths);
        let (pods, old) = (model.pod_uids(), model.world.observed.secret.content.clone());
        model.world.set_spec(json!({"auth": {"memberSecretRotation": "march"}}));
        model.rest();
        is_whole(&model);
        assert_eq!(model.pod_uids(), pods);
        let secret = &model.world.observed.secret;
        assert_eq!((secret.request.as_str(), secret.step), ("march", Step::Done));
        assert!(secret.content.lines().count() == 1 && secret.content != old);
        model
    };
    assert!(dies_anywhere(rotate) > 8);
}

/// Volumes grow and the set is made anew: no pod notices.
#[test]
fn while_volumes_grow() {
    let grow: Procedure = |deaths| {
        let mut model = Model::settled(json!({}), deaths);
        let pods = model.pod_uids();
        model.world.set_spec(json!({"targets": {"storage": {"size": "2Gi"}}}));
        model.rest();
        is_whole(&model);
        assert_eq!(model.pod_uids(), pods);
        let data = model.world.observed.claims.iter().filter(|c| c.kind == ClaimKind::Data);
        assert!(data.clone().count() == 2 && data.clone().all(|c| c.capacity.as_deref() == Some("2Gi")));
        model
    };
    assert!(dies_anywhere(grow) > 5);
}

/// The ask is in spec: whoever comes next finds it there, and what became of it at the nodes.
#[test]
fn during_a_failback() {
    let back: Procedure = |deaths| {
        let mut model = Model::settled(json!({"primary": {"timeoutSeconds": 10}}), deaths);
        let pods = model.pod_uids();
        model.world.set_spec(json!({"primary": {"preferred": ["demo-gateway-1"]}}));
        model.rest();
        is_whole(&model);
        assert_eq!((model.pod_uids(), model.moves.join(" ")), (pods, "demo-gateway-1".to_owned()));
        model
    };
    assert!(dies_where_the_primary_moves(back) > 3);
}

/// Pods are replaced one at a time, each once, and the primary moves once, whoever has to end what another one began.
#[test]
fn during_a_roll_out() {
    let roll: Procedure = |deaths| {
        let mut model = Model::settled(json!({"primary": {"timeoutSeconds": 10}}), deaths);
        let template = json!({"template": {"annotations": {"version": "2"}}});
        model.pods = Pods::Roll;
        model.world.set_spec(json!({"gateways": template, "targets": template}));
        model.rest();
        is_whole(&model);
        let last = ["demo-target-1", "demo-target-0", "demo-gateway-2", "demo-gateway-1", "demo-gateway-0"];
        assert_eq!((model.replaced.join(" "), model.moves.join(" ")), (last.join(" "), "demo-gateway-1".to_owned()));
        model
    };
    let steps = dies_where_the_primary_moves(roll);
    assert!(steps > 15, "{steps}");
}

/// The gateway that leaves leads: the primary moves once, members go one at a time, with their state and not their data.
#[test]
fn during_a_scale_down() {
    let shrink: Procedure = |deaths| {
        let spec = json!({"targets": {"replicas": 3}, "primary": {"timeoutSeconds": 10}});
        let mut model = Model::settled(spec, &Deaths::default());
        model.lead("demo-gateway-2");
        model.mourn(deaths);
        model.pods = Pods::Leave;
        model.world.set_spec(json!({"gateways": {"replicas": 2}, "targets": {"replicas": 2}}));
        model.rest();
        let o = &model.world.observed;
        let left: Vec<&str> = o.pods.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(left, ["demo-gateway-0", "demo-gateway-1", "demo-target-0", "demo-target-1"]);
        let claims: Vec<&str> = o.claims.iter().map(|c| c.name.as_str()).filter(|n| n.ends_with("-2")).collect();
        assert_eq!(claims, ["data-demo-target-2"]);
        assert!(o.discovery.as_ref().unwrap().removed.is_empty() && model.world.pass().writes.is_empty());
        let ready = |c: &&_| condition_is(c, "Ready", "True");
        assert_eq!(o.cluster.status.as_ref().unwrap().conditions.iter().filter(ready).count(), 1);
        assert_eq!(model.moves, ["demo-gateway-0"]);
        model
    };
    let steps = dies_where_the_primary_moves(shrink);
    assert!(steps > 15, "{steps}");
}

fn condition_is(
    condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition,
    kind: &str,
    status: &str,
) -> bool {
    condition.type_ == kind && condition.status == status
}
