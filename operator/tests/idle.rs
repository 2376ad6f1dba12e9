//! Rest: a second pass over the same facts writes nothing; drift and removals are seen.
#![allow(clippy::unwrap_used)]

mod common;

use ais_operator::apply::Write;
use ais_operator::facts::Kind;
use ais_operator::plan::plan;
use common::{World, round_trip};
use serde_json::json;

fn applied(writes: &[Write]) -> Vec<String> {
    let name = |w: &Write| match w {
        Write::Apply(w) => format!("{:?}/{}", w.key.0, w.key.1),
        Write::Prune((kind, name)) => format!("-{kind:?}/{name}"),
        Write::DeletePod { name, .. } => format!("-pod/{name}"),
        Write::MarkPod(name, _) => format!("pod/{name}"),
        Write::MarkVolume(name, _) => format!("volume/{name}"),
        Write::Empty(name, _) => format!("empty/{name}"),
        Write::Orphan(name, _) => format!("orphan/{name}"),
        Write::Resize(resize) => format!("resize/{}", resize.claim),
        Write::DeleteClaim { name, .. } => format!("-claim/{name}"),
    };
    writes.iter().map(name).collect()
}

#[test]
fn a_settled_cluster_costs_no_write() {
    let resources = json!({"gateways": {"template": {"resources": {"limits": {"cpu": "1000m"}}}}});
    for spec in [json!({}), json!({"primary": {"preferred": ["demo-gateway-0"]}}), resources] {
        let mut world = World::settled(spec);
        for seconds in [0, 1, 20, 3600] {
            let pass = world.after(seconds).pass();
            assert_eq!(applied(&pass.writes), Vec::<String>::new());
            assert_eq!(Some(round_trip(&pass.status)), world.observed.cluster.status);
            assert!(pass.events().is_empty() && pass.plan.primary.transfer.is_none() && pass.plan.poke.is_empty());
        }
    }
}

/// Found by an audit: 200 clusters that one operator found when it began were looked at in step for ever.
#[test]
fn clusters_at_rest_are_not_looked_at_in_step() {
    let mut world = World::settled(json!({}));
    let valid = world.pass().valid;
    let mut pace = |uid: String| {
        world.observed.cluster.metadata.uid = Some(uid);
        plan(&valid, &world.observed).requeue
    };
    let paces: Vec<_> = (0..200).map(|n| pace(format!("6f1c0d3e-0000-4000-8000-{n:012}"))).collect();
    assert!(paces.iter().all(|pace| (16_000..=24_000).contains(&pace.as_millis())), "{paces:?}");
    let within = |second: u64| paces.iter().filter(|pace| pace.as_secs() == second).count();
    assert!((16..24).all(|second| (1..50).contains(&within(second))), "{paces:?}");
    assert_eq!(pace("a".to_owned()), pace("a".to_owned()), "a pace of its own, and no dice");
}

#[test]
fn progress_of_metadata_is_no_news() {
    let mut world = World::settled(json!({}));
    let before = world.pass().status;
    for pod in ["demo-gateway-0", "demo-gateway-1", "demo-gateway-2", "demo-target-0", "demo-target-1"] {
        let view = world.view(pod);
        let calm = view.without_progress();
        view.stamp.as_mut().unwrap().seq += 1;
        view.bmd_version += 1;
        assert_eq!(view.without_progress(), calm);
    }
    assert_eq!(world.pass().status, before);
}

#[test]
fn objects_are_made_in_order_with_workloads_last() {
    let world = World::new(json!({}));
    expect_test::expect![[r#"
        [
            "Secret/demo-secret",
            "ConfigMap/demo-discovery",
            "ConfigMap/demo-primary",
            "Service/demo",
            "Service/demo-gateway",
            "Service/demo-primary",
            "Service/demo-target",
            "PodDisruptionBudget/demo",
            "NetworkPolicy/demo",
            "StatefulSet/demo-gateway",
            "StatefulSet/demo-target",
        ]
    "#]]
    .assert_debug_eq(&applied(&world.pass().writes));
}

#[test]
fn drift_is_reverted_and_nothing_else_touched() {
    let mut world = World::settled(json!({}));
    let key = (Kind::StatefulSet, "demo-gateway".to_owned());
    world.observed.live.get_mut(&key).unwrap()["spec"]["replicas"] = json!(9);
    world.observed.sets.get_mut(&ais_operator::names::Role::Gateway).unwrap().replicas = 9;
    let pass = world.step();
    assert_eq!(applied(&pass.writes), ["StatefulSet/demo-gateway"]);
    assert_eq!(world.observed.live[&key]["spec"]["replicas"], 3);
    // Another writer's status and fields are not drift.
    let live = world.observed.live.get_mut(&key).unwrap();
    live["status"] = json!({"readyReplicas": 3});
    live["metadata"]["annotations"]["somebody"] = json!("else");
    assert!(world.pass().writes.is_empty());
}

#[test]
fn a_field_that_is_no_longer_wanted_is_removed() {
    let mut world = World::settled(json!({"gateways": {"template": {"nodeSelector": {"disk": "ssd"}}}}));
    world.set_spec(json!({"gateways": {"template": {"nodeSelector": null}}}));
    assert_eq!(applied(&world.pass().writes), ["StatefulSet/demo-gateway"]);
}

#[test]
fn the_budget_is_pruned_when_disabled_and_foreign_objects_are_not() {
    let mut world = World::settled(json!({}));
    world.observed.live.insert(
        (Kind::ConfigMap, "users-own".into()),
        json!({"metadata": {"name": "users-own", "labels": {"aiscluster.dev/cluster": "demo"}}}),
    );
    assert!(world.pass().writes.is_empty());
    world.set_spec(json!({"podDisruptionBudget": {"enabled": false}}));
    assert_eq!(applied(&world.step().writes), ["-PodDisruptionBudget/demo"]);
    assert!(world.pass().writes.is_empty());
}

#[test]
fn a_failover_changes_the_address_and_the_labels_and_no_pod_template() {
    let mut world = World::settled(json!({}));
    let template = |w: &World| w.observed.live[&(Kind::StatefulSet, "demo-gateway".into())].clone();
    let before = template(&world);
    world.lead("demo-gateway-2", 2);
    let pass = world.step();
    assert_eq!(applied(&pass.writes), ["ConfigMap/demo-primary", "pod/demo-gateway-0", "pod/demo-gateway-2"]);
    assert_eq!(template(&world), before);
    assert_eq!(
        world.observed.primary_map.as_ref().unwrap().endpoint,
        "http://demo-gateway-2.demo-gateway.ns.svc.cluster.local:51080"
    );
    assert!(world.pass().writes.is_empty());
}
