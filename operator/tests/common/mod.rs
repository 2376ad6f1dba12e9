//! A cluster at rest, made of facts, and a server that takes writes as the real one would.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;

use ais_crds::{AISCluster, AISClusterStatus};
use ais_operator::apply::{Memo, Write, volume_writes, writes};
use ais_operator::facts::{
    ClaimFact, ClaimKind, Defaults, Kind, Observed, PodFact, PrimaryMap, SecretFact, SetFact, VolumeFact,
};
use ais_operator::names::{ANNOTATION_REPLICAS, Names, Role};
use ais_operator::plan::primary::{Errand, Situation, decide};
use ais_operator::plan::{Plan, plan};
use ais_operator::tls::{Lifetimes, TlsFacts};
use ais_operator::validate::{Valid, validate};
use ais_operator::view::{Member, NodeView, Report, Stamp, Voter};
use ais_operator::{desired, status};
use serde_json::{Value, json};

pub const UID: &str = "6f1c0d3e-0000-4000-8000-000000000001";

/// One pass: what was decided.
pub struct Pass {
    pub valid: Valid,
    pub plan: Plan,
    pub status: AISClusterStatus,
    pub writes: Vec<Write>,
}

impl Pass {
    pub fn condition(&self, kind: &str) -> (String, String) {
        let c = self.status.conditions.iter().find(|c| c.type_ == kind).unwrap();
        (c.status.clone(), c.reason.clone())
    }
    pub fn message(&self, kind: &str) -> String {
        self.status.conditions.iter().find(|c| c.type_ == kind).unwrap().message.clone()
    }
    pub fn events(&self) -> Vec<&'static str> {
        self.plan.notes.iter().map(|n| n.reason).collect()
    }
}

pub struct World {
    pub observed: Observed,
    pub memo: Memo,
}

/// The resource, with `spec` merged over the minimal one.
pub fn cluster(spec: Value) -> AISCluster {
    let mut object = json!({
        "apiVersion": "aiscluster.dev/v1alpha1", "kind": "AISCluster",
        "metadata": {"name": "demo", "namespace": "ns", "uid": UID, "generation": 1, "resourceVersion": "7"},
        "spec": {"gateways": {"replicas": 3}, "targets": {"replicas": 2, "storage": {"size": "1Gi"}}},
    });
    merge(&mut object["spec"], &spec);
    serde_json::from_value(object).unwrap()
}

pub fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(map), Value::Object(changes)) => {
            for (k, v) in changes {
                if v.is_null() {
                    map.remove(k);
                    continue;
                }
                merge(map.entry(k.clone()).or_insert(Value::Null), v);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

impl World {
    /// Only the resource exists.
    pub fn new(spec: Value) -> Self {
        let observed = Observed {
            cluster: cluster(spec),
            defaults: Defaults {
                image: "localhost/aiscluster:dev".into(),
                domain: "cluster.local".into(),
                namespace: "aiscluster-system".into(),
                lifetimes: Lifetimes::default(),
            },
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            uptime: std::time::Duration::from_secs(60),
            hold: None,
            fresh: true,
            cordoned: Default::default(),
            pods: Vec::new(),
            sets: BTreeMap::new(),
            volumes: Vec::new(),
            discovery: None,
            primary_map: None,
            secret: SecretFact { content: "0123456789abcdef0123456789abcdef".into(), ..SecretFact::default() },
            fresh_secret: "fresh456789abcdef0123456789abcdef".into(),
            tls: TlsFacts::default(),
            reports: BTreeMap::new(),
            outcome: None,
            pod_monitors: false,
            config_call: None,
            claims: Vec::new(),
            order: None,
            refused: BTreeMap::new(),
            live: BTreeMap::new(),
        };
        Self { observed, memo: Memo::default() }
    }

    /// Founded by itself, everybody ready, `demo-gateway-0` leads, status written, nothing to do.
    pub fn settled(spec: Value) -> Self {
        let mut world = Self::new(spec);
        world.step();
        world.start_pods();
        world.lead("demo-gateway-0", 1);
        for _ in 0..4 {
            world.step();
        }
        world
    }

    pub fn names(&self) -> Names {
        self.observed.names()
    }

    pub fn pass(&self) -> Pass {
        let valid = validate(&self.observed).unwrap();
        let plan = plan(&valid, &self.observed);
        let status = status::status(&valid, &self.observed, &plan);
        let wanted = desired::build(&valid, &self.observed, &plan);
        let mut writes = writes(&self.observed, &wanted, &plan.marks, &self.memo);
        writes.extend(volume_writes(&self.observed, &plan));
        Pass { valid, plan, status, writes }
    }

    /// The same, while the operator's own work needs the primary elsewhere.
    pub fn pass_with(&self, errand: Option<&Errand>) -> Pass {
        let mut pass = self.pass();
        let gateways = pass.plan.replicas.of(Role::Gateway);
        pass.plan.primary = decide(&Situation {
            valid: &pass.valid,
            observed: &self.observed,
            agreement: &pass.plan.agreement,
            formed: pass.plan.founding.formed,
            gateways,
            errand,
            outdated: pass.plan.outdated.contains(&Role::Gateway),
        });
        pass.plan.notes.clone_from(&pass.plan.primary.notes);
        pass.status = status::status(&pass.valid, &self.observed, &pass.plan);
        pass
    }

    /// A pass whose writes and status reach the server.
    pub fn step(&mut self) -> Pass {
        let pass = self.pass();
        self.end(pass)
    }

    /// The same, with an errand.
    pub fn step_with(&mut self, errand: &Errand) -> Pass {
        let pass = self.pass_with(Some(errand));
        self.end(pass)
    }

    fn end(&mut self, pass: Pass) -> Pass {
        for write in &pass.writes {
            self.take(write);
        }
        self.observed.cluster.status = Some(round_trip(&pass.status));
        self.observed.hold.clone_from(&pass.plan.primary.hold);
        pass
    }

    pub fn after(&mut self, seconds: i64) -> &mut Self {
        self.observed.now += jiff::SignedDuration::from_secs(seconds);
        self.observed.uptime += std::time::Duration::from_secs(seconds.try_into().unwrap());
        self
    }

    pub fn set_spec(&mut self, spec: Value) {
        let mut object = serde_json::to_value(&self.observed.cluster).unwrap();
        merge(&mut object["spec"], &spec);
        self.observed.cluster = serde_json::from_value(object).unwrap();
        *self.observed.cluster.metadata.generation.as_mut().unwrap() += 1;
    }

    pub fn take(&mut self, write: &Write) {
        match write {
            Write::Apply(wanted) => {
                let mut live = wanted.object.clone();
                // The server adds; it also writes some things its own way, as it does with quantities.
                merge(&mut live["metadata"], &json!({"uid": "x", "resourceVersion": "9", "generation": 1}));
                if wanted.key.0 == Kind::StatefulSet {
                    let pod = &mut live["spec"]["template"]["spec"];
                    if pod.get("dnsPolicy").is_none() {
                        pod["dnsPolicy"] = json!("ClusterFirst");
                    }
                    let limits = &mut live["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
                    if limits["cpu"] == "1000m" {
                        limits["cpu"] = json!("1");
                    }
                    self.set(&wanted.key.1, &live);
                }
                self.memo.store(UID, wanted, &live);
                if wanted.key.1 == "demo-discovery" {
                    let text = live["data"]["discovery.yaml"].as_str().unwrap();
                    self.observed.discovery = Some(serde_json::from_str(text).unwrap());
                }
                if wanted.key == (Kind::ConfigMap, "demo-primary".into()) {
                    let text = |k: &str| live["data"][k].as_str().unwrap().to_owned();
                    self.observed.primary_map = Some(PrimaryMap {
                        endpoint: text("endpoint"),
                        cluster_uuid: text("cluster-uuid"),
                        founding_attempt: text("founding-attempt").parse().unwrap(),
                    });
                }
                self.observed.live.insert(wanted.key.clone(), live);
            }
            Write::Prune(key) => {
                self.observed.live.remove(key);
                // Its pods end in their own time.
                self.observed.sets.retain(|role, _| key.0 != Kind::StatefulSet || !key.1.ends_with(role.as_str()));
            }
            Write::DeletePod { name, uid, .. } => self.observed.pods.retain(|p| p.name != *name || p.uid != *uid),
            Write::MarkPod(name, patch) => {
                let pod = self.observed.pods.iter_mut().find(|p| p.name == *name).unwrap();
                if let Some(label) = patch["metadata"]["labels"].get("aiscluster.dev/role") {
                    pod.labelled_primary = label == "primary";
                }
                if let Some(digest) = patch["metadata"]["annotations"]["aiscluster.dev/discovery"].as_str() {
                    pod.discovery = Some(digest.into());
                }
                if let Some(digest) = patch["metadata"]["annotations"]["aiscluster.dev/credentials"].as_str() {
                    pod.credentials = Some(digest.into());
                }
            }
            Write::MarkVolume(name, patch) => {
                let labels = patch["metadata"]["labels"].as_object().unwrap();
                let claim = self.observed.claims.iter_mut().find(|c| c.name == *name);
                if let Some(claim) = claim {
                    let set = |old: bool, key: &str| labels.get(key).map_or(old, |v| v == "true");
                    claim.removed = set(claim.removed, "aiscluster.dev/removed");
                    claim.retained = set(claim.retained, "aiscluster.dev/retained");
                }
                if labels.contains_key("aiscluster.dev/formed") {
                    self.observed.volumes.iter_mut().find(|v| v.name == *name).unwrap().formed = true;
                }
            }
            Write::Empty(name, _) => {
                let role = if name.ends_with("gateway") { Role::Gateway } else { Role::Target };
                self.observed.sets.get_mut(&role).unwrap().replicas = 0;
            }
            Write::Orphan(name, _) => {
                let role = if name.ends_with("gateway") { Role::Gateway } else { Role::Target };
                self.observed.sets.remove(&role);
                self.observed.live.remove(&(Kind::StatefulSet, name.clone()));
            }
            Write::Resize(resize) => {
                let claim = self.observed.claims.iter_mut().find(|c| c.name == resize.claim).unwrap();
                claim.requested.clone_from(&resize.size);
            }
            Write::DeleteClaim { name, uid } => {
                self.observed.volumes.retain(|v| v.name != *name || v.uid != *uid);
                if self.observed.claims.iter().any(|c| c.name == *name && c.uid == *uid) {
                    self.observed.claims.retain(|c| c.name != *name);
                    self.observed.volumes.retain(|v| v.name != *name);
                }
            }
        }
    }

    fn set(&mut self, name: &str, live: &Value) {
        let role = if name.ends_with("gateway") { Role::Gateway } else { Role::Target };
        let replicas = i32::try_from(live["spec"]["replicas"].as_i64().unwrap()).unwrap();
        let revision = desired::digest(&live["spec"]["template"]);
        let asked = live["metadata"]["annotations"][ANNOTATION_REPLICAS].as_str().unwrap().parse().unwrap();
        assert!(replicas == asked || replicas == 0);
        let created = self.observed.sets.get(&role).map_or(Some(self.observed.now), |s| s.created);
        let uid = format!("uid-{name}");
        let set = SetFact { replicas, replicas_asked: asked, revision, created, uid, deleting: false };
        self.observed.sets.insert(role, set);
    }

    /// Another operator takes over: what only the process knew is gone.
    pub fn restart_operator(&mut self) {
        self.observed.uptime = std::time::Duration::from_secs(1);
        self.observed.hold = None;
        self.observed.outcome = None;
    }

    /// Nobody follows a primary.
    pub fn leaderless(&mut self) {
        for report in self.observed.reports.values_mut() {
            if let Report::Live(view) = report {
                view.primary = None;
                view.role = "candidate".into();
            }
        }
    }

    /// What the StatefulSet controller and the kubelet do, for pods that are not there.
    pub fn start_pods(&mut self) {
        let names = self.names();
        let uuid = self.observed.primary_map.as_ref().unwrap().cluster_uuid.clone();
        for role in Role::ALL {
            let set = self.observed.sets[&role].clone();
            for n in 0..set.replicas {
                let name = names.pod(role, n);
                if self.observed.pod(&name).is_some() {
                    continue;
                }
                let volume = format!("state-{name}");
                if self.observed.volumes.iter().all(|v| v.name != volume) {
                    let uid = format!("uid-{volume}-{uuid}");
                    let fact =
                        VolumeFact { name: volume, cluster_id: Some(uuid.clone()), uid, ..VolumeFact::default() };
                    self.observed.volumes.push(fact);
                }
                self.make_claims(&names, role, n, &uuid);
                self.observed.pods.push(PodFact {
                    uid: format!("uid-{name}-{}", set.revision),
                    ip: Some(format!("10.0.0.{n}")),
                    name,
                    role: Some(role),
                    ordinal: n,
                    running: true,
                    ready: true,
                    revision: set.revision.clone(),
                    tls_secret: self.tls_secret(&names.set(role)),
                    ..PodFact::default()
                });
            }
        }
    }

    fn tls_secret(&self, set: &str) -> Option<String> {
        let pod = &self.observed.live[&(Kind::StatefulSet, set.to_owned())]["spec"]["template"]["spec"];
        let volume = pod["volumes"].as_array()?.iter().find(|volume| volume["name"] == "tls")?;
        Some(volume["secret"]["secretName"].as_str()?.to_owned())
    }

    fn make_claims(&mut self, names: &Names, role: Role, n: i32, uuid: &str) {
        let set = &self.observed.live[&(Kind::StatefulSet, names.set(role))];
        for template in set["spec"]["volumeClaimTemplates"].as_array().unwrap() {
            let kind = template["metadata"]["name"].as_str().unwrap();
            let name = format!("{kind}-{}", names.pod(role, n));
            if self.observed.claims.iter().any(|c| c.name == name) {
                continue;
            }
            let size = template["spec"]["resources"]["requests"]["storage"].as_str().unwrap();
            self.observed.claims.push(ClaimFact {
                uid: format!("uid-{name}"),
                kind: if kind == "state" { ClaimKind::State } else { ClaimKind::Data },
                role,
                ordinal: n,
                cluster_id: Some(uuid.to_owned()),
                removed: false,
                retained: false,
                deleting: false,
                requested: size.to_owned(),
                capacity: Some(size.to_owned()),
                name,
            });
        }
    }

    /// All nodes follow `primary` in `epoch`; the gateways and, up to five, targets vote.
    pub fn lead(&mut self, primary: &str, epoch: u64) {
        let uuid = self.observed.primary_map.as_ref().unwrap().cluster_uuid.clone();
        let kind = |name: &str| if name.contains("-gateway-") { "gateway" } else { "target" };
        let pods: Vec<String> = self.observed.pods.iter().map(|p| p.name.clone()).collect();
        let electorate: Vec<Voter> = pods
            .iter()
            .take(if pods.len() >= 5 { 5 } else { 3 })
            .map(|p| Voter { node_id: p.clone(), disk_id: format!("disk-{p}"), kind: kind(p).into() })
            .collect();
        let stamp = Stamp { incarnation: 0, epoch, seq: 7 };
        let members: Vec<Member> = pods
            .iter()
            .map(|p| Member {
                node_id: p.clone(),
                disk_id: format!("disk-{p}"),
                kind: kind(p).into(),
                voter: electorate.iter().any(|v| v.node_id == *p),
                connected: p != primary,
                acked: Some(stamp),
                ..Member::default()
            })
            .collect();
        for pod in &pods {
            let leads = pod == primary;
            let view = NodeView {
                node_id: pod.clone(),
                disk_id: format!("disk-{pod}"),
                version: "0.1.0".into(),
                cluster_uuid: Some(uuid.clone()),
                formed: true,
                role: if leads { "primary" } else { "follower" }.into(),
                stamp: Some(stamp),
                promised: Some(epoch),
                primary: Some(primary.into()),
                primary_since_ms: leads.then_some(1_767_225_000_000),
                electorate: electorate.clone(),
                smap_version: 100 * i64::try_from(epoch).unwrap() + 5,
                bmd_version: 3,
                config_version: 1,
                settings: Some(BTreeMap::new()),
                ready: true,
                members: if leads { members.clone() } else { Vec::new() },
                ..NodeView::default()
            };
            self.observed.reports.insert(pod.clone(), Report::Live(Box::new(view)));
        }
    }

    pub fn view(&mut self, pod: &str) -> &mut NodeView {
        match self.observed.reports.get_mut(pod).unwrap() {
            Report::Live(view) => view,
            Report::Lost(_) => panic!("{pod} is lost"),
        }
    }

    pub fn member(&mut self, leader: &str, pod: &str) -> &mut Member {
        self.view(leader).members.iter_mut().find(|m| m.node_id == pod).unwrap()
    }

    pub fn pod(&mut self, name: &str) -> &mut PodFact {
        self.observed.pods.iter_mut().find(|p| p.name == name).unwrap()
    }

    pub fn lose(&mut self, pod: &str) {
        self.observed.reports.insert(pod.into(), Report::Lost("connection refused".into()));
        self.pod(pod).ready = false;
        for report in self.observed.reports.values_mut() {
            if let Report::Live(view) = report {
                for member in view.members.iter_mut().filter(|m| m.node_id == pod) {
                    member.connected = false;
                }
            }
        }
    }
}

/// As the server stores it.
pub fn round_trip(status: &AISClusterStatus) -> AISClusterStatus {
    serde_json::from_value(serde_json::to_value(status).unwrap()).unwrap()
}
