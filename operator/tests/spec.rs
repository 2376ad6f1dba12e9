//! Fields of the spec, and the objects they make.
#![allow(clippy::unwrap_used)]

mod common;

use ais_operator::apply::Write;
use ais_operator::facts::Kind;
use common::World;
use serde_json::{Value, json};

fn object(world: &World, kind: Kind, name: &str) -> Value {
    world.observed.live.get(&(kind, name.to_owned())).cloned().unwrap_or_default()
}

fn template(world: &World, kind: Kind, name: &str) -> Value {
    object(world, kind, name)["spec"]["template"].clone()
}

fn variable<'a>(template: &'a Value, name: &str) -> &'a Value {
    let env = template["spec"]["containers"][0]["env"].as_array().unwrap();
    env.iter().find(|v| v["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn every_role_may_have_its_own_image() {
    let spec =
        json!({"image": "all:1", "targets": {"image": "t:2"}, "accessGateways": {"replicas": 1, "image": "a:3"}});
    let world = World::settled(spec);
    for (kind, name, image) in [
        (Kind::StatefulSet, "demo-gateway", "all:1"),
        (Kind::StatefulSet, "demo-target", "t:2"),
        (Kind::Deployment, "demo-access", "a:3"),
    ] {
        assert_eq!(template(&world, kind, name)["spec"]["containers"][0]["image"], image);
    }
}

#[test]
fn each_volume_is_a_mountpath() {
    let storage = json!({"size": "1Gi", "volumesPerTarget": 3, "accessModes": ["ReadWriteOncePod"]});
    let world = World::settled(json!({"targets": {"storage": storage}}));
    let set = object(&world, Kind::StatefulSet, "demo-target");
    let claims = set["spec"]["volumeClaimTemplates"].as_array().unwrap();
    let names: Vec<_> = claims.iter().map(|c| c["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["state", "data", "data-1", "data-2"]);
    assert_eq!(claims[0]["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(claims[3]["spec"]["accessModes"], json!(["ReadWriteOncePod"]));
    let template = &set["spec"]["template"];
    let paths = "/var/lib/ais/data,/var/lib/ais/data-1,/var/lib/ais/data-2";
    assert_eq!(variable(template, "AIS_MOUNTPATHS")["value"], paths);
    let mounts = template["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    assert!(mounts.contains(&json!({"name": "data-2", "mountPath": "/var/lib/ais/data-2"})));
    assert_eq!(variable(&self::template(&world, Kind::StatefulSet, "demo-gateway"), "AIS_MOUNTPATHS"), &Value::Null);
}

#[test]
fn variables_and_security_of_pods() {
    let env = json!([{"name": "HTTPS_PROXY", "value": "p:1"}, {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]);
    let security = json!({"runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [7], "seLinuxLevel": "s0:c1"});
    let world = World::settled(json!({"gateways": {"template": {"env": env, "securityContext": security}}}));
    let template = template(&world, Kind::StatefulSet, "demo-gateway");
    assert_eq!(variable(&template, "HTTPS_PROXY")["value"], "p:1");
    assert_eq!(variable(&template, "KEY")["valueFrom"]["secretKeyRef"]["key"], "k");
    assert_eq!(
        template["spec"]["securityContext"],
        json!({
            "runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 65532, "fsGroup": 2000, "supplementalGroups": [7],
            "fsGroupChangePolicy": "OnRootMismatch", "seLinuxOptions": {"level": "s0:c1"},
            "seccompProfile": {"type": "RuntimeDefault"},
        })
    );
    let mut world =
        World::new(json!({"targets": {"template": {"env": [{"name": "X", "valueFrom": {"fieldRef": 3}}]}}}));
    let why = ais_operator::validate::validate(&world.observed).unwrap_err();
    assert!(why.reason == "SpecInvalid" && why.message.contains("spec.targets.template.env X"), "{why}");
    world.set_spec(json!({"targets": {"template": null}}));
    world.step();
}

#[test]
fn voters_prefer_different_zones_and_witnesses_count() {
    let world = World::settled(json!({}));
    for (role, name) in [("gateway", "demo-gateway"), ("target", "demo-target")] {
        let template = template(&world, Kind::StatefulSet, name);
        // One, because the API server refuses a second of the same key and word (its list is a map by both).
        let spread = template["spec"]["topologySpreadConstraints"].as_array().unwrap();
        assert_eq!(spread.len(), 1);
        assert_eq!(spread[0]["topologyKey"], "topology.kubernetes.io/zone");
        assert_eq!(spread[0]["whenUnsatisfiable"], "ScheduleAnyway");
        let both = &spread[0]["labelSelector"]["matchExpressions"][0];
        assert_eq!(both["values"], json!(["gateway", "target"]));
        let apart = &template["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
        let zone = &apart[1]["podAffinityTerm"];
        assert_eq!(zone["topologyKey"], "topology.kubernetes.io/zone");
        assert_eq!(zone["labelSelector"]["matchLabels"]["app.kubernetes.io/component"], role);
        // What the electorate spreads witnesses by.
        assert_eq!(variable(&template, "AIS_DOMAIN")["value"], "$(AIS_POD_ZONE),$(AIS_POD_NODE)");
    }
    let own = json!([{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]);
    let world = World::settled(json!({"targets": {"template": {"topologySpreadConstraints": own}}}));
    let spread = template(&world, Kind::StatefulSet, "demo-target")["spec"]["topologySpreadConstraints"].clone();
    assert_eq!(spread, own);
}

#[test]
fn ports_are_everywhere_the_same() {
    let ports = json!({"public": 8080, "control": 8082, "peer": 8084});
    let mut world = World::settled(json!({"networking": {"ports": ports}, "accessGateways": {"replicas": 1}}));
    let template = template(&world, Kind::StatefulSet, "demo-gateway");
    assert_eq!(variable(&template, "AIS_PUBLIC_PORT")["value"], "8080");
    assert_eq!(variable(&template, "AIS_CONTROL_PORT")["value"], "8082");
    assert_eq!(template["spec"]["containers"][0]["ports"][2]["containerPort"], 8084);
    assert_eq!(object(&world, Kind::Service, "demo")["spec"]["ports"][0]["port"], 8080);
    assert_eq!(object(&world, Kind::Service, "demo-access")["spec"]["ports"][0]["port"], 8080);
    let discovery =
        object(&world, Kind::ConfigMap, "demo-discovery")["data"]["discovery.yaml"].as_str().unwrap().to_owned();
    assert!(discovery.contains("svc.cluster.local:8082") && !discovery.contains(":51080"));
    let endpoint = "http://demo-gateway-0.demo-gateway.ns.svc.cluster.local:8080";
    assert_eq!(object(&world, Kind::ConfigMap, "demo-primary")["data"]["endpoint"], endpoint);
    assert_eq!(world.pass().status.endpoint.as_deref(), Some("http://demo.ns.svc.cluster.local:8080"));
    // Nothing anywhere has the old numbers.
    for object in world.observed.live.values() {
        assert!(!object.to_string().contains("5108"), "{object}");
    }
    world.step();
}

#[test]
fn the_service_for_clients_may_be_reached_from_outside() {
    let service = json!({"type": "LoadBalancer", "annotations": {"cloud/internal": "true"}});
    let mut world = World::settled(json!({"networking": {"service": service}}));
    let clients = object(&world, Kind::Service, "demo");
    assert_eq!(clients["spec"]["type"], "LoadBalancer");
    assert_eq!(clients["metadata"]["annotations"]["cloud/internal"], "true");
    for other in ["demo-primary", "demo-gateway", "demo-target"] {
        assert_ne!(object(&world, Kind::Service, other)["spec"]["type"], "LoadBalancer");
    }
    world.set_spec(json!({"networking": {"service": {"annotations": null}}}));
    assert!(matches!(world.step().writes.as_slice(), [Write::Apply(w)] if w.key == (Kind::Service, "demo".into())));
    assert_eq!(object(&world, Kind::Service, "demo")["metadata"]["annotations"].get("cloud/internal"), None);
}

#[test]
fn the_network_of_the_node_on_demand() {
    let world = World::settled(json!({"networking": {"hostNetwork": true}}));
    let pod = template(&world, Kind::StatefulSet, "demo-gateway")["spec"].clone();
    assert_eq!((&pod["hostNetwork"], &pod["dnsPolicy"]), (&json!(true), &json!("ClusterFirstWithHostNet")));
    let pod = template(&World::settled(json!({})), Kind::StatefulSet, "demo-gateway")["spec"].clone();
    assert_eq!(pod.get("hostNetwork"), None);
}

#[test]
fn who_may_connect() {
    let mut world = World::settled(json!({}));
    let policy = object(&world, Kind::NetworkPolicy, "demo");
    let text = serde_json::to_string_pretty(&policy["spec"]).unwrap();
    expect_test::expect_file!["snapshots/network_policy.json"].assert_eq(&text);
    world.set_spec(json!({"monitoring": {"podMonitor": true}}));
    world.step();
    let from = object(&world, Kind::NetworkPolicy, "demo")["spec"]["ingress"][1]["from"].clone();
    assert_eq!(from[2], json!({"namespaceSelector": {}}), "scrapers, wherever they are");
    assert_eq!(object(&world, Kind::PodMonitor, "demo"), Value::Null, "that API is not installed");
    world.set_spec(json!({"networking": {"networkPolicy": {"enabled": false}}, "monitoring": {"podMonitor": false}}));
    let writes = world.step().writes;
    assert!(matches!(writes.as_slice(), [Write::Prune((Kind::NetworkPolicy, name))] if name == "demo"), "{writes:?}");
}

#[test]
fn a_pod_monitor_where_its_api_is() {
    let mut world = World::settled(json!({"monitoring": {"podMonitor": true, "labels": {"release": "prom"}}}));
    world.observed.pod_monitors = true;
    world.step();
    let monitor = object(&world, Kind::PodMonitor, "demo");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prom");
    assert_eq!(monitor["metadata"]["ownerReferences"][0]["kind"], "AISCluster");
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!((&endpoint["port"], &endpoint["path"]), (&json!("control"), &json!("/metrics")));
    assert_eq!(endpoint["relabelings"][0]["targetLabel"], "cluster");
    assert!(world.pass().writes.is_empty());
    world.set_spec(json!({"monitoring": {"podMonitor": false}}));
    let pruned = |w: &Write| *w == Write::Prune((Kind::PodMonitor, "demo".into()));
    assert!(world.step().writes.iter().any(pruned));
}

#[test]
fn access_gateways_never_lead_and_keep_nothing() {
    let asked =
        json!({"replicas": 2, "nodeSelector": {"gpu": "yes"}, "template": {"env": [{"name": "A", "value": "b"}]}});
    let mut world = World::settled(json!({"accessGateways": asked}));
    let deployment = object(&world, Kind::Deployment, "demo-access");
    assert_eq!(deployment["spec"]["replicas"], 2);
    let template = &deployment["spec"]["template"];
    assert_eq!(variable(template, "AIS_NON_ELECTABLE")["value"], "true");
    assert_eq!(variable(template, "AIS_KIND")["value"], "gateway");
    assert_eq!(variable(template, "AIS_ADVERTISE_HOST")["valueFrom"]["fieldRef"]["fieldPath"], "status.podIP");
    assert_eq!(variable(template, "A")["value"], "b");
    let pod = &template["spec"];
    assert_eq!(pod["nodeSelector"], json!({"gpu": "yes"}));
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let volumes = pod["volumes"].as_array().unwrap();
    let state = volumes.iter().find(|v| v["name"] == "state").unwrap();
    assert!(state["emptyDir"].is_object() && volumes.iter().all(|v| v.get("persistentVolumeClaim").is_none()));
    assert_eq!(object(&world, Kind::Service, "demo-access")["spec"].get("internalTrafficPolicy"), None);
    assert_eq!(object(&world, Kind::PodDisruptionBudget, "demo-access")["spec"]["maxUnavailable"], 1);
    // The voters' budget and the Services of the others leave them out; the network policy does not.
    let voters = object(&world, Kind::PodDisruptionBudget, "demo");
    assert_eq!(voters["spec"]["selector"]["matchExpressions"][0]["values"], json!(["gateway", "target"]));
    assert_eq!(object(&world, Kind::Service, "demo")["spec"]["selector"]["app.kubernetes.io/component"], "gateway");
    assert!(world.pass().writes.is_empty());

    world.set_spec(json!({"accessGateways": {"replicas": null, "daemonSet": true}}));
    let writes: Vec<String> = world.step().writes.iter().map(|w| format!("{w:?}").chars().take(60).collect()).collect();
    assert!(object(&world, Kind::DaemonSet, "demo-access").is_object(), "{writes:?}");
    assert_eq!(object(&world, Kind::Deployment, "demo-access"), Value::Null, "{writes:?}");
    assert_eq!(object(&world, Kind::PodDisruptionBudget, "demo-access"), Value::Null);
    assert_eq!(object(&world, Kind::Service, "demo-access")["spec"]["internalTrafficPolicy"], "Local");
    world.set_spec(json!({"accessGateways": null}));
    world.step();
    assert!(world.observed.live.keys().all(|(_, name)| name != "demo-access"));
    assert!(world.pass().writes.is_empty());
}

#[test]
fn access_gateways_come_after_the_founding_and_are_counted_apart() {
    let mut world = World::new(json!({"accessGateways": {"replicas": 2}}));
    world.step();
    assert_eq!(object(&world, Kind::Deployment, "demo-access"), Value::Null);
    let mut world = World::settled(json!({"accessGateways": {"replicas": 2}}));
    let key = (Kind::Deployment, "demo-access".to_owned());
    world.observed.live.get_mut(&key).unwrap()["status"] =
        json!({"observedGeneration": 1, "replicas": 2, "readyReplicas": 1, "updatedReplicas": 2});
    let member = world.view("demo-gateway-0").members[1].clone();
    let mut access = ais_operator::view::Member { node_id: "demo-access-5d9-x7k".into(), voter: false, ..member };
    access.non_electable = true;
    world.view("demo-gateway-0").members.push(access);
    let status = world.pass().status;
    let counts = status.access_gateways.clone().unwrap();
    assert_eq!((counts.replicas, counts.ready, counts.updated, counts.joined), (2, 1, 2, 1));
    assert_eq!(counts.summary, "1/2");
    // One that is away is no reason to call the cluster not ready.
    assert!(status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    assert_eq!(status.gateways.summary, "3/3");
    assert!(status.nodes.iter().all(|n| !n.pod.contains("access")));
    // None is of a template that its controller does not know yet.
    let updated = |world: &World| world.pass().status.access_gateways.unwrap().updated;
    world.observed.live.get_mut(&key).unwrap()["metadata"]["generation"] = json!(2);
    assert_eq!(updated(&world), 0);
    world.observed.live.get_mut(&key).unwrap()["metadata"]["generation"] = json!(1);
    world.set_spec(json!({"image": "localhost/aiscluster:next"}));
    assert_eq!(updated(&world), 0);
    let mut world = World::settled(json!({"accessGateways": {"daemonSet": true}}));
    world.observed.live.get_mut(&(Kind::DaemonSet, "demo-access".to_owned())).unwrap()["status"] = json!({
        "observedGeneration": 1, "desiredNumberScheduled": 2, "numberReady": 2, "updatedNumberScheduled": 2,
    });
    assert_eq!(updated(&world), 2);
    world.set_spec(json!({"image": "localhost/aiscluster:next"}));
    assert_eq!(updated(&world), 0);
}

#[test]
fn a_settled_cluster_with_everything_costs_no_write() {
    let mut world = World::settled(json!({
        "accessGateways": {"daemonSet": true}, "monitoring": {"podMonitor": true},
        "networking": {"service": {"type": "NodePort"}},
    }));
    world.observed.pod_monitors = true;
    world.step();
    for seconds in [0, 20, 3600] {
        let pass = world.after(seconds).pass();
        assert!(pass.writes.is_empty(), "{:?}", pass.writes);
        assert_eq!(Some(common::round_trip(&pass.status)), world.observed.cluster.status);
    }
}

#[test]
fn a_stopped_cluster_has_no_access_gateways_either() {
    let mut world = World::settled(json!({"accessGateways": {"replicas": 2}}));
    let mut pass = world.pass();
    let built = |world: &World, pass: &common::Pass| -> Vec<Kind> {
        let wanted = ais_operator::desired::build(&pass.valid, &world.observed, &pass.plan);
        wanted.into_iter().filter(|w| w.key.1 == "demo-access").map(|w| w.key.0).collect()
    };
    assert_eq!(built(&world, &pass), [Kind::Service, Kind::PodDisruptionBudget, Kind::Deployment]);
    pass.plan.stop.no_pods = true;
    assert_eq!(built(&world, &pass), [Kind::Service]);
    world.step();
}

/// Found by a review: a misspelt affinity was dropped without a word, and the default "different nodes" with it.
#[test]
fn a_misspelt_key_of_an_open_field_is_told_with_its_path() {
    let refused = |template: Value| {
        let world = World::new(json!({"gateways": {"template": template}}));
        let why = ais_operator::validate::validate(&world.observed).unwrap_err();
        assert_eq!(why.reason, "SpecInvalid");
        why.message
    };
    let term = json!({"topologyKey": "zone", "labelSelektor": {}});
    let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    for (template, path) in [
        (json!({"affinity": {"podAntiAfinity": {}}}), "affinity.podAntiAfinity"),
        (
            json!({"affinity": affinity}),
            "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelektor",
        ),
        (
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "skew": 1}]}),
            "topologySpreadConstraints[0].skew",
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b", "optinal": true}}}]}),
            "env A.valueFrom.secretKeyRef.optinal",
        ),
    ] {
        assert_eq!(refused(template), format!("spec.gateways.template.{path}: there is no such field"));
    }
    // Everything that Kubernetes knows is taken, with values in any of their forms.
    let selector =
        json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "x", "operator": "In", "values": ["y"]}]});
    let term = json!({"topologyKey": "zone", "labelSelector": selector, "namespaces": [], "namespaceSelector": {}});
    let weighted = json!([{"weight": 5, "podAffinityTerm": term}]);
    let affinity = json!({
        "nodeAffinity": null, "podAffinity": {},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": weighted},
    });
    let env = json!([{"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": 1}}}]);
    World::new(json!({"gateways": {"template": {"affinity": affinity, "env": env}}})).pass();
}
