//! Pods that Kubernetes takes away: evictions, a drained node, a lost volume. Clients write all the time.

use std::time::{Duration, Instant};

use ais_tests::product::{NAME, Product};
use ais_tests::testbed::kubectl::is_ready;
use ais_tests::testbed::layout::NODE;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG, SOON};
use crate::side::{Side, offer_volumes};

/// Longer than a pod needs to stop and to come back somewhere else.
const DRAIN: Duration = Duration::from_secs(15);

/// Evicts a pod as soon as the budget lets it go; what that took, and how often it was refused before.
fn evict(product: &Product, pod: &str) -> Result<(Duration, u32)> {
    let namespace = &product.namespace;
    let body = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace},
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
    let (begin, mut refused) = (Instant::now(), 0);
    Wait::new(format!("the eviction of {pod}"), LONG).until(|| {
        let told = product.admin.cmd(["create", "--raw", &path, "-f", "-"]).stdin(body.to_string()).output()?;
        if told.ok() {
            return Ok(Some(()));
        }
        refused += 1;
        ensure!(told.stderr.contains("disruption budget"), "{}", told.stderr);
        Ok(None)
    })?;
    Ok((begin.elapsed(), refused))
}

fn uid(product: &Product, pod: &str) -> Result<Value> {
    Ok(product.pod(pod)?["metadata"]["uid"].clone())
}

/// Waits for another pod of that name, and for all to follow one primary.
fn wait_back(product: &Product, pod: &str, was: &Value) -> Result<()> {
    Wait::new(format!("another {pod}"), LONG).until(|| {
        let now = product.pod(pod)?;
        Ok((now["metadata"]["uid"] != *was && is_ready(&now)).then_some(()))
    })?;
    product.settle().map(drop)
}

/// Every pod in turn, the primary among them; then the whole node, which has no other to go to.
pub(crate) fn pods_are_evicted(bed: &mut Bed) -> Result<String> {
    let labels = json!({"template": {"labels": {"drained": "yes"}}});
    let mut side = Side::make(bed, "drain", json!({"spec": {"gateways": labels, "targets": labels}}))?;
    side.clients()?;
    let product = &side.product;
    let mut said = Vec::new();
    for pod in product.pod_names()? {
        let (was, primary) = (uid(product, &pod)?, product.primary()?);
        let begin = Instant::now();
        let (_, refused) = evict(product, &pod)?;
        wait_back(product, &pod, &was)?;
        let led = primary.0 == pod;
        let (new, epoch) = product.primary()?;
        // Whoever hands over as it ends may be elected again by the time it is back: a later epoch it is.
        ensure!(!led || epoch > primary.1, "{pod} led in epoch {}, was evicted, {new} leads in {epoch}", primary.1);
        let role = if led { format!(" (primary, then {new})") } else { String::new() };
        said.push(format!("{pod}{role} back after {:.1?}, refused {refused} times", begin.elapsed()));
    }
    said.push(drain_the_node(bed, &side.product)?);
    said.push(side.judge(40)?);
    side.down()?;
    Ok(said.join("; "))
}

/// The node takes no pods any more, so one is evicted and stays away, and the budget keeps the rest.
fn drain_the_node(bed: &Bed, product: &Product) -> Result<String> {
    let pods = product.pod_names()?.len();
    let limit = format!("--timeout={}s", DRAIN.as_secs());
    let args = ["drain", NODE, "--pod-selector=drained=yes", "--delete-emptydir-data", "--ignore-daemonsets", &limit];
    let drained = bed.product.admin.cmd(args).output()?;
    let left = product.pods()?.iter().filter(|pod| is_ready(pod)).count();
    let led = product.resource()?["status"]["primary"]["current"].clone();
    bed.product.admin.run(&["uncordon", NODE])?;
    ensure!(!drained.ok() && drained.stderr.contains("disruption budget"), "the drain: {}", drained.stderr);
    ensure!(left == pods - 1, "{left} of {pods} pods are left on a node that cannot be emptied");
    ensure!(led.is_string(), "nobody led during the drain");
    product.settle()?;
    Ok(format!("drain stopped with {left} of {pods} pods, {led} led"))
}

/// Pod and claim are gone: the node comes back with an empty disk, which is another voter.
pub(crate) fn a_voter_loses_its_volume(bed: &mut Bed) -> Result<String> {
    let mut side = Side::make(bed, "wiped", json!({}))?;
    side.clients()?;
    let product = &side.product;
    let disk = |resource: &Value, pod: &str| {
        let voters = resource["status"]["electorate"].as_array().cloned().unwrap_or_default();
        voters.iter().find(|voter| voter["pod"] == pod).and_then(|voter| voter["diskID"].as_str().map(str::to_owned))
    };
    let (primary, epoch) = product.primary()?;
    let voter = product.gateway_names().into_iter().find(|name| *name != primary).context("no other gateway")?;
    let resource = product.resource()?;
    let before = disk(&resource, &voter).with_context(|| format!("{voter} does not vote"))?;
    offer_volumes(bed, 1)?;
    let begin = Instant::now();
    let (claim, was) = (format!("persistentvolumeclaim/state-{voter}"), uid(product, &voter)?);
    // The claim stays until no pod uses it; the set makes a new one for the next pod.
    product.kubectl.run(&["delete", &claim, "--wait=false"])?;
    product.kubectl.run(&["delete", &format!("pod/{voter}"), "--wait=false"])?;
    wait_back(product, &voter, &was)?;
    let mended = product.wait_resource("whole with another disk", LONG, |resource| {
        product.is_whole(resource) && disk(resource, &voter).is_some_and(|now| now != before)
    })?;
    let took = begin.elapsed();
    let elected = product.events("PrimaryElected")?.len();
    let (still, same) = product.primary()?;
    ensure!((&still, same) == (&primary, epoch) || elected > 0, "{still} leads in {same}, {primary} led in {epoch}");
    product.wait_resource("labelled", SOON, |_| {
        let claim = product.kubectl.get(&claim).unwrap_or_default();
        claim["metadata"]["labels"]["aiscluster.dev/formed"] == "true"
    })?;
    let after = disk(&mended, &voter).unwrap_or_default();
    let judged = side.judge(20)?;
    side.down()?;
    Ok(format!("{voter} of {NAME}: disk {before} -> {after} votes after {took:.1?}; {judged}"))
}
