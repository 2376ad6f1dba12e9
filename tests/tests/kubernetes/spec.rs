//! Fields of the spec that change what a running cluster does, and what a stored object that nobody can read does not.

use std::time::Duration;

use ais_tests::client::{self, Signed};
use ais_tests::http::{self, Call};
use ais_tests::product::{self, NAME, NAMESPACE, OPERATOR_NAMESPACE, PORT_PUBLIC, condition, reason};
use ais_tests::testbed::kubectl::is_ready;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG, SOON};

const CALL: Duration = Duration::from_secs(20);

fn patch(bed: &Bed, spec: &Value) -> Result<()> {
    bed.product.patch(&json!({"spec": spec}))
}

/// A setting as the gateway's clients see it.
fn setting(bed: &Bed, gateway: &str, path: &str) -> Result<Value> {
    let config = client::get_json(&bed.product.addresses(gateway)?.0, "/v1/cluster?what=cluster_config")?;
    config.pointer(path).cloned().with_context(|| format!("no {path} in {config}"))
}

fn wait_setting(bed: &Bed, gateway: &str, path: &str, wanted: &Value) -> Result<()> {
    Wait::new(format!("{path} to be {wanted}"), SOON)
        .until(|| Ok((setting(bed, gateway, path)? == *wanted).then_some(())))
}

fn wait_config(bed: &Bed, because: &str) -> Result<Value> {
    bed.product.wait_resource(&format!("ConfigValid {because}"), SOON, |it| {
        reason(it, "ConfigValid") == because && it["status"]["observedGeneration"] == it["metadata"]["generation"]
    })
}

/// Checked before anybody is asked, committed, read back, kept against the API, reset when it leaves the spec.
pub(crate) fn config_overlay(bed: &mut Bed) -> Result<String> {
    let (primary, _) = bed.product.primary()?;
    let other = bed.other_gateway(&[&primary])?;
    patch(bed, &json!({"config": {"mirror": {"copies": 3}, "checksum.type": "sha256"}}))?;
    let applied = wait_config(bed, "Applied")?;
    ensure!(applied["status"]["config"]["keys"] == json!(["checksum.type", "mirror.copies"]), "{}", applied["status"]);
    wait_setting(bed, &other, "/mirror/copies", &json!(3))?;
    wait_setting(bed, &other, "/checksum/type", &json!("sha256"))?;

    patch(bed, &json!({"config": {"miror": {"enabled": true}}}))?;
    let wrong = wait_config(bed, "UnknownKey")?;
    let told = condition(&wrong, "ConfigValid").map(|c| (c.status, c.message)).unwrap_or_default();
    ensure!(told.0 == "False" && told.1.contains("did you mean 'mirror.enabled'?"), "{told:?}");
    ensure!(
        condition(&wrong, "Available").is_some_and(|c| c.status == "True"),
        "the cluster suffers from a wrong word"
    );
    patch(bed, &json!({"config": {"miror": null, "mirror": {"copies": 99}}}))?;
    wait_config(bed, "InvalidValue")?;
    ensure!(setting(bed, &other, "/mirror/copies")? == 3, "a wrong overlay changed something");
    ensure!(bed.product.events("ConfigInvalid")?.len() == 2, "{:?}", bed.product.events("ConfigInvalid")?);

    patch(bed, &json!({"config": {"mirror": {"copies": 3}, "ha": {"probe_ms": 250}}}))?;
    let late = wait_config(bed, "Applied")?;
    let told = condition(&late, "ConfigValid").map(|c| c.message).unwrap_or_default();
    ensure!(told.contains("next start: ha.probe_ms"), "{told}");

    // Somebody uses the API: what the spec names is set back, what it does not name stays.
    let target = "/v1/cluster/set-config?mirror.copies=5&mirror.burst_buffer=99";
    let gateway = bed.product.addresses(&other)?.0;
    let reply = http::call(&gateway, Call { method: "PUT", target, ..Call::default() }, CALL)?;
    ensure!(reply.is_success(), "set-config: {} {}", reply.status, reply.text());
    Wait::new("the drift to be told", SOON)
        .until(|| Ok((!bed.product.events("ConfigDrift")?.is_empty()).then_some(())))?;
    wait_setting(bed, &other, "/mirror/copies", &json!(3))?;
    ensure!(setting(bed, &other, "/mirror/burst_buffer")? == 99, "a setting that the spec does not name was touched");

    patch(bed, &json!({"config": null}))?;
    let gone = wait_config(bed, "NoOverlay")?;
    ensure!(gone["status"]["config"].get("keys").is_none(), "{}", gone["status"]["config"]);
    wait_setting(bed, &other, "/mirror/copies", &json!(2))?;
    wait_setting(bed, &other, "/checksum/type", &json!("xxhash"))?;
    let events = bed.product.events("ConfigDrift")?;
    ensure!(events.len() == 1, "{events:?}");
    Ok(events[0].clone())
}

fn access_pods(bed: &Bed) -> Result<Vec<Value>> {
    let selector = format!("aiscluster.dev/cluster={NAME},app.kubernetes.io/component=access");
    let mut pods = bed.product.kubectl.list("pods", Some(&selector))?;
    pods.retain(is_ready);
    Ok(pods)
}

fn name_of(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Waits for one access gateway that is Ready and in the cluster map, and for no other in there; its name and address.
fn wait_access(bed: &Bed) -> Result<(String, String)> {
    let joined =
        |it: &Value| it["status"]["accessGateways"]["joined"] == 1 && it["status"]["accessGateways"]["ready"] == 1;
    bed.product.wait_resource("one access gateway in the map", LONG, joined)?;
    let pod = access_pods(bed)?.pop().context("no access gateway is Ready")?;
    let ip = pod["status"]["podIP"].as_str().context("no address")?;
    Ok((name_of(&pod), format!("{ip}:{PORT_PUBLIC}")))
}

/// In the primary's map, as non-electable; and nobody else's name of that kind.
fn in_the_map(bed: &Bed, name: &str) -> Result<()> {
    let (primary, _) = bed.product.primary()?;
    let ask = Signed { method: "GET", target: "/v1/ha/view", body: b"", skew_ms: 0, timeout: CALL };
    let reply = ask.send(&bed.product.addresses(&primary)?.1, &bed.product.secret()?)?;
    let view: Value = serde_json::from_slice(&reply.body)?;
    let members = view["members"].as_array().cloned().unwrap_or_default();
    let access = |m: &&Value| m["node_id"].as_str().is_some_and(|id| id.starts_with(&format!("{NAME}-access-")));
    let found: Vec<&Value> = members.iter().filter(access).collect();
    ensure!(found.len() == 1 && found[0]["node_id"] == name, "in the map: {found:?}");
    ensure!(found[0]["non_electable"] == true && found[0]["voter"] == false, "{}", found[0]);
    Ok(())
}

/// A Deployment, its pod killed, a DaemonSet, none; the electorate hears nothing of it.
pub(crate) fn access_gateways(bed: &mut Bed) -> Result<String> {
    let kubectl = bed.product.kubectl.in_namespace(NAMESPACE);
    let voters = bed.product.resource()?["status"]["electorate"].clone();
    patch(bed, &json!({"accessGateways": {"replicas": 1}}))?;
    let (first, address) = wait_access(bed)?;
    in_the_map(bed, &first)?;
    let reply = client::create_bucket(&address, "by-access", None)?;
    ensure!(reply.is_success(), "through {first}: {} {}", reply.status, reply.text());
    ensure!(
        client::bmd_names(&bed.product.addresses(&bed.product.primary()?.0)?.0)?.contains("by-access"),
        "no bucket"
    );
    let endpoints = bed.endpoints(&format!("{NAME}-access"))?;
    ensure!(endpoints == [address.trim_end_matches(&format!(":{PORT_PUBLIC}"))], "the Service leads to {endpoints:?}");
    ensure!(bed.endpoints(NAME)?.len() == bed.product.gateways, "Service {NAME} leads to access gateways");
    let budget = kubectl.get(&format!("poddisruptionbudget/{NAME}"))?;
    ensure!(budget["status"]["expectedPods"] == 6, "the voters' budget counts {}", budget["status"]["expectedPods"]);

    // Told to stop: it leaves. Its successor is another node.
    kubectl.run(&["delete", "pod", &first, "--wait=false"])?;
    kubectl.wait_gone(&format!("pod/{first}"), LONG)?;
    let (second, _) = wait_access(bed)?;
    ensure!(second != first, "the same name again");
    in_the_map(bed, &second)?;
    // Dead without a word: taken out.
    kubectl.force_delete_pod(&second)?;
    kubectl.wait_gone(&format!("pod/{second}"), LONG)?;
    let third = Wait::new("another access gateway alone in the map", LONG).until(|| {
        let (third, _) = wait_access(bed)?;
        in_the_map(bed, &third)?;
        Ok((third != second).then_some(third))
    })?;

    patch(bed, &json!({"accessGateways": {"replicas": null, "daemonSet": true}}))?;
    kubectl.wait_gone(&format!("deployment/{NAME}-access"), LONG)?;
    let daemon = Wait::new("the DaemonSet's gateway alone in the map", LONG).until(|| {
        let (name, _) = wait_access(bed)?;
        in_the_map(bed, &name)?;
        Ok((name != third).then_some(name))
    })?;
    let service = kubectl.get(&format!("service/{NAME}-access"))?;
    ensure!(service["spec"]["internalTrafficPolicy"] == "Local", "{}", service["spec"]);
    patch(bed, &json!({"accessGateways": null}))?;
    for object in ["daemonset", "service"] {
        kubectl.wait_gone(&format!("{object}/{NAME}-access"), LONG)?;
    }
    bed.product.wait_resource("without access gateways", SOON, |it| it["status"].get("accessGateways").is_none())?;
    Wait::new("the last one to leave the map", LONG).until(|| {
        let (primary, _) = bed.product.primary()?;
        let smap = client::get_json(&bed.product.addresses(&primary)?.0, "/v1/daemon?what=smap")?;
        Ok((smap["pmap"].as_object().map(serde_json::Map::len) == Some(bed.product.gateways)).then_some(()))
    })?;
    let after = bed.product.resource()?["status"]["electorate"].clone();
    ensure!(after == voters, "voters were {voters}, are {after}");
    Ok(format!("{first}, {second}, {third}, {daemon}; the electorate stayed as it was"))
}

const POD_MONITOR: &str = "podmonitors.monitoring.coreos.com";

fn monitoring_api() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": POD_MONITOR},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"plural": "podmonitors", "singular": "podmonitor", "kind": "PodMonitor"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }}}],
        },
    })
}

/// The policy's shape (the test Kubernetes does not enforce policies), the Service's type, the budget, the PodMonitor
/// where there is such an API.
pub(crate) fn networking_and_monitoring(bed: &mut Bed) -> Result<String> {
    let kubectl = bed.product.kubectl.in_namespace(NAMESPACE);
    let policy = kubectl.get(&format!("networkpolicy/{NAME}"))?;
    let spec = &policy["spec"];
    ensure!(spec["policyTypes"] == json!(["Ingress"]), "{spec}");
    let ports: Vec<_> = (0..3).map(|n| spec["ingress"][n]["ports"][0]["port"].clone()).collect();
    ensure!(ports == [51080, 51082, 51084] && spec["ingress"][0].get("from").is_none(), "{spec}");
    // Whom the control port's rule lets in is the operator that runs here.
    let peer = &spec["ingress"][1]["from"][1];
    let namespace = &peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"];
    ensure!(namespace == OPERATOR_NAMESPACE, "{peer}");
    let label = peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"].as_str().context("no label")?;
    let operators = bed.product.admin.in_namespace(OPERATOR_NAMESPACE);
    let selected = operators.list("pods", Some(&format!("app.kubernetes.io/name={label}")))?;
    ensure!(!selected.is_empty(), "no pod of the operator is let in");

    let service = format!("service/{NAME}");
    patch(bed, &json!({"networking": {"service": {"type": "NodePort", "annotations": {"cloud/x": "y"}}}}))?;
    let open = |it: &Value| {
        it["spec"]["type"] == "NodePort"
            && it["metadata"]["annotations"]["cloud/x"] == "y"
            && it["spec"]["ports"][0]["nodePort"].is_u64()
    };
    kubectl.wait_for(&service, "a NodePort", SOON, open)?;
    patch(bed, &json!({"networking": {"service": null, "networkPolicy": {"enabled": false}}}))?;
    kubectl.wait_gone(&format!("networkpolicy/{NAME}"), SOON)?;
    let closed =
        |it: &Value| it["spec"]["type"] == "ClusterIP" && it["metadata"]["annotations"].get("cloud/x").is_none();
    kubectl.wait_for(&service, "a ClusterIP", SOON, closed)?;

    let budget = format!("poddisruptionbudget/{NAME}");
    patch(bed, &json!({"podDisruptionBudget": {"enabled": false}}))?;
    kubectl.wait_gone(&budget, SOON)?;
    patch(bed, &json!({"podDisruptionBudget": null}))?;
    kubectl.wait_for(&budget, "over all pods again", SOON, |it| it["spec"]["maxUnavailable"] == 1)?;

    patch(bed, &json!({"networking": null, "monitoring": {"podMonitor": true, "labels": {"release": "prom"}}}))?;
    let scrapers = |it: &Value| it["spec"]["ingress"][1]["from"][2] == json!({"namespaceSelector": {}});
    kubectl.wait_for(&format!("networkpolicy/{NAME}"), "open for scrapers", SOON, scrapers)?;
    bed.product.admin.apply_json(&monitoring_api())?;
    bed.product.admin.run(&["wait", "--for=condition=Established", &format!("crd/{POD_MONITOR}"), "--timeout=30s"])?;
    let monitor = format!("{POD_MONITOR}/{NAME}");
    let labelled = |it: &Value| it["metadata"]["labels"]["release"] == "prom";
    // Asked for every 15 s, and a pass every 20 s.
    let made = kubectl.wait_for(&monitor, "made", LONG, labelled)?;
    ensure!(made["spec"]["podMetricsEndpoints"][0]["port"] == "control", "{}", made["spec"]);
    patch(bed, &json!({"monitoring": null}))?;
    kubectl.wait_gone(&monitor, LONG)?;
    bed.product.admin.delete(&format!("crd/{POD_MONITOR}"), LONG)?;
    Ok("policy, NodePort and back, budget pruned and made anew, PodMonitor made and pruned".to_owned())
}

/// What the pages tell people to type.
pub(crate) fn explained_and_waited_for(bed: &mut Bed) -> Result<String> {
    let kubectl = &bed.product.kubectl;
    for field in ["spec", "spec.config", "spec.accessGateways.template", "status.primary", "status.conditions"] {
        let told = kubectl.run(&["explain", &format!("aisc.{field}")])?;
        ensure!(told.contains("DESCRIPTION") && !told.contains("<empty>"), "explain {field}: {told}");
    }
    let wide = kubectl.run(&["get", "aisc", "-o", "wide"])?;
    let head: Vec<&str> = wide.lines().next().unwrap_or_default().split_whitespace().collect();
    let columns = "NAME READY STATUS PRIMARY GATEWAYS TARGETS VERSION AGE PREFERRED SMAP CLUSTER-ID REASON";
    ensure!(head == columns.split(' ').collect::<Vec<_>>(), "columns are {head:?}");
    let (primary, _) = bed.product.primary()?;
    let name = format!("aisc/{NAME}");
    let by_path = format!("--for=jsonpath={{.status.primary.current}}={primary}");
    for wanted in [
        "--for=condition=Ready",
        "--for=condition=Available",
        "--for=condition=HighlyAvailable",
        "--for=condition=MembershipConverged",
        "--for=condition=ConfigValid",
        "--for=condition=Progressing=False",
        "--for=condition=Degraded=False",
        "--for=jsonpath={.status.phase}=Running",
        &by_path,
    ] {
        kubectl.run(&["wait", &name, wanted, "--timeout=20s"]).with_context(|| format!("kubectl wait {wanted}"))?;
    }
    Ok("explain, columns, nine ways to wait".to_owned())
}

/// Stored while the schema had no words for it: said on the object, and the others go on.
pub(crate) fn an_unreadable_object_blinds_nobody(bed: &mut Bed) -> Result<String> {
    let kubectl = bed.product.kubectl.in_namespace(NAMESPACE);
    let admin = &bed.product.admin;
    let mut relaxed = admin.get("crd/aisclusters.aiscluster.dev")?;
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/imagePullPolicy";
    let schema = relaxed.pointer_mut(field).and_then(Value::as_object_mut).context("no imagePullPolicy")?;
    let values = schema.remove("enum").context("imagePullPolicy has no values")?;
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/imagePullPolicy/enum";
    let json_patch = |op: Value| {
        admin.run(&["patch", "crd/aisclusters.aiscluster.dev", "--type=json", "--patch", &json!([op]).to_string()])
    };
    json_patch(json!({"op": "remove", "path": path}))?;
    let bad = json!({
        "apiVersion": "aiscluster.dev/v1alpha1", "kind": "AISCluster", "metadata": {"name": "unreadable"},
        "spec": {"imagePullPolicy": "Sometimes", "gateways": {"replicas": 1}, "targets": {"replicas": 1, "storage": {"size": "1Gi"}}},
    });
    let stored =
        Wait::new("the relaxed schema to count", SOON).until(|| Ok(kubectl.apply_json(&bad).is_ok().then_some(())));
    json_patch(json!({"op": "add", "path": path, "value": values}))?;
    stored?;

    let unreadable = |it: &Value| {
        condition(it, "Degraded")
            .is_some_and(|c| c.status == "True" && c.reason == "SpecUnreadable" && c.message.contains("Sometimes"))
            && reason(it, "Ready") == "SpecUnreadable"
    };
    kubectl.wait_for("aisc/unreadable", "called unreadable", SOON, unreadable)?;
    let told = || -> Result<usize> {
        let events = kubectl.list("events", None)?;
        Ok(events
            .iter()
            .filter(|e| e["reason"] == "SpecUnreadable" && e["involvedObject"]["name"] == "unreadable")
            .count())
    };
    Wait::new("an event", SOON).until(|| Ok((told()? > 0).then_some(())))?;
    let sets = kubectl.list("statefulsets", Some("aiscluster.dev/cluster=unreadable"))?;
    ensure!(sets.is_empty(), "something was made of it");

    // An operator that starts now has to list both.
    let operator = admin.in_namespace(OPERATOR_NAMESPACE);
    operator.run(&["delete", "pods", "--all", "--wait=true"])?;
    operator.run(&["rollout", "status", &format!("deployment/{}", product::RELEASE), "--timeout=90s"])?;
    let service = format!("service/{NAME}");
    kubectl.patch(&service, &json!({"spec": {"selector": {"app.kubernetes.io/component": "nobody"}}}))?;
    let mended = |it: &Value| it["spec"]["selector"]["app.kubernetes.io/component"] == "gateway";
    kubectl.wait_for(&service, "mended beside the unreadable one", LONG, mended)?;
    ensure!(told()? == 1, "{} events of one unreadable object", told()?);

    // It can be mended, or go; also with our finalizer on it.
    kubectl.run(&[
        "patch",
        "aisc",
        "unreadable",
        "--type=merge",
        "--patch",
        r#"{"metadata":{"finalizers":["aiscluster.dev/cluster"]}}"#,
    ])?;
    kubectl.delete("aisc/unreadable", LONG)?;
    bed.product.settle()?;
    Ok("conditions, one event, the other cluster mended by a fresh operator; deleted".to_owned())
}
