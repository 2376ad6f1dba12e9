//! Deletion with the data, and deletions that something holds up.

use std::time::{Duration, Instant};

use ais_tests::product::{NAME, Product, reason};
use ais_tests::wait::Wait;
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG, SOON};
use crate::side::Side;

/// The time-out that is set, and then some.
const LET_GO: Duration = Duration::from_secs(45);

fn claims(product: &Product) -> Result<usize> {
    Ok(product.kubectl.list("persistentvolumeclaims", None)?.len())
}

fn is_gone(product: &Product) -> Result<bool> {
    Ok(product.kubectl.try_get(&format!("aisc/{NAME}"))?.is_none())
}

fn wait_gone(product: &Product, bound: Duration) -> Result<()> {
    Wait::new("the resource to go", bound).until(|| Ok(is_gone(product)?.then_some(())))
}

fn begin_deletion(product: &Product) -> Result<()> {
    product.kubectl.run(&["delete", &format!("aisc/{NAME}"), "--wait=false"]).map(drop)
}

fn hold(product: &Product, finalizers: &Value) -> Result<()> {
    let patch = json!({"metadata": {"finalizers": finalizers}});
    product.kubectl.patch(&format!("pod/{NAME}-gateway-0"), &patch).map(drop)
}

/// Two gateways and a target: small, and still a cluster.
fn small(namespace: &str, bed: &Bed) -> Result<Side> {
    Side::make(bed, namespace, json!({"spec": {"gateways": {"replicas": 2}, "deletionTimeoutSeconds": 8}}))
}

/// Delete takes the claims along, once it is confirmed; a foreign claim stays.
pub(crate) fn deletes_the_data(bed: &mut Bed) -> Result<String> {
    let side = small("deletes", bed)?;
    let product = &side.product;
    let refused = product.patch(&json!({"spec": {"deletionPolicy": "Delete"}}));
    let text = format!("{:#}", refused.err().map_or_else(String::new, |e| format!("{e:#}")));
    ensure!(text.contains("deletionConfirmation"), "not refused without a confirmation: {text}");
    product.patch(&json!({"spec": {"deletionPolicy": "Delete", "deletionConfirmation": NAME}}))?;
    product.kubectl.apply_json(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "state-of-somebody"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }))?;
    let begin = Instant::now();
    begin_deletion(product)?;
    wait_gone(product, LONG)?;
    let took = begin.elapsed();
    ensure!(claims(product)? == 1, "{} claims are left", claims(product)?);
    for reason in ["DataDeletionConfirmed", "DataDeleted"] {
        ensure!(product.events(reason)?.len() == 1, "{reason}: {:?}", product.events(reason)?);
    }
    side.down()?;
    Ok(format!("gone with 4 claims after {took:.1?}"))
}

/// A pod that does not end: Retain lets go after its time, Delete waits and says so until the user gives in.
pub(crate) fn ends_although_a_pod_does_not(bed: &mut Bed) -> Result<String> {
    let side = small("stuck", bed)?;
    let product = &side.product;
    hold(product, &json!(["aiscluster.dev/test"]))?;
    product.patch(&json!({"spec": {"deletionPolicy": "Delete", "deletionConfirmation": NAME}}))?;
    let begin = Instant::now();
    begin_deletion(product)?;
    let stuck = product.wait_resource("stuck", LET_GO, |it| reason(it, "Degraded") == "DeletionStuck")?;
    ensure!(stuck["status"]["phase"] == "Deleting", "{}", stuck["status"]["phase"]);
    ensure!(claims(product)? == 4, "claims went before the pods: {}", claims(product)?);
    let told = begin.elapsed();
    product.patch(&json!({"spec": {"deletionPolicy": "Retain"}}))?;
    wait_gone(product, LET_GO)?;
    let gone = begin.elapsed();
    let events = product.events("DeletionTimedOut")?;
    ensure!(events.len() == 1 && events[0].contains(&format!("{NAME}-gateway-0")), "{events:?}");
    ensure!(claims(product)? == 4, "Retain keeps the claims, there are {}", claims(product)?);
    hold(product, &Value::Null)?;
    Wait::new("the pods to go", LONG).until(|| Ok(product.pod_names()?.is_empty().then_some(())))?;

    // And its volumes are adopted.
    product.kubectl.apply(&product.manifest())?;
    product.wait_ready(&bed.progress)?;
    product.wait_resource("told", SOON, |_| product.events("ClusterAdopted").is_ok_and(|all| all.len() == 1))?;
    side.down()?;
    Ok(format!("stuck after {told:.1?}, let go after {gone:.1?}, adopted"))
}
