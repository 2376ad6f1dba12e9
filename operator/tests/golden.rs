//! What pods are made from: an operator that is upgraded must not restart anybody's pods by accident.
//!
//! `snapshots/templates.json` is what the operator made of a fixture when it was last changed on purpose. A difference
//! means that every pod of every cluster is replaced, one by one, after the upgrade: that is a decision, it belongs into
//! the release notes, and `UPDATE_EXPECT=1 cargo test --release -p ais-operator --test golden` records it.
#![allow(clippy::unwrap_used)]

mod common;

use ais_operator::apply::Write;
use ais_operator::desired::digest;
use ais_operator::facts::Kind;
use ais_operator::plan::rollout::State;
use common::World;
use serde_json::{Value, json};

/// One that uses what a template can have.
fn fixture() -> World {
    let template = json!({
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m"}},
        "nodeSelector": {"disk": "ssd"}, "priorityClassName": "high", "annotations": {"note": "one"},
        "labels": {"team": "storage"}, "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    });
    World::settled(json!({
        "image": "registry.example/aiscluster:1", "imagePullSecrets": [{"name": "registry"}],
        "gateways": {"template": template}, "targets": {"template": template},
        "primary": {"preferred": ["demo-gateway-1"]},
    }))
}

fn templates(world: &World) -> Value {
    let template = |role: &str| {
        let set = &world.observed.live[&(Kind::StatefulSet, format!("demo-{role}"))];
        let mut template = set["spec"]["template"].clone();
        // What the API server adds is not ours.
        template["spec"].as_object_mut().unwrap().remove("dnsPolicy");
        template
    };
    json!({"gateway": template("gateway"), "target": template("target")})
}

#[test]
fn an_operator_upgrade_rolls_nothing() {
    let made = templates(&fixture());
    let text = serde_json::to_string_pretty(&json!({"digest": digest(&made), "templates": made})).unwrap();
    expect_test::expect_file!["snapshots/templates.json"].assert_eq(&text);
}

/// The cluster that an operator of before left, in every word: the one of now writes no set and takes no pod.
#[test]
fn what_was_applied_before_is_as_wanted_now() {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/templates.json")).unwrap();
    let before: Value = serde_json::from_str(&file).unwrap();
    let mut world = fixture();
    // Nothing is remembered of what was applied.
    world.memo = ais_operator::apply::Memo::default();
    for role in ["gateway", "target"] {
        let live = world.observed.live.get_mut(&(Kind::StatefulSet, format!("demo-{role}"))).unwrap();
        live["spec"]["template"] = before["templates"][role].clone();
    }
    let pass = world.pass();
    let sets = |w: &&Write| matches!(w, Write::Apply(w) if w.key.0 == Kind::StatefulSet);
    assert_eq!(pass.writes.iter().find(sets), None);
    assert!(!pass.writes.iter().any(|w| matches!(w, Write::DeletePod { .. })));
    assert_eq!(pass.plan.rollout.state, State::UpToDate);
}

/// What is mounted or referred to may change at any time; only what a pod is made from may replace it.
#[test]
fn only_what_a_pod_is_made_from_changes_its_template() {
    let before = digest(&templates(&fixture()));
    type Change = fn(&mut World);
    let harmless: [(&str, Change); 8] = [
        ("the primary", |w| w.lead("demo-gateway-2", 9)),
        ("the secret", |w| w.observed.secret.content = "fedcba9876543210fedcba9876543210".into()),
        ("the preference", |w| w.set_spec(json!({"primary": {"preferred": ["demo-gateway-0"]}}))),
        ("the size", |w| w.set_spec(json!({"gateways": {"replicas": 5}, "targets": {"replicas": 4}}))),
        ("how it is updated", |w| w.set_spec(json!({"update": {"gateways": {"strategy": "Supervised"}}}))),
        ("the budget", |w| w.set_spec(json!({"podDisruptionBudget": {"enabled": false}}))),
        ("the founding list", |w| w.observed.discovery = None),
        ("the generation", |w| w.set_spec(json!({"paused": false}))),
    ];
    for (what, change) in harmless {
        let mut world = fixture();
        change(&mut world);
        world.step();
        assert_eq!(digest(&templates(&world)), before, "{what}");
    }
    let meant: [(&str, Value); 3] = [
        ("the image", json!({"image": "registry.example/aiscluster:2"})),
        ("a timer", json!({"ha": {"suspectMilliseconds": 1000}})),
        ("an annotation", json!({"targets": {"template": {"annotations": {"note": "two"}}}})),
    ];
    for (what, spec) in meant {
        let mut world = fixture();
        world.set_spec(spec);
        world.step();
        assert_ne!(digest(&templates(&world)), before, "{what}");
    }
}
