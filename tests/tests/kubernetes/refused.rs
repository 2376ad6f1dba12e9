//! A spec that the schema takes and the API server does not, when it is applied: told, and nothing else stands still.

use ais_tests::product::{CONTAINER, Product, condition, reason};
use ais_tests::wait::Wait;
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::automatic::message;
use crate::bed::{Bed, LONG, SOON};
use crate::side::Side;

/// Answered writes of its clients, at least.
const WRITES: usize = 20;

/// Pods that the Service of the primary selects.
fn labelled(product: &Product) -> Result<Vec<String>> {
    let pods = product.kubectl.list("pods", Some("aiscluster.dev/role=primary"))?;
    Ok(pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

fn uids(product: &Product) -> Result<Vec<Value>> {
    Ok(product.pods()?.iter().map(|pod| pod["metadata"]["uid"].clone()).collect())
}

/// Waits until status and label name who leads after the primary's process was killed; who that is.
fn failover(bed: &Bed, product: &Product) -> Result<String> {
    let (old, _) = product.primary()?;
    bed.testbed.container_process(&product.namespace, &old, CONTAINER)?.kill()?;
    let resource = product.wait_resource("told of the failover", SOON, |it| {
        it["status"]["primary"]["current"].as_str().is_some_and(|now| now != old)
    })?;
    let new = resource["status"]["primary"]["current"].as_str().unwrap_or_default().to_owned();
    let only = [new.clone()];
    Wait::new(format!("the label of the primary at {new} alone"), SOON)
        .until(|| Ok((labelled(product)? == only).then_some(())))?;
    ensure!(product.primary()?.0 == new, "status and label name {new}, the nodes {:?}", product.primary()?);
    Ok(format!("{old} -> {new}"))
}

fn is(resource: &Value, kind: &str, status: &str) -> bool {
    condition(resource, kind).is_some_and(|c| c.status == status)
}

pub(crate) fn by_the_server_and_by_the_operator(bed: &mut Bed) -> Result<String> {
    let mut side = Side::make(bed, "refused", json!({}))?;
    side.clients()?;
    let product = &side.product;
    let pods = uids(product)?;
    let template = |part: Value| product.patch(&json!({"spec": {"gateways": {"template": part}}}));

    // Found when the StatefulSet is applied: the schema knows no order of quantities.
    template(json!({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}))?;
    let refused = product.wait_resource("refused", SOON, |it| reason(it, "Degraded") == "ApplyFailed")?;
    let said = message(&refused, "Degraded");
    let short = said.contains("memory limit of 1Gi") && !said.contains("Status {");
    ensure!(short && is(&refused, "Degraded", "True"), "the reason is not told: {said}");
    ensure!(is(&refused, "Available", "True") && reason(&refused, "Ready") == "ApplyFailed", "{}", refused["status"]);
    ensure!(refused["status"]["observedGeneration"] == refused["metadata"]["generation"], "{}", refused["status"]);
    let first = failover(bed, product)?;
    ensure!(reason(&product.resource()?, "Degraded") == "ApplyFailed", "no longer refused");
    ensure!(product.events("ApplyFailed")?.len() == 1, "told {:?}", product.events("ApplyFailed")?);
    template(json!({"resources": null}))?;
    product.wait_ready(&bed.progress)?;

    // Found by the operator itself, and nothing is applied at all.
    template(json!({"affinity": {"podAntiAfinity": {}}}))?;
    product.wait_resource("refused", SOON, |it| reason(it, "Degraded") == "SpecInvalid")?;
    let second = failover(bed, product)?;
    let after = product.wait_resource("served under a refused spec", LONG, |it| is(it, "Available", "True"))?;
    ensure!(reason(&after, "Ready") == "SpecInvalid", "{}", after["status"]);
    template(json!({"affinity": null}))?;
    let healed = product.wait_ready(&bed.progress)?;
    ensure!(is(&healed, "Degraded", "False"), "{}", healed["status"]);
    ensure!(uids(product)? == pods, "pods were replaced");
    let judged = side.judge(WRITES)?;
    side.down()?;
    Ok(format!("{said}; {first}, {second} meanwhile; {judged}"))
}
