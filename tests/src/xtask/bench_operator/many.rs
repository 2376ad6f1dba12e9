//! Many clusters whose nodes are simulated, on the real API server with the real operator.
//!
//! The operator makes all objects of each. Then this module is the StatefulSet controller and the kubelet: it makes the
//! claims and the pods of each set, bound to a node that is not there, and calls them running and Ready at addresses
//! that lead here ([`super::fake`]). Kubernetes' own controllers are held meanwhile: they would delete such pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ais_meta::auth::Secret;
use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use super::api::Api;
use super::fake::{Fakes, Member};
use super::place::{Place, arrival, is_observed, is_ready};
use super::rest::{self, or_dash};
use super::rows::Row;
use super::text;
use crate::product::{CONTAINER, Watched};
use crate::progress::Progress;
use crate::testbed::components::CONTROLLER_MANAGER;
use crate::wait::Wait;

const GATEWAYS: u64 = 3;
const TARGETS: u64 = 1;
/// Calls to the API server at the same time.
const WORKERS: usize = 4;
const MADE: Duration = Duration::from_secs(480);
const OBSERVED: Duration = Duration::from_secs(60);
const NODE: &str = "simulated";
/// When all of it began, as far as anybody asks.
const BEGAN: &str = "2026-01-01T00:00:00Z";

/// The rows of so many clusters.
pub(super) fn figures(place: &Place, count: usize, rest_s: u64, progress: &Progress) -> Result<Vec<Row>> {
    let network = place.testbed.layout().network;
    place.testbed.component(CONTROLLER_MANAGER)?.hold()?;
    network.make_simulated()?;
    let fakes = Fakes::start(&network.link())?;
    let names: Vec<String> = (0..count).map(|number| format!("many-{number:03}")).collect();
    let begin = Instant::now();
    in_parallel(&names, |_, name| create(&place.api, name, fakes.port()))?;
    let scene = Scene { place, fakes: &fakes, names: &names };
    scene.play(progress)?;
    let all_ready = begin.elapsed().as_secs_f64();
    progress.line(format!("{count} simulated clusters are Ready after {all_ready:.1} s"));
    let watched = Watched::start(&place.testbed.kubectl(), &["aisc", "--all-namespaces"])?;
    Wait::new("the first look of the watch", OBSERVED).until(|| Ok((watched.count() >= count).then_some(())))?;
    let rest = rest::look(place, rest_s)?;
    progress.line(format!("at rest: {} MiB, {} % of a processor", rest.rss_mib, rest.cpu_percent));

    let of = |what: &str| format!("{what}, {count} simulated clusters of {GATEWAYS}+{TARGETS}");
    let alone = scene.change_one_by_one(&watched)?;
    let together = scene.change_together(&watched)?;
    drop(watched);
    let row = |what: &str, unit, value| Row::of(of(what), unit, vec![value]);
    Ok(vec![
        row("from nothing to Ready", "s", all_ready),
        Row::of(of("change of a spec until status.observedGeneration, one at a time"), "ms", alone),
        Row::of(of("the same, all changed at once"), "ms", together),
        row("resident memory", "MiB", rest.rss_mib),
        row("CPU at rest", "%", rest.cpu_percent),
        row("received at rest, lists, watches and nodes' streams", "KiB/s", rest.received_kib_s),
        row("sent at rest", "KiB/s", rest.sent_kib_s),
        row(&format!("API writes in {rest_s} s at rest"), "writes", rest.writes).aim("0").beside(or_dash(rest.written)),
    ])
}

/// Each of them, some at the same time; the first error ends it.
fn in_parallel(names: &[String], work: impl Fn(usize, &str) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = names.get(index) else { return Ok(()) };
            work(index, name).with_context(|| name.clone())?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })
}

fn clusters(name: &str) -> String {
    format!("/apis/aiscluster.dev/v1alpha1/namespaces/{name}/aisclusters")
}

fn core(name: &str, kind: &str) -> String {
    format!("/api/v1/namespaces/{name}/{kind}")
}

fn sets(name: &str) -> String {
    format!("/apis/apps/v1/namespaces/{name}/statefulsets")
}

/// Namespace and cluster have the same name.
fn create(api: &Api, name: &str, port: u16) -> Result<()> {
    api.post("/api/v1/namespaces", &json!({"metadata": {"name": name}}))?;
    // Pods may not be made without it, and its controller is held.
    api.post(&core(name, "serviceaccounts"), &json!({"metadata": {"name": "default"}}))?;
    let resource = json!({
        "apiVersion": "aiscluster.dev/v1alpha1", "kind": "AISCluster", "metadata": {"name": name},
        "spec": {
            "gateways": {"replicas": GATEWAYS}, "targets": {"replicas": TARGETS, "storage": {"size": "1Gi"}},
            "networking": {"ports": {"control": port}},
        },
    });
    api.post(&clusters(name), &resource).map(drop)
}

struct Scene<'a> {
    place: &'a Place,
    fakes: &'a Fakes,
    names: &'a [String],
}

/// What is needed to make the pods of a set.
struct Cluster<'a> {
    name: &'a str,
    uuid: String,
    secret: Secret,
    /// The first address of its pods.
    address: u16,
}

impl Scene<'_> {
    fn api(&self) -> &Api {
        &self.place.api
    }

    /// Makes the pods of every cluster as soon as its sets are there, until all are Ready.
    fn play(&self, progress: &Progress) -> Result<()> {
        let mut played = BTreeSet::new();
        Wait::new("the simulated clusters to be Ready", MADE).every(Duration::from_millis(500)).until(|| {
            let found = self.api().get("/apis/apps/v1/statefulsets")?;
            let mut count: BTreeMap<String, usize> = BTreeMap::new();
            for set in found["items"].as_array().into_iter().flatten() {
                *count.entry(text(set, "/metadata/namespace")).or_default() += 1;
            }
            let due = |name: &&String| !played.contains(*name) && count.get(*name) == Some(&2);
            let due: Vec<String> = self.names.iter().filter(due).cloned().collect();
            if !due.is_empty() {
                let secrets = self.secrets()?;
                in_parallel(&due, |_, name| self.play_one(name, &secrets))?;
                played.extend(due);
                progress.line(format!("{} of {} simulated clusters have pods", played.len(), self.names.len()));
                return Ok(None);
            }
            let all = self.api().get("/apis/aiscluster.dev/v1alpha1/aisclusters")?;
            let ready = all["items"].as_array().into_iter().flatten().filter(|resource| is_ready(resource)).count();
            anyhow::ensure!(ready == self.names.len(), "{ready} of {} are Ready", self.names.len());
            Ok(Some(()))
        })
    }

    /// The content of every cluster's secret, by namespace.
    fn secrets(&self) -> Result<BTreeMap<String, String>> {
        let each = r#"{{range .items}}{{.metadata.namespace}} {{.data.secret | base64decode}}{{"\n"}}{{end}}"#;
        let (selector, template) = ("app.kubernetes.io/managed-by=aiscluster-operator", format!("go-template={each}"));
        let kubectl = self.place.testbed.kubectl();
        let told = kubectl.run(&["get", "secrets", "--all-namespaces", "--selector", selector, "-o", &template])?;
        Ok(told.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect())
    }

    fn play_one(&self, name: &str, secrets: &BTreeMap<String, String>) -> Result<()> {
        let secret = secrets.get(name).and_then(|content| Secret::from_file_content(content.as_bytes()));
        let primary = self.api().get(&core(name, &format!("configmaps/{name}-primary")))?;
        let index = self.names.iter().position(|other| other == name).context("an unknown cluster")?;
        let cluster = Cluster {
            name,
            uuid: text(&primary, "/data/cluster-uuid"),
            secret: secret.context("no secret")?,
            address: u16::try_from(1 + index * usize::try_from(GATEWAYS + TARGETS)?)?,
        };
        for (role, first) in [("gateway", 0), ("target", GATEWAYS)] {
            let set = self.api().get(&format!("{}/{name}-{role}", sets(name)))?;
            self.run(&cluster, &set, role, first)?;
        }
        Ok(())
    }

    /// What the StatefulSet controller and the kubelet do.
    fn run(&self, cluster: &Cluster<'_>, set: &Value, role: &str, first: u64) -> Result<()> {
        let (name, replicas) = (cluster.name, set["spec"]["replicas"].as_u64().context("no replicas")?);
        let revision = format!("{name}-{role}-1");
        for ordinal in 0..replicas {
            let pod = format!("{name}-{role}-{ordinal}");
            let host = format!("{pod}.{name}-{role}.{name}.svc.cluster.local");
            self.fakes.add(host, Member { view: view(cluster, &pod).to_string(), secret: cluster.secret.clone() });
            let mut volumes = set["spec"]["template"]["spec"]["volumes"].as_array().cloned().unwrap_or_default();
            for template in set["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
                let volume = text(template, "/metadata/name");
                let claim = format!("{volume}-{pod}");
                let metadata = json!({"name": claim, "labels": template["metadata"]["labels"]});
                let object = json!({"metadata": metadata, "spec": template["spec"]});
                self.api().post(&core(name, "persistentvolumeclaims"), &object)?;
                volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}));
            }
            let object = pod_of(set, &pod, &revision, volumes);
            self.api().post(&core(name, "pods"), &object)?;
            let place = u16::try_from(first + ordinal)?;
            let ip = self.place.testbed.layout().network.simulated_ip(cluster.address + place).to_string();
            self.api().patch(&core(name, &format!("pods/{pod}/status")), &running(&ip))?;
        }
        let status = json!({"status": {
            "observedGeneration": set["metadata"]["generation"], "replicas": replicas, "readyReplicas": replicas,
            "currentReplicas": replicas, "updatedReplicas": replicas, "currentRevision": revision,
            "updateRevision": revision,
        }});
        self.api().patch(&format!("{}/{name}-{role}/status", sets(name)), &status).map(drop)
    }

    /// A new generation, and the moment just before it was asked for.
    fn change(&self, name: &str, seconds: u64) -> Result<(Instant, Value)> {
        let at = Instant::now();
        let patch = json!({"spec": {"deletionTimeoutSeconds": seconds}});
        let after = self.api().patch(&format!("{}/{name}", clusters(name)), &patch)?;
        Ok((at, after["metadata"]["generation"].clone()))
    }

    /// Milliseconds of each.
    fn change_one_by_one(&self, watched: &Watched) -> Result<Vec<f64>> {
        let mut took_ms = Vec::new();
        for name in self.names {
            let from = watched.count();
            let (at, generation) = self.change(name, 601)?;
            let (seen, _) = arrival(watched, from, "observed", OBSERVED, |it| is_of(it, name, &generation))?;
            took_ms.push(seen.saturating_duration_since(at).as_secs_f64() * 1000.0);
        }
        Ok(took_ms)
    }

    /// The same, and nobody waits for anybody.
    fn change_together(&self, watched: &Watched) -> Result<Vec<f64>> {
        let from = watched.count();
        let changed = std::sync::Mutex::new(Vec::new());
        in_parallel(self.names, |_, name| {
            let (at, generation) = self.change(name, 602)?;
            changed.lock().map_err(|_| anyhow!("a worker panicked"))?.push((name.to_owned(), at, generation));
            Ok(())
        })?;
        let changed = changed.into_inner().map_err(|_| anyhow!("a worker panicked"))?;
        let one = |(name, at, generation): &(String, Instant, Value)| {
            let (seen, _) = arrival(watched, from, "observed", OBSERVED, |it| is_of(it, name, generation))?;
            Ok(seen.saturating_duration_since(*at).as_secs_f64() * 1000.0)
        };
        changed.iter().map(one).collect()
    }
}

fn is_of(resource: &Value, name: &str, generation: &Value) -> bool {
    resource["metadata"]["name"] == name && resource["metadata"]["generation"] == *generation && is_observed(resource)
}

fn pod_of(set: &Value, pod: &str, revision: &str, volumes: Vec<Value>) -> Value {
    let template = &set["spec"]["template"];
    let mut metadata = json!({
        "name": pod, "labels": template["metadata"]["labels"], "annotations": template["metadata"]["annotations"],
        "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": set["metadata"]["name"],
            "uid": set["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
        }],
    });
    metadata["labels"]["controller-revision-hash"] = json!(revision);
    metadata["labels"]["statefulset.kubernetes.io/pod-name"] = json!(pod);
    let mut spec = template["spec"].clone();
    spec["nodeName"] = json!(NODE);
    spec["hostname"] = json!(pod);
    spec["subdomain"] = set["spec"]["serviceName"].clone();
    spec["volumes"] = json!(volumes);
    json!({"metadata": metadata, "spec": spec})
}

fn running(ip: &str) -> Value {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": BEGAN});
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": BEGAN, "conditions": conditions,
        "containerStatuses": [{
            "name": CONTAINER, "ready": true, "started": true, "restartCount": 0, "image": "simulated", "imageID": "",
            "state": {"running": {"startedAt": BEGAN}},
        }],
    }})
}

/// What a node of a founded cluster says of itself; the first gateway leads and the gateways vote.
fn view(cluster: &Cluster<'_>, pod: &str) -> Value {
    let name = cluster.name;
    let gateways = (0..GATEWAYS).map(|n| (format!("{name}-gateway-{n}"), "gateway"));
    let targets = (0..TARGETS).map(|n| (format!("{name}-target-{n}"), "target"));
    let all: Vec<(String, &str)> = gateways.chain(targets).collect();
    let stamp = json!({"incarnation": 0, "epoch": 1, "seq": 7});
    let seat = |(node, kind): &(String, &str)| json!({"node_id": node, "disk_id": disk(node), "kind": kind});
    let primary = all[0].0.clone();
    let leads = pod == primary;
    let member = |node: &(String, &str)| {
        let mut member = seat(node);
        member["voter"] = json!(node.1 == "gateway");
        member["connected"] = json!(true);
        member["acked"] = stamp.clone();
        member["in_smap"] = json!(true);
        member
    };
    let members: Vec<Value> = all.iter().filter(|_| leads).map(member).collect();
    let electorate: Vec<Value> = all.iter().filter(|(_, kind)| *kind == "gateway").map(seat).collect();
    json!({
        "node_id": pod, "disk_id": disk(pod), "version": env!("CARGO_PKG_VERSION"), "cluster_uuid": cluster.uuid,
        "formed": true, "role": if leads { "primary" } else { "follower" }, "stamp": stamp, "promised": 1,
        "primary": primary, "primary_since_ms": leads.then_some(1_767_225_600_000_u64), "electorate": electorate,
        "smap_version": 105, "bmd_version": 3, "config_version": 1, "settings": {}, "ready": true, "members": members,
    })
}

fn disk(node: &str) -> String {
    format!("disk-{node}")
}
