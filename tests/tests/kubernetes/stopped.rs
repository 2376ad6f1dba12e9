//! `state: Stopped` and back, and a pause in the middle.

use std::time::Duration;

use ais_tests::client;
use ais_tests::product::{NAME, condition, reason};
use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::bed::{Bed, LONG, SOON};
use crate::manual;
use crate::side::Side;

/// Longer than the operator needs for a step.
const STEP: Duration = Duration::from_secs(3);

pub(crate) fn stopped_and_back(bed: &mut Bed) -> Result<String> {
    let mut side = Side::make(bed, "stopped", json!({"spec": {"targets": {"replicas": 2}}}))?;
    side.clients()?;
    std::thread::sleep(STEP);
    let told = side.judge(20)?;
    let product = &side.product;
    let (primary, epoch) = product.primary()?;
    let reply = client::create_bucket(&product.addresses(&primary)?.0, "kept", None)?;
    ensure!(reply.is_success(), "kept: {} {}", reply.status, reply.text());
    let buckets = product.settle_all().and_then(|_| product.buckets())?;
    let buckets = buckets.get(&primary).context("the primary has no buckets")?.clone();
    let uuid = product.resource()?["status"]["clusterID"].clone();

    manual::commands_in_pods(product)?;

    // A pause holds it up: nothing but status is written.
    product.patch(&json!({"spec": {"paused": true, "state": "Stopped"}}))?;
    product.wait_resource("paused", SOON, |it| reason(it, "Paused") == "PausedBySpec")?;
    std::thread::sleep(STEP);
    ensure!(product.pod_names()?.len() == 5, "stopped although paused: {:?}", product.pod_names()?);
    product.patch(&json!({"spec": {"paused": false}}))?;
    let stopped = product.wait_resource("stopped", LONG, |it| it["status"]["phase"] == "Stopped")?;
    ensure!(product.pod_names()?.is_empty(), "there are still {:?}", product.pod_names()?);
    ensure!(
        condition(&stopped, "Available").is_some_and(|c| c.reason == "Stopped"),
        "{}",
        reason(&stopped, "Available")
    );
    ensure!(condition(&stopped, "Degraded").is_some_and(|c| c.status == "False"), "Degraded while it is stopped");
    ensure!(stopped["spec"]["gateways"]["replicas"] == 3 && stopped["status"]["gateways"]["summary"] == "0/3");
    let status = &stopped["status"];
    ensure!(status["primary"].get("current").is_none(), "status names a primary: {}", status["primary"]);
    ensure!(status["electorate"].as_array().is_none_or(Vec::is_empty), "connected voters: {}", status["electorate"]);
    let row = product.kubectl.run(&["get", "aisc", NAME, "--no-headers", "-o", "wide"])?;
    ensure!(!row.contains(&format!("{NAME}-gateway-")), "kubectl shows a primary: {row}");
    for role in ["gateway", "target"] {
        let set = product.kubectl.get(&format!("statefulset/{NAME}-{role}"))?;
        ensure!(set["spec"]["replicas"] == 0, "{role}s: {}", set["spec"]["replicas"]);
    }
    let records = manual::records_of_a_stopped_node(product)?;

    product.patch(&json!({"spec": {"state": "Running"}}))?;
    let resource = product.wait_ready(&bed.progress)?;
    ensure!(resource["status"]["clusterID"] == uuid, "another uuid: {}", resource["status"]["clusterID"]);
    let (new, now) = product.primary()?;
    ensure!(now > epoch, "epoch {epoch}, then {now}");
    product.settle_all()?;
    for (pod, names) in product.buckets()? {
        ensure!(names == buckets, "{pod} has {names:?}, there were {buckets:?}");
    }
    side.clients()?;
    std::thread::sleep(STEP);
    let after = side.judge(20)?;
    side.down()?;
    Ok(format!("{primary} led in epoch {epoch}, {new} in {now}; {records}; before: {told}; after: {after}"))
}
