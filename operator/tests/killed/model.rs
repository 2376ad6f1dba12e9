//! A server, its StatefulSet controller and kubelet, and nodes with disks, in a few lines; and an operator that takes
//! its steps one by one and may die after any of them.

#[path = "nodes.rs"]
mod nodes;
#[path = "picture.rs"]
mod picture;
#[path = "secret.rs"]
mod secret;

use std::collections::{BTreeMap, BTreeSet};

use ais_crds::{AISClusterStatus, DeletionPolicy};
use ais_operator::apply::{Memo, Write, final_writes, label_writes};
use ais_operator::facts::{ClaimFact, ClaimKind, Kind, PodFact, VolumeFact};
use ais_operator::names::{FINALIZER, Role};
use ais_operator::plan::deletion::deletion;
use ais_operator::plan::order::Order;
use ais_operator::plan::primary::Transfer;
use ais_operator::refused::refused;
use ais_operator::status;
use ais_operator::validate::validate;
use ais_operator::view::majority;
use serde_json::Value;

use crate::common::{World, round_trip};

/// No procedure takes so many turns.
const TURNS_MAX: usize = 400;

/// What a state volume holds.
#[derive(Clone, Default)]
struct Disk {
    /// Uuid that its node was started with.
    uuid: String,
    /// The record of a founded cluster.
    formed: bool,
    /// It agreed to an offer.
    bound: bool,
    /// It knows that the cluster is being stopped.
    stopping: bool,
}

/// One thing that the operator does; it may die after each.
enum Step {
    Finalizer(bool),
    Write(Write),
    Status(Box<AISClusterStatus>),
    Call(Order),
    Move(Transfer),
}

/// What may happen to pods now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pods {
    /// None may go.
    Stay,
    /// All may, once a majority knows.
    Stop,
    /// All may.
    Go,
    /// Those of an old template may, one at a time and not while it leads.
    Roll,
    /// Those may that are no members any more.
    Leave,
}

/// The deaths of operators: after so many steps each, and how many turns nobody looks after the cluster then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deaths {
    pub(crate) after: Vec<usize>,
    pub(crate) forever: bool,
    pub(crate) absent: usize,
}

pub(crate) struct Model {
    pub(crate) world: World,
    pub(crate) pods: Pods,
    /// Gateways that cannot be scheduled.
    pub(crate) blocked: BTreeSet<String>,
    /// Uuids of the foundings that were completed.
    pub(crate) founded: Vec<String>,
    /// The resource is there.
    pub(crate) exists: bool,
    /// Steps taken by all operators so far.
    pub(crate) steps: usize,
    /// Where the primary was moved to.
    pub(crate) moves: Vec<String>,
    /// Pods that were deleted to be made anew.
    pub(crate) replaced: Vec<String>,
    deaths: Deaths,
    /// Steps of the operator that lives.
    life: usize,
    away: usize,
    disks: BTreeMap<String, Disk>,
    /// What each node has read of the member secret, by the uid of its pod.
    secrets: BTreeMap<String, String>,
    electorate: Vec<String>,
    /// Nodes that are being decommissioned, and those that were and wait for the end of their pods.
    leaving: BTreeSet<String>,
    idle: BTreeSet<String>,
    primary: Option<String>,
    epoch: u64,
    serial: usize,
}

fn is_gateway(name: &str) -> bool {
    name.contains("-gateway-")
}

impl Model {
    /// Only the resource exists.
    pub(crate) fn new(spec: Value, deaths: &Deaths) -> Self {
        let mut world = World::new(spec);
        world.observed.cluster.metadata.finalizers = Some(Vec::new());
        Self {
            world,
            pods: Pods::Stay,
            blocked: BTreeSet::new(),
            founded: Vec::new(),
            exists: true,
            steps: 0,
            moves: Vec::new(),
            replaced: Vec::new(),
            deaths: deaths.clone(),
            life: 0,
            away: 0,
            disks: BTreeMap::new(),
            secrets: BTreeMap::new(),
            electorate: Vec::new(),
            leaving: BTreeSet::new(),
            idle: BTreeSet::new(),
            primary: None,
            epoch: 0,
            serial: 0,
        }
    }

    /// Founded and at rest by an operator that did not die; deaths count from here.
    pub(crate) fn settled(spec: Value, deaths: &Deaths) -> Self {
        let mut model = Self::new(spec, &Deaths::default());
        model.rest();
        model.mourn(deaths);
        model
    }

    /// Deaths count from here.
    pub(crate) fn mourn(&mut self, deaths: &Deaths) {
        (self.deaths, self.life, self.steps) = (deaths.clone(), 0, 0);
    }

    /// Somebody else is elected, and all that follows from it is over.
    pub(crate) fn lead(&mut self, node: &str) {
        (self.primary, self.epoch) = (Some(node.to_owned()), self.epoch + 1);
        self.rest();
    }

    /// Until nothing happens any more.
    pub(crate) fn rest(&mut self) {
        self.until("rest", |_| false);
    }

    /// Until it looks right, or nothing happens any more.
    pub(crate) fn until(&mut self, what: &str, right: impl Fn(&Self) -> bool) {
        let mut calm = 0;
        for _ in 0..TURNS_MAX {
            calm = if self.turn() { calm + 1 } else { 0 };
            if calm > 2 || right(self) {
                return;
            }
        }
        panic!("no {what}: {}", self.describe());
    }

    /// A second; true if nothing happened.
    fn turn(&mut self) -> bool {
        self.world.after(1);
        self.draw();
        self.see();
        let mut calm = true;
        if self.away > 0 {
            (self.away, calm) = (self.away - 1, false);
        } else if self.exists {
            calm = self.operate();
        }
        let kubernetes = self.kubernetes();
        calm & kubernetes & self.live() & !self.waits()
    }

    /// One pass, or what of it its operator lives to do.
    fn operate(&mut self) -> bool {
        let steps = self.pass();
        let calm = steps.is_empty();
        for step in steps {
            if !self.take(step) {
                continue;
            }
            (self.steps, self.life) = (self.steps + 1, self.life + 1);
            self.check();
            if self.deaths.after.first() == Some(&self.life) {
                self.die();
                break;
            }
        }
        calm
    }

    /// Another process takes over: what the last one had in memory is gone.
    fn die(&mut self) {
        if !self.deaths.forever {
            self.deaths.after.remove(0);
        }
        self.life = 0;
        self.away = self.deaths.absent;
        self.world.restart_operator();
        self.world.observed.order = None;
        self.world.memo = Memo::default();
    }

    /// What a pass does, in the order of `controller.rs`.
    fn pass(&self) -> Vec<Step> {
        let observed = &self.world.observed;
        let held = observed.cluster.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
        if observed.cluster.metadata.deletion_timestamp.is_some() {
            let deletion = deletion(observed);
            let mut steps = self.status(&status::deleting(observed, &deletion));
            steps.extend(final_writes(&deletion).into_iter().map(Step::Write));
            if deletion.release {
                steps.push(Step::Finalizer(false));
            } else {
                steps.extend(deletion.order.map(Step::Call));
            }
            return steps;
        }
        if let Err(why) = validate(observed) {
            let refused = refused(observed, &why);
            let mut steps: Vec<Step> = label_writes(&refused.marks).into_iter().map(Step::Write).collect();
            steps.extend(self.status(&refused.status));
            return steps;
        }
        let pass = self.world.pass();
        let mut steps: Vec<Step> = (!held).then_some(Step::Finalizer(true)).into_iter().collect();
        steps.extend(pass.writes.into_iter().map(Step::Write));
        steps.extend(self.status(&pass.status));
        if pass.plan.agreement.leader.is_some() {
            steps.extend(pass.plan.order.map(Step::Call));
        }
        steps.extend(pass.plan.primary.transfer.map(Step::Move));
        steps
    }

    fn status(&self, status: &AISClusterStatus) -> Vec<Step> {
        let stored = round_trip(status);
        let same = self.world.observed.cluster.status.as_ref() == Some(&stored);
        if same { Vec::new() } else { vec![Step::Status(Box::new(stored))] }
    }

    /// True if it was something: a call that is refused changes nothing.
    fn take(&mut self, step: Step) -> bool {
        let cluster = &mut self.world.observed.cluster;
        match step {
            Step::Finalizer(true) => cluster.metadata.finalizers = Some(vec![FINALIZER.to_owned()]),
            Step::Finalizer(false) => self.gone(),
            Step::Status(status) => cluster.status = Some(*status),
            Step::Write(write) => {
                self.judge(&write);
                self.world.take(&write);
                self.store(&write);
                if let Write::DeletePod { name, .. } = write {
                    self.world.observed.reports.remove(&name);
                    self.replaced.push(name);
                }
            }
            Step::Call(order) => return self.obey(&order),
            Step::Move(transfer) => return self.hand_over(&transfer),
        }
        true
    }

    /// What no operator may write, whoever died before.
    fn judge(&self, write: &Write) {
        let observed = &self.world.observed;
        match write {
            Write::DeletePod { name, uid, .. } => self.judge_replacement(name, uid),
            Write::DeleteClaim { name, uid } if self.pods == Pods::Leave => {
                let claim = observed.claims.iter().find(|c| c.name == *name && c.uid == *uid).unwrap();
                let node = name.trim_start_matches("state-");
                assert!(claim.kind == ClaimKind::State && claim.removed && !self.serves(node), "{name} is deleted");
                assert!(observed.pod(node).is_none() && !self.electorate.iter().any(|v| v == node), "{name} is in use");
            }
            Write::DeleteClaim { name, uid } => {
                assert!(self.pods == Pods::Go, "{name} is deleted");
                assert!(observed.pods.is_empty(), "{name} is deleted while pods run: {}", self.describe());
                let claim = observed.claims.iter().find(|c| c.name == *name).unwrap();
                assert!(claim.uid == *uid, "another {name} than was meant");
                let kept = observed.cluster.spec.deletion_policy == DeletionPolicy::Retain;
                assert!(
                    !kept || !self.disks.get(uid).is_some_and(|d| d.formed),
                    "{name} holds the record of a cluster"
                );
            }
            Write::Apply(wanted) if wanted.key.0 == Kind::StatefulSet => {
                let there = |kind, name: &str| observed.live.contains_key(&(kind, name.to_owned()));
                let all = there(Kind::Secret, "demo-secret") && there(Kind::ConfigMap, "demo-discovery");
                assert!(all && there(Kind::ConfigMap, "demo-primary"), "pods would start without their files");
            }
            Write::Orphan(name, _) => {
                let wanted = &observed.cluster.spec.targets.storage.size;
                let small = observed.claims.iter().find(|c| c.kind == ClaimKind::Data && c.requested != *wanted);
                assert!(small.is_none(), "{name} is made anew before its claims were asked: {small:?}");
            }
            _ => {}
        }
    }

    /// What always holds.
    fn check(&self) {
        let observed = &self.world.observed;
        let formed = self.disks.values().any(|d| d.formed);
        let uuids: BTreeSet<&str> = self.disks.values().filter(|d| d.formed).map(|d| d.uuid.as_str()).collect();
        assert!(uuids.len() <= 1, "records of several clusters: {uuids:?}");
        assert!(self.founded.len() <= 1, "founded again: {:?}", self.founded);
        self.understand_each_other();
        if let (true, Some(map)) = (formed && self.exists, &observed.primary_map) {
            assert!(uuids.contains(map.cluster_uuid.as_str()), "{uuids:?} became {}", map.cluster_uuid);
        }
    }

    /// The finalizer was the last thing that held it: Kubernetes takes what it owns along.
    fn gone(&mut self) {
        self.exists = false;
        self.world.observed.live.clear();
        self.world.observed.sets.clear();
    }

    /// The StatefulSet controller and the kubelet: true if they had nothing to do. One pod ends a turn.
    fn kubernetes(&mut self) -> bool {
        let observed = &self.world.observed;
        let wanted = |pod: &PodFact| match pod.role.and_then(|role| observed.sets.get(&role)) {
            Some(set) => pod.ordinal < set.replicas,
            // Without its set a pod stays, if the set was deleted without its pods.
            None => self.exists && self.pods == Pods::Stay,
        };
        if let Some(pod) = observed.pods.iter().find(|p| !wanted(p)).cloned() {
            self.end(&pod);
            return false;
        }
        let mut calm = true;
        for claim in &mut self.world.observed.claims {
            // The class grows volumes, one after the other.
            if claim.capacity.as_ref() != Some(&claim.requested) && calm {
                (claim.capacity, calm) = (Some(claim.requested.clone()), false);
            }
        }
        calm & self.make_pods() & self.read_secret()
    }

    fn end(&mut self, pod: &PodFact) {
        assert!(!matches!(self.pods, Pods::Stay | Pods::Roll), "{} ends: {}", pod.name, self.describe());
        if self.pods == Pods::Leave {
            assert!(self.idle.contains(&pod.name), "{} ends, a member: {}", pod.name, self.describe());
            self.alone(&pod.name);
        }
        if self.pods == Pods::Stop && self.world.observed.pods.iter().all(|p| self.runs(&p.name)) {
            let knows = |v: &&String| self.disk(v).is_some_and(|d| d.stopping);
            let count = self.electorate.iter().filter(knows).count();
            assert!(count >= majority(self.electorate.len()), "{} ends unannounced: {}", pod.name, self.describe());
        }
        self.world.observed.pods.retain(|p| p.uid != pod.uid);
        self.world.observed.reports.remove(&pod.name);
        self.idle.remove(&pod.name);
    }

    fn make_pods(&mut self) -> bool {
        let names = self.world.names();
        let mut calm = true;
        for role in Role::ALL {
            let Some(set) = self.world.observed.sets.get(&role).cloned() else { continue };
            for ordinal in 0..set.replicas {
                let name = names.pod(role, ordinal);
                let blocked = self.blocked.contains(&name);
                if let Some(pod) = self.world.observed.pods.iter_mut().find(|p| p.name == name) {
                    if !pod.running && !blocked {
                        (pod.running, pod.ip, calm) = (true, Some(format!("10.0.0.{ordinal}")), false);
                    }
                    continue;
                }
                calm = false;
                self.make_claims(&name, role, ordinal);
                self.serial += 1;
                self.world.observed.pods.push(PodFact {
                    uid: format!("uid-{name}-{}", self.serial),
                    ip: (!blocked).then(|| format!("10.0.0.{ordinal}")),
                    name,
                    role: Some(role),
                    ordinal,
                    // A pod in place of another one takes a turn to come up, and nobody else may go meanwhile.
                    running: !blocked && self.pods != Pods::Roll,
                    revision: set.revision.clone(),
                    ..PodFact::default()
                });
            }
        }
        calm
    }

    fn make_claims(&mut self, pod: &str, role: Role, ordinal: i32) {
        let observed = &mut self.world.observed;
        let set = format!("demo-{}", role.as_str());
        let templates = observed.live[&(Kind::StatefulSet, set)]["spec"]["volumeClaimTemplates"].clone();
        for template in templates.as_array().unwrap() {
            let volume = template["metadata"]["name"].as_str().unwrap();
            let name = format!("{volume}-{pod}");
            if observed.claims.iter().any(|c| c.name == name) {
                continue;
            }
            self.serial += 1;
            let uid = format!("uid-{name}-{}", self.serial);
            let uuid = template["metadata"]["labels"]["aiscluster.dev/cluster-id"].as_str().map(str::to_owned);
            let size = template["spec"]["resources"]["requests"]["storage"].as_str().unwrap().to_owned();
            let kind = if volume == "state" { ClaimKind::State } else { ClaimKind::Data };
            if kind == ClaimKind::State {
                self.disks.insert(uid.clone(), Disk::default());
                let fact = VolumeFact {
                    name: name.clone(),
                    uid: uid.clone(),
                    cluster_id: uuid.clone(),
                    ..VolumeFact::default()
                };
                observed.volumes.push(fact);
            }
            observed.claims.push(ClaimFact {
                name,
                uid,
                kind,
                role,
                ordinal,
                cluster_id: uuid,
                removed: false,
                retained: false,
                deleting: false,
                requested: size.clone(),
                capacity: Some(size),
            });
        }
    }

    fn runs(&self, name: &str) -> bool {
        self.world.observed.pod(name).is_some_and(|p| p.running)
    }

    fn disk(&self, node: &str) -> Option<&Disk> {
        let claim = format!("state-{node}");
        let claim = self.world.observed.claims.iter().find(|c| c.name == claim)?;
        self.disks.get(&claim.uid)
    }

    fn disk_of(&mut self, node: &str, edit: impl FnOnce(&mut Disk)) {
        let claim = format!("state-{node}");
        let uid = self.world.observed.claims.iter().find(|c| c.name == claim).map(|c| c.uid.clone());
        if let Some(disk) = uid.and_then(|uid| self.disks.get_mut(&uid)) {
            edit(disk);
        }
    }

    /// A member of the founded cluster that runs.
    fn serves(&self, node: &str) -> bool {
        self.runs(node) && !self.idle.contains(node) && self.disk(node).is_some_and(|d| d.formed)
    }

    fn leads(&self, node: &str) -> bool {
        let here = self.electorate.iter().filter(|v| self.serves(v)).count();
        self.serves(node) && here >= majority(self.electorate.len())
    }

    /// Something is begun that goes on by itself, if only after a time-out.
    fn waits(&self) -> bool {
        let Some(status) = &self.world.observed.cluster.status else { return false };
        let rolls = status.rollout.as_ref().is_some_and(|r| r.finished_at.is_none());
        let leaves = status.operation.as_ref().is_some_and(|o| o.kind == "ScaleDown");
        rolls || leaves || status.primary.attempt.is_some() || status.primary.next_attempt_time.is_some()
    }

    /// Somebody deletes the resource.
    pub(crate) fn delete(&mut self) {
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.world.observed.now);
        self.world.observed.cluster.metadata.deletion_timestamp = Some(now);
    }

    pub(crate) fn pod_uids(&self) -> Vec<String> {
        self.world.observed.pods.iter().map(|p| p.uid.clone()).collect()
    }

    fn describe(&self) -> String {
        let picture = self.picture();
        let life = (self.steps, self.life, &self.deaths);
        format!("{life:?} {} {} {}", picture["pods"], picture["claims"], picture["status"]["conditions"])
    }
}
