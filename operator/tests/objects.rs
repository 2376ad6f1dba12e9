//! What the objects look like.
#![allow(clippy::unwrap_used)]

mod common;

use ais_operator::facts::Kind;
use common::World;
use serde_json::{Value, json};

fn object(world: &mut World, kind: Kind, name: &str) -> Value {
    world.step();
    world.observed.live[&(kind, name.to_owned())].clone()
}

#[test]
fn target_pods_are_restricted_and_mount_what_they_need() {
    let set = object(&mut World::new(json!({})), Kind::StatefulSet, "demo-target");
    let spec = &set["spec"];
    assert_eq!(
        (&spec["podManagementPolicy"], &spec["updateStrategy"]["type"]),
        (&json!("Parallel"), &json!("OnDelete"))
    );
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    assert_eq!(
        container["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}
        })
    );
    let text = serde_json::to_string_pretty(&json!({
        "command": container["command"], "env": container["env"], "mounts": container["volumeMounts"],
        "claims": spec["volumeClaimTemplates"].as_array().unwrap().iter()
            .map(|c| json!([c["metadata"]["name"], c["spec"]["resources"]["requests"]["storage"]])).collect::<Vec<_>>(),
    }))
    .unwrap();
    expect_test::expect_file!["snapshots/target_pod.json"].assert_eq(&text);
}

#[test]
fn discovery_and_primary_maps_say_who_founds() {
    let mut world = World::new(
        json!({"gateways": {"replicas": 4}, "targets": {"replicas": 1}, "primary": {"preferred": ["demo-gateway-1"]}}),
    );
    let map = object(&mut world, Kind::ConfigMap, "demo-discovery");
    expect_test::expect_file!["snapshots/discovery.json"].assert_eq(map["data"]["discovery.yaml"].as_str().unwrap());
    let primary = object(&mut world, Kind::ConfigMap, "demo-primary");
    assert_eq!(primary["data"]["endpoint"], "http://demo-gateway-1.demo-gateway.ns.svc.cluster.local:51080");
    assert_eq!(primary["data"]["cluster-uuid"].as_str().unwrap().len(), 16);
}

#[test]
fn services_and_budget() {
    let mut world = World::new(json!({}));
    world.step();
    let service = |name: &str| world.observed.live[&(Kind::Service, name.to_owned())]["spec"].clone();
    assert_eq!(service("demo-gateway")["clusterIP"], "None");
    assert_eq!(service("demo-target")["publishNotReadyAddresses"], true);
    assert_eq!(service("demo-primary")["selector"]["aiscluster.dev/role"], "primary");
    assert_eq!(service("demo")["selector"]["app.kubernetes.io/component"], "gateway");
    assert_eq!(service("demo")["selector"].get("aiscluster.dev/role"), None);
    let budget = &world.observed.live[&(Kind::PodDisruptionBudget, "demo".to_owned())]["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    assert_eq!(budget["selector"]["matchLabels"].get("app.kubernetes.io/component"), None);
}

#[test]
fn additions_to_pods_are_taken_and_cannot_hide_ours() {
    let mut world = World::new(json!({"gateways": {"template": {
        "labels": {"team": "storage"}, "annotations": {"a": "b"}, "nodeSelector": {"disk": "ssd"}, "priorityClassName": "high",
        "tolerations": [{"key": "x", "operator": "Exists"}], "terminationGracePeriodSeconds": 60,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "resources": {"limits": {"cpu": 1, "memory": "64Mi"}}
    }}, "image": "registry/other:1", "imagePullPolicy": "Always", "imagePullSecrets": [{"name": "key"}],
        "ha": {"suspectMilliseconds": 1000}}));
    let set = object(&mut world, Kind::StatefulSet, "demo-gateway");
    let template = &set["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["team"], "storage");
    assert_eq!(template["metadata"]["labels"]["aiscluster.dev/cluster"], "demo");
    let spec = &template["spec"];
    assert_eq!(spec["containers"][0]["resources"]["limits"], json!({"cpu": "1", "memory": "64Mi"}));
    assert_eq!(spec["containers"][0]["image"], "registry/other:1");
    assert_eq!(spec["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "key"}]));
    assert!(spec["affinity"].get("podAntiAffinity").is_none() && spec["affinity"].get("nodeAffinity").is_some());
    assert_eq!(spec["terminationGracePeriodSeconds"], 60);
    let env = spec["containers"][0]["env"].as_array().unwrap();
    assert!(env.contains(&json!({"name": "AIS_SUSPECT_MS", "value": "1000"})));
}

#[test]
fn free_parts_are_checked_and_foreign_owners_respected() {
    let mut world = World::new(json!({"targets": {"template": {"affinity": {"nodeAffinity": 3}}}}));
    let why = ais_operator::validate::validate(&world.observed).unwrap_err();
    assert_eq!(why.reason, "SpecInvalid");
    assert!(why.message.contains("spec.targets.template.affinity"));
    let status = ais_operator::refused::refused(&world.observed, &why).status;
    assert!(status.conditions.iter().any(|c| c.type_ == "Degraded" && c.status == "True" && c.reason == "SpecInvalid"));
    world = World::settled(json!({}));
    let live = world.observed.live.get_mut(&(Kind::Service, "demo-gateway".to_owned())).unwrap();
    live["metadata"]["ownerReferences"][0]["uid"] = json!("other");
    assert_eq!(ais_operator::validate::validate(&world.observed).unwrap_err().reason, "NameConflict");
}
