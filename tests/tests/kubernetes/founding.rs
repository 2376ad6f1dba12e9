//! A cluster that cannot be founded as it was meant.

use std::time::{Duration, Instant};

use ais_tests::product::{CONTAINER, NAME, Product, condition, reason};
use ais_tests::testbed::components::KUBELET;
use ais_tests::testbed::kubectl::is_ready;
use ais_tests::testbed::layout::NODE;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::automatic::{call, message, status_page};
use crate::bed::{Bed, LONG, SOON};
use crate::held::acting_operator;
use crate::side::{Side, offer_volumes, patient};

const TIMEOUT_S: u64 = 15;
const EARLIER: Duration = Duration::from_secs(8);

fn founded_within(timeout_s: u64) -> Value {
    let mut ha = patient();
    ha["foundingTimeoutSeconds"] = json!(timeout_s);
    json!({"spec": {"ha": ha}})
}

/// A claim that nothing can satisfy, where the gateway's own would be: its pod cannot be scheduled.
fn block(product: &Product, gateway: u32) -> Result<()> {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": format!("state-{NAME}-gateway-{gateway}")},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "selector": {"matchLabels": {"aiscluster.dev/fits": "nothing"}},
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    product.kubectl.apply_json(&claim).map(drop)
}

/// The pod is made anew, with a claim of its own.
fn replace(product: &Product, gateway: u32) -> Result<String> {
    let (pod, claim) = (format!("{NAME}-gateway-{gateway}"), format!("state-{NAME}-gateway-{gateway}"));
    product.kubectl.run(&["delete", "pvc", &claim, "--wait=false"])?;
    product.kubectl.delete(&format!("pod/{pod}"), LONG)?;
    Ok(pod)
}

fn unblock(product: &Product, gateway: u32) -> Result<()> {
    let pod = replace(product, gateway)?;
    Wait::new(format!("{pod} to be ready"), LONG)
        .until(|| Ok(product.kubectl.try_get(&format!("pod/{pod}"))?.filter(is_ready).map(drop)))
}

fn uuid(resource: &Value) -> String {
    resource["status"]["clusterID"].as_str().unwrap_or_default().to_owned()
}

/// One gateway of three cannot be scheduled: it is named with the scheduler's words, the others found without it when
/// the time is over, and it joins when it can.
pub(crate) fn without_an_unschedulable_gateway(bed: &mut Bed) -> Result<String> {
    let side = Side::begin_with(bed, "short", founded_within(TIMEOUT_S), |product| block(product, 2))?;
    let product = &side.product;
    let begin = Instant::now();
    let resource = product.wait_resource("waiting for the gateway", LONG, |it| {
        reason(it, "Available") == "Founding" && message(it, "Available").contains("Unschedulable")
    })?;
    let told = message(&resource, "Available");
    ensure!(told.contains(&format!("{NAME}-gateway-2 (")), "{told}");
    let resource = product.wait_resource("founded without it", Duration::from_secs(TIMEOUT_S) + LONG, |it| {
        it["status"]["formed"] == true && reason(it, "Available") == "Available"
    })?;
    let took = begin.elapsed();
    // The time counts from the StatefulSet's creation, which was a little before.
    ensure!(took + EARLIER >= Duration::from_secs(TIMEOUT_S), "founded after {took:?} already");
    let found = uuid(&resource);
    unblock(product, 2)?;
    let resource = product.wait_ready(&bed.progress)?;
    ensure!(uuid(&resource) == found, "another uuid");
    ensure!(product.events("ClusterFormed")?.len() == 1, "not founded once");
    side.down()?;
    Ok(format!("{told}; founded after {took:.1?}"))
}

/// The disk of a pod, as its node and Kubernetes know it.
fn disk(product: &Product, pod: &str) -> Result<(String, Value)> {
    let claim = product.kubectl.get(&format!("pvc/state-{pod}"))?;
    Ok((product.view(pod)?.disk_id, claim["metadata"]["uid"].clone()))
}

/// Gateway 2 comes and agrees to the offer that is made to all then. Gateway 1, with which it was made, never answers
/// it: stopped before, and away before it goes on. No node takes its next pod.
fn one_agrees(bed: &Bed, product: &Product) -> Result<()> {
    let (space, pods) = (&product.namespace, product.gateway_names());
    let waits = format!("founding: waiting for gateway {}", pods[2]);
    Wait::new("the founder to lack one gateway only", LONG)
        .until(|| Ok((product.view(&pods[0])?.reason == waits).then_some(())))?;
    let apart = bed.testbed.isolate_pod_but(space, &pods[0], &pods[1])?;
    replace(product, 2)?;
    Wait::new("gateway 2 to answer", LONG).until(|| product.view(&pods[2]).map(Some))?;
    let lost = bed.testbed.container_process(space, &pods[1], CONTAINER)?;
    // Nor shall it be started again before it is away.
    let kubelet = bed.testbed.component(KUBELET)?;
    kubelet.stop()?;
    let away = || {
        lost.stop()?;
        apart.heal()?;
        Wait::new("gateway 2 to agree", LONG).until(|| Ok(product.view(&pods[2])?.bound.then_some(())))?;
        bed.product.kubectl.run(&["cordon", NODE])?;
        product.kubectl.force_delete_pod(&pods[1]).map(drop)
    };
    let agreed = away();
    kubelet.cont()?;
    agreed
}

/// That somebody agreed is told, and holds the list as it is, however late it is.
fn stays_as_agreed(product: &Product) -> Result<()> {
    let timeout = |seconds: u64| product.patch(&json!({"spec": {"ha": {"foundingTimeoutSeconds": seconds}}}));
    timeout(10)?;
    product.wait_resource("held by who agreed", LONG, |it| {
        let told = message(it, "Available");
        it["status"]["observedGeneration"] == it["metadata"]["generation"]
            && told.contains(&format!("{NAME}-gateway-1 (Unschedulable"))
            && told.contains("a node agreed to found with it already")
            && told.contains("ais-operator refound")
    })?;
    let file = product.kubectl.get(&format!("configmap/{NAME}-discovery"))?["data"]["discovery.yaml"].clone();
    let file: Value = serde_json::from_str(file.as_str().context("no discovery file")?)?;
    ensure!(file["initial_voters"] == json!(product.gateway_names()), "the list is {}", file["initial_voters"]);
    timeout(3600)
}

/// State volumes of two other clusters are in the way, and nothing is touched; then a founding, to which one of three
/// agreed and another one no longer can, is given up for a new one.
pub(crate) fn refound_and_foreign_volumes(bed: &mut Bed) -> Result<String> {
    let side = Side::begin_with(bed, "founding", founded_within(3600), |product| {
        block(product, 2)?;
        foreign(product, 0, "cluster-one")?;
        foreign(product, 1, "cluster-two")
    })?;
    let product = &side.product;
    let refused = refuses_foreign(product)?;
    offer_volumes(bed, product.volumes())?;
    let old = product.wait_resource("waiting for the gateway", LONG, |it| {
        reason(it, "Available") == "Founding" && message(it, "Available").contains(&format!("{NAME}-gateway-2 ("))
    })?;
    ensure!(
        status_page(bed, product)?.contains("Available=False Founding"),
        "the page does not say what is waited for"
    );
    one_agrees(bed, product)?;
    stays_as_agreed(product)?;
    let agreed = format!("{NAME}-gateway-2");
    let bound = disk(product, &agreed)?;
    let not_confirmed = call(bed, product, &["refound", NAME, "--confirm", "another"])?;
    ensure!(not_confirmed.code == Some(1), "not confirmed, and ended with {:?}", not_confirmed.code);

    let begin = Instant::now();
    let asked = call(bed, product, &["refound", NAME, "--confirm", NAME, "--timeout", "1"])?;
    ensure!(asked.code == Some(3), "{} {}", asked.stdout, asked.stderr);
    offer_volumes(bed, product.volumes())?;
    let new = product.wait_resource("at its second founding", LONG, |it| {
        it["status"]["foundingAttempt"] == 2 && reason(it, "Available") == "Founding"
    })?;
    let took = begin.elapsed();
    ensure!(uuid(&new) != uuid(&old) && !uuid(&new).is_empty(), "the uuid is still {}", uuid(&new));
    bed.product.kubectl.run(&["uncordon", NODE])?;
    let resource = product.wait_ready(&bed.progress)?;
    // Who had agreed takes part with nothing left of that.
    let fresh = disk(product, &agreed)?;
    ensure!(fresh.0 != bound.0 && fresh.1 != bound.1, "{agreed} had {bound:?}, has {fresh:?}");
    ensure!(product.view(&agreed)?.cluster_uuid == Some(uuid(&new)), "{agreed}: {:?}", product.view(&agreed)?);
    ensure!(uuid(&resource) == uuid(&new), "{} was founded, asked was {}", uuid(&resource), uuid(&new));
    for claim in product.kubectl.list("persistentvolumeclaims", Some(&Product::selector()))? {
        let name = claim["metadata"]["name"].as_str().context("a claim without a name")?.to_owned();
        let label = &claim["metadata"]["labels"]["aiscluster.dev/cluster-id"];
        ensure!(!name.starts_with("state-") || *label == uuid(&new).as_str(), "{name} is of {label}");
    }
    ensure!(product.events("RefoundStarted")?.len() == 1 && product.events("ClusterFormed")?.len() == 1, "events");
    let again = call(bed, product, &["refound", NAME, "--confirm", NAME])?;
    ensure!(again.code == Some(1) && again.stderr.contains("never founded again"), "{} {}", again.stdout, again.stderr);
    side.down()?;
    Ok(format!("{refused}; {agreed} had agreed: {} given up for {} within {took:.1?}", uuid(&old), uuid(&new)))
}

/// A kept state volume of some other cluster of this name.
fn foreign(product: &Product, gateway: u32, uuid: &str) -> Result<()> {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": format!("state-{NAME}-gateway-{gateway}"), "labels": {
            "aiscluster.dev/cluster": NAME, "app.kubernetes.io/managed-by": "aiscluster-operator",
            "aiscluster.dev/cluster-id": uuid,
        }},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    product.kubectl.apply_json(&claim).map(drop)
}

/// Says so, makes nothing, and goes on when they are gone.
fn refuses_foreign(product: &Product) -> Result<String> {
    let resource = product.wait_resource("refused", SOON, |it| reason(it, "Degraded") == "ForeignVolumes")?;
    let told = condition(&resource, "Degraded").context("no condition")?.message;
    ensure!(told.contains("cluster-one") && told.contains("cluster-two"), "{told}");
    let sets = product.kubectl.list("statefulsets", None)?;
    ensure!(sets.is_empty(), "{} sets were made nevertheless", sets.len());
    for gateway in 0..2 {
        product.kubectl.delete(&format!("pvc/state-{NAME}-gateway-{gateway}"), LONG)?;
    }
    Wait::new("the event", SOON).until(|| Ok((product.events("ForeignVolumes")?.len() == 1).then_some(())))?;
    Ok(told)
}

/// The operator is killed when there is a finalizer and nothing else, when the pods are made, and when the nodes have
/// just founded the cluster: each heir goes on from what there is.
pub(crate) fn outlives_the_operator(bed: &mut Bed) -> Result<String> {
    let begin = Instant::now();
    let side = Side::begin(bed, "outlived", json!({"spec": {"targets": {"replicas": 2}}}))?;
    let product = &side.product;
    let there = |what: &str| Ok(product.kubectl.try_get(what)?.map(drop));
    let held = || {
        let finalizers = product.resource()?["metadata"]["finalizers"].clone();
        Ok(finalizers.as_array().is_some_and(|all| !all.is_empty()).then_some(()))
    };
    let formed = || {
        let pods = product.pods()?;
        let all = pods.iter().filter(|pod| is_ready(pod)).count();
        Ok((all >= 3).then_some(()))
    };
    let first_pod = format!("pod/{NAME}-gateway-0");
    let kill = |moment: &str, look: &dyn Fn() -> Result<Option<()>>| {
        Wait::new(moment, LONG).every(Duration::from_millis(2)).until(look)?;
        let (holder, operator) = acting_operator(bed)?;
        operator.kill().with_context(|| format!("{holder} ended by itself"))?;
        anyhow::Ok(format!("{holder} was killed at {moment}"))
    };
    let killed = [
        kill("the finalizer", &held)?,
        kill("the first pod", &|| there(&first_pod))?,
        kill("a founded cluster", &formed)?,
    ];
    let resource = product.wait_ready(&bed.progress)?;
    let views = product.settle()?;
    ensure!(views.iter().all(|view| view.cluster_uuid.as_deref() == Some(&uuid(&resource))), "nodes of other clusters");
    let restarted: u64 =
        product.pods()?.iter().filter_map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64()).sum();
    ensure!(restarted == 0, "{restarted} containers were restarted");
    for claim in product.kubectl.list("persistentvolumeclaims", Some(&Product::selector()))? {
        let labels = &claim["metadata"]["labels"];
        ensure!(labels["aiscluster.dev/cluster-id"] == uuid(&resource).as_str(), "a claim has the labels {labels}");
    }
    let took = begin.elapsed();
    side.down()?;
    Ok(format!("Ready after {took:.1?} although {}", killed.join(", ")))
}
