//! Requests that have to wait, or are interrupted.

use std::time::{Duration, Instant};

use ais_tests::product::{NAME, NAMESPACE, condition, reason};
use ais_tests::testbed::HostProcess;
use ais_tests::testbed::layout::NODE;
use ais_tests::wait::Wait;
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG, SOON, history};

/// How long the successor stays stopped: the operator's heir, and the others' election, find it so.
const STOPPED: Duration = Duration::from_secs(3);

/// While the node takes no pods, an evicted gateway stays away as long as the test likes.
pub(crate) fn waits_for_a_pod_that_moves(bed: &mut Bed) -> Result<String> {
    let (primary, _) = bed.product.primary()?;
    let wanted = bed.other_gateway(&[&primary])?;
    let third = bed.other_gateway(&[&primary, &wanted])?;
    let was = bed.testbed.pod_ip(NAMESPACE, &wanted)?;
    let restarts = bed.product.events("SwitchoverCompleted")?.len();
    bed.clients()?.pool.close(&wanted)?;
    bed.product.kubectl.run(&["cordon", NODE])?;
    let refusal = evictions(bed, &wanted, &third)?;
    bed.product.wait_resource("short of a node", SOON, |it| reason(it, "Ready") == "NodesNotReady")?;

    let patch = json!({"spec": {"primary": {"preferred": [wanted], "request": "held"}}});
    bed.product.patch(&patch)?;
    let resource = bed.product.wait_resource("waiting at the gate", SOON, |resource| {
        reason(resource, "PrimaryPreferred") == "PreferredNotReady"
            && resource["status"]["primary"]["pendingRequest"].is_string()
    })?;
    let waits = condition(&resource, "PrimaryPreferred").map(|c| c.message).unwrap_or_default();
    ensure!(resource["status"]["primary"]["current"] == json!(primary), "moved through a closed gate");

    bed.product.kubectl.run(&["uncordon", NODE])?;
    let back = Instant::now();
    let resource = bed.product.wait_resource("moved", LONG, |resource| {
        history(resource).first() == Some(&format!("Failback {primary}>{wanted} Succeeded"))
    })?;
    let took = back.elapsed();
    let is = bed.testbed.pod_ip(NAMESPACE, &wanted)?;
    ensure!(is != was, "{wanted} came back at the same address");
    ensure!(resource["status"]["primary"].get("pendingRequest").is_none(), "the request still waits");
    ensure!(bed.product.events("SwitchoverCompleted")?.len() == restarts + 1, "not one move");
    ensure!(bed.product.primary()?.0 == wanted, "{wanted} does not lead");
    bed.wait_told(&wanted)?;
    bed.readdress()?;
    bed.clients()?.pool.open(&wanted);
    Ok(format!("eviction of a second pod: {refusal}; gate: {waits}; moved {took:.1?} after the node was free, to {is}"))
}

/// One pod may be evicted, a second one not before the first is back.
fn evictions(bed: &Bed, first: &str, second: &str) -> Result<String> {
    let evict = |pod: &str| {
        let body = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE},
        });
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction");
        bed.product.admin.cmd(["create", "--raw", &path, "-f", "-"]).stdin(body.to_string()).output()
    };
    let done = evict(first)?;
    ensure!(done.ok(), "the eviction of {first} was refused: {}", done.stderr);
    Wait::new(format!("{first} to be away"), LONG).until(|| {
        let pod = bed.product.pod(first)?;
        Ok((pod["metadata"]["deletionTimestamp"].is_null() && pod["spec"]["nodeName"].is_null()).then_some(()))
    })?;
    let refused = evict(second)?;
    ensure!(
        !refused.ok() && refused.stderr.contains("disruption budget"),
        "{second} was evicted too: {}",
        refused.stderr
    );
    let budget = bed.product.kubectl.get(&format!("poddisruptionbudget/{NAME}"))?;
    ensure!(budget["status"]["expectedPods"] == 6, "the budget is over {}", budget["status"]);
    Ok("429".to_owned())
}

/// The operator's instance that acts, as a process.
pub(crate) fn acting_operator(bed: &Bed) -> Result<(String, HostProcess)> {
    bed.product.acting_operator(&bed.testbed)
}

/// The hand-over is under way and cannot end, since the successor is cut off and then stopped; the operator is
/// killed right then. Its heir finds the attempt in status, reads back what came of it, and ends it: one request,
/// one result, never a second move after the first that succeeded.
pub(crate) fn operator_killed_during_a_failback(bed: &mut Bed) -> Result<String> {
    let (primary, epoch) = bed.product.primary()?;
    let to = bed.other_gateway(&[&primary])?;
    let (holder, operator) = acting_operator(bed)?;
    let successor = bed.process(&to)?;
    let completed = bed.product.events("SwitchoverCompleted")?.len();
    // Clients pause: a successor that misses their writes would be refused as not caught up.
    let names = bed.product.gateway_names();
    let clients = bed.clients()?;
    names.iter().try_for_each(|name| clients.pool.close(name))?;
    clients.slow.insert(to.clone());
    let seen = bed.versions().len();
    let cut = bed.testbed.cut_pods(NAMESPACE, &primary, &to)?;
    let patch = json!({"spec": {"primary": {"preferred": [to], "request": "interrupted", "timeoutSeconds": 15}}});
    bed.product.patch(&patch)?;
    let target = Wait::new("the attempt in status", SOON).every(Duration::from_millis(2)).until(|| {
        let versions = bed.versions();
        Ok(versions[seen..].iter().find(|v| v["status"]["primary"]["target"] == json!(to)).cloned())
    });
    operator.kill()?;
    let attempt = target?["status"]["primary"]["attempt"].clone();
    successor.stop()?;
    ensure!(attempt["from"] == json!(primary) && attempt["epoch"] == json!(epoch), "the attempt is {attempt}");
    std::thread::sleep(STOPPED);
    successor.cont()?;
    cut.heal()?;
    let resource = bed.product.wait_resource("moved after all", LONG, |resource| {
        let first = history(resource).first().cloned().unwrap_or_default();
        first.ends_with(&format!(">{to} Succeeded")) && resource["status"]["primary"].get("target").is_none()
    })?;
    let (new, now) = bed.product.primary()?;
    ensure!(new == to, "{new} leads");
    bed.wait_told(&to)?;
    let moves = bed.product.events("SwitchoverCompleted")?.len() - completed;
    ensure!(moves == 1, "{moves} moves completed");
    let (heir, _) = acting_operator(bed)?;
    bed.readdress()?;
    let clients = bed.clients()?;
    names.iter().for_each(|name| clients.pool.open(name));
    let tried = bed.versions()[seen..].iter().filter_map(attempts).max().unwrap_or_default();
    Ok(format!(
        "{holder} killed, {heir} ended it: epoch {epoch} -> {now}, {tried} attempts failed; {:?}",
        history(&resource)
    ))
}

fn attempts(version: &Value) -> Option<u64> {
    version["status"]["primary"]["attempts"].as_u64()
}
