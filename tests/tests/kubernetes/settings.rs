//! Fields that the other cases leave as they are: what comes of them in live pods, claims and processes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;

use ais_tests::client;
use ais_tests::product::{CONTAINER, NAME, Product, condition, reason};
use ais_tests::testbed::kubectl::is_ready;
use ais_tests::testbed::layout::NODE;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG, SOON, history};
use crate::side::{Side, patient};

const NAMESPACE: &str = "settings";
const UUID: &str = "chosen-by-a-person";
const PRIORITY_CLASS: &str = "ais-test";
const PRIORITY: i64 = 1234;
const USER: u32 = 4711;
/// Public, control and peer port.
const PORTS: [u16; 3] = [8081, 8082, 8084];
/// Answered writes of its clients, at least.
const WRITES: usize = 20;
/// A request that cannot start within this time expires: the least that may be asked for.
const TTL_S: u32 = 5;

/// What the nodes of both roles get.
fn template() -> Value {
    json!({
        "priorityClassName": PRIORITY_CLASS,
        "env": [
            {"name": "SHOP", "value": "east"},
            {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        ],
        "securityContext": {"runAsUser": USER, "fsGroup": USER},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "600Mi"}},
    })
}

fn spec() -> Value {
    let mut ha = patient();
    // Targets without a vote: two of them may be away at once.
    ha["voters"] = json!(3);
    json!({
        "clusterID": UUID,
        "imagePullSecrets": [{"name": "registry"}],
        "networking": {"ports": {"public": PORTS[0], "control": PORTS[1], "peer": PORTS[2]}},
        "ha": ha,
        "gateways": {"stateStorage": {"size": "300Mi"}, "template": template()},
        "targets": {
            "replicas": 2,
            "stateStorage": {"size": "200Mi"},
            "storage": {"volumesPerTarget": 2},
            "template": template(),
        },
        "update": {"targets": {"maxUnavailable": 2}},
    })
}

/// Each is seen where it takes effect, on pods of both roles.
pub(crate) fn reach_pods_and_claims(bed: &mut Bed) -> Result<String> {
    bed.product.admin.apply_json(&json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": PRIORITY_CLASS}, "value": PRIORITY,
    }))?;
    let mut side = Side::make(bed, NAMESPACE, json!({"spec": spec()}))?;
    let uuid = side.product.resource()?["status"]["clusterID"].clone();
    ensure!(uuid == UUID, "status.clusterID is {uuid}");
    let pods = side.product.pods()?;
    ensure!(pods.len() == 5, "{} pods", pods.len());
    for pod in &pods {
        in_the_pod(pod)?;
        in_the_process(bed, pod)?;
    }
    claims(&side.product)?;
    let led = own_ports(bed, &mut side)?;
    together(&side.product)?;
    let told = expires(bed, &side.product)?;
    side.down()?;
    bed.product.admin.delete(&format!("priorityclass/{PRIORITY_CLASS}"), SOON)?;
    Ok(format!("clusterID, claims, priority, env, user, resources, pull secrets, two targets at once; {led}; {told}"))
}

fn name_of(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// As the API server and the scheduler took it.
fn in_the_pod(pod: &Value) -> Result<()> {
    let (name, spec) = (name_of(pod), &pod["spec"]);
    ensure!(
        spec["priorityClassName"] == PRIORITY_CLASS && spec["priority"] == PRIORITY,
        "{name}: {}",
        spec["priority"]
    );
    ensure!(spec["imagePullSecrets"] == json!([{"name": "registry"}]), "{name}: {}", spec["imagePullSecrets"]);
    ensure!(spec["securityContext"]["runAsUser"] == USER, "{name}: {}", spec["securityContext"]);
    let resources = &spec["containers"][0]["resources"];
    ensure!(
        resources["requests"] == json!({"cpu": "10m", "memory": "32Mi"}) && resources["limits"]["memory"] == "600Mi",
        "{name}: {resources}"
    );
    ensure!(pod["status"]["qosClass"] == "Burstable", "{name} is {}", pod["status"]["qosClass"]);
    Ok(())
}

/// As the process has it.
fn in_the_process(bed: &Bed, pod: &Value) -> Result<()> {
    let name = name_of(pod);
    let proc = format!("/proc/{}", bed.testbed.container_process(NAMESPACE, name, CONTAINER)?.pid());
    let environ = std::fs::read(format!("{proc}/environ")).context("the environment of a process")?;
    let environ = String::from_utf8_lossy(&environ);
    let environ: BTreeMap<&str, &str> = environ.split('\0').filter_map(|entry| entry.split_once('=')).collect();
    let uid = pod["metadata"]["uid"].as_str();
    for (variable, wanted) in [("SHOP", Some("east")), ("POD_UID", uid), ("AIS_CLUSTER_UUID", Some(UUID))] {
        ensure!(environ.get(variable).copied() == wanted, "{name}: {variable} is {:?}", environ.get(variable));
    }
    let user = std::fs::metadata(&proc)?.uid();
    ensure!(user == USER, "{name} runs as {user}");
    let mounts = std::fs::read_to_string(format!("{proc}/mountinfo")).context("the mounts of a process")?;
    let data = mounts.lines().filter(|line| line.contains(" /var/lib/ais/data")).count();
    let wanted = if name.contains("-target-") { 2 } else { 0 };
    ensure!(data == wanted, "{name} has {data} mountpaths:\n{mounts}");
    Ok(())
}

fn claims(product: &Product) -> Result<()> {
    let mut wanted = BTreeMap::new();
    for n in 0..3 {
        wanted.insert(format!("state-{NAME}-gateway-{n}"), "300Mi".to_owned());
    }
    for n in 0..2 {
        wanted.insert(format!("state-{NAME}-target-{n}"), "200Mi".to_owned());
        for volume in ["data", "data-1"] {
            wanted.insert(format!("{volume}-{NAME}-target-{n}"), format!("{}Gi", ais_tests::product::VOLUME_GIB));
        }
    }
    let mut found = BTreeMap::new();
    for claim in product.kubectl.list("persistentvolumeclaims", None)? {
        let name = name_of(&claim).to_owned();
        ensure!(claim["status"]["phase"] == "Bound", "{name} is {}", claim["status"]["phase"]);
        let uuid = &claim["metadata"]["labels"]["aiscluster.dev/cluster-id"];
        ensure!(*uuid == UUID, "{name} is of {uuid}");
        let size = claim["spec"]["resources"]["requests"]["storage"].as_str().unwrap_or_default();
        found.insert(name, size.to_owned());
    }
    ensure!(found == wanted, "claims are {found:?}, wanted were {wanted:?}");
    Ok(())
}

/// At other ports than the usual ones, and at no others: clients by the pods and by the Service, the primary killed
/// under them.
fn own_ports(bed: &Bed, side: &mut Side) -> Result<String> {
    let product = &side.product;
    for pod in product.pods()? {
        let name = name_of(&pod);
        let process = bed.testbed.container_process(NAMESPACE, name, CONTAINER)?;
        let found = listening(process.pid())?;
        ensure!(found == PORTS.into(), "{name} listens on {found:?}");
    }
    let service = product.kubectl.get(&format!("service/{NAME}"))?;
    let address = format!("{}:{}", service["spec"]["clusterIP"].as_str().unwrap_or_default(), PORTS[0]);
    let resource = product.resource()?;
    let endpoint = format!("http://{NAME}.{NAMESPACE}.svc.cluster.local:{}", PORTS[0]);
    ensure!(resource["status"]["endpoint"] == endpoint, "status.endpoint is {}", resource["status"]["endpoint"]);
    let (old, epoch) = product.primary()?;
    let map = product.kubectl.get(&format!("configmap/{NAME}-primary"))?["data"]["endpoint"].clone();
    ensure!(
        map.as_str().is_some_and(|url| url.contains(&old) && url.ends_with(&format!(":{}", PORTS[0]))),
        "the ConfigMap says {map}"
    );
    side.clients()?;
    let product = &side.product;
    bed.testbed.container_process(NAMESPACE, &old, CONTAINER)?.kill()?;
    let new = Wait::new("another primary", LONG).until(|| {
        let (new, now) = product.primary()?;
        Ok((now > epoch).then_some(new))
    })?;
    let named = |it: &Value| it["status"]["primary"]["current"] == new.as_str();
    product.wait_resource("told who leads", SOON, named)?;
    let reply = client::create_bucket(&address, "by-the-service", None)?;
    ensure!(reply.is_success(), "through {address}: {} {}", reply.status, reply.text());
    let judged = side.judge(WRITES)?;
    side.product.wait_ready(&bed.progress)?;
    Ok(format!("at ports {PORTS:?} {old} was killed and {new} led: {judged}"))
}

/// TCP ports that listen in the network of a process.
fn listening(pid: u32) -> Result<BTreeSet<u16>> {
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).context("the sockets of a process")?;
        for line in text.lines().skip(1) {
            let mut fields = line.split_whitespace().skip(1);
            let (local, _, state) = (fields.next(), fields.next(), fields.next());
            // LISTEN, as the kernel writes it.
            if let Some((_, port)) = local.filter(|_| state == Some("0A")).and_then(|local| local.rsplit_once(':')) {
                found.insert(u16::from_str_radix(port, 16)?);
            }
        }
    }
    Ok(found)
}

/// `update.targets.maxUnavailable: 2`: the second one is made anew before the first one is back.
fn together(product: &Product) -> Result<()> {
    let uids: BTreeSet<String> = product.pods()?.iter().map(|pod| pod["metadata"]["uid"].to_string()).collect();
    product.patch(&json!({"spec": {"targets": {"template": {"annotations": {"version": "2"}}}}}))?;
    let selector = format!("aiscluster.dev/cluster={NAME},app.kubernetes.io/component=target");
    let pods = Wait::new("two targets of the new template", LONG).until(|| {
        let pods = product.kubectl.list("pods", Some(&selector))?;
        let new = |pod: &Value| !uids.contains(&pod["metadata"]["uid"].to_string()) && is_ready(pod);
        Ok((pods.len() == 2 && pods.iter().all(new)).then_some(pods))
    })?;
    let born = pods.iter().map(|pod| pod["metadata"]["creationTimestamp"].to_string()).max();
    let ready = pods.iter().flat_map(|pod| pod["status"]["conditions"].as_array().into_iter().flatten());
    let ready = ready.filter(|c| c["type"] == "Ready").map(|c| c["lastTransitionTime"].to_string()).min();
    ensure!(born < ready, "one after the other: the last was made at {born:?}, the first ready at {ready:?}");
    product.wait_resource("rolled out", LONG, |it| {
        reason(it, "RolloutPending") == "UpToDate" && condition(it, "Ready").is_some_and(|c| c.status == "True")
    })?;
    Ok(())
}

/// While no node takes pods, a gateway stays away, and a request for it comes to nothing: then, and for good.
fn expires(bed: &Bed, product: &Product) -> Result<String> {
    let (primary, epoch) = product.primary()?;
    let wanted = product.gateway_names().into_iter().find(|name| *name != primary).context("no other gateway")?;
    bed.product.kubectl.run(&["cordon", NODE])?;
    let expired = expired(product, &wanted);
    bed.product.kubectl.run(&["uncordon", NODE])?;
    let told = expired?;
    let free = |it: &Value| reason(it, "PrimaryPreferred") == "FailbackAvailable";
    let resource = product.wait_resource("able to lead, and not asked to", LONG, free)?;
    ensure!(
        history(&resource).first() == Some(&format!("Failback {primary}>{wanted} Expired")),
        "{:?}",
        history(&resource)
    );
    let (still, same) = product.primary()?;
    ensure!((&still, same) == (&primary, epoch), "{still} leads in epoch {same}, {primary} led in {epoch}");
    Ok(told)
}

fn expired(product: &Product, wanted: &str) -> Result<String> {
    product.kubectl.run(&["delete", "pod", wanted, "--wait=false"])?;
    product.wait_resource("short of a gateway", SOON, |it| reason(it, "Ready") == "NodesNotReady")?;
    let primary = json!({"preferred": [wanted], "request": "in vain", "requestTTLSeconds": TTL_S});
    product.patch(&json!({"spec": {"primary": primary}}))?;
    let gone = product.wait_resource("expired", LONG, |it| {
        it["status"]["primary"]["lastTransition"]["result"] == "Expired"
            && it["status"]["primary"].get("pendingRequest").is_none()
    })?;
    let message = gone["status"]["primary"]["lastTransition"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains(&format!("not possible within {TTL_S} s")), "the message is {message:?}");
    let events = product.events("SwitchoverRejected")?;
    ensure!(events.len() == 1 && events[0].contains(message), "{events:?}");
    Ok(message.to_owned())
}
