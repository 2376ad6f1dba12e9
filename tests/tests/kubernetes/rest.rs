//! A cluster at rest, its objects, and conditions that follow the spec.

use std::time::Duration;

use ais_tests::product::{CONTAINER, NAME, NAMESPACE, condition, reason};
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG, SOON};

/// Longer than the 20 s after which the operator looks at a calm cluster again.
const REST: Duration = Duration::from_secs(23);
const CALM: Duration = Duration::from_secs(3);

pub(crate) fn idle_writes_nothing(bed: &mut Bed) -> Result<String> {
    // What the last case left to be told.
    Wait::new("calm", SOON).until(|| {
        let before = bed.product.api_writes()?;
        std::thread::sleep(CALM);
        Ok((bed.product.api_writes()? == before).then_some(()))
    })?;
    let versions = |bed: &Bed| -> Result<String> {
        let kinds = "aisc,configmaps,secrets,services,statefulsets,pods,persistentvolumeclaims,poddisruptionbudgets,\
                     networkpolicies";
        let columns = "custom-columns=K:.kind,N:.metadata.name,V:.metadata.resourceVersion";
        bed.product.kubectl.run(&["get", kinds, "-o", columns, "--no-headers"])
    };
    let (counts, objects) = (bed.product.api_writes()?, versions(bed)?);
    std::thread::sleep(REST);
    let (after, still) = (bed.product.api_writes()?, versions(bed)?);
    ensure!(after == counts, "writes at rest: {counts:?}, then {after:?}");
    ensure!(still == objects, "objects changed at rest:\n{objects}\nthen\n{still}");
    Ok(format!("no write in {REST:.0?}, {} objects unchanged", objects.lines().count()))
}

pub(crate) fn objects_are_as_documented(bed: &mut Bed) -> Result<String> {
    let kubectl = &bed.product.kubectl;
    let budgets = kubectl.list("poddisruptionbudgets", None)?;
    ensure!(budgets.len() == 1, "{} disruption budgets", budgets.len());
    let budget = &budgets[0];
    ensure!(budget["spec"]["maxUnavailable"] == 1 && budget["status"]["expectedPods"] == 6, "the budget is {budget}");
    for role in ["gateway", "target"] {
        let set = kubectl.get(&format!("statefulset/{NAME}-{role}"))?;
        let spec = &set["spec"];
        ensure!(spec["podManagementPolicy"] == "Parallel" && spec["updateStrategy"]["type"] == "OnDelete", "{spec}");
        let headless = kubectl.get(&format!("service/{NAME}-{role}"))?;
        let spec = &headless["spec"];
        ensure!(spec["clusterIP"] == "None" && spec["publishNotReadyAddresses"] == true, "{spec}");
    }
    for pod in bed.product.pods()? {
        let spec = &pod["spec"];
        ensure!(spec["automountServiceAccountToken"] == false, "{} has a token", pod["metadata"]["name"]);
        ensure!(spec["containers"][0]["name"] == CONTAINER, "the container is {}", spec["containers"][0]["name"]);
        ensure!(spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] == true, "a root to write to");
    }
    let namespace = bed.product.admin.get(&format!("namespace/{NAMESPACE}"))?;
    let enforced = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
    ensure!(*enforced == "restricted", "the namespace enforces {enforced}");
    // Once formed, nobody may found again: it is in the file that every node reads.
    let file = kubectl.get(&format!("configmap/{NAME}-discovery"))?["data"]["discovery.yaml"].clone();
    let file: Value = serde_json::from_str(file.as_str().context("no discovery file")?)?;
    ensure!(file["formed"] == true && file["peers"].as_array().map(Vec::len) == Some(6), "discovery is {file}");
    ensure!(file["initial_voters"].as_array().map(Vec::len) == Some(3), "founded by {}", file["initial_voters"]);
    for claim in kubectl.list("persistentvolumeclaims", None)? {
        let name = claim["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let labels = &claim["metadata"]["labels"];
        ensure!(labels["aiscluster.dev/cluster-id"] == file["cluster_uuid"], "{name} has the labels {labels}");
        ensure!(!name.starts_with("state-") || labels["aiscluster.dev/formed"] == "true", "{name} has {labels}");
    }
    let path = format!("/apis/aiscluster.dev/v1alpha1/namespaces/{NAMESPACE}/aisclusters/{NAME}/scale");
    let scale: Value = serde_json::from_str(&bed.product.admin.raw(&path)?)?;
    ensure!(scale["spec"]["replicas"] == 3 && scale["status"]["replicas"] == 3, "scale is {scale}");
    Ok("one budget, two Parallel OnDelete sets, restricted pods, formed discovery, labelled claims, scale".to_owned())
}

fn wait_condition(bed: &Bed, kind: &str, status: &str, because: &str) -> Result<()> {
    let what = format!("{kind}={status} {because}");
    let right = |c: ais_tests::product::Condition| c.status == status && c.reason == because;
    bed.product.wait_resource(&what, SOON, |resource| condition(resource, kind).is_some_and(right)).map(drop)
}

/// Each is set by an edit and goes with it; nothing else happens to the cluster.
pub(crate) fn conditions_follow_the_spec(bed: &mut Bed) -> Result<String> {
    let (primary, _) = bed.product.primary()?;
    let patch = |patch: Value| bed.product.patch(&json!({"spec": patch}));

    patch(json!({"paused": true}))?;
    wait_condition(bed, "Paused", "True", "PausedBySpec")?;
    // Paused: also what the operator would mend stays as somebody made it.
    let service = format!("service/{NAME}");
    bed.product.kubectl.patch(&service, &json!({"metadata": {"labels": {"aiscluster.dev/cluster": null}}}))?;
    patch(json!({"paused": false}))?;
    wait_condition(bed, "Paused", "False", "Active")?;
    bed.product
        .kubectl
        .wait_for(&service, "mended", SOON, |it| it["metadata"]["labels"]["aiscluster.dev/cluster"] == NAME)?;

    // Paused, nobody can leave, and nobody has begun to.
    patch(json!({"paused": true, "targets": {"replicas": 2}}))?;
    wait_condition(bed, "ScaleDownBlocked", "True", "Paused")?;
    patch(json!({"paused": false, "targets": {"replicas": 3}}))?;
    wait_condition(bed, "ScaleDownBlocked", "False", "NotAsked")?;

    // The primary is the preferred gateway, so it leads again after the roll-out.
    patch(json!({"primary": {"preferred": [primary], "request": "rollout"}}))?;
    bed.product.wait_resource("preferred", SOON, |it| reason(it, "PrimaryPreferred") == "PreferredIsPrimary")?;
    patch(json!({"gateways": {"template": {"annotations": {"note": "new"}}}}))?;
    wait_condition(bed, "RolloutPending", "True", "RollingOut")?;
    bed.product.wait_resource("rolled out", 2 * LONG, |it| {
        it["status"]["rollout"]["state"] == "Completed" && reason(it, "RolloutPending") == "UpToDate"
    })?;
    let (again, epoch) = bed.product.primary()?;
    ensure!(again == primary, "{again} leads after the roll-out, {primary} did before");
    let pods = uids(bed)?;

    patch(json!({"gateways": {"template": {"affinity": {"podAntiAffinity": "none"}}}}))?;
    wait_condition(bed, "Degraded", "True", "SpecInvalid")?;
    patch(json!({"gateways": {"template": {"affinity": null}}}))?;
    wait_condition(bed, "Degraded", "False", "AsExpected")?;

    let set = format!("statefulset/{NAME}-target");
    bed.product.kubectl.run(&["scale", &set, "--replicas=4"])?;
    bed.product.kubectl.wait_for(&set, "reverted", SOON, |it| it["spec"]["replicas"] == 3)?;
    Wait::new("the pods of before", SOON).until(|| Ok((uids(bed)? == pods).then_some(())))?;
    for claim in ["state", "data"] {
        bed.product.kubectl.delete(&format!("persistentvolumeclaim/{claim}-{NAME}-target-3"), SOON)?;
    }
    let (still, same) = bed.product.primary()?;
    ensure!((&still, same) == (&primary, epoch), "{still} leads in {same}, {primary} led in {epoch}");
    Ok("Paused, ScaleDownBlocked, RolloutPending, SpecInvalid; a foreign scale reverted".to_owned())
}

fn uids(bed: &Bed) -> Result<Vec<Value>> {
    Ok(bed.product.pods()?.iter().map(|pod| pod["metadata"]["uid"].clone()).collect())
}
