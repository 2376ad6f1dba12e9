//! More and fewer members, by the resource and by `kubectl scale`, with clients that write all the time.

use std::time::Duration;

use ais_tests::product::{NAME, condition, reason};
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG, SOON};
use crate::held::acting_operator;
use crate::side::Side;

/// A majority that is lost shows as a write that waits for an election, and those wait for longer than this
/// (`side::patient`).
const GAP_MAX: Duration = Duration::from_secs(8);
/// One node after the other.
const SCALED: Duration = Duration::from_secs(180);

fn size(side: &mut Side, gateways: usize, targets: usize) {
    (side.product.gateways, side.product.targets) = (gateways, targets);
}

/// Waits until as many pods and members are there as asked for, and nothing is under way.
fn wait_scaled(bed: &Bed, side: &Side) -> Result<Value> {
    let wanted = side.product.gateways + side.product.targets;
    side.product.wait_resource("scaled", SCALED, |it| {
        it["status"]["observedGeneration"] == it["metadata"]["generation"]
            && it["status"].get("operation").is_none()
            && it["status"]["nodes"].as_array().map(Vec::len) == Some(wanted)
    })?;
    let resource = side.product.wait_ready(&bed.progress)?;
    Wait::new("the pods that shall go", LONG).until(|| {
        let names = side.product.pod_names()?;
        ensure!(names.len() == wanted, "there are {names:?}");
        Ok(Some(()))
    })?;
    Ok(resource)
}

fn claims(side: &Side) -> Result<Vec<String>> {
    let all = side.product.kubectl.list("persistentvolumeclaims", None)?;
    Ok(all.iter().filter_map(|claim| claim["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

/// 3 -> 5 -> 3 -> 1 -> 3, and the operator is killed while the second of two leaves.
pub(crate) fn gateways_up_and_down(bed: &mut Bed) -> Result<String> {
    let mut side = Side::make(bed, "scale", json!({"spec": {"targets": {"replicas": 2}}}))?;
    crate::side::offer_volumes(bed, 2)?;
    side.clients()?;
    let mut said = Vec::new();
    for gateways in [5, 3, 1, 3] {
        let shrinks = gateways < side.product.gateways;
        side.product.patch(&json!({"spec": {"gateways": {"replicas": gateways}}}))?;
        if gateways == 3 && shrinks {
            let what = format!("{NAME}-gateway-3 on its way");
            side.product.wait_resource(&what, SCALED, |it| {
                it["status"]["operation"]["pod"] == format!("{NAME}-gateway-3").as_str()
            })?;
            let (holder, operator) = acting_operator(bed)?;
            operator.kill()?;
            said.push(format!("{holder} killed"));
        }
        size(&mut side, gateways, 2);
        if !shrinks {
            crate::side::offer_volumes(bed, 4)?;
        }
        let resource = wait_scaled(bed, &side)?;
        let voters: Vec<&str> = resource["status"]["electorate"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|v| v["pod"].as_str())
            .collect();
        let names = side.product.pod_names()?;
        ensure!(voters.iter().all(|v| names.iter().any(|n| n == v)), "{voters:?} vote, there are {names:?}");
        if shrinks {
            let gone = format!("state-{NAME}-gateway-{gateways}");
            Wait::new(format!("{gone} to go"), LONG).until(|| Ok((!claims(&side)?.contains(&gone)).then_some(())))?;
        }
        let file = side.product.kubectl.get(&format!("configmap/{NAME}-discovery"))?["data"]["discovery.yaml"].clone();
        let file: Value = serde_json::from_str(file.as_str().context("no discovery file")?)?;
        ensure!(file["peers"].as_array().map(Vec::len) == Some(gateways + 2), "the file lists {}", file["peers"]);
        said.push(format!("{gateways}: {}", voters.join(" ")));
    }
    let completed = side.product.events("GatewayRemovalCompleted")?;
    // Four left; the operator was killed while one of them did, and an event is told once or not at all.
    ensure!(completed.len() >= 3, "four left, told of {completed:?}");
    said.push(side.judge_leaving(100, GAP_MAX)?);
    side.down()?;
    Ok(said.join("; "))
}

/// `kubectl scale` of the resource: up, down with Drain, down with Retain, and the retained one comes back.
pub(crate) fn targets_by_kubectl_scale(bed: &mut Bed) -> Result<String> {
    let mut side = Side::make(bed, "targets", json!({"spec": {"targets": {"replicas": 2}}}))?;
    side.clients()?;
    let scale = |side: &Side, count: usize| {
        side.product.kubectl.run(&["scale", &format!("aisc/{NAME}"), &format!("--replicas={count}")]).map(drop)
    };
    crate::side::offer_volumes(bed, 4)?;
    scale(&side, 4)?;
    size(&mut side, 3, 4);
    wait_scaled(bed, &side)?;
    scale(&side, 2)?;
    size(&mut side, 3, 2);
    wait_scaled(bed, &side)?;
    for reason in ["TargetDecommissionStarted", "TargetDecommissionCompleted"] {
        let told = side.product.events(reason)?;
        ensure!(told.len() == 2, "{reason} was told {} times: {told:?}", told.len());
    }
    let kept = claims(&side)?;
    ensure!(kept.contains(&format!("data-{NAME}-target-3")), "data of a removed target is not ours to delete");

    let pod = format!("{NAME}-target-1");
    side.product.patch(&json!({"spec": {"scaleDown": {"policy": "Retain"}, "targets": {"replicas": 1}}}))?;
    size(&mut side, 3, 1);
    wait_scaled(bed, &side)?;
    let (primary, _) = side.product.primary()?;
    let members = |side: &Side| -> Result<Vec<String>> {
        let views = side.product.settle()?;
        let view = views.into_iter().find(|v| v.node_id == primary).context("the primary has no view")?;
        Ok(view.members.into_iter().map(|m| m.node_id).collect())
    };
    ensure!(members(&side)?.contains(&pod), "{pod} lost its place");
    ensure!(claims(&side)?.contains(&format!("state-{pod}")), "{pod} lost its volume");
    scale(&side, 2)?;
    size(&mut side, 3, 2);
    let back = wait_scaled(bed, &side)?;
    let node = back["status"]["nodes"].as_array().into_iter().flatten().find(|n| n["pod"] == json!(pod)).cloned();
    let node = node.context("no such node in status")?;
    ensure!(node["inSmap"] == true && node.get("flags").is_none(), "{node}");
    Wait::new("the label of the volume to go", SOON).until(|| {
        let claim = side.product.kubectl.get(&format!("persistentvolumeclaim/state-{pod}"))?;
        Ok(claim["metadata"]["labels"].get("aiscluster.dev/retained").is_none().then_some(()))
    })?;
    ensure!(condition(&back, "ScaleDownBlocked").is_some_and(|c| c.status == "False"), "{}", reason(&back, "Ready"));
    let told = side.judge_within(50, GAP_MAX)?;
    side.down()?;
    Ok(format!("2 -> 4 -> 2 drained, -> 1 retained, -> 2 back in service; {told}"))
}
