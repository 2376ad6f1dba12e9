//! `networking.hostNetwork`, as far as one node goes: no two pods of a cluster fit on one.

use std::fs;

use ais_tests::client;
use ais_tests::product::{CONTAINER, NAME, Product, reason};
use ais_tests::testbed::kubectl::is_ready;
use ais_tests::testbed::layout::NODE;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG};
use crate::side::Side;

const NAMESPACE: &str = "host";
/// Ports that nothing of Kubernetes listens on.
const PUBLIC: u16 = 21080;
/// The node has this label once the target may come there, too.
const LABEL: &str = "aiscluster.test/targets";

fn gateway() -> String {
    format!("{NAME}-gateway-0")
}

/// The namespace of a process' network.
fn network(pid: u32) -> Result<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).context("the network of a process")
}

/// A gateway in the network of its node, at ports of its own, in a namespace that admits it; its process is killed.
/// The target then finds those ports taken: there would have to be another node.
pub(crate) fn network_of_the_node(bed: &mut Bed) -> Result<String> {
    let ports = json!({"public": PUBLIC, "control": PUBLIC + 1, "peer": PUBLIC + 2});
    let spec = json!({
        "gateways": {"replicas": 1}, "networking": {"hostNetwork": true, "ports": ports},
        "targets": {"template": {"nodeSelector": {LABEL: "yes"}}},
    });
    let side = Side::begin_with(bed, NAMESPACE, json!({"spec": spec}), |product| {
        let label = json!({"pod-security.kubernetes.io/enforce": "privileged"});
        product.admin.patch(&format!("namespace/{NAMESPACE}"), &json!({"metadata": {"labels": label}})).map(drop)
    })?;
    let product = &side.product;
    // Everything that there is without a target.
    let serves = |it: &Value| {
        it["status"]["formed"] == true
            && reason(it, "Available") == "NoTargets"
            && it["status"]["primary"]["current"] == gateway().as_str()
    };
    product.wait_resource("served by its gateway alone", LONG, serves)?;
    in_the_network_of_the_node(bed, product)?;
    let address = format!("{}:{PUBLIC}", bed.testbed.layout().network.node_ip());
    let reply = client::create_bucket(&address, "before", None)?;
    ensure!(reply.is_success(), "before: {} {}", reply.status, reply.text());
    let sets = generations(product)?;
    let before = product.view(&gateway())?;
    bed.testbed.container_process(NAMESPACE, &gateway(), CONTAINER)?.kill()?;
    let after = Wait::new("the next process to lead", LONG).until(|| {
        let now = product.view(&gateway())?;
        Ok((now.boot_id != before.boot_id && now.leads() && now.epoch() > before.epoch()).then_some(now))
    })?;
    let reply = client::create_bucket(&address, "after", None)?;
    ensure!(reply.is_success(), "after: {} {}", reply.status, reply.text());
    let names = client::bmd_names(&address)?;
    ensure!(names.contains("before") && names.contains("after"), "there are {names:?}");
    Wait::new("the gateway to be Ready", LONG)
        .until(|| Ok(Some(product.pod(&gateway())?).filter(is_ready).map(drop)))?;
    product.wait_resource("served again", LONG, serves)?;
    // The API server adds ports of the host to what was applied: no reason to apply it again, or to roll.
    ensure!(generations(product)? == sets, "the sets were {sets:?}, are {:?}", generations(product)?);
    ensure!(reason(&product.resource()?, "RolloutPending") == "UpToDate", "{}", product.resource()?["status"]);
    let why = no_second_pod(bed, product)?;
    side.down()?;
    Ok(format!("at {address}, epoch {} and {} in another process; {why}", before.epoch(), after.epoch()))
}

/// The pod, its process, its name in DNS and the Service all mean the node.
fn in_the_network_of_the_node(bed: &Bed, product: &Product) -> Result<()> {
    let node_ip = bed.testbed.layout().network.node_ip().to_string();
    let pod = product.pod(&gateway())?;
    ensure!(pod["spec"]["hostNetwork"] == true && pod["status"]["podIP"] == *node_ip, "{}", pod["status"]);
    ensure!(pod["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet", "{}", pod["spec"]["dnsPolicy"]);
    let process = bed.testbed.container_process(NAMESPACE, &gateway(), CONTAINER)?;
    let (its, the_nodes) = (network(process.pid())?, network(bed.testbed.init().pid())?);
    ensure!(its == the_nodes, "the process is in {its:?}, the node's is {the_nodes:?}");
    let slices = product.kubectl.list("endpointslices", Some(&format!("kubernetes.io/service-name={NAME}")))?;
    let (slice, port) = (&slices[0], json!(PUBLIC));
    ensure!(
        slice["endpoints"][0]["addresses"] == json!([node_ip]) && slice["ports"][0]["port"] == port,
        "the Service leads to {slice}"
    );
    Ok(())
}

/// What the scheduler says of the target once it may come to this node.
fn no_second_pod(bed: &Bed, product: &Product) -> Result<String> {
    bed.product.admin.run(&["label", "node", NODE, &format!("{LABEL}=yes")])?;
    let why = Wait::new("the target to find its ports taken", LONG).until(|| {
        let pod = product.pod(&format!("{NAME}-target-0"))?;
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let mut told = conditions.filter_map(|c| c["message"].as_str().filter(|text| text.contains("free ports")));
        Ok(told.next().map(str::to_owned))
    });
    bed.product.admin.run(&["label", "node", NODE, &format!("{LABEL}-")])?;
    why
}

fn generations(product: &Product) -> Result<Vec<Value>> {
    let sets = product.kubectl.list("statefulsets", None)?;
    Ok(sets.iter().map(|set| set["metadata"]["generation"].clone()).collect())
}
